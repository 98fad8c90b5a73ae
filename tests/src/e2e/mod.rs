//! Harness of the end-to-end tests: the real programs, outside judges.
//!
//! A test builds a [`Bed`] (a directory of its own under `target/e2e` with an
//! origin, a store and a running `csnapd`), does something to it, and ends with
//! [`Bed::finish`], which stops the daemon, runs `csnapctl store check --data`
//! and removes the directory. A bed dropped without `finish` is a failure: its
//! directory stays, and the end of the daemon's log is shown.
//!
//! Nothing here calls csnap's own code: what is judged is what a person runs.
//! The NBD client ([`client`]) is our own only where a test must know exactly
//! which writes were acknowledged; everywhere else fio, qemu and libnbd judge.
//!
//! A test that cannot run (a tool is absent) says so with [`skip`], which counts
//! it in the summary of `make test`.

pub mod bed;
pub mod client;
pub mod ctl;
pub mod daemon;
pub mod fault;
pub mod files;
pub mod ledger;
pub mod load;
pub mod settings;
pub mod tools;

pub use bed::{Bed, Setup};
pub use ctl::{Answer, Ctl};
pub use daemon::Daemon;
pub use fault::{Fault, Outcome};
pub use settings::{seed, setting};
pub use tools::skip;

/// Fails the test with a formatted reason unless the condition holds.
#[macro_export]
macro_rules! ensure {
    ($condition:expr, $($reason:tt)+) => {
        if !$condition {
            return Err($crate::e2e::Fault::wrong(format!($($reason)+)));
        }
    };
}

/// Ends the test as *skipped* if one of the named programs is not installed.
#[macro_export]
macro_rules! need_tools {
    ($test:expr, $($tool:expr),+) => {
        if let Some(reason) = $crate::e2e::tools::missing(&[$($tool),+]) {
            return $crate::e2e::skip($test, &reason);
        }
    };
}
