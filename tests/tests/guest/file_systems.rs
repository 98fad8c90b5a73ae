//! XFS and ext4 on the device, a busy tree, snapshots frozen and not.
//!
//! A snapshot taken while the file system was frozen is clean: mounted with
//! `csnapctl snapshot mount` it must show exactly the manifest made during the
//! freeze, and the checker must be content (ext4: with the snapshot as it is; XFS,
//! which leaves its log dirty at a freeze: with a copy that replayed it). One taken
//! unfrozen is what a power cut would leave: its log must replay on a writable copy,
//! then every file synced before the take must be there, and the checker must be
//! content with the copy.

use std::path::{Path, PathBuf};
use std::process::Command;

use csnap_tests::e2e::bed::VOLUME;
use csnap_tests::e2e::fault::Trying;
use csnap_tests::e2e::{Outcome, tools};
use csnap_tests::ensure;
use csnap_tests::guest_bed::fio::sleep_ms;
use csnap_tests::guest_bed::tree::{self, Busy, Manifest};
use csnap_tests::guest_bed::{Device, Disk, RamOptions, Rig, Setup, kernel, note};

/// Smallest that mkfs.xfs takes without protest.
const MIB: u64 = 320;

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Xfs,
    Ext4,
}

impl Kind {
    fn make(self, device: &Device) -> Outcome {
        let mut command = match self {
            Self::Xfs => tools::program("mkfs.xfs"),
            Self::Ext4 => tools::program("mkfs.ext4"),
        };
        tools::run(command.arg("-q").arg(&device.path)).map(drop)
    }

    /// The checker, changing nothing.
    fn check(self, device: &Device) -> Outcome {
        let mut command = match self {
            Self::Xfs => tools::program("xfs_repair"),
            Self::Ext4 => tools::program("e2fsck"),
        };
        command.arg(if self == Self::Xfs { "-n" } else { "-fn" });
        tools::run(command.arg(&device.path)).map(drop)
    }

    /// Options to mount a copy beside the file system it is a copy of.
    fn beside(self) -> &'static str {
        match self {
            Self::Xfs => "noatime,nouuid",
            Self::Ext4 => "noatime",
        }
    }
}

fn mount(device: &Device, options: &str, dir: &Path) -> Outcome {
    std::fs::create_dir_all(dir).trying(|| format!("make {}", dir.display()))?;
    let mut command = tools::program("mount");
    tools::run(command.args(["-o", options]).arg(&device.path).arg(dir)).map(drop)
}

fn umount(dir: &Path) -> Outcome {
    kernel::eventually(
        &format!("unmount {}", dir.display()),
        std::time::Duration::from_secs(20),
        || tools::run(tools::program("umount").arg(dir)).map(drop),
    )
}

fn fsfreeze(how: &str, dir: &Path) -> Outcome {
    tools::run(tools::program("fsfreeze").arg(how).arg(dir)).map(drop)
}

/// How a snapshot was taken.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Taken {
    /// Within a freeze of the test's own: the manifest is all there is.
    Still,
    /// By `snapshot take --freeze`: the manifest is what was synced before.
    Held,
    /// Unfrozen, likewise.
    Moving,
}

/// A snapshot and what it must show.
struct Kept {
    full: String,
    taken: Taken,
    manifest: Manifest,
}

impl Kept {
    fn judge(&self, seen: &Manifest, what: &str) -> Outcome {
        match self.taken {
            Taken::Still => tree::same(&self.manifest, seen, what),
            Taken::Held | Taken::Moving => tree::includes(seen, &self.manifest, what),
        }
    }
}

struct Story {
    rig: Rig,
    kind: Kind,
    device: Device,
    live: PathBuf,
    kept: Vec<Kept>,
}

impl Story {
    fn begin(test: &str, kind: Kind) -> Outcome<Self> {
        let setup = Setup {
            origin: RamOptions {
                cached: true,
                ..RamOptions::plain(MIB)
            },
            store_mib: 512,
            ..Setup::default()
        };
        let rig = Rig::new(test, &setup)?;
        let device = rig.device()?;
        kind.make(&device)?;
        let live = rig.bed.path("live");
        mount(&device, "noatime", &live)?;
        Ok(Self {
            rig,
            kind,
            device,
            live,
            kept: Vec::new(),
        })
    }

    fn take_frozen(&mut self, name: &str) -> Outcome {
        let full = format!("{VOLUME}@{name}");
        fsfreeze("--freeze", &self.live)?;
        let manifest = tree::manifest(&self.live);
        let taken = self.rig.bed.ctl.ok(&format!("snapshot take {full}"));
        fsfreeze("--unfreeze", &self.live)?;
        taken?;
        self.kept.push(Kept {
            full,
            taken: Taken::Still,
            manifest: manifest?,
        });
        Ok(())
    }

    fn take_held(&mut self, name: &str, busy: &Busy) -> Outcome {
        let freeze = format!("--freeze {}", self.live.display());
        self.take_busy(name, busy, Taken::Held, &freeze)
    }

    fn take_unfrozen(&mut self, name: &str, busy: &Busy) -> Outcome {
        self.take_busy(name, busy, Taken::Moving, "")
    }

    fn take_busy(&mut self, name: &str, busy: &Busy, taken: Taken, how: &str) -> Outcome {
        let full = format!("{VOLUME}@{name}");
        let manifest = busy.promised();
        let ctl = &self.rig.bed.ctl;
        ctl.ok(&format!("snapshot take {full} {how}"))?;
        self.kept.push(Kept {
            full,
            taken,
            manifest,
        });
        Ok(())
    }

    fn judge_all(&mut self) -> Outcome {
        for kept in &self.kept {
            ensure!(
                !kept.manifest.is_empty(),
                "{} was taken before there was a file",
                kept.full
            );
            match kept.taken {
                Taken::Still | Taken::Held => self.judge_frozen(kept)?,
                Taken::Moving => self.judge_unfrozen(kept)?,
            }
        }
        Ok(())
    }

    fn judge_frozen(&self, kept: &Kept) -> Outcome {
        let dir = self.rig.bed.path("side");
        let (ctl, full) = (&self.rig.bed.ctl, &kept.full);
        let place = dir.display();
        ctl.ok(&format!("snapshot mount {full} {place} --mkdir"))?;
        let seen = tree::manifest(&dir);
        let device = self.rig.snapshot_device(full);
        ctl.ok(&format!("snapshot umount {full}"))?;
        kept.judge(&seen?, full)?;
        ensure!(!device?.path.exists(), "umount of {full} leaves it mapped");
        ctl.ok(&format!("snapshot map {full}"))?;
        kernel::settle()?;
        if self.kind == Kind::Ext4 {
            self.kind.check(&self.rig.snapshot_device(full)?)?;
        } else {
            // XFS leaves its log dirty at a freeze on purpose, for unlinked files.
            let seen = self.replayed(full)?;
            kept.judge(&seen, &format!("{full}, its log replayed"))?;
        }
        kernel::settle()?;
        ctl.ok(&format!("snapshot unmap {full}")).map(drop)
    }

    fn judge_unfrozen(&self, kept: &Kept) -> Outcome {
        let (ctl, full) = (&self.rig.bed.ctl, &kept.full);
        // As it is, without replaying its log: it must at least be mountable.
        let dir = self.rig.bed.path("side");
        ctl.ok(&format!("snapshot mount {full} {} --mkdir", dir.display()))?;
        ctl.ok(&format!("snapshot umount {full}"))?;
        ctl.ok(&format!("snapshot map {full}"))?;
        let seen = self.replayed(full)?;
        kernel::settle()?;
        ctl.ok(&format!("snapshot unmap {full}"))?;
        kept.judge(&seen, full)
    }

    /// What a writable copy of a mapped snapshot holds when its log was replayed;
    /// the checker must be content with it then.
    fn replayed(&self, full: &str) -> Outcome<Manifest> {
        let copy = Disk::ram(RamOptions::plain(MIB))?;
        let mut dd = tools::program("dd");
        dd.args(["bs=1M", "iflag=direct", "oflag=direct", "status=none"]);
        dd.arg(format!(
            "if={}",
            self.rig.snapshot_device(full)?.path.display()
        ));
        tools::run(dd.arg(format!("of={}", copy.device().path.display())))?;
        let side = self.rig.bed.path("copy");
        mount(copy.device(), self.kind.beside(), &side)?;
        let seen = tree::manifest(&side);
        umount(&side)?;
        self.kind.check(copy.device())?;
        copy.remove()?;
        seen
    }
}

fn a_busy_tree(test: &str, kind: Kind) -> Outcome {
    let seed = super::seed();
    let mut story = Story::begin(test, kind)?;
    let busy = Busy::start(&story.live, seed)?;
    for round in 1..=super::rounds(3)? {
        sleep_ms(1500);
        story.take_frozen(&format!("frozen{round}"))?;
        sleep_ms(1500);
        story.take_held(&format!("held{round}"), &busy)?;
        sleep_ms(1500);
        story.take_unfrozen(&format!("moving{round}"), &busy)?;
    }
    let steps = busy.finish()?;
    let files: usize = story.kept.iter().map(|kept| kept.manifest.len()).sum();
    // Judged while the file system is mounted: same UUID, different contents.
    story.judge_all()?;
    umount(&story.live)?;
    kind.check(&story.device)?;
    note(&format!(
        "{test}: {steps} steps of a busy tree, {files} files compared in {} snapshots",
        story.kept.len()
    ))?;
    story.rig.finish()
}

#[test]
fn snapshots_of_a_busy_xfs_are_whole() -> Outcome {
    a_busy_tree("xfs", Kind::Xfs)
}

#[test]
fn snapshots_of_a_busy_ext4_are_whole() -> Outcome {
    a_busy_tree("ext4", Kind::Ext4)
}

#[test]
fn a_killed_daemon_does_not_disturb_a_mounted_file_system() -> Outcome {
    let seed = super::seed();
    let mut story = Story::begin("fs-kill", Kind::Xfs)?;
    let busy = Busy::start(&story.live, seed)?;
    for _ in 0..super::rounds(5)? {
        sleep_ms(700);
        story.rig.bed.kill9()?;
        sleep_ms(200);
        story.rig.bed.start()?;
    }
    story.take_frozen("after")?;
    busy.finish()?;
    story.judge_all()?;
    umount(&story.live)?;
    Kind::Xfs.check(&story.device)?;
    story.rig.finish()
}

#[test]
fn a_mounted_snapshot_is_held() -> Outcome {
    let mut story = Story::begin("mounted", Kind::Ext4)?;
    std::fs::write(story.live.join("file"), b"some text").trying(|| "write a file".into())?;
    story.take_frozen("s")?;
    let full = story.kept[0].full.clone();
    let dir = story.rig.bed.path("side");
    let ctl = &story.rig.bed.ctl;
    ctl.ok(&format!("snapshot mount {full} {} --mkdir", dir.display()))?;
    let busy = csnap_tests::e2e::ctl::exit::BUSY;
    let place = dir.display().to_string();
    ctl.refuses(&format!("snapshot unmap {full}"), busy, &place)?;
    ctl.refuses(&format!("snapshot delete {full} --yes"), busy, "s")?;
    let text = std::fs::read(dir.join("file")).trying(|| "read a file".into())?;
    ensure!(text == b"some text", "the file holds {text:?}");
    let refused = std::fs::write(dir.join("new"), b"x");
    ensure!(refused.is_err(), "a file was made in a snapshot");
    // A program inside keeps it.
    let mut inside = Command::new("sleep");
    let mut inside = inside
        .arg("60")
        .current_dir(&dir)
        .spawn()
        .trying(|| "start sleep".into())?;
    let refused = ctl.any(&format!("snapshot umount {full}"))?;
    let ended = inside.kill().and_then(|()| inside.wait());
    ended.trying(|| "end sleep".into())?;
    ensure!(refused.code != 0, "unmounted under a program");
    ctl.ok(&format!("snapshot umount {place}"))?;
    umount(&story.live)?;
    story.rig.finish()
}
