//! The client's side of the control socket, for `csnapctl` and for tests.

use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::frame::{read_frame, write_frame};
use super::protocol::{
    Answer, ErrorCode, Failure, Outcome, Request, RequestFrame, ResponseFrame, VERSION,
};

/// Longest time an answer may take: attaching a store waits for a dead daemon's
/// I/O and recovers, which reads the journal.
const ANSWER: Duration = Duration::from_secs(600);
const FRAME: Duration = Duration::from_secs(10);

/// Default directory of the daemon's sockets.
pub const DEFAULT_RUN_DIR: &str = "/run/csnap";

/// Path of the control socket in a run directory.
#[must_use]
pub fn socket_path(run_dir: &Path) -> PathBuf {
    run_dir.join("control.sock")
}

/// A connection to the daemon.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    path: PathBuf,
    next_id: u64,
}

impl Client {
    /// Connects to the daemon whose run directory is `run_dir`.
    ///
    /// # Errors
    /// [`ErrorCode::Unreachable`] with the reason.
    pub fn connect(run_dir: &Path) -> Result<Self, Failure> {
        let path = socket_path(run_dir);
        let stream = UnixStream::connect(&path).map_err(|error| unreachable(&path, &error))?;
        Ok(Self {
            stream,
            path,
            next_id: 1,
        })
    }

    /// Sends one request and waits for its answer.
    ///
    /// # Errors
    /// What the daemon answered, or [`ErrorCode::Unreachable`].
    pub fn call(&mut self, request: Request) -> Result<Answer, Failure> {
        let id = self.next_id;
        self.next_id += 1;
        let frame = RequestFrame {
            version: VERSION,
            id,
            request,
        };
        let body = serde_json::to_vec(&frame).map_err(|e| self.broken(&e))?;
        write_frame(&self.stream, &body, FRAME).map_err(|e| self.broken(&e))?;
        let body = read_frame(&self.stream, ANSWER, FRAME).map_err(|e| self.broken(&e))?;
        let response: ResponseFrame = serde_json::from_slice(&body).map_err(|e| self.broken(&e))?;
        match response.result {
            Outcome::Error(failure) => Err(failure),
            Outcome::Ok(answer) if response.id == id => Ok(answer),
            Outcome::Ok(_) => Err(self.broken(&format!("answer {} to request {id}", response.id))),
        }
    }

    fn broken(&self, error: &impl std::fmt::Display) -> Failure {
        let message = format!(
            "the daemon at {} does not answer: {error}",
            self.path.display()
        );
        Failure::new(ErrorCode::Unreachable, message)
            .next("look at the log of csnapd; whether the request was carried out is not known")
    }
}

fn unreachable(path: &Path, error: &std::io::Error) -> Failure {
    let next = match error.kind() {
        std::io::ErrorKind::PermissionDenied => "run csnapctl as root or as the user of csnapd",
        _ => "start csnapd, or name its run directory with --run-dir",
    };
    let message = format!("cannot reach the daemon at {}: {error}", path.display());
    Failure::new(ErrorCode::Unreachable, message).next(next)
}
