//! The same tree and options, the same bytes; and images from directories, compared with
//! the directory itself.

use crate::image::{Image, MIB, scratch, sized};
use crate::kinds::acl;
use crate::model::{ROOT, Tree};
use crate::mount::{self, How, Mounted, run};
use crate::observe::{assert_same, observe};
use crate::repair;
use imagegen::tree::{Directory, Source, WalkOptions};
use imagegen::xfs::write::WriteOptions;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps, UTIME_OMIT};
use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::Read;
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;

/// A checksum over a whole image.
fn digest(image: &Image) -> Vec<u8> {
    use sha2::{Digest, Sha256};
    let mut file = File::open(image.path()).unwrap();
    let (mut digest, mut buffer) = (Sha256::new(), vec![0; 1 << 20]);
    loop {
        match file.read(&mut buffer).unwrap() {
            0 => return digest.finalize().to_vec(),
            read => digest.update(&buffer[..read]),
        }
    }
}

/// A directory with one of everything that this user may make.
fn fill(root: &Path) {
    let dir = root.join("dir");
    fs::create_dir(&dir).unwrap();
    for number in 0..300 {
        let path = dir.join(format!("file{number:03}"));
        fs::write(&path, vec![number as u8; number * 61]).unwrap();
        fs::set_permissions(
            &path,
            fs::Permissions::from_mode(0o600 | (number as u32 % 8)),
        )
        .unwrap();
        let seconds = i64::from(number as i32 - 150) * 10_000_001;
        touch(&path, seconds, number as i64 * 3_333_333 % 1_000_000_000);
    }
    fs::set_permissions(dir.join("file001"), fs::Permissions::from_mode(0o6755)).unwrap();
    for number in 0..200 {
        fs::hard_link(
            dir.join(format!("file{number:03}")),
            root.join(format!("z{:03}", 999 - number * 3)),
        )
        .unwrap();
    }
    let holes = File::create_new(root.join("holes")).unwrap();
    for at in [0, 3, 4, 100, 7000] {
        holes.write_all_at(&[1; 5000], at * 65_536).unwrap();
    }
    holes.set_len(7001 * 65_536 + 99).unwrap();
    symlink("file001", dir.join("link")).unwrap();
    symlink("x".repeat(900), dir.join("long link")).unwrap();
    let node = |name: &str, kind, device| {
        rustix::fs::mknodat(CWD, root.join(name), kind, Mode::RUSR, device).unwrap();
    };
    node("fifo", FileType::Fifo, 0);
    node("socket", FileType::Socket, 0);
    if rustix::process::geteuid().is_root() {
        node("null", FileType::CharacterDevice, rustix::fs::makedev(1, 3));
        node("whiteout", FileType::CharacterDevice, 0);
        node(
            "disk",
            FileType::BlockDevice,
            rustix::fs::makedev(259, 70_000),
        );
        let owner = |name: &str, owner| {
            std::os::unix::fs::lchown(dir.join(name), Some(owner), Some(owner / 3))
        };
        owner("file002", 3_000_000_000).unwrap();
        owner("link", 7).unwrap();
        xattr::set(dir.join("file004"), "trusted.some", b"trusted").unwrap();
        xattr::set(
            dir.join("file004"),
            "security.capability",
            &[1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0],
        )
        .unwrap();
        xattr::set(dir.join("link"), "trusted.link", b"on a link").unwrap();
    }
    xattr::set(dir.join("file003"), "user.some", b"value").unwrap();
    xattr::set(dir.join("file003"), "user.large", &[b'l'; 3000]).unwrap();
    let entries = [
        (0x01, 6, u32::MAX),
        (0x02, 4, 1234),
        (0x04, 4, u32::MAX),
        (0x10, 4, u32::MAX),
        (0x20, 0, u32::MAX),
    ];
    xattr::set(
        dir.join("file005"),
        "system.posix_acl_access",
        &acl(&entries),
    )
    .unwrap();
    xattr::set(&dir, "system.posix_acl_default", &acl(&entries)).unwrap();
    touch(root, 1_000_000_000, 5);
}

fn touch(path: &Path, seconds: i64, nanoseconds: i64) {
    let times = Timestamps {
        last_access: Timespec {
            tv_sec: 0,
            tv_nsec: UTIME_OMIT,
        },
        last_modification: Timespec {
            tv_sec: seconds,
            tv_nsec: nanoseconds,
        },
    };
    rustix::fs::utimensat(CWD, path, &times, AtFlags::SYMLINK_NOFOLLOW).unwrap();
}

fn open(path: &Path, threads: usize) -> Directory {
    Directory::open(
        path,
        &WalkOptions {
            threads,
            ..WalkOptions::default()
        },
    )
    .unwrap()
}

#[test]
fn a_mounted_image_equals_the_directory_it_was_made_from() {
    let source = scratch();
    let root = source.path().join("tree");
    fs::create_dir(&root).unwrap();
    fill(&root);
    for (dedupe, block_size) in [(false, 4096), (true, 4096), (false, 1024)] {
        let mut options = sized(500 * MIB);
        options.block_size = block_size;
        let write_options = WriteOptions {
            dedupe,
            ..WriteOptions::default()
        };
        let image = Image::with(&open(&root, 0), &options, write_options).unwrap();
        repair::assert_clean(&image.path(), image.geometry.ag_count);
        if !mount::possible() {
            return;
        }
        let mounted = Mounted::new(&image, How::ReadOnly);
        let mut seen = observe(mounted.root(), 4096, &|_| false);
        mounted.end();
        seen.get_mut(&b""[..])
            .unwrap()
            .xattrs
            .remove(&b"trusted.xfs:autofsck"[..]);
        assert_same(&observe(&root, 4096, &|_| false), &seen);
    }
}

/// A copy in which everything was made in another order, inode numbers and the order of
/// entries differ, and only ctimes cannot be the same: they are set alike in both.
#[test]
fn a_copy_of_a_directory_gives_the_same_image() {
    let source = scratch();
    let (first, second) = (source.path().join("first"), source.path().join("second"));
    fs::create_dir(&first).unwrap();
    fill(&first);
    fs::create_dir(&second).unwrap();
    let mut names: Vec<_> = fs::read_dir(&first)
        .unwrap()
        .map(|entry| entry.unwrap().file_name())
        .collect();
    names.sort();
    names.reverse();
    let from = names.iter().map(|name| first.join(name));
    run(Command::new("cp").arg("-a").args(from).arg(&second));
    touch(&second, 1_000_000_000, 5);
    let mode = fs::metadata(&first).unwrap().mode();
    fs::set_permissions(&second, fs::Permissions::from_mode(mode)).unwrap();
    let make = |path: &Path, threads| {
        let source = OneCtime(open(path, threads));
        digest(&Image::make(&source, &sized(300 * MIB)).unwrap())
    };
    let meant = make(&first, 1);
    assert_eq!(make(&first, 1), meant, "the same once more");
    assert_eq!(make(&first, 7), meant, "by other threads");
    assert_eq!(make(&second, 3), meant, "a copy");
    fs::write(second.join("dir/file000"), "x").unwrap();
    assert_ne!(make(&second, 3), meant, "another tree");
}

/// A directory with all ctimes set to the mtime.
struct OneCtime(Directory);

impl Source for OneCtime {
    fn walk(
        &self,
        detail: imagegen::tree::Detail,
    ) -> Result<imagegen::tree::Walk<'_>, imagegen::tree::TreeError> {
        use imagegen::tree::Event;
        let walk = self.0.walk(detail)?;
        Ok(Box::new(walk.map(|event| {
            event.map(|mut event| {
                if let Event::Enter(node) | Event::Node(node) = &mut event {
                    node.meta.ctime = node.meta.mtime;
                }
                event
            })
        })))
    }
}

#[test]
fn a_tree_in_memory_gives_the_same_image_with_any_number_of_threads() {
    let mut tree = Tree::new();
    for number in 0..3000 {
        let file = tree.file(ROOT, format!("{number}"), number * 17);
        tree.xattr(file, "user.some", vec![1; number as usize % 700]);
        if number % 3 == 0 {
            tree.link(ROOT, format!("link{number}"), file);
        }
    }
    let make = |threads, dedupe| {
        let options = WriteOptions {
            threads,
            dedupe,
            ..WriteOptions::default()
        };
        digest(&Image::with(&tree, &sized(300 * MIB), options).unwrap())
    };
    let mut met = BTreeMap::new();
    for dedupe in [false, true] {
        let images = [1, 1, 2, 5].map(|threads| make(threads, dedupe));
        assert!(images.iter().all(|image| *image == images[0]));
        met.insert(images[0].clone(), dedupe);
    }
}
