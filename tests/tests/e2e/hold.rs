//! Commands around a take: they run in order, and what was held still always goes on.

use std::io::Read;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use csnap_tests::e2e::bed::VOLUME;
use csnap_tests::e2e::ctl::exit;
use csnap_tests::e2e::fault::Trying;
use csnap_tests::e2e::files::MIB;
use csnap_tests::e2e::{Bed, Outcome, Setup, tools};
use csnap_tests::ensure;

/// Commands that write down when they ran.
pub(super) struct Notes {
    pub(super) bed: Bed,
    file: PathBuf,
}

impl Notes {
    pub(super) fn new(test: &str) -> Outcome<Self> {
        let setup = Setup {
            origin_bytes: 4 * MIB,
            ..Setup::default()
        };
        let bed = Bed::new(test, &setup)?;
        let file = bed.path("notes");
        Ok(Self { bed, file })
    }

    /// A command without blanks that notes `name` and then does `more`.
    pub(super) fn command(&self, name: &str, more: &str) -> Outcome<String> {
        let path = self.bed.path(name);
        let notes = self.file.display();
        let text = format!("#!/bin/sh\necho \"{name} $CSNAP_TARGETS\" >> {notes}\n{more}\n");
        std::fs::write(&path, text).trying(|| format!("write {}", path.display()))?;
        let executable = std::fs::Permissions::from_mode(0o755);
        std::fs::set_permissions(&path, executable).trying(|| "make it run".into())?;
        Ok(path.display().to_string())
    }

    fn noted(&self) -> String {
        std::fs::read_to_string(&self.file).unwrap_or_default()
    }

    /// Waits until the command after has run: csnapctl may be gone before.
    fn wait_for_post(&self) -> Outcome {
        let deadline = Instant::now() + Duration::from_secs(20);
        while !self.noted().contains("post") {
            ensure!(Instant::now() < deadline, "--post did not run");
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// Starts csnapctl, and does not wait for its end.
    pub(super) fn csnapctl(&self, line: &str, stderr: impl Into<Stdio>) -> Outcome<Child> {
        Command::new(tools::csnap_program("csnapctl")?)
            .arg("--run-dir")
            .arg(self.bed.path("run"))
            .args(line.split_whitespace())
            .stdout(Stdio::null())
            .stderr(stderr)
            .spawn()
            .trying(|| "start csnapctl".into())
    }

    pub(super) fn has_no_snapshot(&self) -> Outcome {
        let there = self.bed.ctl.snapshots(VOLUME)?;
        ensure!(there.is_empty(), "there is {there:?}");
        Ok(())
    }
}

#[test]
fn commands_run_before_and_after() -> Outcome {
    let notes = Notes::new("hold-order")?;
    let (pre, post) = (notes.command("pre", "")?, notes.command("post", "")?);
    let taken = notes.bed.ctl.ok(&format!(
        "snapshot take {VOLUME}@a --pre {pre} --post {post}"
    ))?;
    ensure!(taken.trim() == format!("{VOLUME}@a"), "it says {taken}");
    let noted = notes.noted();
    ensure!(
        noted == format!("pre {VOLUME}@a\npost {VOLUME}@a\n"),
        "they noted {noted}"
    );
    notes.bed.finish()
}

#[test]
fn without_the_command_before_there_is_no_snapshot() -> Outcome {
    let notes = Notes::new("hold-pre")?;
    let (pre, post) = (notes.command("pre", "exit 3")?, notes.command("post", "")?);
    let line = format!("snapshot take {VOLUME} --pre {pre} --post {post}");
    notes.bed.ctl.refuses(&line, exit::ERROR, "--pre")?;
    notes.has_no_snapshot()?;
    ensure!(notes.noted().contains("post"), "--post did not run");
    notes.bed.finish()
}

#[test]
fn a_command_after_that_fails_leaves_the_snapshot() -> Outcome {
    let notes = Notes::new("hold-post")?;
    let post = notes.command("post", "exit 1")?;
    let line = format!("snapshot take {VOLUME}@kept --post {post}");
    notes
        .bed
        .ctl
        .refuses(&line, exit::ERROR, "is taken and good")?;
    let there = notes.bed.ctl.snapshots(VOLUME)?;
    ensure!(there.len() == 1, "there is {there:?}");
    notes.bed.finish()
}

#[test]
fn a_command_that_hangs_is_ended() -> Outcome {
    let notes = Notes::new("hold-hang")?;
    let (pre, post) = (
        notes.command("pre", "sleep 60; echo too late")?,
        notes.command("post", "")?,
    );
    let clock = Instant::now();
    let line = format!("snapshot take {VOLUME} --pre {pre} --post {post} --hold-timeout 1");
    notes.bed.ctl.refuses(&line, exit::ERROR, "in time")?;
    let took = clock.elapsed();
    ensure!(took < Duration::from_secs(15), "it took {took:?}");
    notes.has_no_snapshot()?;
    ensure!(notes.noted().contains("post"), "--post did not run");
    notes.bed.finish()
}

#[test]
fn a_take_that_comes_too_late_is_taken_back() -> Outcome {
    let notes = Notes::new("hold-late")?;
    let pid = notes.bed.pid()?;
    let stop = notes.command("pre", &format!("kill -STOP {pid}"))?;
    let go_on = notes.command("post", &format!("kill -CONT {pid}"))?;
    let line = format!("snapshot take {VOLUME} --pre {stop} --post {go_on} --hold-timeout 1");
    notes.bed.ctl.refuses(&line, exit::ERROR, "deleted again")?;
    notes.has_no_snapshot()?;
    notes.bed.finish()
}

#[test]
fn what_is_held_goes_on_when_csnapctl_is_killed() -> Outcome {
    let notes = Notes::new("hold-kill")?;
    let (pre, post) = (notes.command("pre", "sleep 1")?, notes.command("post", "")?);
    let line = format!("snapshot take {VOLUME} --pre {pre} --post {post}");
    let mut taking = notes.csnapctl(&line, Stdio::piped())?;
    let deadline = Instant::now() + Duration::from_secs(20);
    while !notes.noted().contains("pre") {
        ensure!(Instant::now() < deadline, "--pre did not run");
        std::thread::sleep(Duration::from_millis(10));
    }
    let killed = taking.kill().and_then(|()| taking.wait());
    killed.trying(|| "kill csnapctl".into())?;
    notes.wait_for_post()?;
    // To its end: that of the process that held.
    let mut said = String::new();
    if let Some(mut stderr) = taking.stderr.take() {
        let read = stderr.read_to_string(&mut said);
        read.trying(|| "read what is said".into())?;
    }
    ensure!(said.is_empty(), "nobody is left to be told: {said}");
    notes.has_no_snapshot()?;
    notes.bed.finish()
}

#[test]
fn the_command_after_runs_when_the_holder_is_killed() -> Outcome {
    let notes = Notes::new("hold-holder")?;
    // The shell that runs it is the holder's child.
    let (pre, post) = (
        notes.command("pre", "kill -9 $(ps -o ppid= -p $PPID)")?,
        notes.command("post", "")?,
    );
    let line = format!("snapshot take {VOLUME} --pre {pre};true --post {post}");
    notes.bed.ctl.refuses(&line, exit::ERROR, "ended")?;
    notes.wait_for_post()?;
    notes.has_no_snapshot()?;
    notes.bed.finish()
}

#[test]
fn only_mount_points_are_frozen() -> Outcome {
    let notes = Notes::new("hold-mount")?;
    let dir = notes.file.parent().unwrap_or(Path::new("/")).display();
    let post = notes.command("post", "")?;
    let line = format!("snapshot take {VOLUME} --freeze {dir} --post {post}");
    notes
        .bed
        .ctl
        .refuses(&line, exit::NOT_FOUND, "mount point")?;
    notes.has_no_snapshot()?;
    ensure!(notes.noted().is_empty(), "something ran: {}", notes.noted());
    notes.bed.finish()
}
