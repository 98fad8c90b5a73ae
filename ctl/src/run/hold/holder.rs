//! The process that holds everything still: see the module above.

use std::io::{self, Read, Write};
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Command, ExitStatus, Stdio};
use std::sync::mpsc;
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use nix::sys::signal::{SigSet, Signal, killpg};
use nix::unistd::Pid;
use ublk_target::control::protocol::{ErrorCode, Failure};
use ublk_target::freeze::{Frozen, freeze};

use crate::Done;
use crate::cli::HolderArgs;

/// How often a command is looked after.
const STEP: Duration = Duration::from_millis(10);

/// Holds until standard input ends or the time is over.
pub(crate) fn run(args: &HolderArgs) -> Done {
    // What ends a whole service must not end this before it has thawed. Commands it
    // starts begin with no signal blocked.
    let signals = [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGQUIT,
    ];
    let blocked = signals.into_iter().collect::<SigSet>().thread_block();
    blocked.map_err(|error| Failure::new(ErrorCode::Error, error.to_string()))?;
    let time = Duration::from_secs(args.hold.hold_timeout);
    let mut freezer = None;
    let held = hold(args, Instant::now() + time, &mut freezer);
    // Also if the command before failed: it may have done a part.
    let after = match &args.hold.post {
        Some(command) => shell("--post", command, &args.targets, Instant::now() + time),
        None => Ok(()),
    };
    let said = match (held, after) {
        (Ok(true), Ok(())) => say("done"),
        (Ok(false), _) => say("late"),
        (Err(why), _) | (Ok(true), Err(why)) => say(&format!("failed {why}")),
    };
    // A freeze that still hangs is undone when it returns.
    if let Some(freezer) = freezer {
        let _ = freezer.join();
    }
    said
}

/// What the thread that holds hears of the others.
enum Heard {
    /// A file system stands still.
    Frozen(usize, Frozen),
    /// All of them do.
    All,
    /// One cannot be frozen.
    Failed(String),
    /// The take is over, or csnapctl is.
    End,
}

/// `false`: not all stood still until the end.
fn hold(
    args: &HolderArgs,
    deadline: Instant,
    freezer: &mut Option<JoinHandle<()>>,
) -> Result<bool, String> {
    if let Some(command) = &args.hold.pre {
        shell("--pre", command, &args.targets, deadline)?;
    }
    let (sender, heard) = mpsc::channel();
    listen(sender.clone());
    *freezer = Some(freeze_all(args.hold.freeze.clone(), sender));
    let mut frozen = Vec::new();
    let in_time = until_the_end(&heard, deadline, &mut frozen);
    // Whatever is frozen from now on is thawed at once.
    drop(heard);
    let mut whole = in_time?;
    for one in frozen.into_iter().rev() {
        match one.thaw() {
            Ok(()) => {}
            // Somebody else has thawed it: who knows when.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => whole = false,
            Err(error) => return Err(format!("cannot thaw: {error}")),
        }
    }
    Ok(whole)
}

fn until_the_end(
    heard: &mpsc::Receiver<Heard>,
    deadline: Instant,
    frozen: &mut Vec<Frozen>,
) -> Result<bool, String> {
    let cannot_say = |failure: Failure| failure.message;
    let mut held = false;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        match heard.recv_timeout(left) {
            Ok(Heard::Frozen(number, one)) => {
                frozen.push(one);
                say(&format!("frozen {number}")).map_err(cannot_say)?;
            }
            Ok(Heard::All) => {
                held = true;
                say("held").map_err(cannot_say)?;
            }
            Ok(Heard::Failed(why)) => return Err(why),
            Ok(Heard::End) if held => return Ok(true),
            Ok(Heard::End) => return Err("csnapctl was ended".to_owned()),
            Err(_) if held => return Ok(false),
            Err(_) => return Err("the file systems could not be frozen in time".to_owned()),
        }
    }
}

fn listen(sender: mpsc::Sender<Heard>) {
    std::thread::spawn(move || {
        let _ = io::stdin().lock().read_to_end(&mut Vec::new());
        let _ = sender.send(Heard::End);
    });
}

/// On a thread of its own: a freeze waits for everything to be written, and cannot be
/// interrupted. What nobody takes is thawed by being dropped.
fn freeze_all(dirs: Vec<PathBuf>, sender: mpsc::Sender<Heard>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        for (number, dir) in dirs.iter().enumerate() {
            let heard = match freeze(dir) {
                Ok(frozen) => Heard::Frozen(number, frozen),
                Err(error) => Heard::Failed(format!("cannot freeze {}: {error}", dir.display())),
            };
            let failed = matches!(heard, Heard::Failed(_));
            if sender.send(heard).is_err() || failed {
                return;
            }
        }
        let _ = sender.send(Heard::All);
    })
}

/// Runs a command; what it prints goes to standard error.
pub(super) fn shell(
    option: &str,
    command: &str,
    targets: &str,
    deadline: Instant,
) -> Result<(), String> {
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
    match writeln!(out, "{line}").and_then(|()| out.flush()) {
        // csnapctl is gone, so its end of standard input is closed too: that is heard.
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        said => said.map_err(|error| Failure::new(ErrorCode::Error, error.to_string())),
    }
}
