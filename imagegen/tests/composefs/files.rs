//! Directories and other sources: hashed, kept in a store, and the same image as others
//! make of them.

use crate::judges::{equal, mkcomposefs, oracle, succeed};
use crate::same::{V0, V1, V2};
use imagegen::erofs::composefs::{
    Collect, ComposefsError, Format, HardLinks, Prepared, Store, Tree, collect,
};
use imagegen::tree::{Directory, Oci, OciOptions, Progress, Source, Tar, WalkOptions};
use serde_json::json;
use sha2::{Digest, Sha256};
use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

/// A directory of all that a user may make, and of devices where that is root.
pub(crate) fn populate(tree: &Path) {
    let path = |name: &str| tree.join(name);
    fs::create_dir_all(path("deep/er/est")).unwrap();
    fs::create_dir(path("wide")).unwrap();
    for number in 0..300 {
        let name = format!("wide/{}-{number}", "n".repeat(number % 200));
        fs::write(path(&name), format!("{number}")).unwrap();
    }
    for size in [0, 1, 64, 65, 4096, 4097, 300_000] {
        let bytes: Vec<u8> = (0..size).map(|at| (at / 7 % 251) as u8).collect();
        fs::write(path(&format!("deep/{size}")), &bytes).unwrap();
        // The same again: one object.
        fs::write(path(&format!("deep/er/{size}")), &bytes).unwrap();
    }
    sparse(&path("sparse"));
    symlink("deep/65", path("link")).unwrap();
    symlink("x".repeat(3000), path("long link")).unwrap();
    fs::hard_link(path("deep/4097"), path("deep/er/est/again")).unwrap();
    fs::hard_link(path("deep/1"), path("wide/0 again")).unwrap();
    xattr::set(path("deep/65"), "user.some", b"value").unwrap();
    xattr::set(path("deep/64"), "user.some", b"value").unwrap();
    if !rustix::process::geteuid().is_root() {
        return;
    }
    let special = |name: &str, kind: rustix::fs::FileType, device: u64| {
        let mode = rustix::fs::Mode::from_raw_mode(0o640);
        rustix::fs::mknodat(rustix::fs::CWD, path(name), kind, mode, device).unwrap();
    };
    special(
        "null",
        rustix::fs::FileType::CharacterDevice,
        rustix::fs::makedev(1, 3),
    );
    special(
        "disk",
        rustix::fs::FileType::BlockDevice,
        rustix::fs::makedev(259, 70_000),
    );
    special("pipe", rustix::fs::FileType::Fifo, 0);
    special("deep/gone", rustix::fs::FileType::CharacterDevice, 0);
    std::os::unix::fs::chown(path("wide"), Some(70_000), Some(5)).unwrap();
    xattr::set(path("deep"), "trusted.overlay.opaque", b"y").unwrap();
    xattr::set(path("wide"), "trusted.some", b"").unwrap();
}

/// 3 MiB, of which some bytes in the middle are data.
fn sparse(path: &Path) {
    use std::os::unix::fs::FileExt;
    let file = fs::File::create(path).unwrap();
    file.set_len(3 << 20).unwrap();
    file.write_all_at(&[9; 5000], 1 << 20).unwrap();
}

fn directory(path: &Path) -> Directory {
    Directory::open(path, &WalkOptions::default()).unwrap()
}

/// The image of a source.
fn image(
    source: &dyn Source,
    format: Format,
    hard_links: HardLinks,
    store: Option<&Store>,
) -> Vec<u8> {
    let mut bytes = Vec::new();
    let tree = tree(source, hard_links, store, 0).unwrap();
    let prepared = Prepared::new(tree, format).unwrap();
    prepared.lay_out().unwrap().write(&mut bytes).unwrap();
    bytes
}

fn tree(
    source: &dyn Source,
    hard_links: HardLinks,
    store: Option<&Store>,
    threads: usize,
) -> Result<Tree, ComposefsError> {
    let how = Collect {
        hard_links,
        store,
        threads,
    };
    collect(source, &how, &Progress::default())
}

/// What lies in a store: contents and rights by path.
fn objects(store: &Path) -> BTreeMap<PathBuf, (Vec<u8>, u32)> {
    let mut found = BTreeMap::new();
    for parent in fs::read_dir(store).unwrap() {
        let parent = parent.unwrap().path();
        for object in fs::read_dir(&parent).unwrap() {
            let object = object.unwrap().path();
            let mode = object.metadata().unwrap().permissions().mode();
            let name = object.strip_prefix(store).unwrap().to_owned();
            found.insert(name, (fs::read(&object).unwrap(), mode));
        }
    }
    found
}

#[test]
fn directories_and_stores_are_those_of_mkcomposefs() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    populate(&path("tree"));
    let source = directory(&path("tree"));
    for format in [Format::Auto, V0, V1] {
        let Some(mut command) = mkcomposefs(format) else {
            return;
        };
        let theirs = path("their store");
        let option = format!("--digest-store={}", theirs.display());
        command.arg(option).args([path("tree"), path("theirs")]);
        succeed(&mut command);
        let store = Store::open(&path("store")).unwrap();
        let ours = image(&source, format, HardLinks::Split, Some(&store));
        let new = store.finish(true).unwrap();
        let what = format!("{format:?}");
        equal(&ours, &fs::read(path("theirs")).unwrap(), &what);
        let (ours, theirs) = (objects(&path("store")), objects(&theirs));
        assert!(ours == theirs, "{:?} {:?}", ours.keys(), theirs.keys());
        // The second time all are there.
        assert_eq!(
            new,
            if format == Format::Auto {
                ours.len() as u64
            } else {
                0
            }
        );
    }
}

#[test]
fn directories_are_those_of_the_crate() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("tree");
    populate(&path);
    // Longer than the crate takes.
    fs::remove_file(path.join("long link")).unwrap();
    let Some(mut command) = oracle(V2) else {
        return;
    };
    let theirs = succeed(command.arg("dir").arg(&path));
    let ours = image(&directory(&path), V2, HardLinks::Keep, None);
    equal(&ours, &theirs, "directory");
}

#[test]
fn holes_stay_and_nothing_else_is_left() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    populate(&path("tree"));
    let store = Store::open(&path("store")).unwrap();
    tree(&directory(&path("tree")), HardLinks::Keep, Some(&store), 3).unwrap();
    // Not a name is seen before all are whole.
    assert!(
        objects(&path("store"))
            .keys()
            .all(|name| name.starts_with(".new-") || name.to_string_lossy().starts_with(".new-"))
    );
    let new = store.finish(false).unwrap();
    let found = objects(&path("store"));
    assert_eq!((found.len() as u64, new), (5, 5), "{:?}", found.keys());
    let sparse = found.iter().find(|(_, (bytes, _))| bytes.len() == 3 << 20);
    let object = path("store").join(sparse.unwrap().0);
    let blocks = |path: &Path| fs::metadata(path).unwrap().blocks();
    assert_eq!(blocks(&object), blocks(&path("tree/sparse")));
    // One that is given up leaves nothing.
    fs::write(path("tree/more"), vec![1; 100]).unwrap();
    let store = Store::open(&path("store")).unwrap();
    tree(&directory(&path("tree")), HardLinks::Keep, Some(&store), 1).unwrap();
    drop(store);
    assert!(objects(&path("store")) == found);
}

#[test]
fn what_a_killed_process_left_goes_and_what_a_living_one_needs_stays() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    populate(&path("tree"));
    let left = path("store/.new-killed");
    fs::create_dir_all(&left).unwrap();
    fs::write(left.join("ab-cdef"), "half").unwrap();
    let first = Store::open(&path("store")).unwrap();
    assert!(!left.exists());
    tree(&directory(&path("tree")), HardLinks::Keep, Some(&first), 1).unwrap();
    let second = Store::open(&path("store")).unwrap();
    tree(&directory(&path("tree")), HardLinks::Keep, Some(&second), 1).unwrap();
    assert_eq!(first.finish(false).unwrap(), 5);
    drop(second);
    let found = objects(&path("store"));
    assert_eq!(found.len(), 5, "{:?}", found.keys());
}

#[test]
fn an_object_of_another_size_is_not_taken_for_it() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    fs::create_dir(path("tree")).unwrap();
    fs::write(path("tree/file"), vec![1; 100]).unwrap();
    let collected = || {
        let store = Store::open(&path("store")).unwrap();
        tree(&directory(&path("tree")), HardLinks::Keep, Some(&store), 1)?;
        store.finish(false)
    };
    assert_eq!(collected().unwrap(), 1);
    let name = objects(&path("store")).into_keys().next().unwrap();
    fs::write(path("store").join(name), "short").unwrap();
    let refused = collected().unwrap_err().to_string();
    assert!(refused.contains("no object of that digest"), "{refused}");
}

/// An OCI image layout in the directory `path` whose one layer is this archive.
fn layout(path: &Path, layer: &[u8]) -> Oci {
    fs::create_dir_all(path.join("blobs/sha256")).unwrap();
    let blob = |kind: &str, bytes: &[u8]| {
        let digest = Sha256::digest(bytes);
        let digits: String = digest.iter().map(|byte| format!("{byte:02x}")).collect();
        fs::write(path.join("blobs/sha256").join(&digits), bytes).unwrap();
        let kind = format!("application/vnd.oci.image.{kind}");
        json!({"mediaType": kind, "digest": format!("sha256:{digits}"), "size": bytes.len()})
    };
    let layers = [blob("layer.v1.tar", layer)];
    let config = blob("config.v1+json", b"{}");
    let manifest = json!({"schemaVersion": 2, "config": config, "layers": layers});
    let manifests = [blob("manifest.v1+json", manifest.to_string().as_bytes())];
    let index = json!({"schemaVersion": 2, "manifests": manifests});
    fs::write(path.join("index.json"), index.to_string()).unwrap();
    let version = json!({"imageLayoutVersion": "1.0.0"});
    fs::write(path.join("oci-layout"), version.to_string()).unwrap();
    Oci::open(path, &OciOptions::default()).unwrap()
}

#[test]
fn a_tar_file_and_a_layer_give_the_image_of_their_directory_with_any_number_of_threads() {
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| dir.path().join(name);
    populate(&path("tree"));
    let mut tar = Command::new("tar");
    tar.args([
        "--format=posix",
        "--xattrs",
        "--xattrs-include=*",
        "-S",
        "-C",
    ])
    .arg(path("tree"))
    .args(["--numeric-owner", "-cf"])
    .arg(path("tar"))
    .arg(".");
    succeed(&mut tar);
    let layer = layout(&path("oci"), &fs::read(path("tar")).unwrap());
    let tar = Tar::open(&path("tar")).unwrap();
    let directory = directory(&path("tree"));
    for hard_links in [HardLinks::Keep, HardLinks::Split] {
        let one = tree(&directory, hard_links, None, 1).unwrap();
        for threads in [2, 5] {
            assert!(one == tree(&directory, hard_links, None, threads).unwrap());
        }
        let wanted = image(&directory, Format::Auto, hard_links, None);
        for source in [&tar as &dyn Source, &layer] {
            let ours = image(source, Format::Auto, hard_links, None);
            equal(&ours, &wanted, &format!("{hard_links:?}"));
        }
    }
}

#[test]
fn a_file_that_changes_is_named() {
    let dir = tempfile::tempdir().unwrap();
    fs::write(dir.path().join("large"), vec![1; 1 << 20]).unwrap();
    let source = directory(dir.path());
    /// Shortens the file when its turn comes.
    struct Meddling<'a>(&'a Directory, PathBuf);
    impl Source for Meddling<'_> {
        fn walk(
            &self,
            detail: imagegen::tree::Detail,
        ) -> Result<imagegen::tree::Walk<'_>, imagegen::tree::TreeError> {
            let walk = self.0.walk(detail)?;
            Ok(Box::new(walk.inspect(|event| {
                if let Ok(imagegen::tree::Event::Node(_)) = event {
                    fs::write(&self.1, "short").unwrap();
                }
            })))
        }
    }
    let meddling = Meddling(&source, dir.path().join("large"));
    let refused = tree(&meddling, HardLinks::Keep, None, 1).unwrap_err();
    let refused = refused.to_string();
    assert!(refused.contains("/large: changed while"), "{refused}");
}
