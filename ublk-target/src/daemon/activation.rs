//! Sockets that the supervisor made and passed on (`sd_listen_fds(3)`).
//!
//! The environment says which descriptors, from 3 up, are sockets and what they
//! are called. Contract: what the environment says is checked against the
//! descriptors; a socket that is passed and is not what it should be is an error,
//! never quietly replaced by one of our own.

use std::os::fd::{AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::os::unix::net::UnixListener;

use nix::fcntl::{FcntlArg, FdFlag, fcntl};
use nix::sys::socket::{SockType, getsockopt, sockopt};

/// First passed descriptor, `SD_LISTEN_FDS_START`.
const FIRST: RawFd = 3;

/// Most sockets looked at; the environment may say anything.
const MOST: usize = 64;

/// A passed socket cannot be used.
#[derive(Debug, thiserror::Error)]
#[error(
    "the socket {name:?} passed by the supervisor cannot be used: {why}; it must be a listening Unix stream socket (ListenStream= with a path)"
)]
pub struct ActivationError {
    name: String,
    why: String,
}

/// The socket passed under `name`, if there is one. To be called once, before
/// anything else opens descriptors.
///
/// # Errors
/// When it is there and is not a listening Unix stream socket.
pub fn passed(name: &str) -> Result<Option<UnixListener>, ActivationError> {
    let value = |key: &str| std::env::var(key).unwrap_or_default();
    let Some(place) = place(
        name,
        std::process::id(),
        [
            &value("LISTEN_PID"),
            &value("LISTEN_FDS"),
            &value("LISTEN_FDNAMES"),
        ],
    ) else {
        return Ok(None);
    };
    let number = FIRST + place;
    // A number that is not open must not become an OwnedFd.
    if !std::path::Path::new(&format!("/proc/self/fd/{number}")).exists() {
        return Err(ActivationError {
            name: name.to_owned(),
            why: format!("descriptor {number} is not open"),
        });
    }
    // SAFETY: the descriptor is open (just seen) and the protocol gives it to this
    // process; called once, before anything else opens descriptors.
    let socket = unsafe { OwnedFd::from_raw_fd(number) };
    check(&socket).map_err(|why| ActivationError {
        name: name.to_owned(),
        why,
    })?;
    Ok(Some(UnixListener::from(socket)))
}

/// At which place, from 0, the socket `name` is passed to process `pid`.
fn place(name: &str, pid: u32, [listen_pid, fds, names]: [&str; 3]) -> Option<RawFd> {
    // Another process of the family may have been meant.
    if listen_pid.parse() != Ok(pid) {
        return None;
    }
    let count: usize = fds.parse().ok()?;
    let mut names = names.split(':').take(count.min(MOST));
    names.position(|given| given == name).map(|at| at as RawFd)
}

fn check(socket: &OwnedFd) -> Result<(), String> {
    let say = |error: nix::errno::Errno| error.to_string();
    if getsockopt(socket, sockopt::SockType).map_err(say)? != SockType::Stream {
        return Err("it is no stream socket".to_owned());
    }
    if !getsockopt(socket, sockopt::AcceptConn).map_err(say)? {
        return Err("it does not listen".to_owned());
    }
    let address = nix::sys::socket::getsockname::<nix::sys::socket::UnixAddr>(socket.as_raw_fd());
    address.map_err(|_| "it is no Unix socket".to_owned())?;
    fcntl(socket, FcntlArg::F_SETFD(FdFlag::FD_CLOEXEC)).map_err(say)?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::net::TcpListener;
    use std::os::unix::net::UnixStream;

    use super::*;

    #[test]
    fn the_environment_is_read_with_care() {
        let at = |pid: &str, fds: &str, names: &str| place("control", 7, [pid, fds, names]);
        assert_eq!(at("7", "1", "control"), Some(0));
        assert_eq!(at("7", "2", "nbd:control"), Some(1));
        for (pid, fds, names) in [
            ("8", "1", "control"),
            ("", "1", "control"),
            ("7", "", "control"),
            ("7", "0", "control"),
            ("7", "1", "nbd:control"),
            ("7", "-1", "control"),
            ("7", "1", ""),
            ("7", "1", "controls"),
        ] {
            assert_eq!(at(pid, fds, names), None, "{pid} {fds} {names}");
        }
    }

    #[test]
    fn only_a_listening_unix_stream_socket_will_do() {
        let dir = tempfile::tempdir().unwrap();
        let good = UnixListener::bind(dir.path().join("s")).unwrap();
        assert_eq!(check(&good.into()), Ok(()));
        let (one, _other) = UnixStream::pair().unwrap();
        assert!(check(&one.into()).unwrap_err().contains("listen"));
        let datagram = std::os::unix::net::UnixDatagram::unbound().unwrap();
        assert!(check(&datagram.into()).unwrap_err().contains("stream"));
        let tcp = TcpListener::bind("127.0.0.1:0").unwrap();
        assert!(check(&tcp.into()).unwrap_err().contains("Unix"));
        let file = std::fs::File::open("/dev/null").unwrap();
        assert!(check(&file.into()).is_err());
    }
}
