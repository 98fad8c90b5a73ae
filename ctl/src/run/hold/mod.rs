//! Holding file systems and programs still around a take.
//!
//! A process of its own does it (`holder`): it runs the command before, freezes,
//! says so, and waits for its standard input to end or for the time to be over; then
//! it thaws and runs the command after. So csnapctl may be interrupted or killed at
//! any moment: its end of the pipe closes, and everything goes on. Should the holder
//! be killed instead, csnapctl thaws.
//!
//! The holder says on standard output, a line each: `held`, or `failed` and why; then
//! `done`, `late` (the time was over before the take was), or `failed` and why.

mod holder;

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use ublk_target::control::protocol::{ErrorCode, Failure};
use ublk_target::freeze;

pub(super) use holder::run as holder;

use super::mount::is_mount_point;
use crate::Done;
use crate::cli::HoldArgs;

/// How a hold has ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum End {
    /// When it was told to.
    Done,
    /// Before: its time was over.
    Late,
    /// What came after the take did not work.
    Failed(String),
}

/// Something held still.
pub(super) struct Hold {
    holder: Child,
    /// Held as long as this is open.
    open: Option<ChildStdin>,
    said: BufReader<ChildStdout>,
    freeze: Vec<PathBuf>,
}

impl Hold {
    /// Runs the command before and freezes.
    ///
    /// # Errors
    /// If something of it did not work; nothing is held then.
    pub(super) fn begin(args: &HoldArgs, targets: &str) -> Done<Self> {
        let freeze = mount_points(&args.freeze)?;
        let program = std::env::current_exe().map_err(cannot_start)?;
        let mut command = Command::new(program);
        command.arg("hold").arg(format!("--targets={targets}"));
        command.arg(format!("--hold-timeout={}", args.hold_timeout));
        for dir in &freeze {
            command.arg("--freeze").arg(dir);
        }
        for (option, value) in [("--pre", &args.pre), ("--post", &args.post)] {
            if let Some(value) = value {
                command.arg(format!("{option}={value}"));
            }
        }
        // In a group of its own: the keys that interrupt csnapctl are not for it.
        command.process_group(0);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut holder = command.spawn().map_err(cannot_start)?;
        let (Some(open), Some(said)) = (holder.stdin.take(), holder.stdout.take()) else {
            return Err(cannot_start("it has no pipes"));
        };
        let mut hold = Self {
            holder,
            open: Some(open),
            said: BufReader::new(said),
            freeze,
        };
        match hold.line().as_str() {
            "held" => Ok(hold),
            other => {
                let why = other
                    .strip_prefix("failed ")
                    .unwrap_or("it ended")
                    .to_owned();
                let _ = hold.end();
                Err(Failure::new(ErrorCode::Error, why).next("no snapshot was taken"))
            }
        }
    }

    /// Thaws and runs the command after.
    pub(super) fn end(mut self) -> End {
        drop(self.open.take());
        let said = self.line();
        let status = self.holder.wait();
        match said.split_once(' ').unwrap_or((&said, "")) {
            ("done", _) => End::Done,
            ("late", _) => End::Late,
            ("failed", why) => End::Failed(why.to_owned()),
            _ => {
                for dir in &self.freeze {
                    // Whatever it has thawed itself cannot be thawed again.
                    let _ = freeze::thaw(dir);
                }
                End::Failed(format!(
                    "the process that held everything still ended: {status:?}"
                ))
            }
        }
    }

    fn line(&mut self) -> String {
        let mut line = String::new();
        let _ = self.said.read_line(&mut line);
        line.trim_end().to_owned()
    }
}

/// The directories as the kernel's table names them.
fn mount_points(dirs: &[PathBuf]) -> Done<Vec<PathBuf>> {
    let point = |dir: &PathBuf| {
        let path = dir.canonicalize().unwrap_or_else(|_| dir.clone());
        if is_mount_point(&path) {
            return Ok(path);
        }
        let message = format!("{} is no mount point", dir.display());
        Err(Failure::new(ErrorCode::NotFound, message)
            .next("--freeze takes the directory a file system is mounted on; see findmnt(8)"))
    };
    let mut points = dirs.iter().map(point).collect::<Done<Vec<_>>>()?;
    points.sort();
    points.dedup();
    Ok(points)
}

fn cannot_start(error: impl std::fmt::Display) -> Failure {
    let message = format!("cannot start the process that holds file systems still: {error}");
    Failure::new(ErrorCode::Error, message)
}
