//! Holding file systems and programs still around a take.
//!
//! A process of its own does it (`holder`): it runs the command before, freezes,
//! says so, and waits for its standard input to end or for the time to be over; then
//! it thaws and runs the command after. So csnapctl may be interrupted or killed at
//! any moment: its end of the pipe closes, and everything goes on. Should the holder
//! be killed instead, csnapctl thaws.
//!
//! The holder says on standard output, a line each: `frozen` and which of them; `held`,
//! or `failed` and why; then `done`, `late` (not all stood still until the end), or
//! `failed` and why. What it did not freeze is not ours to thaw.

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
    /// Not everything stood still until then.
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
    /// Which of them the holder has frozen.
    frozen: Vec<usize>,
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
            frozen: Vec::new(),
        };
        hold.wait_until_held()?;
        Ok(hold)
    }

    fn wait_until_held(&mut self) -> Done {
        loop {
            let line = self.line();
            match line.split_once(' ').unwrap_or((&line, "")) {
                ("held", _) => return Ok(()),
                ("frozen", number) => self.frozen.extend(number.parse::<usize>()),
                ("failed", why) => return Err(not_held(why)),
                _ => {
                    self.thaw();
                    return Err(not_held("the process that holds file systems still ended"));
                }
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
            _ if self.thaw() => {
                let ended = "the process that held everything still ended";
                End::Failed(format!("{ended}: {status:?}"))
            }
            _ => End::Late,
        }
    }

    /// In place of a holder that is gone. Whether all it had frozen still was.
    fn thaw(&self) -> bool {
        let frozen = self.frozen.iter().filter_map(|at| self.freeze.get(*at));
        let thawed = frozen.rev().map(|dir| freeze::thaw(dir).is_ok());
        // Each, whatever becomes of the others.
        let thawed: Vec<bool> = thawed.collect();
        !thawed.contains(&false)
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
    // The one that lies in another first: it could not write there any more.
    points.reverse();
    Ok(points)
}

fn not_held(why: &str) -> Failure {
    Failure::new(ErrorCode::Error, why).next("no snapshot was taken")
}

fn cannot_start(error: impl std::fmt::Display) -> Failure {
    let message = format!("cannot start the process that holds file systems still: {error}");
    Failure::new(ErrorCode::Error, message)
}
