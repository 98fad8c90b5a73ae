//! The daemon's side of the control socket.
//!
//! Contract: whatever a client sends, it gets a clear error or is cut off, and no
//! device notices. A request that cannot be read as a frame (too long, too slow,
//! cut) ends the connection; one that cannot be read as a request is answered and
//! the connection goes on. Each connection serves one request at a time.

use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::time::Duration;

use super::frame::{FrameError, read_frame, write_frame};
use super::listener::{ListenError, Listener, Service};
use super::protocol::{
    Answer, ErrorCode, Failure, Outcome, Request, RequestFrame, ResponseFrame, VERSION,
};

/// Most clients at once.
pub const MAX_CLIENTS: usize = 32;

/// How patient the server is.
#[derive(Clone, Copy, Debug)]
pub struct Patience {
    /// For the next request of a connection.
    pub idle: Duration,
    /// For the rest of a frame once it began, in either direction.
    pub frame: Duration,
}

impl Default for Patience {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(120),
            frame: Duration::from_secs(5),
        }
    }
}

/// What carries out requests.
pub trait Backend: Send + Sync + 'static {
    /// Carries out one request. Called from many threads.
    ///
    /// # Errors
    /// What the client is told.
    fn handle(&self, request: Request) -> Result<Answer, Failure>;
}

impl<B: Backend> Backend for std::sync::Arc<B> {
    fn handle(&self, request: Request) -> Result<Answer, Failure> {
        (**self).handle(request)
    }
}

/// Serves the control socket at `path`.
///
/// # Errors
/// When the socket cannot be made; see [`ListenError`].
pub fn serve<B: Backend>(
    path: &Path,
    backend: B,
    patience: Patience,
) -> Result<Listener, ListenError> {
    Listener::start(path, MAX_CLIENTS, Control { backend, patience })
}

/// Serves a control socket that somebody else made.
///
/// # Errors
/// When no thread can be started; see [`ListenError`].
pub fn serve_on<B: Backend>(
    socket: UnixListener,
    backend: B,
    patience: Patience,
) -> Result<Listener, ListenError> {
    Listener::adopt(socket, MAX_CLIENTS, Control { backend, patience })
}

struct Control<B> {
    backend: B,
    patience: Patience,
}

impl<B: Backend> Service for Control<B> {
    fn serve(&self, stream: UnixStream) {
        converse(&stream, &self.backend, self.patience);
    }

    fn refuse(&self, stream: UnixStream, why: &str) {
        let response = failed(0, Failure::new(ErrorCode::Busy, why));
        let _ = send(&stream, response, self.patience);
    }
}

/// Serves one connection to its end.
pub fn converse(stream: &UnixStream, backend: &impl Backend, patience: Patience) {
    loop {
        let (response, go_on) = match read_frame(stream, patience.idle, patience.frame) {
            Ok(body) => (respond(&body, backend), true),
            Err(FrameError::Closed | FrameError::Cut | FrameError::Io(_)) => return,
            Err(error) => (failed(0, bad_request(error.to_string())), false),
        };
        if send(stream, response, patience).is_err() || !go_on {
            return;
        }
    }
}

fn respond(body: &[u8], backend: &impl Backend) -> ResponseFrame {
    let frame: RequestFrame = match serde_json::from_slice(body) {
        Ok(frame) => frame,
        Err(error) => return unreadable(body, &error),
    };
    if frame.version != VERSION {
        return failed(frame.id, wrong_version(frame.version));
    }
    let result = match backend.handle(frame.request) {
        Ok(answer) => Outcome::Ok(answer),
        Err(failure) => Outcome::Error(failure),
    };
    ResponseFrame {
        version: VERSION,
        id: frame.id,
        result,
    }
}

fn send(
    stream: &UnixStream,
    response: ResponseFrame,
    patience: Patience,
) -> Result<(), FrameError> {
    let id = response.id;
    let body = serde_json::to_vec(&response).map_err(std::io::Error::other)?;
    match write_frame(stream, &body, patience.frame) {
        Err(FrameError::TooLong(size)) => {
            let message = format!("the answer has {size} bytes and fits no frame");
            let response = failed(id, Failure::new(ErrorCode::Error, message));
            let body = serde_json::to_vec(&response).map_err(std::io::Error::other)?;
            write_frame(stream, &body, patience.frame)
        }
        other => other,
    }
}

/// The version and id, if at least those can be read: a newer client deserves to
/// hear about its version rather than about its verb.
fn unreadable(body: &[u8], error: &serde_json::Error) -> ResponseFrame {
    #[derive(serde::Deserialize)]
    struct Head {
        version: u32,
        id: u64,
    }
    match serde_json::from_slice::<Head>(body) {
        Ok(head) if head.version != VERSION => failed(head.id, wrong_version(head.version)),
        Ok(head) => failed(head.id, bad_request(error.to_string())),
        Err(_) => failed(0, bad_request(error.to_string())),
    }
}

fn failed(id: u64, failure: Failure) -> ResponseFrame {
    ResponseFrame {
        version: VERSION,
        id,
        result: Outcome::Error(failure),
    }
}

fn bad_request(why: String) -> Failure {
    Failure::new(
        ErrorCode::Usage,
        format!("the request cannot be read: {why}"),
    )
    .next("see docs/control-protocol.md")
}

fn wrong_version(version: u32) -> Failure {
    Failure::new(
        ErrorCode::Usage,
        format!("this daemon speaks control protocol version {VERSION}, the request has {version}"),
    )
    .next("use csnapctl and csnapd of the same release")
}
