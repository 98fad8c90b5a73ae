//! `volume create --format`: nothing is written before all that can be refused is; then
//! the origin holds what was asked for, and csnapd is asked for the volume. csnapd is
//! played by a mock that looks at the origin when it is asked.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

use std::fs::{self, File};
use std::os::unix::fs::{FileExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::{Arc, Mutex};

use imagegen::erofs;
use imagegen::tree::Progress;
use imagegen::xfs::check::check;
use imagegen::xfs::read::Reader;
use serde_json::{Value, json};
use ublk_target::control::client::socket_path;
use ublk_target::control::listener::Listener;
use ublk_target::control::protocol::{Answer, ErrorCode, Failure, Request};
use ublk_target::control::server::{Backend, Patience, serve};
use ublk_target::control::views::{StatusView, StoreView, VolumeView};

const MIB: u64 = 1 << 20;

/// Serves the volume `web`, and so many stores.
struct Mock {
    stores: usize,
    served: PathBuf,
    created: Mutex<Vec<Request>>,
}

fn store(number: usize) -> StoreView {
    let view = json!({
        "path": format!("/nonexistent/store{number}"), "uuid": "", "state": "attached",
        "chunk_size": 16384, "size": 0, "used": 0, "metadata": 0, "volumes": 0, "snapshots": 0,
        "purging": 0, "generation": 0, "journal_used": 0, "journal_blocks": 0, "problem": null,
        "counters": { "chunks_copied": 0, "copies": 0, "data_bytes": 0, "journal_bytes": 0,
            "checkpoint_bytes": 0, "commits": 0, "checkpoints": 0, "writes": 0, "reads": 0,
            "block_reads": 0, "chunks_freed": 0 },
    });
    serde_json::from_value(view).unwrap()
}

fn volume(name: &str, origin: &str) -> VolumeView {
    let view = json!({
        "name": name, "state": "served", "size": 0, "snapshots": 0, "held_bytes": 0,
        "origin": origin, "store": "", "policy": "origin-first", "device": null, "link": null,
        "agreed": null, "clients": 0, "created_ms": 0, "uuid": "", "problem": null,
    });
    serde_json::from_value(view).unwrap()
}

fn status(stores: usize) -> StatusView {
    let stores: Vec<StoreView> = (0..stores).map(store).collect();
    let view = json!({
        "version": "", "pid": 1, "started_ms": 0, "threads": 1, "nbd_socket": "",
        "stores": stores, "volumes_served": 1, "volumes_not_served": 0, "mapped": 0,
        "clients": 0, "newest_event": 0,
    });
    serde_json::from_value(view).unwrap()
}

impl Backend for Mock {
    fn handle(&self, request: Request) -> Result<Answer, Failure> {
        match request.clone() {
            Request::VolumeList { .. } => Ok(Answer::Volumes {
                items: vec![volume("web", self.served.to_str().unwrap())],
                next: None,
            }),
            Request::SnapshotList { .. } => Ok(Answer::Snapshots {
                items: Vec::new(),
                next: None,
            }),
            Request::Status {} => Ok(Answer::Status(status(self.stores))),
            Request::StoreStatus { store: name } if name == "here" => Ok(Answer::Store(store(0))),
            Request::StoreStatus { .. } => Err(Failure::new(ErrorCode::NotFound, "no such store")),
            Request::VolumeCreate { name, origin, .. } => {
                self.created.lock().unwrap().push(request);
                let file = File::open(&origin).unwrap();
                file.try_lock().expect("csnapctl still has the origin");
                is_sound(file);
                match name.as_str() {
                    "unlucky" => Err(Failure::new(ErrorCode::NoSpace, "full").next("make room")),
                    _ => Ok(Answer::Volume(volume(&name, &origin))),
                }
            }
            other => panic!("nobody needs {other:?}"),
        }
    }
}

/// The superblock of EROFS lies where XFS has the rest of its first sector, or zeroes.
fn is_sound(file: File) {
    let mut magic = [0; 4];
    file.read_exact_at(&mut magic, erofs::format::superblock::AT)
        .unwrap();
    if u32::from_le_bytes(magic) == erofs::format::superblock::MAGIC {
        let report = erofs::check::check(file, Vec::new(), &Progress::default());
        assert_eq!(report.exit_code(), 0, "{report:?}");
    } else {
        let report = check(file);
        assert_eq!(report.exit_code(), 0, "{report:?}");
    }
}

struct World {
    dir: tempfile::TempDir,
    mock: Arc<Mock>,
    listener: Option<Listener>,
}

impl World {
    fn new(stores: usize) -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        fs::set_permissions(dir.path(), fs::Permissions::from_mode(0o700)).unwrap();
        let mock = Arc::new(Mock {
            stores,
            served: dir.path().join("served"),
            created: Mutex::default(),
        });
        let listener = serve(&socket_path(dir.path()), mock.clone(), Patience::default());
        let world = Self {
            mock,
            listener: Some(listener.unwrap()),
            dir,
        };
        world.sparse("served", 32 * MIB);
        world
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// A file that is all hole.
    fn sparse(&self, name: &str, size: u64) -> PathBuf {
        let path = self.path(name);
        File::create(&path).unwrap().set_len(size).unwrap();
        path
    }

    /// `volume create LINE` in the world's directory.
    fn create(&self, line: &str) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_csnapctl"));
        command
            .env("CSNAP_RUN_DIR", self.dir.path())
            .current_dir(self.dir.path())
            .args(["volume", "create"])
            .args(line.split_whitespace())
            .stdin(Stdio::null());
        command.output().unwrap()
    }

    /// It must be refused like this, and nothing may have been created.
    fn refuses(&self, line: &str, code: i32, about: &str) {
        let output = self.create(line);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(code), "{line}: {said}");
        assert!(said.contains(about), "{line}: {said}");
        assert_eq!(*self.mock.created.lock().unwrap(), [], "{line}");
    }

    /// It must be refused like this, and nothing more may have been created.
    fn refuses_later(&self, line: &str, code: i32, about: &str) {
        let before = std::mem::take(&mut *self.mock.created.lock().unwrap());
        self.refuses(line, code, about);
        *self.mock.created.lock().unwrap() = before;
    }

    /// It must go well; the JSON of the one volume.
    fn makes(&self, line: &str) -> Value {
        let output = self.create(&format!("{line} --json"));
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(0), "{line}: {said}");
        assert!(said.contains("is formatted"), "{said}");
        let json: Value = serde_json::from_slice(&output.stdout).unwrap();
        assert_eq!(json["schema"], 1);
        json["volumes"][0].clone()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener.stop();
        }
    }
}

fn holds_nothing(path: &Path) {
    let bytes = fs::read(path).unwrap();
    assert!(bytes.iter().all(|byte| *byte == 0), "{}", path.display());
}

fn tree(world: &World) {
    let tree = world.path("tree");
    fs::create_dir(&tree).unwrap();
    fs::create_dir(tree.join("dir")).unwrap();
    let bytes: Vec<u8> = (0..2_u32 << 20).flat_map(u32::to_le_bytes).collect();
    for name in ["one", "two", "dir/three"] {
        fs::write(tree.join(name), &bytes).unwrap();
    }
    fs::hard_link(tree.join("one"), tree.join("dir/again")).unwrap();
}

#[test]
fn wrong_lines_are_refused() {
    let world = World::new(1);
    let origin = world.sparse("origin", 32 * MIB);
    for line in [
        "new origin --from tree",
        "new origin --force",
        "new origin --label x",
        "new origin --dedupe",
        "new origin --for linux-6.1",
        "new origin --format ext4",
        "new origin --format xfs --for linux-5.4",
        "new origin --format xfs -o nosuch",
        "n@w origin --format xfs",
        "new origin --format xfs --compress zstd",
        "new origin --format erofs",
        "new origin --format erofs --from tree --for linux-6.1",
        "new origin --format erofs --from tree --compress zip",
        "new origin --format erofs --from tree --compress zstd,99",
        "new origin --from tree --compress zstd",
        "new origin --format xfs --label thirteen-chars",
    ] {
        world.refuses(line, 2, "");
    }
    holds_nothing(&origin);
    let label = "new origin --format xfs --label thirteen-chars";
    world.refuses(label, 2, "12 bytes");
}

#[test]
fn what_csnapd_would_refuse_is_refused_before_a_byte_is_written() {
    let world = World::new(2);
    let origin = world.sparse("origin", 32 * MIB);
    fs::write(world.path("junk"), "no archive ".repeat(100)).unwrap();
    let link = world.path("link");
    std::os::unix::fs::symlink("served", link).unwrap();
    for (line, code, about) in [
        (
            "web origin --store here --format xfs",
            4,
            "a volume \"web\"",
        ),
        ("new origin --format xfs", 2, "--store"),
        ("new origin --store gone --format xfs", 3, "no such store"),
        ("new nowhere --store here --format xfs", 3, "nowhere"),
        ("new . --store here --format xfs", 2, "regular file"),
        (
            "new served --store here --format xfs --force",
            4,
            "volume web",
        ),
        (
            "new link --store here --format xfs --force",
            4,
            "volume web",
        ),
        (
            "new origin --store here --format xfs --from .",
            2,
            "part of the tree",
        ),
        (
            "new origin --store here --format xfs --from gone",
            3,
            "gone",
        ),
        (
            "new origin --store here --format xfs --from junk",
            1,
            "junk",
        ),
    ] {
        world.refuses(line, code, about);
    }
    let held = File::open(&origin).unwrap();
    held.lock().unwrap();
    let line = "new origin --store here --format xfs --force";
    world.refuses(line, 4, "in use");
    drop(held);
    holds_nothing(&origin);
    holds_nothing(&world.path("served"));
    let none = World::new(0);
    let origin = none.sparse("origin", 32 * MIB);
    none.refuses("new origin --format xfs", 3, "store attach");
    none.refuses(
        "new origin --format xfs --run-dir /nonexistent",
        7,
        "csnapd",
    );
    holds_nothing(&origin);
}

#[test]
fn what_does_not_fit_is_refused_before_a_byte_is_written() {
    let world = World::new(1);
    tree(&world);
    let little = world.sparse("little", 4 * MIB);
    world.refuses("new little --format xfs", 5, "larger origin");
    holds_nothing(&little);
    let small = world.sparse("small", 32 * MIB);
    world.refuses("new small --format xfs --from tree", 5, "--dedupe");
    holds_nothing(&small);
    let file = world.makes("new small --format xfs --from tree --dedupe")["file_system"].clone();
    assert_eq!(file["shared_bytes"], 16 * MIB, "{file}");
}

#[test]
fn data_goes_by_force_only() {
    let world = World::new(1);
    let origin = world.sparse("origin", 32 * MIB);
    let file = File::options().write(true).open(&origin).unwrap();
    for (at, bytes, about) in [
        (9 * MIB, &b"data"[..], "byte 9437184"),
        (0, b"LUKS\xba\xbe", "LUKS"),
    ] {
        file.write_all_at(bytes, at).unwrap();
        let before = fs::read(&origin).unwrap();
        world.refuses("new origin --format xfs", 4, about);
        world.refuses("new origin --format xfs", 4, "--force");
        assert!(fs::read(&origin).unwrap() == before, "refused and changed");
    }
    world.makes("new origin --format xfs --force");
    let mut left = [1; 4];
    file.set_len(32 * MIB).unwrap();
    let reading = File::open(&origin).unwrap();
    reading.read_exact_at(&mut left, 9 * MIB).unwrap();
    assert_eq!(left, [0; 4], "it was not wiped");
}

#[test]
fn the_origin_holds_the_tree_and_then_becomes_a_volume() {
    let world = World::new(1);
    tree(&world);
    let origin = world.sparse("origin", 96 * MIB);
    let before = fs::metadata(&origin).unwrap();
    let volume = world.makes("new origin --format xfs --from tree --label mine --for linux-6.1");
    assert_eq!(volume["name"], "new");
    let made = &volume["file_system"];
    assert_eq!(made["kind"], "xfs");
    assert_eq!(made["label"], "mine");
    assert_eq!(made["oldest_kernel"], "linux-6.1");
    assert_eq!(made["size"], 96 * MIB);
    assert_eq!(made["files"], 3);
    assert_eq!(made["directories"], 2);
    assert_eq!(made["inodes"], 5);
    assert_eq!(made["data_bytes"], 24 * MIB);
    assert_eq!(made["shared_bytes"], 0);
    let free = made["free_bytes"].as_u64().unwrap();
    assert!((48 * MIB..72 * MIB).contains(&free), "{free}");

    let after = fs::metadata(&origin).unwrap();
    assert_eq!((after.ino(), after.len()), (before.ino(), before.len()));
    let reader = Reader::open(File::open(&origin).unwrap()).unwrap();
    let geometry = reader.geometry();
    assert_eq!(geometry.uuid.to_string(), made["uuid"].as_str().unwrap());
    assert!(!geometry.features.rmapbt && !geometry.features.nrext64);
    let asked = world.mock.created.lock().unwrap().clone();
    let absolute = origin.to_str().unwrap();
    assert!(
        matches!(&asked[..], [Request::VolumeCreate { origin, .. }] if origin == absolute),
        "{asked:?}"
    );
}

#[test]
fn an_origin_may_be_read_only_and_compressed() {
    let world = World::new(1);
    tree(&world);
    let origin = world.sparse("origin", 64 * MIB);
    let plain = world.makes("new origin --format erofs --from tree --label of-erofs");
    let plain = &plain["file_system"];
    assert_eq!(plain["kind"], "erofs");
    assert_eq!((&plain["files"], &plain["inodes"]), (&json!(3), &json!(5)));
    assert_eq!(plain["data_bytes"], json!(3 * 8 * MIB));
    assert!(plain["size"].as_u64().unwrap() > 24 * MIB, "{plain}");
    let whole = fs::metadata(&origin).unwrap().len();
    assert_eq!(whole, 64 * MIB, "an origin keeps its length");

    let line = "other origin --format erofs --from tree --compress zstd,1";
    world.refuses_later(line, 4, "--force");
    let packed = world.makes(&format!("{line} --force"));
    let packed = &packed["file_system"];
    assert_eq!(packed["oldest_kernel"], "linux-6.10");
    assert!(packed["size"].as_u64().unwrap() < 24 * MIB, "{packed}");
    assert_ne!(plain["uuid"], packed["uuid"]);
    let line = "third origin --format erofs --from tree --compress lz4 --dedupe --force";
    let shared = world.makes(line);
    assert_eq!(shared["file_system"]["oldest_kernel"], "linux-6.1");
}

#[test]
fn a_tree_too_large_for_an_origin_leaves_it_alone() {
    let world = World::new(1);
    tree(&world);
    let origin = world.sparse("origin", 20 * MIB);
    world.refuses("new origin --format erofs --from tree", 5, "no room");
    holds_nothing(&origin);
}

#[test]
fn empty_origins_differ_in_their_identity() {
    let world = World::new(1);
    let uuid = |name: &str| {
        world.sparse(name, 64 * MIB);
        let made = world.makes(&format!("{name} {name} --format xfs"))["file_system"].clone();
        assert_eq!((&made["files"], &made["inodes"]), (&json!(0), &json!(1)));
        made["uuid"].as_str().unwrap().to_owned()
    };
    assert_ne!(uuid("a"), uuid("b"));
}

#[test]
fn a_tar_file_is_a_tree() {
    let world = World::new(1);
    tree(&world);
    let tar = Command::new("tar")
        .args(["-cf", "tree.tar", "-C", "tree", "."])
        .current_dir(world.dir.path())
        .status();
    assert!(tar.unwrap().success());
    world.sparse("origin", 96 * MIB);
    let made = world.makes("new origin --format xfs --from tree.tar --for linux-7.2");
    assert_eq!(made["file_system"]["files"], 3);
    let reader = Reader::open(File::open(world.path("origin")).unwrap()).unwrap();
    let features = reader.geometry().features;
    assert!(features.rmapbt && features.parent && features.exchange);
}

#[test]
fn a_volume_that_is_refused_after_all_leaves_the_origin_formatted_and_says_so() {
    let world = World::new(1);
    let origin = world.sparse("origin", 64 * MIB);
    let output = world.create("unlucky origin --store here --format xfs");
    let said = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(5), "{said}");
    assert_eq!(output.stdout, b"");
    let path = origin.to_str().unwrap();
    for words in [
        "csnapctl: full\n".to_owned(),
        "make room; the origin is formatted".to_owned(),
        format!("csnapctl volume create unlucky {path} --store here\n"),
    ] {
        assert!(said.contains(&words), "{said}");
    }
    assert_eq!(check(File::open(&origin).unwrap()).exit_code(), 0);
    world.refuses_again("unlucky origin --store here --format xfs");
}

impl World {
    /// What was formatted a moment ago is not formatted again by mistake.
    fn refuses_again(&self, line: &str) {
        let output = self.create(line);
        let said = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(4), "{said}");
        assert!(said.contains("XFS"), "{said}");
    }
}
