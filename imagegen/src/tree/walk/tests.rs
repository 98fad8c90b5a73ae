//! The walk of a directory against a naive one through other interfaces.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use proptest::prelude::*;

use super::{Directory, WalkOptions};
use crate::tree::testing::{Seen, What, check, list, paths, same};
use crate::tree::{Detail, Device, Event, Kind, Meta, Source, Time};

/// A walk by `std::fs` and the `xattr` crate: paths, recursion, one object at a time.
fn naive(root: &Path) -> Vec<Seen> {
    fn visit(path: &Path, name: &[u8], seen: &mut Vec<Seen>, known: &mut HashMap<u64, Vec<u8>>) {
        let about = fs::symlink_metadata(path).unwrap();
        let kind = about.file_type();
        if !kind.is_dir() && about.nlink() > 1 {
            if let Some(first) = known.get(&about.ino()) {
                let what = What::Link(first.clone());
                seen.push(Seen {
                    path: name.to_vec(),
                    what,
                });
                return;
            }
            known.insert(about.ino(), name.to_vec());
        }
        let numbers = about.rdev();
        let device = Device {
            major: rustix::fs::major(numbers),
            minor: rustix::fs::minor(numbers),
        };
        let (kind, body) = match kind {
            _ if kind.is_dir() => ("Directory".to_owned(), Vec::new()),
            _ if kind.is_file() => ("file".to_owned(), fs::read(path).unwrap()),
            _ if kind.is_symlink() => {
                let target = fs::read_link(path).unwrap();
                ("symlink".to_owned(), target.as_os_str().as_bytes().to_vec())
            }
            _ if kind.is_fifo() => ("Fifo".to_owned(), Vec::new()),
            _ if kind.is_socket() => ("Socket".to_owned(), Vec::new()),
            _ if kind.is_block_device() => (format!("BlockDevice({device:?})"), Vec::new()),
            _ => (format!("CharDevice({device:?})"), Vec::new()),
        };
        let mut xattrs: Vec<(Vec<u8>, Vec<u8>)> = xattr::list(path)
            .unwrap()
            .map(|name| {
                let value = xattr::get(path, &name).unwrap().unwrap();
                (name.as_bytes().to_vec(), value)
            })
            .collect();
        xattrs.sort();
        let time = |seconds, nanoseconds: i64| Time {
            seconds,
            nanoseconds: nanoseconds as u32,
        };
        let meta = Meta {
            mode: (about.mode() & 0o7777) as u16,
            uid: about.uid(),
            gid: about.gid(),
            project: 0,
            mtime: time(about.mtime(), about.mtime_nsec()),
            ctime: time(about.ctime(), about.ctime_nsec()),
        };
        let directory = kind == "Directory";
        let what = What::Object {
            kind,
            body,
            meta,
            xattrs,
        };
        seen.push(Seen {
            path: name.to_vec(),
            what,
        });
        if directory {
            let entries = fs::read_dir(path).unwrap();
            let mut entries: Vec<_> = entries.map(|one| one.unwrap().file_name()).collect();
            entries.sort_by(|a, b| a.as_bytes().cmp(b.as_bytes()));
            for entry in entries {
                let name = [name, b"/", entry.as_bytes()].concat();
                visit(&path.join(&entry), &name, seen, known);
            }
        }
    }
    let mut seen = Vec::new();
    visit(root, b"", &mut seen, &mut HashMap::new());
    seen
}

fn directory(path: &Path) -> Directory {
    Directory::open(path, &WalkOptions::default()).unwrap()
}

fn agrees(root: &Path) -> Vec<Seen> {
    let ours = check(&directory(root));
    let wanted = naive(root);
    same(&ours, &wanted);
    ours
}

fn is_root() -> bool {
    rustix::process::geteuid().is_root()
}

#[test]
fn every_kind_with_its_attributes() {
    let dir = tempfile::tempdir().unwrap();
    let at = |name: &str| dir.path().join(name);
    fs::create_dir(at("dir")).unwrap();
    fs::write(at("dir/empty"), "").unwrap();
    fs::write(at("file"), "text").unwrap();
    symlink("../nowhere", at("link")).unwrap();
    assert!(
        Command::new("mkfifo")
            .arg(at("fifo"))
            .status()
            .unwrap()
            .success()
    );
    let _socket = std::os::unix::net::UnixListener::bind(at("socket")).unwrap();
    xattr::set(at("file"), "user.b", &[0, 1, 255]).unwrap();
    xattr::set(at("file"), "user.a", b"").unwrap();
    xattr::set(at("dir"), "user.long", &vec![7; 2000]).unwrap();
    if is_root() {
        for (name, kind, major, minor) in [("tty", "c", "5", "300000"), ("disk", "b", "4000", "1")]
        {
            let made = Command::new("mknod")
                .arg(at(name))
                .args([kind, major, minor])
                .status();
            assert!(made.unwrap().success());
        }
        xattr::set(at("link"), "trusted.t", b"on a link").unwrap();
        xattr::set(at("fifo"), "security.s", b"on a fifo").unwrap();
        let acl = [
            2, 0, 0, 0, 1, 0, 6, 0, 255, 255, 255, 255, 2, 0, 4, 0, 7, 0, 0, 0, 4, 0, 4, 0, 255,
            255, 255, 255, 16, 0, 4, 0, 255, 255, 255, 255, 32, 0, 0, 0, 255, 255, 255, 255,
        ];
        xattr::set(at("file"), "system.posix_acl_access", &acl).unwrap();
        xattr::set(at("dir"), "system.posix_acl_default", &acl).unwrap();
    } else {
        println!("SKIPPED: devices and trusted attributes: not root");
    }
    let seen = agrees(dir.path());
    assert!(
        seen.iter()
            .filter(|one| matches!(&one.what, What::Object { xattrs, .. } if !xattrs.is_empty()))
            .count()
            >= 2
    );
}

#[test]
fn names_at_the_limits_and_not_text() {
    let dir = tempfile::tempdir().unwrap();
    let long = "n".repeat(255);
    fs::write(dir.path().join(&long), "long").unwrap();
    for name in [
        &b"\xff\xfe"[..],
        b"new\nline",
        b" ",
        b"\x01",
        b"a",
        b"a.",
        b"a-b",
        b"a/",
    ] {
        let name = std::ffi::OsStr::from_bytes(name);
        if name == "a/" {
            fs::remove_file(dir.path().join("a")).unwrap();
            fs::create_dir(dir.path().join("a")).unwrap();
            fs::write(dir.path().join("a/x"), "x").unwrap();
        } else {
            fs::write(dir.path().join(name), name.as_bytes()).unwrap();
        }
    }
    agrees(dir.path());
}

#[test]
fn paths_longer_than_a_path_may_be_and_deeper_than_descriptors() {
    let dir = tempfile::tempdir().unwrap();
    let made = Command::new("python3")
        .args(["-c", "import os,sys\nos.chdir(sys.argv[1])\nfor n in range(1500):\n d='d'*(255 if n<40 else 2)\n os.mkdir(d)\n open('f','w').write(str(n))\n os.symlink('t','l')\n os.chdir(d)\n"])
        .arg(dir.path())
        .status();
    assert!(made.unwrap().success());
    let seen = list(&directory(dir.path())).unwrap();
    assert_eq!(seen.len(), 1 + 3 * 1500);
    let deepest = seen.iter().map(|one| one.path.len()).max().unwrap();
    assert!(deepest > 3 * 4096, "{deepest}");
    for (n, one) in seen
        .iter()
        .filter(|one| one.path.ends_with(b"/f"))
        .rev()
        .enumerate()
    {
        let What::Object { body, .. } = &one.what else {
            panic!("{one:?}")
        };
        // Below a directory everything comes before the file next to it: `dd` < `f`.
        assert_eq!(*body, (1499 - (1499 - n)).to_string().into_bytes());
    }
    // What tempfile removes must have short paths.
    assert!(
        Command::new("rm")
            .arg("-rf")
            .arg(dir.path().join("d".repeat(255)))
            .status()
            .unwrap()
            .success()
    );
}

#[test]
fn holes_are_found_where_they_are() {
    let dir = tempfile::tempdir().unwrap();
    let small = File::create(dir.path().join("small")).unwrap();
    small.set_len(100_000).unwrap();
    small.write_all_at(&[1; 4096], 8192).unwrap();
    small.write_all_at(&[2; 5], 99_995).unwrap();
    let large = File::create(dir.path().join("large")).unwrap();
    large.set_len(3 << 40).unwrap();
    large.write_all_at(&[3; 8192], 1 << 40).unwrap();
    large.write_all_at(&[4; 4096], (2 << 40) + 4096).unwrap();
    File::create(dir.path().join("hole"))
        .unwrap()
        .set_len(1 << 20)
        .unwrap();
    for detail in [Detail::Layout, Detail::Contents, Detail::Digests] {
        let source = directory(dir.path());
        let mut found = HashMap::new();
        for event in source.walk(detail).unwrap() {
            if let Event::Node(node) = event.unwrap()
                && let Kind::File(content) = node.kind
            {
                found.insert(node.name.to_vec(), content);
            }
        }
        let data = |name: &str| found[name.as_bytes()].data.clone();
        assert_eq!(data("hole"), []);
        let tib = 1 << 40;
        assert_eq!(
            data("large"),
            [tib..tib + 8192, 2 * tib + 4096..2 * tib + 8192]
        );
        assert_eq!(data("small"), [8192..12288, 98304..100_000]);
        if detail == Detail::Digests {
            assert_eq!(found[&b"large"[..]].digests.len(), 3);
        }
    }
    fs::remove_file(dir.path().join("large")).unwrap();
    agrees(dir.path());
}

#[test]
fn hard_links_across_directories_and_out_of_the_tree() {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    for name in ["a", "b", "c"] {
        fs::create_dir_all(tree.join(name)).unwrap();
    }
    fs::write(tree.join("b/x"), "linked").unwrap();
    for name in ["tree/a/z", "tree/c/1", "tree/c/2", "outside"] {
        fs::hard_link(tree.join("b/x"), dir.path().join(name)).unwrap();
    }
    symlink("t", tree.join("a/s")).unwrap();
    fs::hard_link(tree.join("a/s"), tree.join("c/s")).unwrap();
    let seen = agrees(&tree);
    let links = seen.iter().filter(|one| matches!(one.what, What::Link(_)));
    assert_eq!(links.count(), 4);
}

#[test]
fn what_is_left_out_is_left_out_with_what_is_below() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["keep", "tmp", "x/tmp", "x/y/build/out"] {
        fs::create_dir_all(dir.path().join(name)).unwrap();
        fs::write(dir.path().join(name).join("f.o"), "").unwrap();
        fs::write(dir.path().join(name).join("f.c"), "").unwrap();
    }
    let exclude = ["/tmp", "build/out", "*.o"].map(str::to_owned).to_vec();
    let options = WalkOptions {
        exclude,
        ..WalkOptions::default()
    };
    let seen = check(&Directory::open(dir.path(), &options).unwrap());
    let wanted = [
        "",
        "/keep",
        "/keep/f.c",
        "/x",
        "/x/tmp",
        "/x/tmp/f.c",
        "/x/y",
        "/x/y/build",
    ];
    assert_eq!(paths(&seen), wanted);
}

#[test]
fn one_file_system_stops_at_mount_points() {
    let proc = Path::new("/proc/self/mountinfo");
    if !is_root() || !proc.exists() {
        println!("SKIPPED: mounts: not root");
        return;
    }
    // In a mount namespace of its own, by a shell that keeps it while it is walked.
    let dir = tempfile::tempdir().unwrap();
    fs::create_dir(dir.path().join("mnt")).unwrap();
    let script = "mount -t tmpfs none $0/mnt && touch $0/mnt/in && echo up && read line";
    let mut child = Command::new("unshare")
        .args(["-m", "sh", "-c", script])
        .arg(dir.path())
        .stdin(std::process::Stdio::piped())
        .stdout(std::process::Stdio::piped())
        .spawn()
        .unwrap();
    let mut said = [0; 3];
    let up = std::io::Read::read_exact(child.stdout.as_mut().unwrap(), &mut said);
    if up.is_err() {
        child.wait().unwrap();
        println!("SKIPPED: mounts: no mount namespace can be made here");
        return;
    }
    let inside = PathBuf::from(format!("/proc/{}/root", child.id()))
        .join(dir.path().strip_prefix("/").unwrap());
    let one = WalkOptions {
        one_file_system: true,
        ..WalkOptions::default()
    };
    let stays = check(&Directory::open(&inside, &one).unwrap());
    let goes = check(&directory(&inside));
    child.stdin.take().unwrap().write_all(b"\n").unwrap();
    child.wait().unwrap();
    assert_eq!(paths(&stays), ["", "/mnt"]);
    assert_eq!(paths(&goes), ["", "/mnt", "/mnt/in"]);
}

#[test]
fn a_walk_that_is_given_up_ends_its_threads() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..3000 {
        fs::write(dir.path().join(n.to_string()), vec![1; 3000]).unwrap();
    }
    let source = directory(dir.path());
    for taken in [0, 1, 500] {
        let mut walk = source.walk(Detail::Contents).unwrap();
        assert_eq!(
            walk.by_ref().take(taken).filter(Result::is_ok).count(),
            taken
        );
        drop(walk); // would hang if it did not
    }
}

#[test]
fn any_number_of_threads_gives_the_same() {
    let dir = tempfile::tempdir().unwrap();
    for n in 0..700 {
        fs::create_dir_all(dir.path().join(format!("d{}", n % 40))).unwrap();
        fs::write(
            dir.path().join(format!("d{}/f{n}", n % 40)),
            vec![n as u8; n * 9],
        )
        .unwrap();
    }
    fs::write(dir.path().join("large"), vec![1; 3 << 20]).unwrap();
    let with = |threads| {
        let options = WalkOptions {
            threads,
            ..WalkOptions::default()
        };
        list(&Directory::open(dir.path(), &options).unwrap()).unwrap()
    };
    let one = with(1);
    for threads in [2, 5, 1000] {
        same(&with(threads), &one);
    }
}

/// One object of a random tree.
#[derive(Debug, Clone)]
enum Make {
    Directory,
    File(usize, u8),
    Sparse(u32, u16),
    Link(prop::sample::Index),
    Symlink(Vec<u8>),
    Xattr(prop::sample::Index, Vec<u8>),
}

fn makes() -> impl Strategy<Value = Vec<(prop::sample::Index, Vec<u8>, Make)>> {
    let name = prop::collection::vec(1u8..=255, 1..12)
        .prop_map(|name| {
            name.into_iter()
                .map(|b| if b == b'/' { b'_' } else { b })
                .collect::<Vec<u8>>()
        })
        .prop_filter("dots", |name| name != b"." && name != b"..");
    let make = prop_oneof![
        3 => Just(Make::Directory),
        4 => (0usize..300_000, any::<u8>()).prop_map(|(size, fill)| Make::File(size, fill)),
        1 => (0u32..3_000_000, any::<u16>()).prop_map(|(size, at)| Make::Sparse(size, at)),
        2 => any::<prop::sample::Index>().prop_map(Make::Link),
        1 => prop::collection::vec(1u8..=255, 1..100).prop_map(Make::Symlink),
        2 => (any::<prop::sample::Index>(), prop::collection::vec(any::<u8>(), 0..50))
            .prop_map(|(of, value)| Make::Xattr(of, value)),
    ];
    prop::collection::vec((any::<prop::sample::Index>(), name, make), 0..40)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]
    #[test]
    fn random_trees_agree(makes in makes()) {
        let dir = tempfile::tempdir().unwrap();
        let (mut dirs, mut files) = (vec![dir.path().to_owned()], Vec::<PathBuf>::new());
        for (within, name, make) in makes {
            let path = within.get(&dirs).join(std::ffi::OsStr::from_bytes(&name));
            if fs::symlink_metadata(&path).is_ok() {
                continue;
            }
            match make {
                Make::Directory => {
                    fs::create_dir(&path).unwrap();
                    dirs.push(path);
                    continue;
                }
                Make::File(size, fill) => fs::write(&path, vec![fill; size]).unwrap(),
                Make::Sparse(size, at) => {
                    let file = File::create(&path).unwrap();
                    file.set_len(size.into()).unwrap();
                    if u32::from(at) < size {
                        file.write_all_at(b"x", at.into()).unwrap();
                    }
                }
                Make::Link(_) if files.is_empty() => continue,
                Make::Link(to) => fs::hard_link(to.get(&files), &path).unwrap(),
                Make::Symlink(target) => symlink(std::ffi::OsStr::from_bytes(&target), &path).unwrap(),
                Make::Xattr(of, value) => {
                    let of = of.get(&dirs);
                    xattr::set(of, format!("user.{}", value.len()), &value).unwrap();
                    continue;
                }
            }
            files.push(path);
        }
        agrees(dir.path());
    }
}
