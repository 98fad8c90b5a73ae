//! `csnapctl` as a person or a script runs it.

use std::path::{Path, PathBuf};

use serde_json::Value;

use super::fault::{Fault, Outcome};
use super::tools;
use crate::ensure;

/// What `csnapctl` promises to exit with.
pub mod exit {
    /// Any other error.
    pub const ERROR: i32 = 1;
    /// Wrong arguments.
    pub const USAGE: i32 = 2;
    /// No such thing.
    pub const NOT_FOUND: i32 = 3;
    /// In use or held.
    pub const BUSY: i32 = 4;
    /// The store is full.
    pub const NO_SPACE: i32 = 5;
    /// Damage was found.
    pub const CORRUPTION: i32 = 6;
    /// No daemon answers.
    pub const UNREACHABLE: i32 = 7;
}

/// How a `csnapctl` command ended.
#[derive(Clone, Debug)]
pub struct Answer {
    /// Exit code; -1 if a signal ended it.
    pub code: i32,
    /// Results.
    pub stdout: String,
    /// Everything else.
    pub stderr: String,
}

/// `csnapctl` for one run directory.
#[derive(Clone, Debug)]
pub struct Ctl {
    binary: PathBuf,
    run_dir: PathBuf,
}

impl Ctl {
    /// For the daemon that runs, or will run, in `run_dir`.
    ///
    /// # Errors
    /// If `csnapctl` was not built.
    pub fn new(run_dir: &Path) -> Outcome<Self> {
        Ok(Self {
            binary: tools::csnap_program("csnapctl")?,
            run_dir: run_dir.to_path_buf(),
        })
    }

    /// Runs a command line given in one string, words separated by spaces.
    ///
    /// # Errors
    /// If it could not be started, hung, or died of a signal or a panic.
    pub fn any(&self, line: &str) -> Outcome<Answer> {
        let mut command = tools::program(&self.binary);
        command
            .arg("--run-dir")
            .arg(&self.run_dir)
            .args(line.split_whitespace());
        let output = tools::run_any(&mut command)?;
        let answer = Answer {
            code: output.status.code().unwrap_or(-1),
            stdout: String::from_utf8_lossy(&output.stdout).into_owned(),
            stderr: String::from_utf8_lossy(&output.stderr).into_owned(),
        };
        // 101 is a Rust panic, 124 and 137 are `timeout`'s: never a proper answer.
        if matches!(answer.code, -1 | 101 | 124 | 137) {
            return Err(tools::failed(
                &command,
                &output,
                "panicked, hung or was killed",
            ));
        }
        Ok(answer)
    }

    /// Runs a command that must succeed and hands back its stdout.
    ///
    /// # Errors
    /// If it did not succeed.
    pub fn ok(&self, line: &str) -> Outcome<String> {
        let answer = self.any(line)?;
        ensure!(
            answer.code == 0,
            "`csnapctl {line}` ended with {}\n{}{}",
            answer.code,
            answer.stdout,
            answer.stderr
        );
        Ok(answer.stdout)
    }

    /// Runs a command with `--json` and hands back what it printed.
    ///
    /// # Errors
    /// If it failed or printed something without the schema's version.
    pub fn json(&self, line: &str) -> Outcome<Value> {
        let value: Value = serde_json::from_str(&self.ok(&format!("{line} --json"))?)?;
        ensure!(
            value["schema"] == 1,
            "`csnapctl {line} --json` lacks \"schema\": 1: {value}"
        );
        Ok(value)
    }

    /// Runs a command that must be refused with this exit code, in words that
    /// name `about`.
    ///
    /// # Errors
    /// If it succeeded, ended with another code, or did not say what is wrong.
    pub fn refuses(&self, line: &str, code: i32, about: &str) -> Outcome {
        let answer = self.any(line)?;
        ensure!(
            answer.code == code,
            "`csnapctl {line}` ended with {}, not {code}\n{}{}",
            answer.code,
            answer.stdout,
            answer.stderr
        );
        ensure!(
            answer.stderr.to_lowercase().contains(&about.to_lowercase()),
            "`csnapctl {line}` was refused without naming {about:?}:\n{}",
            answer.stderr
        );
        ensure!(
            !answer.stderr.contains("panicked"),
            "`csnapctl {line}` panicked:\n{}",
            answer.stderr
        );
        Ok(())
    }

    /// The names of a volume's snapshots, oldest first, dropped ones included.
    ///
    /// # Errors
    /// If they cannot be listed.
    pub fn snapshots(&self, volume: &str) -> Outcome<Vec<Snapshot>> {
        let list = self.json(&format!("snapshot list {volume}"))?;
        let rows = rows(&list)?;
        rows.iter().map(Snapshot::of).collect()
    }
}

/// A row of `snapshot list`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Snapshot {
    /// `vol@name`.
    pub full_name: String,
    /// Whether it can be read.
    pub live: bool,
    /// Bytes only this snapshot holds.
    pub exclusive_bytes: u64,
}

impl Snapshot {
    fn of(row: &Value) -> Outcome<Self> {
        let bad = || Fault::wrong(format!("a row of `snapshot list --json` is odd: {row}"));
        let text = |key: &str| row[key].as_str().ok_or_else(bad);
        Ok(Self {
            full_name: format!("{}@{}", text("volume")?, text("name")?),
            live: text("state")? == "live",
            exclusive_bytes: row["exclusive_bytes"].as_u64().ok_or_else(bad)?,
        })
    }
}

/// The rows of a `--json` list: the one array the answer holds.
///
/// # Errors
/// If there are none to find.
pub fn rows(list: &Value) -> Outcome<&Vec<Value>> {
    let fields = list
        .as_object()
        .into_iter()
        .flat_map(serde_json::Map::values);
    let mut arrays = fields.filter_map(Value::as_array);
    arrays
        .next()
        .ok_or_else(|| Fault::wrong(format!("no list in {list}")))
}
