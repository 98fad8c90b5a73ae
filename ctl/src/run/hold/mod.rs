//! Holding file systems and programs still around a take.
//!
//! A process of its own does it (`holder`): it runs the command before, freezes,
//! says so, and waits for its standard input to end or for the time to be over; then
//! it thaws and runs the command after. So csnapctl may be interrupted or killed at
//! any moment: its end of the pipe closes, and everything goes on. Should the holder
//! be killed instead, csnapctl thaws and runs the command after, at once: a thread listens
//! while the take, which may hang, is under way. (Killed while that command ran, it has
//! it run once more.)
//!
//! The holder says on standard output, a line each: `frozen` and which of them; `held`,
//! or `failed` and why; then `done`, `late` (not all stood still until the end), or
//! `failed` and why. What it did not freeze is not ours to thaw.

mod holder;

use std::io::{BufRead, BufReader};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

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
    open: ChildStdin,
    /// The holder was killed, and csnapctl begins to thaw.
    thawing: Arc<AtomicBool>,
    /// How it ends; `None`: killed, and all stood still until csnapctl thawed it.
    watch: JoinHandle<Option<End>>,
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
        let thawing = Arc::default();
        let mut watch = Watch {
            said: BufReader::new(said),
            freeze,
            frozen: Vec::new(),
            after: args.post.clone(),
            targets: targets.to_owned(),
            time: Duration::from_secs(args.hold_timeout),
            thawing: Arc::clone(&thawing),
        };
        watch.wait_until_held()?;
        Ok(Self {
            holder,
            open,
            thawing,
            watch: std::thread::spawn(move || watch.wait_until_gone()),
        })
    }

    /// Thaws and runs the command after.
    pub(super) fn end(mut self) -> End {
        // Then some of it may have gone on before now.
        let thawing = self.thawing.load(Ordering::Acquire);
        drop(self.open);
        let end = self.watch.join().unwrap_or(Some(End::Late));
        let status = self.holder.wait();
        match end {
            Some(end) => end,
            None if thawing => End::Late,
            None => End::Failed(format!(
                "the process that held everything still ended: {status:?}"
            )),
        }
    }
}

/// What hears the holder, and stands in for it when it is gone.
struct Watch {
    said: BufReader<ChildStdout>,
    freeze: Vec<PathBuf>,
    /// Which of them the holder has frozen.
    frozen: Vec<usize>,
    /// The command after, what was to be taken, and how long it may take.
    after: Option<String>,
    targets: String,
    time: Duration,
    thawing: Arc<AtomicBool>,
}

impl Watch {
    fn wait_until_held(&mut self) -> Done {
        loop {
            let line = self.line();
            match line.split_once(' ').unwrap_or((&line, "")) {
                ("held", _) => return Ok(()),
                ("frozen", number) => self.frozen.extend(number.parse::<usize>()),
                ("failed", why) => return Err(not_held(why)),
                _ => {
                    self.thaw();
                    let after = self.run_after().err().map(|why| format!("; {why}"));
                    let why = "the process that holds file systems still ended";
                    return Err(not_held(&format!("{why}{}", after.unwrap_or_default())));
                }
            }
        }
    }

    /// Until its last word, or its end without one.
    fn wait_until_gone(mut self) -> Option<End> {
        let said = self.line();
        match said.split_once(' ').unwrap_or((&said, "")) {
            ("done", _) => Some(End::Done),
            ("late", _) => Some(End::Late),
            ("failed", why) => Some(End::Failed(why.to_owned())),
            _ => {
                let any = !self.frozen.is_empty() || self.after.is_some();
                self.thawing.store(any, Ordering::Release);
                let still = self.thaw();
                match self.run_after() {
                    _ if !still => Some(End::Late),
                    Err(why) => Some(End::Failed(why)),
                    Ok(()) => None,
                }
            }
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

    /// In its place, too.
    fn run_after(&self) -> Result<(), String> {
        let Some(command) = &self.after else {
            return Ok(());
        };
        holder::shell("--post", command, &self.targets, Instant::now() + self.time)
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
