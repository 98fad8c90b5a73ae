//! What each verb does.

mod apart;
mod diff;
mod dump;
mod events;
mod export;
mod features;
mod format;
mod hold;
mod images;
mod mount;
mod offline;
mod reading;
mod repair;
mod restore;
mod scrub;
mod snapshot;
mod status;
mod store;
mod volume;

use std::fmt::Display;
use std::io;

use clap::CommandFactory;
use imagegen::qcow2::read::ReadError;
use ublk_target::control::protocol::{Answer, ErrorCode, Failure};

use crate::Done;
use crate::cli::{Cli, Noun};
use crate::session::Session;

/// Carries out one command.
///
/// # Errors
/// What a person is told, with the exit code.
pub fn command(session: &mut Session, noun: Noun) -> Done {
    match noun {
        Noun::Store(verb) => store::command(session, verb),
        Noun::Volume(verb) => volume::command(session, verb),
        Noun::Snapshot(verb) => snapshot::command(session, verb),
        Noun::Status => status::command(session),
        Noun::Features => features::command(session),
        Noun::Events { follow, since } => events::command(session, follow, since),
        Noun::Hold(args) => hold::holder(&args),
        Noun::Completion { shell } => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Cli::command(), "csnapctl", &mut script);
            session.write(&String::from_utf8_lossy(&script))
        }
    }
}

/// The daemon answered something that does not answer the question.
fn unexpected(answer: &Answer) -> Failure {
    Failure::new(
        ErrorCode::Error,
        format!("the daemon gave an unexpected answer: {answer:?}"),
    )
    .next("use csnapctl and csnapd of the same release")
}

/// A complaint about what was typed.
fn usage(error: impl Display) -> Failure {
    Failure::new(ErrorCode::Usage, error.to_string())
}

/// The kind of failure that an error of the system is.
fn code_of(error: &io::Error) -> ErrorCode {
    match error.kind() {
        io::ErrorKind::NotFound => ErrorCode::NotFound,
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => ErrorCode::NoSpace,
        // What `reading` makes of csnapd that went away.
        io::ErrorKind::ConnectionAborted => ErrorCode::Unreachable,
        _ => ErrorCode::Error,
    }
}

/// The kind of failure that a disk which cannot be read is.
fn read_code_of(error: &ReadError) -> ErrorCode {
    match error.root() {
        ReadError::Damaged { .. } => ErrorCode::Corruption,
        ReadError::Io { cause, .. } => code_of(cause),
        _ => ErrorCode::Error,
    }
}

/// "1 snapshot", "2 snapshots".
fn counted(count: u64, what: &str) -> String {
    format!("{count} {what}{}", if count == 1 { "" } else { "s" })
}
