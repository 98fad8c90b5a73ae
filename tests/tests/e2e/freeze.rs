//! File systems held still around a take are thawed, whatever ends it: its time, the
//! death of csnapctl or of the process that holds, or one that cannot be frozen.
//!
//! Somebody writes to each file system all the time, and judges: he must come to a
//! standstill where it should be frozen, and go on within seconds when it should not.
//! The file systems are files mounted by loop devices; where that cannot be done the
//! tests count as skipped.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::process::Child;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::{JoinHandle, sleep};
use std::time::{Duration, Instant};

use csnap_tests::e2e::bed::VOLUME;
use csnap_tests::e2e::ctl::exit;
use csnap_tests::e2e::fault::Trying;
use csnap_tests::e2e::files::{MIB, make_sparse};
use csnap_tests::e2e::{Fault, Outcome, skip, tools};
use csnap_tests::{ensure, need_tools};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::hold::Notes;

/// The smallest that mkfs.xfs takes; it is sparse.
const SIZE: u64 = 320 * MIB;
/// Between two writes.
const BEAT: Duration = Duration::from_millis(10);
/// Nothing was written for so long: frozen.
const STANDSTILL: Duration = Duration::from_millis(700);
/// Thawed, the writer goes on at once; machines are busy.
const SOON: Duration = Duration::from_secs(10);
/// Longer than any test: it is not the time-out that thaws.
const NEVER: u32 = 3000;

/// A mounted file system, and one who writes to it.
struct Mounted {
    dir: PathBuf,
    written: Arc<AtomicU64>,
    stop: Arc<AtomicBool>,
    writer: JoinHandle<()>,
}

impl Mounted {
    /// Makes one in `image`, or says why none can be mounted here.
    fn new(image: &Path, dir: PathBuf, kind: &str) -> Outcome<Result<Self, String>> {
        make_sparse(image, SIZE)?;
        let mut mkfs = tools::program(format!("mkfs.{kind}"));
        tools::run(mkfs.arg("-q").arg(image))?;
        std::fs::create_dir(&dir).trying(|| format!("make {}", dir.display()))?;
        let mut mount = tools::program("mount");
        let mount = mount.args(["-o", "loop,noatime"]).arg(image).arg(&dir);
        let mounted = tools::run_any(mount)?;
        if !mounted.status.success() {
            let why = String::from_utf8_lossy(&mounted.stderr).trim().to_owned();
            return Ok(Err(format!("no file system can be mounted here: {why}")));
        }
        let (written, stop) = (Arc::default(), Arc::default());
        let writer = writer(dir.join("beat"), Arc::clone(&written), Arc::clone(&stop));
        Ok(Ok(Self {
            dir,
            written,
            stop,
            writer,
        }))
    }

    fn written(&self) -> u64 {
        self.written.load(Ordering::Relaxed)
    }

    /// Waits until it is frozen.
    fn stands_still(&self) -> Outcome {
        let deadline = Instant::now() + 2 * SOON;
        loop {
            let before = self.written();
            sleep(STANDSTILL);
            if self.written() == before {
                return Ok(());
            }
            let dir = self.dir.display();
            ensure!(Instant::now() < deadline, "{dir} was never frozen");
        }
    }

    /// It is not frozen, or not for long any more.
    fn goes_on(&self) -> Outcome {
        let (before, deadline) = (self.written(), Instant::now() + SOON);
        while self.written() < before + 2 {
            let dir = self.dir.display();
            ensure!(Instant::now() < deadline, "{dir} is still frozen");
            sleep(BEAT);
        }
        Ok(())
    }

    fn freeze(&self) -> Outcome {
        tools::run(tools::program("fsfreeze").arg("--freeze").arg(&self.dir)).map(drop)
    }

    fn thaw(&self) -> Outcome {
        tools::run(tools::program("fsfreeze").arg("--unfreeze").arg(&self.dir)).map(drop)
    }

    /// Ends the writer and unmounts; of a test that failed as well.
    fn leave(self) {
        let deadline = Instant::now() + SOON;
        while !self.writer.is_finished() && Instant::now() < deadline {
            sleep(BEAT);
        }
        // Only what is left mounted by a test that failed is still frozen here.
        while tools::run(tools::program("umount").arg(&self.dir)).is_err()
            && Instant::now() < deadline
        {
            let _ = self.thaw();
            sleep(BEAT);
        }
    }
}

/// Writes a few bytes again and again, and counts.
fn writer(path: PathBuf, written: Arc<AtomicU64>, stop: Arc<AtomicBool>) -> JoinHandle<()> {
    std::thread::spawn(move || {
        let Ok(file) = File::create(&path) else {
            return;
        };
        while !stop.load(Ordering::Relaxed) && file.write_all_at(b"beat", 0).is_ok() {
            written.fetch_add(1, Ordering::Relaxed);
            sleep(BEAT);
        }
    })
}

/// File systems that are thawed and unmounted when they are dropped; one on which the
/// image of another lies stands before that.
struct Systems(Vec<Mounted>);

impl Drop for Systems {
    fn drop(&mut self) {
        for one in &self.0 {
            one.stop.store(true, Ordering::Relaxed);
            // Frozen still if the test has failed.
            let _ = one.thaw();
        }
        while let Some(one) = self.0.pop() {
            one.leave();
        }
    }
}

/// What a test works with.
struct Scene {
    systems: Systems,
    notes: Notes,
}

impl Scene {
    fn mounted(&self) -> &[Mounted] {
        &self.systems.0
    }

    fn mount(&mut self, image: &Path, dir: &str, kind: &str) -> Outcome<Result<(), String>> {
        let made = Mounted::new(image, self.notes.bed.path(dir), kind)?;
        Ok(made.map(|mounted| self.systems.0.push(mounted)))
    }

    /// The command line of a take that holds these file systems, the one whose name is
    /// the last first.
    fn take(&self, which: &[&Mounted], hold_timeout: u32) -> String {
        let freeze = which
            .iter()
            .map(|one| format!(" --freeze {}", one.dir.display()));
        let freeze: String = freeze.collect();
        format!("snapshot take {VOLUME}@a --hold-timeout {hold_timeout}{freeze}")
    }

    fn take_all(&self, hold_timeout: u32) -> String {
        let all: Vec<&Mounted> = self.mounted().iter().collect();
        self.take(&all, hold_timeout)
    }

    /// Starts csnapctl, and does not wait for its end.
    fn start(&self, line: &str) -> Outcome<Taking<'_>> {
        let said = self.notes.bed.path("said");
        let file = File::create(&said).trying(|| format!("make {}", said.display()))?;
        let child = self.notes.csnapctl(line, file)?;
        Ok(Taking { scene: self, child })
    }

    /// Starts a take that holds all of them while csnapd does not answer: until
    /// [`Self::csnapd_goes_on`]. All stand still when this returns.
    fn start_hanging(&self, hold_timeout: u32) -> Outcome<Taking<'_>> {
        let pid = self.notes.bed.pid()?;
        let stop = self.notes.command("stop", &format!("kill -STOP {pid}"))?;
        let taking = self.start(&format!("{} --pre {stop}", self.take_all(hold_timeout)))?;
        self.mounted().iter().try_for_each(Mounted::stands_still)?;
        Ok(taking)
    }

    fn csnapd_goes_on(&self) -> Outcome {
        signal(self.notes.bed.pid()?, Signal::SIGCONT)
    }

    fn all_go_on(&self) -> Outcome {
        self.mounted().iter().try_for_each(Mounted::goes_on)
    }
}

/// A csnapctl that takes.
struct Taking<'a> {
    scene: &'a Scene,
    child: Child,
}

impl Taking<'_> {
    /// It must end with an error that says this. (What it says goes to a file: the
    /// process that holds has the other end of a pipe for as long as a freeze hangs.)
    fn fails(mut self, about: &str) -> Outcome {
        let status = self.child.wait().trying(|| "wait for csnapctl".into())?;
        let path = self.scene.notes.bed.path("said");
        let said = std::fs::read_to_string(&path).unwrap_or_default();
        let right = status.code() == Some(exit::ERROR) && said.contains(about);
        ensure!(right, "it ended with {status}, not {about:?}: {said}");
        Ok(())
    }
}

fn signal(pid: u32, signal: Signal) -> Outcome {
    let pid = Pid::from_raw(pid.cast_signed());
    kill(pid, signal).map_err(|error| Fault::wrong(format!("{signal} to {pid}: {error}")))
}

/// Plays `story` with a file system of each kind, mounted on `m0`, `m1` ...
fn with(test: &str, kinds: &[&str], story: impl FnOnce(&mut Scene) -> Outcome) -> Outcome {
    need_tools!(test, "mount", "umount", "fsfreeze", "mkfs.ext4", "mkfs.xfs");
    let mut scene = Scene {
        systems: Systems(Vec::new()),
        notes: Notes::new(test)?,
    };
    let mut cannot = None;
    for (number, kind) in kinds.iter().enumerate() {
        let image = scene.notes.bed.path(&format!("m{number}.img"));
        cannot = scene.mount(&image, &format!("m{number}"), kind)?.err();
        if cannot.is_some() {
            break;
        }
    }
    match cannot {
        Some(reason) => skip(test, &reason)?,
        None => story(&mut scene)?,
    }
    let Scene { systems, notes } = scene;
    drop(systems);
    notes.bed.finish()
}

#[test]
fn a_take_that_hangs_thaws_in_time() -> Outcome {
    with("freeze-late", &["xfs", "ext4"], |scene| {
        let taking = scene.start_hanging(6)?;
        // csnapd still does not answer.
        scene.all_go_on()?;
        scene.csnapd_goes_on()?;
        taking.fails("deleted again")?;
        scene.notes.has_no_snapshot()
    })
}

#[test]
fn a_command_before_that_hangs_freezes_nothing() -> Outcome {
    with("freeze-pre", &["ext4"], |scene| {
        let slow = scene.notes.command("slow", "sleep 60")?;
        let line = format!("{} --pre {slow}", scene.take_all(1));
        scene.notes.bed.ctl.refuses(&line, exit::ERROR, "in time")?;
        scene.all_go_on()?;
        scene.notes.has_no_snapshot()
    })
}

#[test]
fn when_csnapctl_is_killed_all_is_thawed() -> Outcome {
    with("freeze-kill", &["xfs", "ext4"], |scene| {
        let mut taking = scene.start_hanging(NEVER)?;
        let killed = taking.child.kill().and_then(|()| taking.child.wait());
        killed.trying(|| "kill csnapctl".into())?;
        scene.all_go_on()?;
        scene.csnapd_goes_on()
    })
}

#[test]
fn when_the_holder_is_killed_csnapctl_thaws() -> Outcome {
    with("freeze-holder", &["ext4", "xfs"], |scene| {
        let taking = scene.start_hanging(NEVER)?;
        signal(only_child(taking.child.id())?, Signal::SIGKILL)?;
        // csnapd still does not answer.
        scene.all_go_on()?;
        scene.csnapd_goes_on()?;
        // Nothing stood still any more when it did.
        taking.fails("deleted again")?;
        scene.notes.has_no_snapshot()
    })
}

#[test]
fn one_that_cannot_be_frozen_leaves_no_other_frozen() -> Outcome {
    with("freeze-second", &["ext4", "xfs"], |scene| {
        let [other, first] = scene.mounted() else {
            return Err(Fault::wrong("not the file systems that were mounted"));
        };
        // By somebody else, whose affair it stays.
        other.freeze()?;
        let (ctl, line) = (&scene.notes.bed.ctl, scene.take_all(NEVER));
        ctl.refuses(&line, exit::ERROR, "cannot freeze")?;
        first.goes_on()?;
        other.stands_still()?;
        other.thaw()?;
        other.goes_on()?;
        scene.notes.has_no_snapshot()?;
        // With nobody in the way it works, and thaws as well.
        ctl.ok(&line)?;
        scene.all_go_on()
    })
}

/// A freeze waits until all is written, which the device below may not let happen, and
/// cannot be interrupted then. No other waits for it, and in the end it is undone.
#[test]
fn a_freeze_that_hangs_holds_no_other_and_is_undone() -> Outcome {
    with("freeze-hang", &["ext4", "ext4"], |scene| {
        let image = scene.mounted()[0].dir.join("image");
        let made = scene.mount(&image, "deep", "ext4")?;
        made.map_err(Fault::wrong)?;
        let [below, first, deep] = scene.mounted() else {
            return Err(Fault::wrong("not the file systems that were mounted"));
        };
        deep.goes_on()?;
        let unwritten = deep.dir.join("unwritten");
        std::fs::write(&unwritten, vec![7; 4 << 20]).trying(|| "write a file".into())?;
        below.freeze()?;
        let taking = scene.start(&scene.take(&[first, deep], 6))?;
        first.stands_still()?;
        first.goes_on()?;
        taking.fails("not be frozen in time")?;
        deep.stands_still()?;
        below.thaw()?;
        scene.all_go_on()?;
        // Not frozen late either: still not when all has been written.
        tools::run(tools::program("sync").arg("-f").arg(&deep.dir))?;
        deep.goes_on()?;
        scene.notes.has_no_snapshot()
    })
}

/// The one process that another has started.
fn only_child(of: u32) -> Outcome<u32> {
    let path = format!("/proc/{of}/task/{of}/children");
    let text = std::fs::read_to_string(&path).trying(|| format!("read {path}"))?;
    let children: Vec<u32> = text.split(' ').filter_map(|pid| pid.parse().ok()).collect();
    match children[..] {
        [child] => Ok(child),
        _ => Err(Fault::wrong(format!("the children of csnapctl: {text}"))),
    }
}
