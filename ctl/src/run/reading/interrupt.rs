//! Being interrupted where something must be tidied up: reading fails, and who reads ends
//! in an orderly way.

use std::io;
use std::process::exit;
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use nix::sys::signal::{SigSet, Signal};
use ublk_target::control::protocol::{ErrorCode, Failure};

use crate::Done;

/// As a signal is one to the whole process.
static INTERRUPTED: AtomicBool = AtomicBool::new(false);

/// From now on SIGINT, SIGTERM and SIGHUP end what reads, and the process only if they
/// come again. To be called before there are other threads.
///
/// # Errors
/// If the system does not let us.
pub(in crate::run) fn heed() -> Done {
    static ONCE: Once = Once::new();
    let mut done = Ok(());
    ONCE.call_once(|| done = begin());
    done.map_err(|error| Failure::new(ErrorCode::Error, format!("cannot heed signals: {error}")))
}

fn begin() -> io::Result<()> {
    let signals: SigSet = [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP]
        .into_iter()
        .collect();
    // Threads that come later have it from this one.
    signals.thread_block()?;
    let wait = move || {
        while let Ok(signal) = signals.wait() {
            if INTERRUPTED.swap(true, Ordering::Relaxed) {
                exit(128 + signal as i32);
            }
        }
    };
    thread::Builder::new().spawn(wait).map(drop)
}

/// Fails once a signal has come.
pub(in crate::run) fn check() -> io::Result<()> {
    match INTERRUPTED.load(Ordering::Relaxed) {
        true => Err(io::Error::other("interrupted")),
        false => Ok(()),
    }
}
