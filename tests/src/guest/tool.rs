//! Running programs of the host.

use std::ffi::OsStr;
use std::process::{Command, Output, Stdio};

use super::error::{Error, Result, Trying};

/// A command that also finds what only root has in its path.
pub(super) fn tool(name: impl AsRef<OsStr>) -> Command {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut command = Command::new(name);
    command
        .env("PATH", format!("{path}:/usr/sbin:/sbin"))
        .env("LC_ALL", "C")
        .stdin(Stdio::null());
    command
}

/// Runs it and hands back its stdout.
pub(super) fn run(command: &mut Command) -> Result<String> {
    let output = output(command)?;
    if output.status.success() {
        return Ok(String::from_utf8_lossy(&output.stdout).into_owned());
    }
    let mut said = output.stdout;
    said.extend(&output.stderr);
    Err(Error::Program {
        command: line_of(command),
        how: format!("ended with {}", output.status),
        stderr: tail(&String::from_utf8_lossy(&said), 20),
    })
}

/// Runs it and says whether it succeeded.
pub(super) fn succeeds(command: &mut Command) -> Result<bool> {
    Ok(output(command)?.status.success())
}

fn output(command: &mut Command) -> Result<Output> {
    command
        .output()
        .trying(|| format!("start {}", line_of(command)))
}

/// Whether a program is in the path.
pub(super) fn exists(program: &str) -> bool {
    let path = std::env::var("PATH").unwrap_or_default();
    let mut places = path.split(':').chain(["/usr/sbin", "/sbin"]);
    places.any(|place| std::path::Path::new(place).join(program).is_file())
}

fn line_of(command: &Command) -> String {
    let words = std::iter::once(command.get_program()).chain(command.get_args());
    let words: Vec<_> = words.map(OsStr::to_string_lossy).collect();
    words.join(" ")
}

/// The last lines of a text.
#[must_use]
pub(super) fn tail(text: &str, lines: usize) -> String {
    let all: Vec<&str> = text.lines().collect();
    all[all.len().saturating_sub(lines)..].join("\n")
}
