//! The process that holds everything still: see the module above.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;
use ublk_target::control::protocol::{ErrorCode, Failure};
use ublk_target::freeze::{Frozen, freeze};

use crate::Done;
use crate::cli::HolderArgs;

/// How often a command is looked after.
const STEP: Duration = Duration::from_millis(10);

/// Holds until standard input ends or the time is over.
pub(crate) fn run(args: &HolderArgs) -> Done {
    let time = Duration::from_secs(args.hold.hold_timeout);
    let held = hold(args, Instant::now() + time);
    // Also if the command before failed: it may have done a part.
    let after = match &args.hold.post {
        Some(command) => shell("--post", command, &args.targets, Instant::now() + time),
        None => Ok(()),
    };
    match (held, after) {
        (Ok(true), Ok(())) => say("done"),
        (Ok(false), _) => say("late"),
        (Err(why), _) | (Ok(true), Err(why)) => say(&format!("failed {why}")),
    }
}

/// `false`: the time was over first.
fn hold(args: &HolderArgs, deadline: Instant) -> Result<bool, String> {
    if let Some(command) = &args.hold.pre {
        shell("--pre", command, &args.targets, deadline)?;
    }
    let mut frozen: Vec<Frozen> = Vec::new();
    for dir in &args.hold.freeze {
        let cannot = |error: io::Error| format!("cannot freeze {}: {error}", dir.display());
        frozen.push(freeze(dir).map_err(cannot)?);
    }
    say("held").map_err(|failure| failure.message)?;
    let in_time = wait_for_the_end(deadline);
    let thawed = frozen.into_iter().rev().map(Frozen::thaw);
    // Each of them, whatever becomes of the others.
    let failed: Vec<io::Error> = thawed.filter_map(Result::err).collect();
    match failed.first() {
        Some(error) => Err(format!("cannot thaw: {error}")),
        None => Ok(in_time),
    }
}

fn wait_for_the_end(deadline: Instant) -> bool {
    let (sender, receiver) = mpsc::channel();
    std::thread::spawn(move || {
        let _ = io::stdin().lock().read_to_end(&mut Vec::new());
        let _ = sender.send(());
    });
    let left = deadline.saturating_duration_since(Instant::now());
    receiver.recv_timeout(left).is_ok()
}

/// Runs a command; what it prints goes to standard error.
fn shell(option: &str, command: &str, targets: &str, deadline: Instant) -> Result<(), String> {
    let cannot = |error: io::Error| format!("cannot run {option} {command:?}: {error}");
    let mut child = Command::new("/bin/sh")
        .args(["-c", command])
        .env("CSNAP_TARGETS", targets)
        .stdin(Stdio::null())
        .stdout(io::stderr())
        .process_group(0)
        .spawn()
        .map_err(cannot)?;
    loop {
        match child.try_wait().map_err(cannot)? {
            Some(status) => return judged(option, command, status),
            None if Instant::now() < deadline => std::thread::sleep(STEP),
            None => {
                let group = Pid::from_raw(child.id().cast_signed());
                let _ = killpg(group, Signal::SIGKILL);
                let _ = child.wait();
                return Err(format!("{option} {command:?} did not end in time"));
            }
        }
    }
}

fn judged(option: &str, command: &str, status: ExitStatus) -> Result<(), String> {
    match status.success() {
        true => Ok(()),
        false => Err(format!("{option} {command:?} failed: {status}")),
    }
}

fn say(line: &str) -> Done {
    // One line each, whatever a command's name holds.
    let line = line.replace('\n', " ");
    let mut out = io::stdout().lock();
    let said = writeln!(out, "{line}").and_then(|()| out.flush());
    said.map_err(|error| Failure::new(ErrorCode::Error, error.to_string()))
}
