//! The control socket against clients that are hostile, slow, many or confused:
//! each gets a clear error or is cut off, and a well-behaved one is served all the
//! while.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

use std::io::{Read, Write};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, LazyLock};
use std::time::{Duration, Instant};

use proptest::prelude::*;
use ublk_target::control::client::{Client, socket_path};
use ublk_target::control::frame::{MAX_FRAME, read_frame, write_frame};
use ublk_target::control::listener::{ListenError, Listener};
use ublk_target::control::protocol::{
    Answer, ErrorCode, Failure, Outcome, Request, RequestFrame, ResponseFrame, VERSION,
};
use ublk_target::control::server::{Backend, MAX_CLIENTS, Patience, serve};

const LONG: Duration = Duration::from_secs(5);

/// Counts what reaches it; knows `volume.show` of "web" only.
#[derive(Default)]
struct Mock {
    handled: AtomicU64,
}

impl Backend for Mock {
    fn handle(&self, request: Request) -> Result<Answer, Failure> {
        self.handled.fetch_add(1, Ordering::SeqCst);
        match request {
            Request::VolumeShow { name } if name == "web" => Ok(Answer::Done),
            Request::VolumeShow { name } => {
                Err(Failure::new(ErrorCode::NotFound, format!("no {name}")).next("look again"))
            }
            // More than a frame holds.
            Request::StoreStatus { .. } => {
                Err(Failure::new(ErrorCode::Error, "x".repeat(MAX_FRAME)))
            }
            _ => Ok(Answer::Done),
        }
    }
}

struct Server {
    dir: tempfile::TempDir,
    mock: Arc<Mock>,
    listener: Option<Listener>,
}

impl Server {
    fn start(patience: Patience) -> Self {
        let dir = tempfile::tempdir().unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let mock = Arc::new(Mock::default());
        let listener = serve(&socket_path(dir.path()), mock.clone(), patience).unwrap();
        Self {
            dir,
            mock,
            listener: Some(listener),
        }
    }

    fn connect(&self) -> UnixStream {
        UnixStream::connect(socket_path(self.dir.path())).unwrap()
    }

    fn is_well(&self) {
        let mut client = Client::connect(self.dir.path()).unwrap();
        let answer = client.call(Request::VolumeShow { name: "web".into() });
        assert!(matches!(answer, Ok(Answer::Done)), "{answer:?}");
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener.stop();
        }
    }
}

fn quick() -> Patience {
    Patience {
        idle: Duration::from_secs(5),
        frame: Duration::from_millis(200),
    }
}

fn response(stream: &UnixStream) -> ResponseFrame {
    serde_json::from_slice(&read_frame(stream, LONG, LONG).unwrap()).unwrap()
}

fn error_of(response: ResponseFrame) -> Failure {
    match response.result {
        Outcome::Error(failure) => failure,
        Outcome::Ok(answer) => panic!("accepted: {answer:?}"),
    }
}

/// Whether the server has hung up.
fn is_closed(mut stream: &UnixStream) -> bool {
    stream.set_read_timeout(Some(LONG)).unwrap();
    matches!(stream.read(&mut [0; 1]), Ok(0))
        || stream
            .read(&mut [0; 1])
            .is_err_and(|e| e.kind() == std::io::ErrorKind::ConnectionReset)
}

#[test]
fn errors_carry_code_message_and_next_step() {
    let server = Server::start(Patience::default());
    let mut client = Client::connect(server.dir.path()).unwrap();
    let failure = client
        .call(Request::VolumeShow { name: "db".into() })
        .unwrap_err();
    assert_eq!(
        failure,
        Failure::new(ErrorCode::NotFound, "no db").next("look again")
    );
    server.is_well();
}

#[test]
fn the_socket_is_private_and_stale_ones_are_replaced() {
    let server = Server::start(Patience::default());
    let path = socket_path(server.dir.path());
    let mode = std::fs::metadata(&path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600);
    drop(server);

    let dir = tempfile::tempdir().unwrap();
    let path = socket_path(dir.path());
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o755)).unwrap();
    let open = serve(&path, Mock::default(), quick());
    assert!(
        matches!(open, Err(ListenError::NotPrivate { mode: 0o755, .. })),
        "{:?}",
        open.err()
    );
    std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    let first = serve(&path, Mock::default(), quick()).expect("a stale socket is replaced");
    assert!(
        matches!(
            serve(&path, Mock::default(), quick()),
            Err(ListenError::Served(_))
        ),
        "a living socket was taken away"
    );
    first.stop();
    assert!(!path.exists(), "the socket is removed at the end");
    std::fs::write(&path, "precious").unwrap();
    assert!(matches!(
        serve(&path, Mock::default(), quick()),
        Err(ListenError::NotASocket(_))
    ));
    assert_eq!(std::fs::read_to_string(&path).unwrap(), "precious");
}

#[test]
fn garbage_in_a_frame_is_answered_and_the_connection_goes_on() {
    let server = Server::start(quick());
    let stream = server.connect();
    for garbage in [
        "",
        "{}",
        "[",
        "\0",
        "{\"version\": 1}",
        &"[".repeat(100_000),
    ] {
        write_frame(&stream, garbage.as_bytes(), LONG).unwrap();
        let failure = error_of(response(&stream));
        assert_eq!(failure.code, ErrorCode::Usage, "{failure:?}");
    }
    let good = RequestFrame {
        version: VERSION,
        id: 77,
        request: Request::Status {},
    };
    write_frame(&stream, &serde_json::to_vec(&good).unwrap(), LONG).unwrap();
    assert_eq!(response(&stream).id, 77);
    assert_eq!(
        server.mock.handled.load(Ordering::SeqCst),
        1,
        "only the good one got through"
    );
}

#[test]
fn another_version_is_refused_before_anything_is_done() {
    let server = Server::start(quick());
    let stream = server.connect();
    for text in [
        r#"{"version": 2, "id": 5, "request": {"verb": "status"}}"#,
        r#"{"version": 2, "id": 5, "request": {"verb": "of the future", "with": 1}}"#,
    ] {
        write_frame(&stream, text.as_bytes(), LONG).unwrap();
        let response = response(&stream);
        assert_eq!(response.id, 5);
        assert!(error_of(response).message.contains("version 1"));
    }
    assert_eq!(server.mock.handled.load(Ordering::SeqCst), 0);
}

#[test]
fn huge_lengths_are_refused_without_reading_on() {
    let server = Server::start(quick());
    for length in [MAX_FRAME as u32 + 1, u32::MAX] {
        let mut stream = server.connect();
        stream.write_all(&length.to_le_bytes()).unwrap();
        assert!(error_of(response(&stream)).message.contains("too long"));
        assert!(is_closed(&stream));
    }
    server.is_well();
}

#[test]
fn half_frames_are_cut_off_in_time() {
    let server = Server::start(quick());
    for part in [&[1u8][..], &[9, 0, 0], &[9, 0, 0, 0, b'{']] {
        let mut stream = server.connect();
        stream.write_all(part).unwrap();
        let start = Instant::now();
        assert!(error_of(response(&stream)).message.contains("timed out"));
        assert!(is_closed(&stream));
        assert!(
            start.elapsed() < Duration::from_secs(2),
            "took {:?}",
            start.elapsed()
        );
    }
    server.is_well();
}

#[test]
fn too_long_an_answer_becomes_an_error() {
    let server = Server::start(quick());
    let mut client = Client::connect(server.dir.path()).unwrap();
    let failure = client
        .call(Request::StoreStatus { store: "x".into() })
        .unwrap_err();
    assert!(failure.message.contains("fits no frame"), "{failure:?}");
}

#[test]
fn one_client_too_many_is_told_so_and_room_comes_back() {
    let server = Server::start(quick());
    let mut crowd: Vec<UnixStream> = (0..MAX_CLIENTS).map(|_| server.connect()).collect();
    let extra = server.connect();
    assert_eq!(error_of(response(&extra)).code, ErrorCode::Busy);
    assert!(is_closed(&extra));
    crowd.clear();
    let deadline = Instant::now() + LONG;
    loop {
        let mut client = Client::connect(server.dir.path()).unwrap();
        match client.call(Request::Status {}) {
            Ok(_) => break,
            Err(failure) => assert_eq!(failure.code, ErrorCode::Busy, "{failure:?}"),
        }
        assert!(Instant::now() < deadline, "no room came back");
        std::thread::sleep(Duration::from_millis(10));
    }
}

#[test]
fn stopping_does_not_wait_for_idle_clients() {
    let mut server = Server::start(Patience {
        idle: Duration::from_secs(60),
        frame: LONG,
    });
    let idle = server.connect();
    server.is_well();
    let start = Instant::now();
    server.listener.take().unwrap().stop();
    assert!(
        start.elapsed() < Duration::from_secs(5),
        "took {:?}",
        start.elapsed()
    );
    assert!(is_closed(&idle));
    let failure = Client::connect(server.dir.path()).unwrap_err();
    assert_eq!(failure.code, ErrorCode::Unreachable);
}

#[test]
fn nobody_there_is_unreachable() {
    let failure = Client::connect(Path::new("/nonexistent")).unwrap_err();
    assert_eq!(
        (failure.code, failure.code.exit_code()),
        (ErrorCode::Unreachable, 7)
    );
}

static SHARED: LazyLock<Server> = LazyLock::new(|| Server::start(quick()));

/// A request, mutated: bytes of it replaced, cut, or followed by others.
fn mutated() -> impl Strategy<Value = Vec<u8>> {
    let good = RequestFrame {
        version: VERSION,
        id: 1,
        request: Request::Status {},
    };
    let body = serde_json::to_vec(&good).unwrap();
    let mut frame = (body.len() as u32).to_le_bytes().to_vec();
    frame.extend(body);
    let len = frame.len();
    (
        prop::collection::vec((0..len, any::<u8>()), 0..4),
        0..=len,
        any::<Vec<u8>>(),
    )
        .prop_map(move |(changes, keep, tail)| {
            let mut bytes = frame.clone();
            for (at, value) in changes {
                bytes[at] = value;
            }
            bytes.truncate(keep.max(1));
            bytes.extend(tail);
            bytes
        })
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, ..ProptestConfig::default() })]

    /// Whatever bytes come, the answers are well-formed frames and the next client
    /// is served. (proptest prints the failing input and saves its seed.)
    #[test]
    fn any_bytes_are_survived(bytes in prop_oneof![any::<Vec<u8>>(), mutated()]) {
        let stream = SHARED.connect();
        let _ = (&stream).write_all(&bytes);
        let _ = stream.shutdown(std::net::Shutdown::Write);
        while let Ok(body) = read_frame(&stream, LONG, LONG) {
            let response: ResponseFrame = serde_json::from_slice(&body).unwrap();
            prop_assert_eq!(response.version, VERSION);
        }
        let mut client = Client::connect(SHARED.dir.path()).unwrap();
        let answer = client.call(Request::VolumeShow { name: "web".into() });
        prop_assert!(matches!(answer, Ok(Answer::Done)), "{:?}", answer);
    }
}
