//! `csnapctl snapshot mount` for real: file systems on read-only loop devices stand
//! for snapshots' devices, a mock for the daemon. Needs root, a free loop device
//! and the tools that make the file systems; what is missing is said.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stderr,
    reason = "a test stops at the first surprise"
)]

use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use ublk_target::control::client::socket_path;
use ublk_target::control::listener::Listener;
use ublk_target::control::protocol::{Answer, Failure, Request};
use ublk_target::control::server::{Backend, Patience, serve};
use ublk_target::control::views::{SnapshotStateName, SnapshotView};

/// A daemon with one snapshot.
struct Mock {
    device: Option<String>,
    mapped: Mutex<bool>,
}

impl Backend for Mock {
    fn handle(&self, request: Request) -> Result<Answer, Failure> {
        let mut mapped = self.mapped.lock().unwrap();
        match request {
            Request::SnapshotMap { .. } => *mapped = true,
            Request::SnapshotUnmap { .. } => *mapped = false,
            Request::SnapshotShow { .. } => {}
            other => panic!("unexpected: {other:?}"),
        }
        Ok(Answer::Snapshot(SnapshotView {
            volume: "web".into(),
            name: "monday".into(),
            tag: 7,
            created_ms: 0,
            size: 1 << 30,
            exclusive_bytes: 0,
            shared_bytes: 0,
            priority: 0,
            state: SnapshotStateName::Live,
            dropped: None,
            mapped: *mapped,
            held: false,
            device: self.device.clone().filter(|_| *mapped),
            link: None,
            agreed: None,
            export: None,
            clients: 0,
            uses: 0,
        }))
    }
}

/// A loop device over an image; read-only, like a snapshot.
struct Loop(String);

impl Loop {
    fn new(image: &Path) -> Option<Self> {
        let output = run("losetup", &["--find", "--show", "--read-only"], &[image]);
        if !output.status.success() {
            eprintln!("not run: no loop device: {}", text(&output.stderr));
            return None;
        }
        Some(Self(text(&output.stdout).trim().to_owned()))
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        run("losetup", &["--detach", &self.0], &[]);
    }
}

struct World {
    dir: tempfile::TempDir,
    mock: Arc<Mock>,
    listener: Option<Listener>,
    _device: Option<Loop>,
}

impl World {
    fn new(device: Option<Loop>) -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let mock = Arc::new(Mock {
            device: device.as_ref().map(|device| device.0.clone()),
            mapped: Mutex::new(false),
        });
        let listener = serve(&socket_path(dir.path()), mock.clone(), Patience::default());
        std::fs::create_dir(dir.path().join("mnt")).unwrap();
        Self {
            dir,
            mock,
            listener: Some(listener.unwrap()),
            _device: device,
        }
    }

    fn mnt(&self) -> PathBuf {
        self.dir.path().join("mnt")
    }

    fn mapped(&self) -> bool {
        *self.mock.mapped.lock().unwrap()
    }

    /// `csnapctl snapshot VERB ARGS DIR`.
    fn csnapctl(&self, args: &[&str], dir: &Path) -> Output {
        let mut command = Command::new(env!("CARGO_BIN_EXE_csnapctl"));
        command.env("CSNAP_RUN_DIR", self.dir.path());
        command.arg("snapshot").args(args).arg(dir);
        command.output().unwrap()
    }

    fn mount(&self, args: &[&str]) -> Output {
        let all: Vec<&str> = ["mount", "web@monday"]
            .iter()
            .chain(args)
            .copied()
            .collect();
        self.csnapctl(&all, &self.mnt())
    }

    fn umount(&self) -> Output {
        self.csnapctl(&["umount"], &self.mnt())
    }
}

impl Drop for World {
    fn drop(&mut self) {
        run("umount", &["--quiet", "--all-targets"], &[&self.mnt()]);
        if let Some(listener) = self.listener.take() {
            listener.stop();
        }
    }
}

fn run(program: &str, args: &[&str], paths: &[&Path]) -> Output {
    let output = Command::new(program).args(args).args(paths).output();
    output.unwrap_or_else(|error| panic!("{program}: {error}"))
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn ok(output: &Output) -> String {
    assert_eq!(code(output), 0, "{}", text(&output.stderr));
    text(&output.stdout)
}

fn is_root() -> bool {
    let root = text(&run("id", &["-u"], &[]).stdout).trim() == "0";
    if !root {
        eprintln!("not run: mounting needs root");
    }
    root
}

/// A new image, made by `program`; a hello in it if that can be had.
fn image(dir: &Path, program: &str, args: &[&str]) -> Option<PathBuf> {
    let path = dir.join(program);
    std::fs::File::create(&path)
        .unwrap()
        .set_len(512 << 20)
        .unwrap();
    match Command::new(program).args(args).arg(&path).output() {
        Err(error) => {
            eprintln!("not run: {program}: {error}");
            None
        }
        Ok(output) => {
            assert!(output.status.success(), "{program}: {output:?}");
            Some(path)
        }
    }
}

fn options_of(dir: &Path) -> String {
    text(
        &run(
            "findmnt",
            &["--noheadings", "--output", "FSTYPE,OPTIONS"],
            &[dir],
        )
        .stdout,
    )
}

#[test]
fn file_systems_are_recognised_mounted_and_unmounted() {
    if !is_root() {
        return;
    }
    let images = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    for (program, args, kind, option) in [
        ("mkfs.ext4", &["-q", "-F"][..], "ext4", "norecovery"),
        ("mkfs.xfs", &["-q", "-f"], "xfs", "norecovery"),
    ] {
        let Some(image) = image(images.path(), program, args) else {
            continue;
        };
        // The origin stays mounted: the same UUID twice.
        let origin = images.path().join(format!("origin-{kind}"));
        std::fs::create_dir(&origin).unwrap();
        let copy = images.path().join(format!("copy-{kind}"));
        std::fs::copy(&image, &copy).unwrap();
        let mounted = run("mount", &["-o", "loop"], &[&copy, &origin]);
        assert!(mounted.status.success(), "{mounted:?}");
        let Some(device) = Loop::new(&image) else {
            run("umount", &[], &[&origin]);
            continue;
        };
        let world = World::new(Some(device));
        let result = world.mount(&["--json"]);
        run("umount", &[], &[&origin]);
        let said: serde_json::Value = serde_json::from_str(&ok(&result)).unwrap();
        let row = &said["mounted"][0];
        assert_eq!(row["snapshot"], "web@monday");
        assert_eq!(row["fs"], kind);
        assert_eq!(row["log"], if kind == "xfs" { "unknown" } else { "clean" });
        assert_eq!(row["mapped"], true);
        let options = options_of(&world.mnt());
        for wanted in [kind, "ro,", "nosuid", "nodev", option] {
            assert!(options.contains(wanted), "{wanted}: {options}");
        }
        assert!(world.mapped());

        // In use: refused, with the user's name.
        let mut user = Command::new("sleep");
        let mut user = user.arg("60").current_dir(world.mnt()).spawn().unwrap();
        let busy = world.umount();
        user.kill().unwrap();
        user.wait().unwrap();
        assert_eq!(code(&busy), 4, "{busy:?}");
        let complaint = text(&busy.stderr);
        assert!(
            complaint.contains(&format!("sleep (process {})", user.id())),
            "{complaint}"
        );
        assert!(world.mapped());

        ok(&world.umount());
        assert!(!world.mapped(), "mounting had mapped it");
        assert_eq!(options_of(&world.mnt()), "");
        assert_eq!(code(&world.umount()), 3);
    }
}

/// A world whose snapshot holds an ext4; `None` where none can be mounted.
fn world_of_ext4() -> Option<(tempfile::TempDir, World)> {
    if !is_root() {
        return None;
    }
    let images = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let image = image(images.path(), "mkfs.ext4", &["-q", "-F"])?;
    let device = Loop::new(&image)?;
    Some((images, World::new(Some(device))))
}

#[test]
fn what_was_mapped_before_stays_mapped() {
    let Some((_images, world)) = world_of_ext4() else {
        return;
    };
    *world.mock.mapped.lock().unwrap() = true;
    let printed = ok(&world.mount(&["--options", "suid,noexec"]));
    assert!(
        printed.contains("web@monday") && printed.contains("ext4"),
        "{printed}"
    );
    let options = options_of(&world.mnt());
    assert!(
        options.contains("noexec") && !options.contains("nosuid"),
        "{options}"
    );
    let by_name = world.csnapctl(&["umount"], Path::new("web@monday"));
    ok(&by_name);
    assert!(world.mapped());
    assert_eq!(options_of(&world.mnt()), "");
}

#[test]
fn several_mounts_go_together_or_not_at_all() {
    let Some((_images, world)) = world_of_ext4() else {
        return;
    };
    let second = world.dir.path().join("second");
    ok(&world.mount(&[]));
    ok(&world.csnapctl(&["mount", "web@monday", "--mkdir"], &second));
    // The one that is unmounted last is in use.
    let mut user = Command::new("sleep");
    let mut user = user.arg("60").current_dir(world.mnt()).spawn().unwrap();
    let name = Path::new("web@monday");
    let busy = world.csnapctl(&["umount"], name);
    user.kill().unwrap();
    user.wait().unwrap();
    assert_eq!(code(&busy), 4, "{busy:?}");
    let said = text(&busy.stderr);
    assert!(said.contains("nothing was unmounted"), "{said}");
    for dir in [&world.mnt(), &second] {
        assert!(options_of(dir).contains("ext4"), "{}", dir.display());
    }
    let both = world.csnapctl(&["umount"], name);
    let gone = [&world.mnt(), &second].map(|dir| options_of(dir));
    run("umount", &["--quiet"], &[&second]);
    ok(&both);
    assert_eq!(gone, ["", ""]);
    assert!(!world.mapped(), "mounting had mapped it");
}

#[test]
fn an_unclean_journal_is_said_and_a_partition_is_found() {
    if !is_root() {
        return;
    }
    let images = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let Some(image) = image(images.path(), "mkfs.ext4", &["-q", "-F"]) else {
        return;
    };
    let marked = run(
        "debugfs",
        &["-w", "-R", "feature needs_recovery"],
        &[&image],
    );
    assert!(marked.status.success());
    // One partition at 1 MiB.
    let disk = images.path().join("disk");
    let mut bytes = vec![0; 1 << 20];
    bytes[446 + 4] = 0x83;
    bytes[446 + 8..446 + 12].copy_from_slice(&2048u32.to_le_bytes());
    bytes[446 + 12..446 + 16].copy_from_slice(&(1u32 << 20).to_le_bytes());
    bytes[510..512].copy_from_slice(&[0x55, 0xaa]);
    bytes.extend(std::fs::read(&image).unwrap());
    std::fs::write(&disk, bytes).unwrap();
    let Some(device) = Loop::new(&disk) else {
        return;
    };
    let world = World::new(Some(device));

    let whole = world.mount(&[]);
    assert_eq!(code(&whole), 1);
    assert!(text(&whole.stderr).contains("--partition"), "{whole:?}");
    assert!(!world.mapped(), "what failed leaves nothing behind");
    let none = world.mount(&["--partition", "2"]);
    assert_eq!(code(&none), 1);

    let mounted = world.mount(&["--partition", "1"]);
    assert!(text(&mounted.stderr).contains("not frozen"), "{mounted:?}");
    ok(&mounted);
    assert!(options_of(&world.mnt()).contains("ext4"));
    ok(&world.umount());
    assert!(!world.mapped());
}

#[test]
fn what_cannot_be_mounted_is_refused_before_anything_happens() {
    let world = World::new(None);
    let mnt = world.mnt();
    let refused = |args: &[&str], expected: i32, why: &str| {
        let output = world.mount(args);
        assert_eq!(code(&output), expected, "{args:?}: {output:?}");
        assert!(text(&output.stderr).contains(why), "{args:?}: {output:?}");
        assert!(!world.mapped());
    };
    refused(&[], 1, "nbd-client");
    refused(&["--options", "rw"], 2, "never changes");
    refused(&["--partition", "0"], 2, "partition");
    std::fs::write(mnt.join("file"), "").unwrap();
    refused(&[], 4, "not empty");
    let new = world.dir.path().join("new");
    let missing = world.csnapctl(&["mount", "web@monday"], &new);
    assert_eq!(code(&missing), 3, "{missing:?}");
    let made = world.csnapctl(&["mount", "web@monday", "--mkdir"], &new);
    assert_eq!(code(&made), 1);
    assert!(!new.exists(), "a directory made for nothing goes again");
    let nothing = world.csnapctl(&["umount"], &mnt);
    assert_eq!(code(&nothing), 3, "{nothing:?}");
}
