//! The daemon as a process: one instance, its signals, and its supervisor.

use std::fs::{File, OpenOptions, TryLockError};
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::path::{Path, PathBuf};

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::signal::{SigSet, Signal};
use nix::sys::stat::{Mode, umask};

/// Why the process cannot run.
#[derive(Debug, thiserror::Error)]
pub enum ProcessError {
    /// Another instance has the directory.
    #[error("another csnapd is using {0}; stop it, or give this one other directories")]
    Running(PathBuf),
    /// A system call failed.
    #[error("cannot lock {path}: {error}")]
    Lock {
        /// The lock file.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Signals cannot be blocked or awaited.
    #[error("cannot handle signals: {0}")]
    Signals(nix::Error),
}

/// Locks a directory for this instance, until the file is dropped or the process
/// ends, however it ends.
///
/// # Errors
/// See [`ProcessError`].
pub fn lock(dir: &Path) -> Result<File, ProcessError> {
    let path = dir.join("csnapd.lock");
    let open = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(false)
        .open(&path);
    let file = open.map_err(|error| ProcessError::Lock {
        path: path.clone(),
        error,
    })?;
    match file.try_lock() {
        Ok(()) => Ok(file),
        Err(TryLockError::WouldBlock) => Err(ProcessError::Running(dir.to_owned())),
        Err(TryLockError::Error(error)) => Err(ProcessError::Lock { path, error }),
    }
}

/// Everything the daemon makes is for its user alone.
pub fn private_files() {
    umask(Mode::S_IRWXG | Mode::S_IRWXO);
}

/// Lets the process have as many files open as it is allowed: every NBD client is two or
/// three, and what a shell gives is enough for some hundreds. Returns how many that are.
///
/// # Errors
/// What the system said.
pub fn allow_open_files() -> io::Result<u64> {
    let (now, most) = getrlimit(Resource::RLIMIT_NOFILE)?;
    if now < most {
        setrlimit(Resource::RLIMIT_NOFILE, most, most)?;
    }
    Ok(most)
}

/// The signals that stop the daemon, blocked in this thread and all it starts.
///
/// # Errors
/// [`ProcessError::Signals`].
pub fn block_signals() -> Result<SigSet, ProcessError> {
    let mut signals = SigSet::empty();
    signals.add(Signal::SIGTERM);
    signals.add(Signal::SIGINT);
    signals.thread_block().map_err(ProcessError::Signals)?;
    Ok(signals)
}

/// Waits for one of the blocked signals.
///
/// # Errors
/// [`ProcessError::Signals`].
pub fn wait(signals: &SigSet) -> Result<Signal, ProcessError> {
    signals.wait().map_err(ProcessError::Signals)
}

/// Tells the supervisor (systemd, if `NOTIFY_SOCKET` is set) how the daemon is:
/// `READY=1`, `STOPPING=1`. Nobody listening is no error.
pub fn notify(message: &str) {
    let Some(name) = std::env::var_os("NOTIFY_SOCKET") else {
        return;
    };
    if let Err(error) = send(&name.to_string_lossy(), message) {
        tracing::warn!(%error, "the supervisor cannot be told {message}");
    }
}

fn send(name: &str, message: &str) -> io::Result<()> {
    let address = match name.strip_prefix('@') {
        Some(name) => SocketAddr::from_abstract_name(name)?,
        None => SocketAddr::from_pathname(name)?,
    };
    UnixDatagram::unbound()?
        .send_to_addr(message.as_bytes(), &address)
        .map(drop)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_is_for_one_instance() {
        let dir = tempfile::tempdir().unwrap();
        let first = lock(dir.path()).unwrap();
        assert!(matches!(lock(dir.path()), Err(ProcessError::Running(_))));
        drop(first);
        assert!(lock(dir.path()).is_ok());
    }

    #[test]
    fn as_many_files_may_be_open_as_are_allowed() {
        let most = allow_open_files().unwrap();
        assert_eq!(getrlimit(Resource::RLIMIT_NOFILE), Ok((most, most)));
    }

    #[test]
    fn the_supervisor_hears_of_it() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("notify");
        let socket = UnixDatagram::bind(&path).unwrap();
        send(path.to_str().unwrap(), "READY=1").unwrap();
        let mut buffer = [0; 32];
        let n = socket.recv(&mut buffer).unwrap();
        assert_eq!(&buffer[..n], b"READY=1");
    }
}
