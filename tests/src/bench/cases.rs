//! What is measured on a server in one round.

use snapstore::Checksum;

use super::fio::{End, Job};
use super::plan::Plan;
use super::report::{Key, Samples};
use super::server::{Csnap, Qemu, Shape};
use crate::e2e::Outcome;

const SMALL: u64 = 4096;
const LARGE: u64 = 256 << 10;

/// A server and what it is called in the rows.
#[derive(Debug)]
pub enum Target {
    /// csnap with so many snapshots (one of them fresh in each measurement).
    Csnap(Box<Csnap>, u32),
    /// qemu with a raw file.
    Raw(Qemu),
    /// qemu with a qcow2 overlay.
    Overlay(Qemu),
}

/// Notes samples of one target.
struct Notes<'a> {
    samples: &'a mut Samples,
    plan: &'a Plan,
    target: &'static str,
    snapshots: u32,
    /// Appended to each case's name.
    medium: &'a str,
}

impl Notes<'_> {
    fn add(&mut self, case: &str, value: f64, unit: &'static str) {
        let chunk_kib = if self.target == "csnap" {
            self.plan.chunk_kib()
        } else {
            0
        };
        let case = format!("{case}{}", self.medium);
        let (target, snapshots) = (self.target.to_owned(), self.snapshots);
        self.samples.add(
            Key {
                case,
                target,
                snapshots,
                chunk_kib,
                unit,
            },
            value,
        );
    }

    fn iops(&mut self, case: &str, job: &Job) -> Outcome {
        let speed = job.run()?;
        self.add(case, speed.iops, "requests/s");
        Ok(())
    }
}

impl Target {
    /// All targets of the main suite, started.
    ///
    /// # Errors
    /// If one cannot be started.
    pub fn all(plan: &Plan) -> Outcome<Vec<Self>> {
        let mut targets = Vec::new();
        for &snapshots in &plan.snapshots {
            targets.push(Self::csnap(plan, &plan.ram, snapshots)?);
        }
        targets.push(Self::Raw(Qemu::start(
            &plan.ram.join("raw"),
            plan.origin,
            false,
        )?));
        targets.push(Self::Overlay(Qemu::start(
            &plan.ram.join("overlay"),
            plan.origin,
            true,
        )?));
        Ok(targets)
    }

    /// The few that are measured on the disk.
    ///
    /// # Errors
    /// If one cannot be started.
    pub fn on_disk(plan: &Plan) -> Outcome<Vec<Self>> {
        Ok(vec![
            Self::csnap(plan, &plan.disk, 0)?,
            Self::csnap(plan, &plan.disk, 1)?,
            Self::Raw(Qemu::start(&plan.disk.join("raw"), plan.origin, false)?),
            Self::Overlay(Qemu::start(&plan.disk.join("overlay"), plan.origin, true)?),
        ])
    }

    fn csnap(plan: &Plan, below: &std::path::Path, snapshots: u32) -> Outcome<Self> {
        let mut csnap = Csnap::start(Shape {
            dir: below.join(format!("csnap-{snapshots}")),
            origin: plan.origin,
            filled: true,
            // The base snapshots' data, and twice the whole origin.
            store: plan.origin * if snapshots > 8 { 5 } else { 4 },
            chunk: plan.chunk,
            checksum: Checksum::default(),
            options: Vec::new(),
        })?;
        csnap.take_many(snapshots.saturating_sub(1))?;
        Ok(Self::Csnap(Box::new(csnap), snapshots))
    }

    /// One round of every case this target has; `medium` marks the cases' names.
    ///
    /// # Errors
    /// If a server or fio fails.
    pub fn measure(&mut self, plan: &Plan, samples: &mut Samples, medium: &str) -> Outcome {
        let (target, snapshots) = match self {
            Self::Csnap(_, snapshots) => ("csnap", *snapshots),
            Self::Raw(_) => ("qemu-raw", 0),
            Self::Overlay(_) => ("qemu-qcow2", 1),
        };
        let mut notes = Notes {
            samples,
            plan,
            target,
            snapshots,
            medium,
        };
        match self {
            Self::Csnap(csnap, 0) => without_snapshots(&mut notes, &csnap.uri()),
            Self::Csnap(csnap, _) => with_snapshots(&mut notes, csnap),
            Self::Raw(qemu) => without_snapshots(&mut notes, &qemu.uri()),
            Self::Overlay(qemu) => overlay(&mut notes, qemu),
        }
    }

    /// Stops it and removes its files.
    ///
    /// # Errors
    /// If it does not end well.
    pub fn end(self) -> Outcome {
        match self {
            Self::Csnap(csnap, _) => csnap.end(),
            Self::Raw(_) | Self::Overlay(_) => Ok(()),
        }
    }
}

fn timed(notes: &Notes, uri: &str, kind: &'static str) -> Job {
    Job::random(uri, kind, SMALL, End::Seconds(notes.plan.seconds))
}

fn every_chunk(notes: &Notes, uri: &str) -> Job {
    Job::random(uri, "randwrite", notes.plan.chunk, End::Once)
}

fn sequential(uri: &str) -> Job {
    Job {
        depth: 8,
        ..Job::random(uri, "write", LARGE, End::Once)
    }
}

/// A server that only passes requests on: the same writes without any copying.
fn without_snapshots(notes: &mut Notes, uri: &str) -> Outcome {
    notes.iops("pass-through-read", &timed(notes, uri, "randread"))?;
    notes.iops("pass-through-write", &timed(notes, uri, "randwrite"))?;
    let flushing = Job {
        flush_every: Some(32),
        ..timed(notes, uri, "randwrite")
    };
    notes.iops("pass-through-write-flush32", &flushing)?;
    notes.iops("first-overwrite", &every_chunk(notes, uri))?;
    notes.iops("steady-overwrite", &timed(notes, uri, "randwrite"))?;
    let speed = sequential(uri).run()?;
    notes.add("sequential-overwrite", speed.mib, "MiB/s");
    Ok(())
}

fn with_snapshots(notes: &mut Notes, csnap: &mut Csnap) -> Outcome {
    let uri = csnap.uri();
    notes.iops("pass-through-read", &timed(notes, &uri, "randread"))?;
    let fresh = csnap.take()?;
    notes.iops("first-overwrite", &every_chunk(notes, &uri))?;
    notes.iops("steady-overwrite", &timed(notes, &uri, "randwrite"))?;
    let snapshot = csnap.map(&fresh)?;
    notes.iops("snapshot-read", &timed(notes, &snapshot, "randread"))?;
    csnap.delete(&fresh)?;
    let fresh = csnap.take()?;
    let speed = sequential(&uri).run()?;
    notes.add("sequential-overwrite", speed.mib, "MiB/s");
    csnap.delete(&fresh)?;
    if notes.snapshots == 1 {
        beside_a_deletion(notes, csnap)?;
    }
    Ok(())
}

/// First overwrites while two snapshots of every chunk are being deleted, and the same
/// without: how much longer they take. How much was given back meanwhile tells whether
/// the deletion was still under way.
fn beside_a_deletion(notes: &mut Notes, csnap: &mut Csnap) -> Outcome {
    let uri = csnap.uri();
    let some = Job {
        end: End::Requests(notes.plan.chunks() / 8),
        ..every_chunk(notes, &uri)
    };
    let mut old = Vec::new();
    for _ in 0..2 {
        old.push(csnap.take()?);
        every_chunk(notes, &uri).run()?;
    }
    let alone = csnap.take()?;
    let without = some.run()?;
    let beside = csnap.take()?;
    for snapshot in &old {
        csnap.begin_delete(snapshot)?;
    }
    let before = csnap.counter("chunks_freed")?;
    let with = some.run()?;
    let freed = csnap.counter("chunks_freed")?.saturating_sub(before);
    csnap.purged("the deleted snapshots")?;
    let times = "times as long";
    notes.add("deletion-median", with.median_us / without.median_us, times);
    notes.add("deletion-p99", with.p99_us / without.p99_us, times);
    notes.add("deletion-freed-meanwhile", freed as f64, "chunks");
    csnap.delete(&alone)?;
    csnap.delete(&beside)
}

/// A new overlay is what taking a snapshot is to qcow2.
fn overlay(notes: &mut Notes, qemu: &mut Qemu) -> Outcome {
    let uri = qemu.uri();
    qemu.fresh()?;
    notes.iops("pass-through-read", &timed(notes, &uri, "randread"))?;
    notes.iops("first-overwrite", &every_chunk(notes, &uri))?;
    notes.iops("steady-overwrite", &timed(notes, &uri, "randwrite"))?;
    qemu.fresh()?;
    let speed = sequential(&uri).run()?;
    notes.add("sequential-overwrite", speed.mib, "MiB/s");
    Ok(())
}
