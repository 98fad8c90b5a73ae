//! Extractions by somebody who may not do everything, over what is there, and of what is
//! not all there: nothing is lost, and nothing is said to be well that is not.

use crate::images::{Made, Tree, made};
use crate::patient::Patient;
use crate::raw::{Raw, plain};
use crate::tools::{Suite, skip};
use imagegen::erofs::extract::{ExtractError, Options, Report, extract};
use imagegen::erofs::format::inode::Extended;
use imagegen::erofs::read::{Image, Where};
use imagegen::medium::Source;
use imagegen::tree::Progress;
use rustix::fs::{CWD, FileType, Mode, makedev, mknodat};
use std::fs::{self, Permissions};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Command, Output};

/// Somebody who is not root.
const USER: u32 = 65_534;

fn run<S: Source>(image: &Image<S>, target: &Path, force: bool) -> Result<Report, ExtractError> {
    let root = image.root().unwrap();
    let progress = Progress::default();
    extract(image, root, b"", target, Options { force }, &progress)
}

/// The command as an ordinary user.
fn as_user(image: &Path, arguments: &[&str], target: &Path) -> Output {
    // Where everybody may look.
    let place = tempfile::tempdir().unwrap();
    fs::set_permissions(place.path(), Permissions::from_mode(0o755)).unwrap();
    let command = place.path().join("imagegen");
    fs::copy(env!("CARGO_BIN_EXE_imagegen"), &command).unwrap();
    fs::copy(image, place.path().join("image")).unwrap();
    let image = place.path().join("image");
    fs::set_permissions(&image, Permissions::from_mode(0o644)).unwrap();
    let mut command = Command::new(command);
    command.args(["erofs", "extract"]).args(arguments);
    command.arg(image).arg(target).uid(USER).gid(USER);
    command.output().unwrap()
}

/// A directory of that user.
fn target() -> (tempfile::TempDir, std::path::PathBuf) {
    let out = tempfile::tempdir().unwrap();
    fs::set_permissions(out.path(), Permissions::from_mode(0o755)).unwrap();
    let target = out.path().join("target");
    fs::create_dir(&target).unwrap();
    chown(&target, Some(USER), Some(USER)).unwrap();
    (out, target)
}

fn mode(path: &Path) -> u32 {
    fs::symlink_metadata(path).unwrap().mode() & 0o7777
}

#[test]
fn an_ordinary_user_gets_what_it_may_have() {
    if !rustix::process::geteuid().is_root() {
        return skip("another user needs root");
    }
    let tree = tempfile::tempdir().unwrap();
    let at = |name: &str| tree.path().join(name);
    fs::create_dir_all(at("locked/inner")).unwrap();
    fs::write(at("locked/inner/file"), "in it").unwrap();
    fs::hard_link(at("locked/inner/file"), at("other name")).unwrap();
    fs::write(at("readonly"), "read").unwrap();
    xattr::set(at("readonly"), "user.note", b"kept").unwrap();
    fs::write(at("set-id"), "run").unwrap();
    for (name, mode) in [
        ("locked/inner", 0o000),
        ("locked", 0o600),
        ("readonly", 0o444),
        ("set-id", 0o6755),
    ] {
        fs::set_permissions(at(name), Permissions::from_mode(mode)).unwrap();
    }
    let Some(made) = made(Suite::Newest, "", tree.path()) else {
        return;
    };
    let (_out, target) = target();
    let output = as_user(&made.image, &[], &target);
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(0), "{said}");
    assert_eq!(mode(&target.join("locked")), 0o600);
    assert_eq!(mode(&target.join("locked/inner")), 0);
    let other = fs::metadata(target.join("other name")).unwrap();
    assert_eq!(other.nlink(), 2, "{said}");
    let note = xattr::get(target.join("readonly"), "user.note").unwrap();
    assert_eq!(note.as_deref(), Some(&b"kept"[..]), "{said}");
    assert_eq!(mode(&target.join("readonly")), 0o444);
    // Set-id, but to whom? It is the user's now.
    assert_eq!(mode(&target.join("set-id")), 0o755);
    assert!(said.contains("set-id bits"), "{said}");
}

/// With force what is in the way stays until there is something better.
#[test]
fn what_cannot_be_replaced_stays() {
    if !rustix::process::geteuid().is_root() {
        return skip("another user needs root");
    }
    let tree = tempfile::tempdir().unwrap();
    let mode = Mode::from_raw_mode(0o640);
    let number = makedev(259, 7);
    mknodat(
        CWD,
        tree.path().join("device"),
        FileType::BlockDevice,
        mode,
        number,
    )
    .unwrap();
    fs::write(tree.path().join("file"), "new").unwrap();
    let Some(made) = made(Suite::Newest, "", tree.path()) else {
        return;
    };
    let (_out, target) = target();
    for name in ["device", "file"] {
        fs::write(target.join(name), "old").unwrap();
    }
    let output = as_user(&made.image, &["--force"], &target);
    assert_eq!(output.status.code(), Some(0), "{output:?}");
    assert_eq!(fs::read(target.join("device")).unwrap(), b"old");
    assert_eq!(fs::read(target.join("file")).unwrap(), b"new");
    assert_eq!(
        fs::read_dir(&target).unwrap().count(),
        2,
        "something hidden"
    );
}

#[test]
fn damaged_contents_replace_nothing() {
    let Some(mut patient) = Patient::new("-zlz4", &Tree::new(100_000)) else {
        return;
    };
    let extents = patient.extents("large");
    let Where::Device(_, at, length) = extents[1].place else {
        panic!("{extents:?}");
    };
    patient.bytes[at as usize..][..length as usize].fill(0);
    let image = Image::open(&patient.bytes[..]).unwrap();
    let out = tempfile::tempdir().unwrap();
    fs::write(out.path().join("large"), "old").unwrap();
    let report = run(&image, out.path(), true).unwrap();
    assert_eq!(report.damaged[0].path, "/large", "{report:?}");
    assert_eq!(fs::read(out.path().join("large")).unwrap(), b"old");
    let names = fs::read_dir(out.path()).unwrap();
    let hidden = |name: &fs::DirEntry| name.file_name().as_encoded_bytes().starts_with(b".");
    assert_eq!(
        names.filter(|name| hidden(name.as_ref().unwrap())).count(),
        0
    );
}

/// All kinds of objects over all kinds of objects, twice: links over links, too.
#[test]
fn force_can_be_repeated() {
    let tree = Tree::new(10_000);
    let Some(made) = made(Suite::Newest, "", tree.path()) else {
        return;
    };
    let image = crate::read::open(&made);
    let out = tempfile::tempdir().unwrap();
    fs::write(out.path().join("deep"), "in the way of a directory").unwrap();
    for _ in 0..2 {
        let report = run(&image, out.path(), true).unwrap();
        assert!(report.is_sound(), "{report:?}");
    }
    let count = |path: &Path| fs::read_dir(path).unwrap().count();
    assert_eq!(count(out.path()), count(tree.path()));
    assert_eq!(fs::metadata(out.path().join("three")).unwrap().nlink(), 3);
}

#[test]
fn devices_that_are_not_given_are_asked_for() {
    let options = "--chunksize=4096 --blobdev=BLOB";
    let Some(made) = made(Suite::Newest, options, Tree::new(20_000).path()) else {
        return;
    };
    let image = Image::open(fs::File::open(&made.image).unwrap()).unwrap();
    let out = tempfile::tempdir().unwrap();
    let refused = run(&image, out.path(), false).unwrap_err();
    assert!(refused.to_string().contains("--device"), "{refused}");
    assert_eq!(fs::read_dir(out.path()).unwrap().count(), 0);
}

fn broken_pipe(made: &Made, words: &[&str]) -> Option<i32> {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut command = Command::new(env!("CARGO_BIN_EXE_imagegen"));
    command.arg("erofs").args(words).arg(&made.image);
    command.stdout(writer).output().unwrap().status.code()
}

#[test]
fn a_reader_that_left_does_not_make_an_image_sound() {
    let Some(made) = made(Suite::Newest, "", Tree::new(20_000).path()) else {
        return;
    };
    assert_eq!(broken_pipe(&made, &["check"]), Some(0));
    let mut bytes = fs::read(&made.image).unwrap();
    bytes[1024 + 70] ^= 1;
    fs::write(&made.image, &bytes).unwrap();
    assert_eq!(broken_pipe(&made, &["check"]), Some(6));
    assert_eq!(broken_pipe(&made, &["check", "--json"]), Some(6));
}

/// Directories one in the other to a path that the system does not take in one go.
#[test]
fn a_file_may_have_its_first_name_far_down() {
    const DEPTH: usize = 30;
    let mut raw = Raw::new(12);
    let nids: Vec<u64> = (0..DEPTH).map(|_| raw.reserve(0)).collect();
    let file = raw.reserve(0);
    let inode = Extended {
        nlink: 2.into(),
        ..plain(0o100_644)
    };
    raw.inode(file, 0, inode, &[]);
    for (depth, nid) in nids.iter().enumerate() {
        let mut names = vec![match nids.get(depth + 1) {
            Some(below) => (vec![b'd'; 200], *below, 2),
            None => (b"first".to_vec(), file, 1),
        }];
        if depth == 0 {
            names.push((b"second".to_vec(), file, 1));
        }
        raw.directory(*nid, nids[depth.saturating_sub(1)], names);
    }
    let bytes = raw.finish(nids[0], 0, 0);
    let image = Image::open(&bytes[..]).unwrap();
    let out = tempfile::tempdir().unwrap();
    let report = run(&image, out.path(), false).unwrap();
    assert!(report.is_sound(), "{report:?}");
    assert_eq!(fs::metadata(out.path().join("second")).unwrap().nlink(), 2);
}

#[test]
fn an_owner_that_nobody_can_be_is_said() {
    let mut raw = Raw::new(12);
    let (root, file) = (raw.reserve(0), raw.reserve(0));
    let inode = Extended {
        uid: u32::MAX.into(),
        ..plain(0o104_755)
    };
    raw.inode(file, 0, inode, &[]);
    raw.directory(root, root, vec![(b"file".to_vec(), file, 1)]);
    let bytes = raw.finish(root, 0, 0);
    let image = Image::open(&bytes[..]).unwrap();
    let out = tempfile::tempdir().unwrap();
    let report = run(&image, out.path(), false).unwrap();
    assert!(report.skipped[0].text.contains("4294967295"), "{report:?}");
    assert_eq!(mode(&out.path().join("file")), 0o755);
}
