//! Trees that change while they are walked, and what may not be read.

use std::fs::{self, File};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use super::{Directory, Shared, WalkOptions};
use crate::tree::testing::list;
use crate::tree::{Bytes, Detail, Event, Kind, Source, TreeError};

/// A tree with one file of interest, which `change` changes before it is opened.
fn changed(size: usize, change: fn(&Path)) -> TreeError {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    for name in ["a", "victim", "z"] {
        fs::write(dir.path().join("sub").join(name), vec![1; size]).unwrap();
    }
    let mut shared = Shared::new(dir.path(), &WalkOptions::default()).unwrap();
    shared.before_open = Some(Box::new(move |path| {
        if path.ends_with(b"/victim") {
            change(Path::new(std::ffi::OsStr::from_bytes(path)));
        }
    }));
    let source = Directory::from(shared);
    let mut walk = source.walk(Detail::Contents).unwrap();
    let error = walk.find_map(Result::err).expect("an error");
    assert!(walk.next().is_none(), "something came after the error");
    let wanted = format!("{}/sub/victim: ", dir.path().display());
    assert!(error.to_string().starts_with(&wanted), "{error}");
    error
}

fn is_changed(error: &TreeError, why: &str) {
    assert!(matches!(error, TreeError::Changed { .. }), "{error}");
    assert!(error.to_string().contains(why), "{error}");
}

#[test]
fn a_file_that_vanishes() {
    is_changed(
        &changed(10, |path| fs::remove_file(path).unwrap()),
        "No such file",
    );
}

#[test]
fn a_file_that_shrinks_or_grows() {
    for size in [10, 5000, 1 << 20] {
        let shrink = |path: &Path| {
            File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_len(1)
                .unwrap()
        };
        is_changed(&changed(size, shrink), "to 1 bytes");
        let grow = |path: &Path| {
            File::options()
                .write(true)
                .open(path)
                .unwrap()
                .set_len(9 << 20)
                .unwrap()
        };
        is_changed(&changed(size, grow), "to 9437184 bytes");
    }
}

#[test]
fn a_file_that_becomes_a_fifo_is_not_waited_for() {
    let fifo = |path: &Path| {
        fs::remove_file(path).unwrap();
        assert!(Command::new("mkfifo").arg(path).status().unwrap().success());
    };
    is_changed(&changed(10, fifo), "another object");
}

#[test]
fn a_file_that_becomes_a_link_a_directory_or_another_file() {
    let link = |path: &Path| {
        fs::remove_file(path).unwrap();
        std::os::unix::fs::symlink("a", path).unwrap();
    };
    is_changed(&changed(10, link), "open");
    let directory = |path: &Path| {
        fs::remove_file(path).unwrap();
        fs::create_dir(path).unwrap();
    };
    is_changed(&changed(10, directory), "another object");
    let other = |path: &Path| {
        fs::write(path.with_file_name("new"), vec![2; 10]).unwrap();
        fs::rename(path.with_file_name("new"), path).unwrap();
    };
    is_changed(&changed(10, other), "another object");
}

#[test]
fn a_large_file_that_shrinks_later_is_named_by_who_reads_it() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("large"), vec![1; 1 << 20]).unwrap();
    let source = Directory::open(dir.path(), &WalkOptions::default()).unwrap();
    let events = source.walk(Detail::Contents).unwrap();
    let contents = events.filter_map(|event| match event.unwrap() {
        Event::Node(node) => Some(node.kind),
        _ => None,
    });
    let Some(Kind::File(content)) = contents.last() else {
        panic!("no file")
    };
    File::options()
        .write(true)
        .open(dir.path().join("large"))
        .unwrap()
        .set_len(5)
        .unwrap();
    let Bytes::At { path, .. } = &content.bytes else {
        panic!("{content:?}")
    };
    assert!(path.ends_with(b"/large"));
    let error = crate::tree::testing::bytes(&content).unwrap_err();
    assert!(error.to_string().contains("/large: "), "{error}");
}

/// The walk is tried again and again while another thread changes the tree: it may see
/// any state or an error that names what changed, but neither hang nor panic.
#[test]
fn a_tree_in_motion_gives_errors_or_trees() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..200 {
        fs::create_dir_all(dir.path().join(format!("d{}", n % 20))).unwrap();
        fs::write(
            dir.path().join(format!("d{}/f{n}", n % 20)),
            vec![1; n * 40],
        )
        .unwrap();
    }
    let done = std::sync::atomic::AtomicBool::new(false);
    let (mut whole, mut failed) = (0, 0);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            let mut n = 0;
            while !done.load(std::sync::atomic::Ordering::Relaxed) {
                n = (n * 7 + 13) % 200;
                let path = dir.path().join(format!("d{}/f{n}", n % 20));
                let _ = fs::remove_file(&path);
                match n % 4 {
                    0 => drop(Command::new("mkfifo").arg(&path).status()),
                    1 => drop(std::os::unix::fs::symlink("x", &path)),
                    _ => drop(fs::write(&path, vec![2; n])),
                }
            }
        });
        let source = Directory::open(dir.path(), &WalkOptions::default()).unwrap();
        for _ in 0..200 {
            match list(&source) {
                Ok(_) => whole += 1,
                Err(error) => {
                    failed += 1;
                    assert!(error.to_string().contains("/d"), "{error}");
                }
            }
        }
        done.store(true, std::sync::atomic::Ordering::Relaxed);
    });
    println!("{whole} whole, {failed} failed");
}

/// Root reads everything: runs the test again as somebody who does not.
fn again_as_nobody(test: &str) {
    let program = std::env::current_exe().unwrap();
    let mut nobody = Command::new("setpriv");
    nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
    let seen = nobody.arg("test").arg("-x").arg(&program).status();
    if !seen.is_ok_and(|status| status.success()) {
        println!(
            "SKIPPED: unreadable files: root reads everything, and nobody cannot run this test"
        );
        return;
    }
    let mut nobody = Command::new("setpriv");
    nobody.args(["--reuid=65534", "--regid=65534", "--clear-groups", "--"]);
    let ran = nobody
        .arg(&program)
        .args(["--exact", test])
        .output()
        .unwrap();
    let said = String::from_utf8_lossy(&ran.stdout);
    assert!(ran.status.success() && said.contains("1 passed"), "{said}");
}

#[test]
fn what_may_not_be_read_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("sub")).unwrap();
    fs::write(dir.path().join("sub/secret"), "x").unwrap();
    let denied = |name: &str, mode| {
        let path = dir.path().join(name);
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
        let source = Directory::open(dir.path(), &WalkOptions::default()).unwrap();
        let error = list(&source).expect_err("it was read").to_string();
        assert!(
            error.starts_with(&format!("{}: cannot ", path.display())),
            "{error}"
        );
        assert!(error.contains("Permission denied"), "{error}");
    };
    if rustix::process::geteuid().is_root() {
        return again_as_nobody("tree::walk::hostile_tests::what_may_not_be_read_is_named");
    }
    denied("sub/secret", 0);
    denied("sub", 0);
    fs::set_permissions(dir.path().join("sub"), fs::Permissions::from_mode(0o755)).unwrap();
}

#[test]
fn a_root_that_is_none_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("file");
    fs::write(&file, "").unwrap();
    for path in [dir.path().join("nothing"), file] {
        let error = Directory::open(&path, &WalkOptions::default()).unwrap_err();
        assert!(
            error
                .to_string()
                .starts_with(&format!("{}: ", path.display())),
            "{error}"
        );
    }
}
