//! Archives made by GNU tar, bsdtar and Python against the directories they were made of,
//! and archives made to harm.

use std::fs::{self, File};
use std::io::Write;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use proptest::prelude::*;

use super::Tar;
use crate::tree::testing::{What, at, check, have, holes, list, paths, plant, same, without};
use crate::tree::{Directory, Kind, Time, TreeError, WalkOptions};

fn run(command: &mut Command) {
    let out = command.output().unwrap();
    let said = String::from_utf8_lossy(&out.stderr);
    assert!(out.status.success(), "{command:?}: {said}");
}

/// A planted tree, and where an archive may be put.
fn planted() -> (tempfile::TempDir, PathBuf, PathBuf) {
    let dir = tempfile::tempdir().unwrap();
    let (tree, archive) = (dir.path().join("tree"), dir.path().join("a.tar"));
    fs::create_dir(&tree).unwrap();
    plant(&tree);
    (dir, tree, archive)
}

fn directory(path: &Path) -> Directory {
    Directory::open(path, &WalkOptions::default()).unwrap()
}

#[test]
fn all_dialects_of_gnu_tar() {
    let (_dir, tree, archive) = planted();
    let wanted = list(&directory(&tree)).unwrap();
    let dialects: [&[&str]; 6] = [
        &["--format=gnu"],
        &["--format=gnu", "-S"],
        &["--format=pax", "-S", "--sparse-version=0.0"],
        &["--format=pax", "-S", "--sparse-version=0.1"],
        &["--format=pax", "-S", "--sparse-version=1.0"],
        &["--format=pax"],
    ];
    for dialect in dialects {
        run(Command::new("tar")
            .args(dialect)
            .arg("-cf")
            .arg(&archive)
            .arg("-C")
            .arg(&tree)
            .arg("."));
        let tar = Tar::open(&archive).unwrap();
        let gnu = dialect[0] == "--format=gnu";
        same(
            &without(&check(&tar), gnu, gnu, true),
            &without(&wanted, gnu, gnu, true),
        );
        if dialect.contains(&"-S") {
            assert_eq!(holes(&tar), holes(&directory(&tree)), "{dialect:?}");
        }
    }
}

#[test]
fn sizes_beyond_octal_digits_and_more_pieces_than_a_header_holds() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, archive) = (dir.path().join("tree"), dir.path().join("a.tar"));
    fs::create_dir(&tree).unwrap();
    let huge = File::create(tree.join("huge")).unwrap();
    huge.set_len(3 << 40).unwrap();
    for n in 0..100u64 {
        huge.write_all_at(&[7; 4096], n << 34).unwrap();
    }
    for format in [
        "--format=gnu",
        "--sparse-version=0.0",
        "--sparse-version=0.1",
        "--sparse-version=1.0",
    ] {
        let mut tar = Command::new("tar");
        tar.args(["--format=pax", "-S", format, "-cf"])
            .arg(&archive)
            .arg("-C")
            .arg(&tree)
            .arg("huge");
        run(&mut tar);
        let found = holes(&Tar::open(&archive).unwrap());
        assert_eq!(found[&b"huge"[..]].len(), 100);
        assert_eq!(found, holes(&directory(&tree)), "{format}");
    }
}

#[test]
fn ustar_and_the_oldest() {
    let dir = tempfile::tempdir().unwrap();
    let (tree, archive) = (dir.path().join("tree"), dir.path().join("a.tar"));
    fs::create_dir_all(tree.join("d".repeat(90)).join("e".repeat(40))).unwrap();
    fs::write(tree.join("d".repeat(90)).join("file"), "x").unwrap();
    for format in ["ustar", "v7"] {
        run(Command::new("tar")
            .arg(format!("--format={format}"))
            .arg("-cf")
            .arg(&archive)
            .args(if format == "v7" {
                &["--exclude=e*"][..]
            } else {
                &[]
            })
            .arg("-C")
            .arg(&tree)
            .arg("d".repeat(90)));
        let seen = check(&Tar::open(&archive).unwrap());
        let count = if format == "v7" { 3 } else { 4 };
        assert_eq!(seen.len(), count, "{:?}", paths(&seen));
        // The root was not in the archive.
        let What::Object { meta, .. } = &seen[0].what else {
            panic!()
        };
        assert_eq!((meta.mode, meta.uid, meta.mtime.seconds), (0o755, 0, 0));
    }
}

#[test]
fn bsdtar_and_its_attributes() {
    if !have("bsdtar") {
        return;
    }
    let (_dir, tree, archive) = planted();
    xattr::set(tree.join("large"), "user.bin", &[0, 255, 10]).unwrap();
    let wanted = list(&directory(&tree)).unwrap();
    run(Command::new("bsdtar")
        .args(["--format=pax", "-cf"])
        .arg(&archive)
        .arg("-C")
        .arg(&tree)
        .arg("."));
    let tar = Tar::open(&archive).unwrap();
    same(
        &without(&check(&tar), false, true, false),
        &without(&wanted, false, true, false),
    );
}

#[test]
fn attributes_and_acls_of_gnu_tar() {
    let (_dir, tree, archive) = planted();
    xattr::set(tree.join("large"), "user.bin", &[0, 255, 10]).unwrap();
    xattr::set(tree.join("dir"), "user.text", b"t=\n").unwrap();
    // user::rw- user:7:r-- group::r-- mask::r-- other::---, as the kernel has it
    let mut acl = vec![2, 0, 0, 0];
    for (tag, bits, id) in [
        (1u8, 6u8, -1i32),
        (2, 4, 7),
        (4, 4, -1),
        (16, 4, -1),
        (32, 0, -1),
    ] {
        acl.extend_from_slice(&[tag, 0, bits, 0]);
        acl.extend_from_slice(&id.to_le_bytes());
    }
    xattr::set(tree.join("large"), "system.posix_acl_access", &acl).unwrap();
    xattr::set(tree.join("dir"), "system.posix_acl_default", &acl).unwrap();
    let wanted = list(&directory(&tree)).unwrap();
    let flags = [
        "--format=pax",
        "--xattrs",
        "--xattrs-include=*",
        "--acls",
        "--numeric-owner",
        "-cf",
    ];
    run(Command::new("tar")
        .args(flags)
        .arg(&archive)
        .arg("-C")
        .arg(&tree)
        .arg("."));
    let ours = check(&Tar::open(&archive).unwrap());
    same(
        &without(&ours, false, true, false),
        &without(&wanted, false, true, false),
    );
    let What::Object { xattrs, .. } = at(&ours, "/large") else {
        panic!()
    };
    assert_eq!(xattrs.len(), 2);
}

/// Python makes what the others hardly do: huge ids and sizes, devices, global headers.
#[test]
fn what_python_writes() {
    let dir = tempfile::tempdir().unwrap();
    let script = r#"
import tarfile, io, sys
for name, format in (('gnu', tarfile.GNU_FORMAT), ('pax', tarfile.PAX_FORMAT)):
    t = tarfile.open(sys.argv[1] + '/' + name, 'w', format=format, pax_headers={'comment': 'x', 'uid': '77'} if name == 'pax' else None)
    def add(path, kind, data=None, **more):
        i = tarfile.TarInfo(path); i.type = kind; i.mode = 0o640
        for k, v in more.items(): setattr(i, k, v)
        if data is not None: i.size = len(data)
        t.addfile(i, io.BytesIO(data) if data is not None else None)
    add('/abs/olute', tarfile.REGTYPE, b'abs', uid=4000000000, gid=3000000, mtime=-5)
    add('./c', tarfile.CHRTYPE, devmajor=4095, devminor=1048575)
    add('b', tarfile.BLKTYPE, devmajor=8, devminor=1)
    add('twice', tarfile.REGTYPE, b'first')
    add('hard', tarfile.LNKTYPE, linkname='./twice')
    add('twice', tarfile.REGTYPE, b'second')
    add('was-dir/x', tarfile.REGTYPE, b'x')
    add('was-dir', tarfile.SYMTYPE, linkname='c')
    add('dir/x', tarfile.REGTYPE, b'x')
    add('dir', tarfile.DIRTYPE, mtime=9)
    t.close()
"#;
    run(Command::new("python3").args(["-c", script]).arg(dir.path()));
    for name in ["gnu", "pax"] {
        let seen = check(&Tar::open(&dir.path().join(name)).unwrap());
        let wanted = [
            "",
            "/abs",
            "/abs/olute",
            "/b",
            "/c",
            "/dir",
            "/dir/x",
            "/hard",
            "/twice",
            "/was-dir",
        ];
        assert_eq!(paths(&seen), wanted);
        let object = |path: &str| match at(&seen, path) {
            What::Object {
                kind, body, meta, ..
            } => (kind.clone(), body.clone(), *meta),
            link => panic!("{link:?}"),
        };
        let (_, body, meta) = object("/abs/olute");
        assert_eq!(
            (body, meta.uid, meta.gid, meta.mode),
            (b"abs".to_vec(), 4_000_000_000, 3_000_000, 0o640)
        );
        assert_eq!(
            meta.mtime,
            Time {
                seconds: -5,
                nanoseconds: 0
            }
        );
        assert_eq!(
            object("/c").0,
            "CharDevice(Device { major: 4095, minor: 1048575 })"
        );
        assert_eq!(object("/b").0, "BlockDevice(Device { major: 8, minor: 1 })");
        assert_eq!(
            (object("/hard").1, object("/twice").1),
            (b"first".to_vec(), b"second".to_vec())
        );
        assert_eq!(object("/was-dir").0, "symlink");
        assert_eq!(object("/dir").2.mtime.seconds, 9);
        assert_eq!(object("/b").2.uid, if name == "pax" { 77 } else { 0 });
    }
}

#[test]
fn compressed_and_through_pipes() {
    let (dir, tree, archive) = planted();
    run(Command::new("tar")
        .args(["--format=pax", "-cf"])
        .arg(&archive)
        .arg("-C")
        .arg(&tree)
        .arg("."));
    let plain = list(&Tar::open(&archive).unwrap()).unwrap();
    let bytes = fs::read(&archive).unwrap();
    let (half, rest) = bytes.split_at(bytes.len() / 2);
    for (program, arguments) in [
        ("cat", &[][..]),
        ("gzip", &["-c"][..]),
        ("zstd", &["-c", "-q"]),
    ] {
        if !have(program) {
            continue;
        }
        // Of two members or frames, one behind the other.
        let name = dir.path().join(program);
        let mut out = File::create(&name).unwrap();
        for part in [half, rest] {
            let mut child = Command::new(program)
                .args(arguments)
                .stdin(Stdio::piped())
                .stdout(out.try_clone().unwrap())
                .spawn()
                .unwrap();
            child.stdin.take().unwrap().write_all(part).unwrap();
            assert!(child.wait().unwrap().success());
        }
        out.flush().unwrap();
        same(&list(&Tar::open(&name).unwrap()).unwrap(), &plain);
        let mut cat = Command::new("cat")
            .arg(&name)
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let pipe = std::os::fd::OwnedFd::from(cat.stdout.take().unwrap());
        same(
            &list(&Tar::from_file(pipe.into(), b"pipe").unwrap()).unwrap(),
            &plain,
        );
        cat.wait().unwrap();
        if program != "cat" {
            let whole = fs::read(&name).unwrap();
            fs::write(&name, &whole[..whole.len() - 9]).unwrap();
            let error = Tar::open(&name).unwrap_err().to_string();
            assert!(error.starts_with(&name.display().to_string()), "{error}");
        }
    }
}

fn refused(bytes: &[u8]) -> String {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    file.write_all(bytes).unwrap();
    let error = Tar::open(file.path()).unwrap_err();
    assert!(matches!(error, TreeError::Invalid { .. }), "{error}");
    let text = error.to_string();
    assert!(
        text.starts_with(&file.path().display().to_string()),
        "{text}"
    );
    text
}

/// A header with a right checksum.
fn header(path: &str, kind: u8, size: &str, link: &str) -> Vec<u8> {
    let mut block = vec![0; 512];
    let mut put = |at: usize, text: &[u8]| block[at..at + text.len()].copy_from_slice(text);
    put(0, path.as_bytes());
    put(100, b"0000644\0");
    put(108, b"0000000\0");
    put(116, b"0000000\0");
    put(124, size.as_bytes());
    put(136, b"00000000000\0");
    put(156, &[kind]);
    put(157, link.as_bytes());
    put(257, b"ustar\x0000");
    sealed(block)
}

fn sealed(mut block: Vec<u8>) -> Vec<u8> {
    block[148..156].fill(b' ');
    let sum: u32 = block[..512].iter().map(|byte| u32::from(*byte)).sum();
    block[148..156].copy_from_slice(format!("{sum:06o}\0 ").as_bytes());
    block
}

#[test]
fn what_cannot_be_is_refused_with_its_place() {
    assert!(refused(b"plain text that is no archive").contains("within a block"));
    assert!(refused(&[b'x'; 1024]).contains("not a tar archive"));
    assert!(refused(b"BZh91AY&SY plain").contains("bzip2 -dc"));
    let cases: [(Vec<u8>, &str); 9] = [
        (
            header("a/../b", b'0', "0", ""),
            "a/../b: its path leads upwards",
        ),
        (
            header("hard", b'1', "0", "missing"),
            "hard: a hard link to missing",
        ),
        (
            header("big", b'0', "77777777777", ""),
            "big: the archive ends within it",
        ),
        (header("what", b'Q', "0", ""), "type `Q`"),
        (header("more", b'M', "0", ""), "another volume"),
        (header("link", b'2', "0", ""), "target cannot be"),
        (header("p", b'x', "77777777777", ""), "at most 16777216"),
        (header("L", b'L', "77777777", ""), "ends within it"),
        (
            header(".", b'0', "0", ""),
            "the root of a tree can be a directory only",
        ),
    ];
    for (bytes, wanted) in cases {
        let text = refused(&bytes);
        assert!(
            text.contains(wanted) && text.contains("at byte 0 "),
            "{text}"
        );
    }
    let through = [
        header("file", b'0', "0", ""),
        header("file/x", b'0', "0", ""),
    ]
    .concat();
    let text = refused(&through);
    assert!(
        text.contains("file/x: its path leads through file") && text.contains("at byte 512 "),
        "{text}"
    );
    let damaged = [header("file", b'0', "0", ""), vec![7; 512]].concat();
    assert!(refused(&damaged).contains("is damaged"));
}

#[test]
fn an_archive_of_nothing_is_an_empty_tree() {
    for bytes in [vec![0; 512], vec![0; 10240]] {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(&bytes).unwrap();
        assert_eq!(check(&Tar::open(file.path()).unwrap()).len(), 1);
    }
    // What failed before it wrote anything leaves an empty file, not an archive.
    assert!(refused(&[]).contains("it is empty"));
}

/// An archive with one of every kind of header.
fn sample() -> Vec<u8> {
    let dir = tempfile::tempdir().unwrap();
    let tree = dir.path().join("tree");
    fs::create_dir(&tree).unwrap();
    plant(&tree);
    fs::remove_file(tree.join("large")).unwrap();
    let mut all = Vec::new();
    for format in [
        &["--format=pax", "-S"][..],
        &["--format=gnu", "-S"],
        &["--format=pax", "-S", "--sparse-version=0.0"],
    ] {
        let archive = dir.path().join("a.tar");
        run(Command::new("tar")
            .args(["-b", "1"])
            .args(format)
            .arg("-cf")
            .arg(&archive)
            .arg("-C")
            .arg(&tree)
            .arg("."));
        let mut bytes = fs::read(&archive).unwrap();
        bytes.truncate(bytes.len() - 1024);
        all.extend(bytes);
    }
    all
}

#[test]
fn archives_damaged_anywhere_do_not_panic() {
    let sample = sample();
    let headers: Vec<usize> = (0..sample.len() / 512)
        .map(|block| block * 512)
        .filter(|at| {
            super::header::Header::new(sample[*at..at + 512].try_into().unwrap()).is_some()
        })
        .collect();
    let mut runner = proptest::test_runner::TestRunner::new(ProptestConfig::with_cases(400));
    let strategy = (
        any::<prop::sample::Index>(),
        prop::collection::vec((0usize..1024, any::<u8>()), 1..4),
        any::<bool>(),
        0usize..200,
    );
    runner
        .run(&strategy, |(which, changes, cut, length)| {
            let at = *which.get(&headers);
            let mut bytes = sample.clone();
            for (within, byte) in changes {
                if let Some(place) = bytes.get_mut(at + within) {
                    *place = byte;
                }
            }
            let block = sealed(bytes[at..at + 512].to_vec());
            bytes[at..at + 512].copy_from_slice(&block);
            if cut {
                bytes.truncate(at + length * 16);
            }
            let mut file = tempfile::NamedTempFile::new().unwrap();
            file.write_all(&bytes).unwrap();
            if let Ok(tar) = Tar::open(file.path()) {
                use crate::tree::{Detail, Source};
                for event in tar.walk(Detail::Layout).unwrap() {
                    if let crate::tree::Event::Node(node) = event.unwrap()
                        && let Kind::File(content) = node.kind
                    {
                        prop_assert!(content.data.iter().all(|range| range.end <= content.size));
                    }
                }
            }
            Ok(())
        })
        .unwrap();
}
