//! One run of a target: how long, how much processor, how much memory.
//!
//! The programs are children of a process of their own (this program again), so that the
//! kernel's account of "all children" is of this run alone.

use std::fs::File;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use serde::{Deserialize, Serialize};

use crate::report::Sample;
use crate::{Outcome, Trying};

/// A program and its arguments.
pub(crate) type Step = Vec<String>;

/// What the process in between tells.
#[derive(Debug, Serialize, Deserialize)]
struct Account {
    wall: f64,
    user: f64,
    system: f64,
    /// Of the largest of the programs, in bytes.
    peak_rss: u64,
}

/// Runs `steps` one after the other, then makes `output` durable.
pub(crate) fn run(steps: &[Step], output: &Path) -> Outcome<Sample> {
    let steps = serde_json::to_string(steps).trying("write the steps")?;
    let this = std::env::current_exe().trying("find this program")?;
    let ran = Command::new(this)
        .args(["--measure", &steps])
        .stderr(Stdio::inherit())
        .output();
    let ran = ran.trying("run this program again")?;
    if !ran.status.success() {
        return Err("it failed".into());
    }
    let account: Account = serde_json::from_slice(&ran.stdout).trying("read the account")?;
    let waiting = Instant::now();
    let image = File::open(output).trying(output.display())?;
    image.sync_all().trying(output.display())?;
    let image = image.metadata().trying(output.display())?;
    Ok(Sample {
        done: account.wall,
        durable: account.wall + waiting.elapsed().as_secs_f64(),
        user: account.user,
        system: account.system,
        peak_rss: account.peak_rss as f64,
        bytes: std::os::unix::fs::MetadataExt::blocks(&image) as f64 * 512.0,
    })
}

/// The process in between: runs the steps and prints the account.
pub(crate) fn inside(steps: &str) -> Outcome {
    let steps: Vec<Step> = serde_json::from_str(steps).trying("read the steps")?;
    let begin = Instant::now();
    for step in &steps {
        let (program, arguments) = step.split_first().ok_or("a step without a program")?;
        let status = Command::new(program)
            .args(arguments)
            .env("LC_ALL", "C")
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .status()
            .trying(format!("run {program}"))?;
        if !status.success() {
            return Err(format!("{}: {status}", step.join(" ")));
        }
    }
    let wall = begin.elapsed().as_secs_f64();
    let usage = getrusage(UsageWho::RUSAGE_CHILDREN).trying("getrusage")?;
    let seconds = |time: nix::sys::time::TimeVal| {
        let microseconds = u64::try_from(time.num_microseconds()).unwrap_or_default();
        Duration::from_micros(microseconds).as_secs_f64()
    };
    let account = Account {
        wall,
        user: seconds(usage.user_time()),
        system: seconds(usage.system_time()),
        peak_rss: u64::try_from(usage.max_rss()).unwrap_or_default() << 10,
    };
    println!(
        "{}",
        serde_json::to_string(&account).trying("write the account")?
    );
    Ok(())
}

/// Waits until the file system in which `path` lies or will lie has nothing to write.
pub(crate) fn sync(path: &Path) -> Outcome {
    let parent = path.parent().unwrap_or(path);
    let parent = File::open(parent).trying(parent.display())?;
    rustix::fs::syncfs(parent).trying("sync the disk")
}
