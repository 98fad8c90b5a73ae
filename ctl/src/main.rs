//! csnapctl: see [`mod@ctl::run`].

use std::process::ExitCode;

fn main() -> ExitCode {
    ctl::run(std::env::args_os())
}
