//! csnapd as a process: one instance, its supervisor, its signals, a kill.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

use std::os::unix::net::UnixDatagram;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use snapstore::create::{CreateOptions, create};
use ublk_target::control::client::{Client, socket_path};
use ublk_target::control::protocol::{Answer, ErrorCode, Request, TakeTarget};
use ublk_target::control::views::PolicyName;
use ublk_target::device::StoreDevice;

/// A running csnapd; killed when dropped.
struct Csnapd(Child);

impl Csnapd {
    /// Starts it and waits until it says that it is ready.
    fn start(dir: &Path) -> Self {
        let notify = dir.join("notify");
        let _ = std::fs::remove_file(&notify);
        let socket = UnixDatagram::bind(&notify).unwrap();
        socket
            .set_read_timeout(Some(Duration::from_secs(30)))
            .unwrap();
        let child = command(dir).env("NOTIFY_SOCKET", &notify).spawn().unwrap();
        let this = Self(child);
        let mut buffer = [0; 64];
        let n = socket
            .recv(&mut buffer)
            .expect("csnapd did not become ready");
        assert_eq!(&buffer[..n], b"READY=1");
        this
    }

    fn signal(&self, signal: Signal) {
        kill(Pid::from_raw(self.0.id() as i32), signal).unwrap();
    }

    fn end(&mut self) -> std::process::ExitStatus {
        let deadline = Instant::now() + Duration::from_secs(30);
        loop {
            if let Some(status) = self.0.try_wait().unwrap() {
                return status;
            }
            assert!(Instant::now() < deadline, "csnapd does not end");
            std::thread::sleep(Duration::from_millis(10));
        }
    }
}

impl Drop for Csnapd {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

fn command(dir: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_csnapd"));
    command
        .arg("--run-dir")
        .arg(dir.join("run"))
        .arg("--state-dir")
        .arg(dir.join("state"));
    command
        .args(["--threads", "1"])
        .env_remove("CSNAP_RUN_DIR")
        .stderr(Stdio::null());
    command
}

fn file(path: &Path, size: u64) -> String {
    std::fs::File::create(path).unwrap().set_len(size).unwrap();
    path.display().to_string()
}

fn call(dir: &Path, request: Request) -> Answer {
    Client::connect(&dir.join("run"))
        .unwrap()
        .call(request)
        .unwrap()
}

#[test]
fn killed_and_restarted_it_has_everything_again() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let dir = dir.path();
    let path = file(&dir.join("store"), 16 << 20);
    let options = CreateOptions {
        uuid: [7; 16],
        chunk_size: 4096,
        created_ms: 0,
        journal_blocks: None,
    };
    create(&mut StoreDevice::open(&path, false).unwrap(), &options).unwrap();
    let mut csnapd = Csnapd::start(dir);
    call(
        dir,
        Request::StoreAttach {
            path,
            accept_changed_origin: vec![],
        },
    );
    let origin = file(&dir.join("origin"), 1 << 20);
    let policy = PolicyName::SnapshotFirst;
    call(
        dir,
        Request::VolumeCreate {
            name: "web".into(),
            origin,
            store: None,
            policy,
        },
    );
    let target = TakeTarget {
        volume: "web".into(),
        name: Some("a".into()),
    };
    call(
        dir,
        Request::SnapshotTake {
            targets: vec![target],
            priority: -3,
        },
    );
    for _ in 0..3 {
        csnapd.signal(Signal::SIGKILL);
        csnapd.end();
        csnapd = Csnapd::start(dir);
        match call(
            dir,
            Request::SnapshotList {
                volume: None,
                after: None,
            },
        ) {
            Answer::Snapshots { items, .. } => {
                let seen: Vec<_> = items.iter().map(|s| (&*s.name, s.priority)).collect();
                assert_eq!(seen, [("a", -3)]);
            }
            other => panic!("{other:?}"),
        }
        match call(dir, Request::VolumeShow { name: "web".into() }) {
            Answer::Volume(volume) => assert_eq!(volume.policy, policy),
            other => panic!("{other:?}"),
        }
    }
}

#[test]
fn one_instance_and_an_orderly_stop() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let dir = dir.path();
    let mut csnapd = Csnapd::start(dir);
    let second = command(dir).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(second.status.code(), Some(1));
    let complaint = String::from_utf8_lossy(&second.stderr).into_owned();
    assert!(complaint.contains("another csnapd is using"), "{complaint}");
    let status = call(dir, Request::Status {});
    assert!(matches!(status, Answer::Status(s) if s.pid == csnapd.0.id()));

    // Someone waits for events: that must not hold up the stop.
    let run = dir.join("run");
    let waiter = std::thread::spawn(move || {
        let mut client = Client::connect(&run).unwrap();
        client.call(Request::Events {
            since: 1000,
            limit: 1,
            wait_ms: 25_000,
        })
    });
    std::thread::sleep(Duration::from_millis(100));
    let start = Instant::now();
    csnapd.signal(Signal::SIGTERM);
    assert!(csnapd.end().success());
    assert!(
        start.elapsed() < Duration::from_secs(10),
        "took {:?}",
        start.elapsed()
    );
    drop(waiter.join().unwrap());
    assert!(!socket_path(&dir.join("run")).exists());
    let failure = Client::connect(&dir.join("run")).unwrap_err();
    assert_eq!(failure.code, ErrorCode::Unreachable);
}

#[test]
fn a_state_that_cannot_be_understood_is_not_guessed() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let state = dir.path().join("state");
    drop(Csnapd::start(dir.path()));
    std::fs::write(state.join("state.json"), "{").unwrap();
    let output = command(dir.path()).stderr(Stdio::piped()).output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(complaint.contains("cannot be understood"), "{complaint}");
}
