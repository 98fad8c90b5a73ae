//! `imagegen`: images of file systems, from trees of files.
#![forbid(unsafe_code)]
#![allow(clippy::print_stderr)] // a command's messages

mod cli;

use clap::Parser;
use std::process::ExitCode;

fn main() -> ExitCode {
    match cli::run(cli::Cli::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        // Whoever reads the answer wanted no more of it, as `head` does.
        Err(failure) if failure.is_broken_pipe() => ExitCode::SUCCESS,
        Err(failure) => {
            eprintln!("imagegen: {failure}");
            failure.code()
        }
    }
}
