//! What the kernel makes of an image, alone and below overlayfs.

use crate::files::populate;
use crate::judges::{ours, succeed};
use crate::same::{V0, V1, V2};
use crate::tools::skip;
use crate::trees::mount::{Mounted, possible};
use crate::trees::observe::{assert_same, observe};
use imagegen::erofs::composefs::Format;
use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::Path;
use std::process::Command;

const DIGEST: &str = "5fa2b4e9cbd0d1f4e7ff1cd4bf4a98a36d36d0df28bb0a3aa0c48b3a4ed1f6aa";

/// An object of each kind; what stands for the kinds' own attributes is added by the image.
fn dump() -> String {
    let object = format!("{}/{}", &DIGEST[..2], &DIGEST[2..]);
    let long = "t".repeat(1000);
    let name = "n".repeat(255);
    let mut text = format!(
        "/ 4096 41755 4 10 20 0 1695372970.944925700 - - - security.selinux=u:r:t:s0\\x00\n\
         /dir 27 40755 2 1000 1000 0 1695372970.944925700 - - - user.a=1 trusted.overlay.opaque=y\n\
         /dir/large 12345678901 104644 3 0 0 0 -5.7 {object} - {DIGEST} user.a=1\n\
         /dir/{name} 5 100600 1 70000 80000 0 1695372970.944925700 - a\\tb\\\\\\x2d -\n\
         /again 0 @100644 - - - - 0.0 /dir/large - -\n\
         /empty 0 100000 1 0 0 0 0.0 - - -\n\
         /link 4 120777 1 0 0 0 0.0 {long} - -\n\
         /null 0 20666 1 0 0 259 0.0 - - -\n\
         /disk 0 60660 1 0 0 2049 0.0 - - -\n\
         /fifo 0 10600 1 0 0 0 0.0 - - -\n\
         /socket 0 140600 1 0 0 0 0.0 - - -\n\
         /wide 0 40700 2 0 0 0 7.0 - - -\n"
    );
    for number in 0..1000 {
        text.push_str(&format!(
            "/wide/{number}-{} 0 100644 1 {} 0 0 7.0 - - -\n",
            "w".repeat(number % 60),
            number * 100
        ));
    }
    text
}

/// Attributes of a file, those of the system included.
fn xattrs(path: &Path) -> BTreeMap<String, Vec<u8>> {
    let names = xattr::list(path).unwrap();
    names
        .map(|name| {
            let value = xattr::get(path, &name).unwrap().unwrap();
            (name.into_string().unwrap(), value)
        })
        .collect()
}

fn check(root: &Path, format: Format) {
    let path = |name: &str| root.join(name);
    let about = |name: &str| fs::symlink_metadata(path(name)).unwrap();
    let exact = format != V2; // version 2 keeps no parts of a second
    let nanoseconds = |wanted: i64| if exact { wanted } else { 0 };

    let file = about("dir/large");
    assert_eq!(
        (file.len(), file.mode(), file.uid()),
        (12_345_678_901, 0o104_644, 0)
    );
    assert_eq!((file.mtime(), file.mtime_nsec()), (-5, nanoseconds(7)));
    assert_eq!(file.ino(), about("again").ino());
    // As the dump says, or as it is.
    assert_eq!(file.nlink(), if exact { 3 } else { 2 });
    let seen = xattrs(&path("dir/large"));
    let redirect = format!("/{}/{}", &DIGEST[..2], &DIGEST[2..]);
    assert_eq!(seen["trusted.overlay.redirect"], redirect.as_bytes());
    let metacopy = &seen["trusted.overlay.metacopy"];
    assert_eq!((&metacopy[..4], metacopy.len()), (&[0, 36, 0, 1][..], 36));
    assert_eq!((&*seen["user.a"], seen.len()), (&b"1"[..], 3));

    let seen = xattrs(&path("dir"));
    assert_eq!(seen["trusted.overlay.overlay.opaque"], b"y");
    let root_attributes = xattrs(root);
    assert_eq!(root_attributes["security.selinux"], b"u:r:t:s0\0");
    assert_eq!(
        root_attributes.contains_key("trusted.overlay.opaque"),
        exact
    );

    let small = path(&format!("dir/{}", "n".repeat(255)));
    assert_eq!(fs::read(&small).unwrap(), b"a\tb\\-");
    let small = fs::metadata(small).unwrap();
    assert_eq!(
        (small.uid(), small.gid(), small.mode()),
        (70_000, 80_000, 0o100_600)
    );
    assert_eq!(small.mtime_nsec(), nanoseconds(944_925_700));
    let target = fs::read_link(path("link")).unwrap();
    assert_eq!(target.as_os_str().as_bytes(), "t".repeat(1000).as_bytes());
    assert_eq!((about("null").rdev(), about("disk").rdev()), (259, 2049));
    assert!(about("fifo").file_type().is_fifo() && about("socket").file_type().is_socket());
    let below = about("dir");
    assert_eq!(
        (below.nlink(), below.uid(), below.mode()),
        (2, 1000, 0o40_755)
    );
    let base = about("");
    assert_eq!((base.nlink(), base.mode(), base.gid()), (4, 0o41_755, 20));

    for number in 0..1000_u32 {
        let name = format!("wide/{number}-{}", "w".repeat(number as usize % 60));
        assert_eq!(about(&name).uid(), number * 100);
    }
    assert!(!path("wide/1000-").exists());
    let names: Vec<_> = fs::read_dir(root)
        .unwrap()
        .map(|e| e.unwrap().file_name())
        .collect();
    let stubs =
        (0..256).filter(|number| names.contains(&OsStr::new(&format!("{number:02x}")).into()));
    assert_eq!(
        (stubs.count(), names.len()),
        if exact { (256, 265) } else { (0, 9) }
    );
    if exact {
        let stub = about("7f");
        assert!(stub.file_type().is_char_device() && stub.rdev() == 0);
        assert_eq!(xattrs(&path("7f"))["security.selinux"], b"u:r:t:s0\0");
    }
}

#[test]
fn it_mounts_what_a_dump_tells() {
    if !possible("erofs") {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    for format in [V0, V1, V2] {
        let image = dir.path().join("image");
        // Version 2 knows no sign.
        let unsigned = dump().replace("-5.7", "18446744073709551611.7");
        let dump = if format == V2 { unsigned } else { dump() };
        fs::write(&image, ours(&dump, format).unwrap()).unwrap();
        let point = dir.path().join("mnt");
        let mounted = Mounted::new("erofs", &image, &[], &point, "ro").unwrap();
        check(mounted.root(), format);
        let said = mounted.end();
        let trouble: Vec<_> = said
            .iter()
            .filter(|l| !l.contains("mounted with"))
            .collect();
        assert!(trouble.is_empty(), "{trouble:#?}");
    }
}

/// overlayfs over an image and its store; unmounted when dropped.
struct Layered<'a>(&'a Path);

impl Drop for Layered<'_> {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(self.0).output();
    }
}

#[test]
fn below_overlayfs_it_is_the_directory_it_was_made_of() {
    if !possible("erofs") {
        return;
    }
    let known = fs::read_to_string("/proc/filesystems").unwrap();
    if !known.contains("\toverlay\n") {
        return skip("this kernel does not know overlayfs");
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    populate(&path("tree"));
    // What overlayfs takes for its own is not seen through it in the same way.
    xattr::remove(path("tree/deep"), "trusted.overlay.opaque").unwrap();
    fs::remove_file(path("tree/deep/gone")).unwrap();
    for format in ["v0", "v1"] {
        let mut command = Command::new(env!("CARGO_BIN_EXE_imagegen"));
        command.args(["erofs", "composefs", "-q", "--force", "--format", format]);
        command.args(["--hard-links=keep", "--digest-store"]);
        command.args([path("store"), path("image"), path("tree")]);
        succeed(&mut command);
        let image = Mounted::new("erofs", &path("image"), &[], &path("mnt"), "ro").unwrap();
        fs::create_dir_all(path("whole")).unwrap();
        let options = format!(
            "ro,metacopy=on,redirect_dir=follow,lowerdir={}::{}",
            image.root().display(),
            path("store").display()
        );
        let mut mount = Command::new("mount");
        mount.args(["-t", "overlay", "-o", &options, "overlay"]);
        succeed(mount.arg(path("whole")));
        let whole = path("whole");
        let layered = Layered(&whole);
        compare(&path("tree"), layered.0);
        drop(layered);
        image.end();
    }
}

/// Two directories, in all that an image keeps.
fn compare(wanted: &Path, found: &Path) {
    let view = |root: &Path| {
        let mut view = observe(root, 4096, &|_| false);
        view.values_mut()
            .for_each(|object| object.ctime = object.mtime);
        view
    };
    assert_same(&view(wanted), &view(found));
}
