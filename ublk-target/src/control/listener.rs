//! A private Unix listener: one socket, one accepting thread, a bounded number of
//! connections, each on a thread of its own.
//!
//! Used by the control socket and by the NBD socket. Contract:
//! - The socket has mode 0600 and lies in a directory that only its owner can
//!   enter; peers must besides be root or the daemon's own user.
//! - At most `max` handlers run; a connection beyond that is handed to `refuse`.
//! - [`Listener::stop`] closes the listener, disconnects every handler's
//!   stream and waits for the threads.

use std::collections::HashMap;
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread::JoinHandle;

use nix::sys::socket::{getsockopt, sockopt};
use nix::unistd::geteuid;
use parking_lot::Mutex;

use super::accept::Accepting;

/// Why a socket could not be set up.
#[derive(Debug, thiserror::Error)]
pub enum ListenError {
    /// The directory is not private.
    #[error(
        "{path} must belong to the user of csnapd and be closed to others (mode 0700), but it has owner {uid} and mode {mode:o}; `chmod 0700` it, or choose another place"
    )]
    NotPrivate {
        /// The directory.
        path: PathBuf,
        /// Its owner.
        uid: u32,
        /// Its permission bits.
        mode: u32,
    },
    /// Something that is not a socket has the name.
    #[error("{0} exists and is not a socket; remove it or choose another place")]
    NotASocket(PathBuf),
    /// Another process serves the socket.
    #[error("somebody serves {0} already; stop that, or choose another place")]
    Served(PathBuf),
    /// A system call failed.
    #[error("cannot {action} {path}: {error}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
}

fn at(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> ListenError {
    let path = path.to_owned();
    move |error| ListenError::Io {
        action,
        path,
        error,
    }
}

/// Makes `path` if needed and verifies that only its owner can enter.
///
/// # Errors
/// See [`ListenError`].
pub fn private_directory(path: &Path) -> Result<(), ListenError> {
    std::fs::DirBuilder::new()
        .recursive(true)
        .mode(0o700)
        .create(path)
        .map_err(at("create the directory", path))?;
    let meta = std::fs::metadata(path).map_err(at("look at", path))?;
    let mode = meta.mode() & 0o777;
    if meta.uid() != geteuid().as_raw() || mode & 0o077 != 0 {
        return Err(ListenError::NotPrivate {
            path: path.to_owned(),
            uid: meta.uid(),
            mode,
        });
    }
    Ok(())
}

/// What is done with connections.
pub trait Service: Send + Sync + 'static {
    /// Serves one connection to its end, on a thread of its own.
    fn serve(&self, stream: UnixStream);
    /// Turns one away; must not block for long.
    fn refuse(&self, stream: UnixStream, why: &str);
}

/// What is needed to disconnect a handler.
struct Connection {
    stream: UnixStream,
    thread: JoinHandle<()>,
}

struct Shared<S> {
    service: S,
    max: usize,
    next: AtomicU64,
    open: Mutex<HashMap<u64, Connection>>,
}

/// A listening socket. To be stopped by [`Listener::stop`].
pub struct Listener {
    /// The socket's file, if it is ours to remove.
    path: Option<PathBuf>,
    accepting: Accepting,
    disconnect: Box<dyn FnOnce() + Send + Sync>,
}

impl Listener {
    /// Binds `path`, replacing a stale socket, and serves it.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub fn start<S: Service>(path: &Path, max: usize, service: S) -> Result<Self, ListenError> {
        let mut this = Self::run(bind(path)?, path, max, service)?;
        this.path = Some(path.to_owned());
        Ok(this)
    }

    /// Serves a socket that somebody else made, and leaves it as it is in the end.
    ///
    /// # Errors
    /// See [`ListenError`].
    pub fn adopt<S: Service>(
        socket: UnixListener,
        max: usize,
        service: S,
    ) -> Result<Self, ListenError> {
        let address = socket.local_addr().ok();
        let path = address.as_ref().and_then(|a| a.as_pathname());
        let path = path.unwrap_or(Path::new("socket")).to_owned();
        Self::run(socket, &path, max, service)
    }

    fn run<S: Service>(
        socket: UnixListener,
        path: &Path,
        max: usize,
        service: S,
    ) -> Result<Self, ListenError> {
        let shared = Arc::new(Shared {
            service,
            max,
            next: AtomicU64::new(0),
            open: Mutex::default(),
        });
        let accepting = {
            let shared = shared.clone();
            let name = path
                .file_name()
                .map_or_else(String::new, |n| n.to_string_lossy().into());
            Accepting::start(
                format!("accept-{name}"),
                socket,
                UnixListener::accept,
                move |(stream, _)| admit(stream, &shared),
            )
            .map_err(at("start a thread for", path))?
        };
        let disconnect = Box::new(move || shared.disconnect());
        Ok(Self {
            path: None,
            accepting,
            disconnect,
        })
    }

    /// Stops accepting, disconnects everyone, waits for all threads and removes
    /// the socket if it is ours.
    pub fn stop(self) {
        self.accepting.stop();
        (self.disconnect)();
        if let Some(path) = self.path {
            let _ = std::fs::remove_file(path);
        }
    }
}

impl<S> Shared<S> {
    /// Shuts every connection's stream and joins the threads. No other may come any more.
    fn disconnect(&self) {
        // Not joined under the lock: a handler takes it to remove itself.
        let open = std::mem::take(&mut *self.open.lock());
        for connection in open.values() {
            let _ = connection.stream.shutdown(std::net::Shutdown::Both);
        }
        for connection in open.into_values() {
            let _ = connection.thread.join();
        }
    }
}

fn bind(path: &Path) -> Result<UnixListener, ListenError> {
    if let Some(dir) = path.parent().filter(|d| !d.as_os_str().is_empty()) {
        private_directory(dir)?;
    }
    match std::fs::symlink_metadata(path) {
        // The lock of a run directory does not cover a socket elsewhere.
        Ok(meta) if meta.file_type().is_socket() && UnixStream::connect(path).is_ok() => {
            return Err(ListenError::Served(path.to_owned()));
        }
        Ok(meta) if meta.file_type().is_socket() => {
            std::fs::remove_file(path).map_err(at("remove the old socket", path))?;
        }
        Ok(_) => return Err(ListenError::NotASocket(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(at("look at", path)(error)),
    }
    let listener = UnixListener::bind(path).map_err(at("bind", path))?;
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(0o600))
        .map_err(at("set the mode of", path))?;
    Ok(listener)
}

fn admit<S: Service>(stream: UnixStream, shared: &Arc<Shared<S>>) {
    if let Err(why) = check_peer(&stream) {
        tracing::warn!("refused a connection: {why}");
        shared.service.refuse(stream, &why);
        return;
    }
    let id = shared.next.fetch_add(1, Ordering::Relaxed);
    let copy = match stream.try_clone() {
        Ok(copy) => copy,
        Err(error) => return tracing::warn!(%error, "hung up on a client"),
    };
    let mut open = shared.open.lock();
    if open.len() >= shared.max {
        drop(open);
        let why = format!(
            "there are already {} connections; close one and try again",
            shared.max
        );
        shared.service.refuse(stream, &why);
        return;
    }
    let handler = {
        let shared = shared.clone();
        std::thread::Builder::new()
            .name(format!("client-{id}"))
            .spawn(move || {
                shared.service.serve(stream);
                shared.open.lock().remove(&id);
            })
    };
    // Still under the lock: the handler cannot have removed its entry yet.
    match handler {
        Ok(thread) => {
            let stream = copy;
            open.insert(id, Connection { stream, thread });
        }
        Err(error) => tracing::warn!(%error, "hung up on a client: no thread for it"),
    }
}

/// Only root and the daemon's own user may speak.
fn check_peer(stream: &UnixStream) -> Result<(), String> {
    let peer = getsockopt(stream, sockopt::PeerCredentials)
        .map_err(|error| format!("the peer's credentials cannot be read: {error}"))?;
    if peer.uid() == 0 || peer.uid() == geteuid().as_raw() {
        return Ok(());
    }
    Err(format!(
        "user {} may not use this socket; run as root or as the user of csnapd",
        peer.uid()
    ))
}
