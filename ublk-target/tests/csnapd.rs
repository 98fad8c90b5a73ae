//! csnapd as a process: one instance, its supervisor, its signals, a kill.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

use std::io::{BufRead, BufReader};
use std::os::fd::OwnedFd;
use std::os::unix::net::{UnixDatagram, UnixListener, UnixStream};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use snapstore::create::{CreateOptions, create};
use ublk_target::control::client::{Client, socket_path};
use ublk_target::control::listener::private_directory;
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

/// Attaches a new store with a volume `web`.
fn attach_web(dir: &Path, policy: PolicyName) {
    let path = file(&dir.join("store"), 16 << 20);
    let options = CreateOptions {
        uuid: [7; 16],
        chunk_size: 4096,
        checksum: snapstore::Checksum::default(),
        created_ms: 0,
        journal_blocks: None,
    };
    create(&mut StoreDevice::open(&path, false).unwrap(), &options).unwrap();
    call(
        dir,
        Request::StoreAttach {
            path,
            accept_changed_origin: vec![],
            same_origin: vec![],
        },
    );
    let origin = file(&dir.join("origin"), 1 << 20);
    call(
        dir,
        Request::VolumeCreate {
            name: "web".into(),
            origin,
            store: None,
            policy,
        },
    );
}

#[test]
fn killed_and_restarted_it_has_everything_again() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let dir = dir.path();
    let mut csnapd = Csnapd::start(dir);
    let policy = PolicyName::SnapshotFirst;
    attach_web(dir, policy);
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
fn a_start_that_fails_half_way_ends_in_order() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let dir = dir.path();
    let mut csnapd = Csnapd::start(dir);
    attach_web(dir, PolicyName::OriginFirst);
    csnapd.signal(Signal::SIGTERM);
    assert!(csnapd.end().success());
    let occupied = dir.join("occupied");
    std::fs::create_dir(&occupied).unwrap();
    let mut failing = command(dir);
    failing.args(["--frontend", "nbd", "--nbd-socket"]);
    let failed = failing.arg(occupied).output();
    assert_eq!(failed.unwrap().status.code(), Some(1));
    let _csnapd = Csnapd::start(dir);
    let events = Request::Events {
        since: 0,
        limit: 100,
        wait_ms: 0,
    };
    let Answer::Events { items, .. } = call(dir, events) else {
        panic!("no events");
    };
    let attached = items.iter().find(|event| event.kind == "store-attached");
    let message = &attached.unwrap().message;
    assert!(message.ends_with("after an orderly stop"), "{message}");
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

/// Runs csnapd with the listening socket of `dir` as descriptor 3, as systemd does.
fn activated(dir: &Path, listener: UnixListener) -> Child {
    let direct = command(dir);
    let mut shell = Command::new("sh");
    shell
        .args(["-c", "LISTEN_PID=$$ exec \"$0\" \"$@\" 3<&0 0</dev/null"])
        .arg(direct.get_program())
        .args(direct.get_args())
        .env("LISTEN_FDS", "1")
        .env("LISTEN_FDNAMES", "control")
        .env_remove("CSNAP_RUN_DIR")
        .stdin(OwnedFd::from(listener))
        .stderr(Stdio::piped());
    shell.spawn().unwrap()
}

#[test]
fn a_passed_socket_is_served_and_outlives_the_daemon() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let dir = dir.path();
    private_directory(&dir.join("run")).unwrap();
    let path = socket_path(&dir.join("run"));
    let socket = UnixListener::bind(&path).unwrap();
    for _ in 0..2 {
        let mut csnapd = Csnapd(activated(dir, socket.try_clone().unwrap()));
        // Connects before there is a daemon: the socket waits for it.
        let status = call(dir, Request::Status {});
        assert!(matches!(status, Answer::Status(s) if s.pid == csnapd.0.id()));
        csnapd.signal(Signal::SIGTERM);
        assert!(csnapd.end().success());
        assert!(path.exists(), "csnapd removed a socket that is not its own");
    }
}

#[test]
fn a_passed_socket_that_does_not_fit_is_refused() {
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let (one, _other) = UnixStream::pair().unwrap();
    let csnapd = activated(dir.path(), UnixListener::from(OwnedFd::from(one)));
    let output = csnapd.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(1));
    let complaint = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(complaint.contains("does not listen"), "{complaint}");
}

/// In a mount namespace of its own, shared like that of a machine with systemd.
const OWN_MOUNTS: &str = r#"
set -eu
mount -t tmpfs before "$DIR/a"
"$0" "$@" 2> "$DIR/log" &
pid=$!
trap 'kill -9 $pid' EXIT
for _ in $(seq 300); do grep -q ready "$DIR/log" && break; sleep 0.1; done
grep -q 'own_mounts=true' "$DIR/log"
sees() { grep -q " $DIR/$1 " "/proc/$pid/mountinfo"; }
test "$(readlink /proc/$pid/ns/mnt)" != "$(readlink /proc/self/ns/mnt)"
sees a
umount "$DIR/a"
if sees a; then echo "csnapd keeps a file system busy"; exit 1; fi
mount -t tmpfs after "$DIR/b"
sees b
"#;

#[test]
fn its_mounts_are_its_own_and_follow_the_machine() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not run: this needs root");
        return;
    }
    let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
    let dir = dir.path();
    for name in ["a", "b"] {
        std::fs::create_dir(dir.join(name)).unwrap();
    }
    let direct = command(dir);
    let output = Command::new("unshare")
        .args(["-m", "--propagation", "shared", "sh", "-c", OWN_MOUNTS])
        .arg(direct.get_program())
        .args(direct.get_args())
        .env("DIR", dir)
        .output()
        .unwrap();
    let log = std::fs::read_to_string(dir.join("log")).unwrap_or_default();
    assert!(output.status.success(), "{output:?}\n{log}");
}

#[test]
fn without_privilege_it_serves_all_the_same() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("not run: this needs root, to give it up");
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let nobody = 65534;
    std::os::unix::fs::chown(dir.path(), Some(nobody), Some(nobody)).unwrap();
    let direct = command(dir.path());
    // Copied: the build directory may be closed to others.
    let program = dir.path().join("csnapd");
    std::fs::copy(direct.get_program(), &program).unwrap();
    let mut child = Command::new("setpriv")
        .args(["--reuid", "65534", "--regid", "65534", "--clear-groups"])
        .arg(&program)
        .args(direct.get_args())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    let log = BufReader::new(child.stderr.take().unwrap());
    let csnapd = Csnapd(child);
    let mut said = String::new();
    for line in log.lines() {
        said += &(line.unwrap() + "\n");
        if said.contains("ready") {
            break;
        }
    }
    drop(csnapd);
    assert!(said.contains("ready"), "{said}");
    for lost in [
        "memory_locked=false",
        "oom_protected=false",
        "io_flusher=false",
        "own_mounts=false",
    ] {
        assert!(said.contains(lost), "{lost}: {said}");
    }
    let warned = |line: &str| line.contains("WARN") && line.contains("run csnapd with");
    assert!(
        !said.lines().any(warned),
        "no warning where no device is served: {said}"
    );
}
