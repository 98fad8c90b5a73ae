//! csnapctl: what a person types.
//!
//! | module | what it holds |
//! |---|---|
//! | [`cli`] | the command line: nouns, verbs, options, help texts |
//! | [`names`] | `vol@name`, sizes: text a person gave, checked |
//! | [`output`] | tables, JSON, sizes and times for people |
//! | [`mod@run`] | what each verb does |
//! | [`session`] | what all verbs share: where to print, whom to ask |
//!
//! Contract: results go to stdout, everything else (errors, questions, progress)
//! to stderr. The exit code is that of [`ErrorCode`]; 0 when all went well.

pub mod cli;
pub mod names;
pub mod output;
pub mod progress;
pub mod run;
pub mod session;

use std::ffi::OsString;
use std::process::ExitCode;

use clap::Parser;
use ublk_target::control::protocol::{ErrorCode, Failure};

use crate::cli::Cli;
use crate::session::Session;

/// Runs one command line and returns the exit code.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let cli = match Cli::try_parse_from(args) {
        Ok(cli) => cli,
        Err(error) => {
            // Prints help and versions to stdout, complaints to stderr.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() {
                ErrorCode::Usage.exit_code()
            } else {
                0
            });
        }
    };
    let mut session = Session::of_process(&cli);
    match run::command(&mut session, cli.noun) {
        Ok(()) => ExitCode::SUCCESS,
        Err(failure) if session.stdout_closed() => ExitCode::from(failure.code.exit_code()),
        Err(failure) => {
            session.complain(&failure);
            ExitCode::from(failure.code.exit_code())
        }
    }
}

/// The result of a verb.
pub type Done<T = ()> = Result<T, Failure>;
