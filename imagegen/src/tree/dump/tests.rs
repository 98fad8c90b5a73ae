//! Dumps written here, and what is no dump.

use std::fs;
use std::path::Path;

use proptest::prelude::*;

use super::Dump;
use crate::tree::testing::{What, at, check, list, paths};
use crate::tree::{Meta, Time, TreeError};
use crate::verity::{self, Algorithm};

fn read(text: &str, store: Option<&Path>) -> Result<Dump, TreeError> {
    Dump::read(text.as_bytes(), b"dump", store)
}

#[test]
fn every_kind_of_line() {
    let store = tempfile::tempdir().unwrap();
    fs::create_dir(store.path().join("ab")).unwrap();
    let large = vec![5; 300_000];
    fs::write(store.path().join("ab/large"), &large).unwrap();
    fs::write(store.path().join("ab/plain"), "plain").unwrap();
    let digest = verity::fs::digest(&large[..], Algorithm::Sha256).unwrap().0;
    let text = format!(
        "/ 4096 41755 4 10 20 0 1695372970.944925700 - - - security.selinux=u:r:t:s0\\x00\n\
         /a\\x20dir 27 40755 2 1000 1000 0 -3.1 - - -\n\
         /a\\x20dir/large 300000 100644 1 0 0 0 0.0 ab/large - {digest} user.b=2 user.a=\\x3d=\\n system.x=y\n\
         /again 300000 104644 1 0 0 0 0.0 /ab/large - {digest}\n\
         /plain 5 100644 1 0 0 0 0.0 ab/plain - -\n\
         /inline 5 100644 1 0 0 0 0.0 - a\\tb\\\\\\x2d -\n\
         /hard 9 @100644 1 5 5 5 5.5 /a\\x20dir/large - -\n\
         /empty 0 100000 1 0 0 0 0.0 - - -\n\
         /link 4 120777 1 0 0 0 0.0 \\x2d - -\n\
         /null 0 20666 1 0 0 259 0.0 - - -\n\
         /disk 0 60660 1 0 0 2049 0.0 - - -\n\
         /fifo 0 10600 1 0 0 0 0.0 - - -\n\
         /socket 0 140600 1 0 0 0 0.0 - - -"
    );
    let seen = check(&read(&text, Some(store.path())).unwrap());
    let object = |path: &str| match at(&seen, path) {
        What::Object {
            kind,
            body,
            meta,
            xattrs,
        } => (kind.as_str(), body.clone(), *meta, xattrs.clone()),
        link => panic!("{link:?}"),
    };
    let mtime = Time {
        seconds: 1_695_372_970,
        nanoseconds: 944_925_700,
    };
    let root = Meta {
        mode: 0o1755,
        uid: 10,
        gid: 20,
        project: 0,
        mtime,
        ctime: mtime,
    };
    assert_eq!(object("").2, root);
    assert_eq!(
        object("").3,
        [(b"security.selinux".to_vec(), b"u:r:t:s0\0".to_vec())]
    );
    assert_eq!(
        object("/a dir").2.mtime,
        Time {
            seconds: -3,
            nanoseconds: 1
        }
    );
    assert_eq!(object("/a dir/large").1, large);
    let wanted = [
        (b"user.a".to_vec(), b"==\n".to_vec()),
        (b"user.b".to_vec(), b"2".to_vec()),
    ];
    assert_eq!(object("/a dir/large").3, wanted);
    assert_eq!(
        (object("/again").1, object("/again").2.mode),
        (large, 0o4644)
    );
    assert_eq!(
        (object("/plain").1, object("/inline").1),
        (b"plain".to_vec(), b"a\tb\\-".to_vec())
    );
    assert_eq!(*at(&seen, "/hard"), What::Link(b"/a dir/large".to_vec()));
    assert_eq!(
        (object("/link").0, object("/link").1),
        ("symlink", b"-".to_vec())
    );
    assert_eq!(
        object("/null").0,
        "CharDevice(Device { major: 1, minor: 3 })"
    );
    assert_eq!(
        object("/disk").0,
        "BlockDevice(Device { major: 8, minor: 1 })"
    );
    assert_eq!(
        (object("/fifo").0, object("/socket").0, object("/empty").0),
        ("Fifo", "Socket", "file")
    );
    assert_eq!(paths(&seen).len(), 13);
}

#[test]
fn what_is_no_line_is_refused_with_its_number() {
    let store = tempfile::tempdir().unwrap();
    fs::write(store.path().join("x"), "x").unwrap();
    let zeroes = "0".repeat(64);
    let cases = [
        ("/x", "fewer than the 11 fields"),
        (
            "x 0 100644 1 0 0 0 0.0 - - -",
            "does not begin with a slash",
        ),
        ("/../x 0 100644 1 0 0 0 0.0 - - -", "leads upwards"),
        ("/x/ 0 100644 1 0 0 0 0.0 - - -", "ends with a slash"),
        (
            "/x 1 100644 1 0 0 0 0.0 ../x - -",
            "its payload: its path leads upwards",
        ),
        (
            "/x 1 100644 1 0 0 0 0.0 - - -",
            "neither contents nor payload",
        ),
        ("/x 2 100644 1 0 0 0 0.0 - x -", "1 bytes are inline"),
        (
            "/x 2 100644 1 0 0 0 0.0 x - -",
            "should be a file of 2 bytes",
        ),
        ("/x 1 100644 1 0 0 0 0.0 y - -", "No such file"),
        (
            &format!("/x 1 100644 1 0 0 0 0.0 x - {zeroes}"),
            "does not match its digest",
        ),
        ("/x 0 0644 1 0 0 0 0.0 - - -", "of no kind"),
        ("/x 0 100844 1 0 0 0 0.0 - - -", "not an octal"),
        (
            "/x 0 100644 1 -1 0 0 0.0 - - -",
            "its owner is not a number",
        ),
        (
            "/x 0 100644 1 0 4294967296 0 0.0 - - -",
            "its group is not a number",
        ),
        ("/x 0 100644 1 0 0 0 0.1000000000 - - -", "its time"),
        ("/x 0 100644 1 0 0 0 5 - - -", "its time"),
        ("/./x 0 100644 1 0 0 0 0.0 - - -", "holds a `.`"),
        ("/x 0 @100644 1 0 0 0 0.0 /./y - -", "holds a `.`"),
        ("/x 0 @40755 1 0 0 0 0.0 /y - -", "a directory's"),
        ("/x 0 @ 1 0 0 0 0.0 /y - -", "not an octal"),
        ("/x 0 100644 1 0 0 0 0.0 - - -  user.a=1", "without `=`"),
        ("/x\\q 0 100644 1 0 0 0 0.0 - - -", "an escape"),
        ("/x 0 100644 1 0 0 0 0.0 - - - user.a", "without `=`"),
        ("/x 0 120777 1 0 0 0 0.0 - - -", "target cannot be"),
        ("/x 0 @100644 1 0 0 0 0.0 - - -", "without payload"),
        ("/x 0 @100644 1 0 0 0 0.0 /y - -", "a hard link to /y"),
        (
            "/x 0 20666 1 0 0 18446744073709551615 0.0 - - -",
            "at most 4095",
        ),
    ];
    for (line, wanted) in cases {
        let text = format!("/ 0 40755 2 0 0 0 0.0 - - -\n{line}\n");
        let error = read(&text, Some(store.path())).unwrap_err().to_string();
        assert!(
            error.starts_with("dump: line 2: ") && error.contains(wanted),
            "{error}"
        );
    }
    let error = read("/x 1 100644 1 0 0 0 0.0 x - -", None)
        .unwrap_err()
        .to_string();
    assert!(
        error.contains("object store, which must be given"),
        "{error}"
    );
}

#[test]
fn an_object_that_changes_later_is_named() {
    let store = tempfile::tempdir().unwrap();
    fs::write(store.path().join("x"), "x").unwrap();
    let dump = read("/file 1 100644 1 0 0 0 0.0 x - -", Some(store.path())).unwrap();
    fs::write(store.path().join("x"), "longer").unwrap();
    let error = list(&dump).unwrap_err().to_string();
    assert!(
        error.contains("/x: contents of /file should be a file of 1 bytes"),
        "{error}"
    );
}

proptest! {
    #[test]
    fn lines_of_anything_do_not_panic(text in "(/[ab\\\\x0-9]{0,5} [0-9@]{0,7} [0-9]{0,7}( [0-9./-]{0,4}){7,9}[ =a\\\\]{0,9}\n){0,4}") {
        if let Ok(dump) = read(&text, None) {
            check(&dump);
        }
    }
}
