//! Everything at once, for as long as one likes: fio verifies one part of the volume, our
//! own load another, and the dice say what comes next: a take or a delete, left alone or
//! with a `kill -9` in the middle of it; a kill of its own; an orderly restart with
//! `store check --data` between, while the load waits.
//!
//! Each snapshot is judged when it is taken, shows the same when it is deleted or at the
//! end, and one whose delete was answered is gone for good. `CSNAP_LONG_MINUTES` sets how
//! long; without it, until everything was done once.

use std::time::{Duration, Instant};

use csnap_tests::e2e::Outcome;
use csnap_tests::e2e::load::Shared;
use csnap_tests::ensure;
use csnap_tests::guest_bed::fio::{FioLoop, sleep_ms, verified};
use csnap_tests::guest_bed::load::{self, BlockLoad};
use csnap_tests::guest_bed::{Device, RamOptions, Rig, Setup, note};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::kill::{Take, kill};

/// The ledger's part of the device; fio's is behind it.
const LEDGER_MIB: u64 = 8;
/// Most snapshots.
const MOST: usize = 6;

fn fio_job(device: &Device, seed: u64) -> impl Fn(u32) -> String + Send + 'static {
    let device = device.clone();
    move |pass| {
        format!(
            "{}[one]\nbssplit=4k/50:16k/30:128k/20\nsize=5m\noffset=8m\n\
             [odd]\nbsrange=512-16k\noffset=14m\nsize=1m\n",
            verified(&device, seed + u64::from(pass))
        )
    }
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Take { killed: bool },
    Delete { killed: bool },
    Kill,
    Restart,
}

/// First each of these, so that a short run has them all; then dice.
const EVERYTHING: [Step; 7] = [
    Step::Take { killed: false },
    Step::Take { killed: true },
    Step::Delete { killed: true },
    Step::Restart,
    Step::Take { killed: false },
    Step::Delete { killed: false },
    Step::Kill,
];

/// What was done so far.
#[derive(Debug, Default)]
struct Done {
    takes: u32,
    deletes: u32,
    kills: u32,
    checks: u32,
    /// Kills in the middle of a delete, after which the snapshot was still there.
    spared: u32,
}

struct Long {
    rig: Rig,
    device: Device,
    ledger: Shared,
    own: BlockLoad,
    random: ChaCha8Rng,
    round: u32,
    done: Done,
}

#[test]
fn takes_deletes_kills_and_restarts_under_verified_load() -> Outcome {
    let seed = super::seed();
    let minutes = super::setting("CSNAP_LONG_MINUTES", 0)?;
    let (begin, length) = (Instant::now(), Duration::from_secs(60 * u64::from(minutes)));
    let origin = RamOptions {
        cached: true,
        ..RamOptions::plain(16)
    };
    let setup = Setup {
        origin,
        ..Setup::default()
    };
    let rig = Rig::new("long", &setup)?;
    let device = rig.device()?;
    let ledger = load::ledger(LEDGER_MIB);
    let fio = FioLoop::start(&rig.bed.dir, "long", fio_job(&device, seed));
    let mut long = Long {
        own: BlockLoad::start(&device, &ledger, seed)?,
        rig,
        device,
        ledger,
        random: ChaCha8Rng::seed_from_u64(seed),
        round: 0,
        done: Done::default(),
    };
    while begin.elapsed() < length || long.round < EVERYTHING.len() as u32 {
        ensure!(!fio.gave_up(), "fio gave up in round {}", long.round);
        long.round()?;
    }
    let passes = fio.finish()?;
    let done = long.finish()?;
    ensure!(passes > 0, "fio never came to an end of a pass");
    let all = [done.takes, done.deletes, done.kills, done.checks];
    ensure!(
        all.iter().all(|count| *count > 0),
        "not all was done: {done:?}"
    );
    note(&format!(
        "{} s of load with {done:?}, {passes} passes of fio verified",
        begin.elapsed().as_secs()
    ))
}

impl Long {
    fn round(&mut self) -> Outcome {
        let round = self.round;
        self.round += 1;
        sleep_ms(self.random.random_range(0..200));
        let dice = self.random.random_range(0..EVERYTHING.len());
        let next = EVERYTHING.get(round as usize).unwrap_or(&EVERYTHING[dice]);
        match *next {
            Step::Take { killed } => {
                self.take(round, killed)?;
                while self.rig.pictures.len() > MOST {
                    self.delete(false)?;
                }
                Ok(())
            }
            Step::Delete { killed } => self.delete(killed),
            Step::Kill => self.kill(),
            Step::Restart => self.restart(),
        }
    }

    fn take(&mut self, round: u32, killed: bool) -> Outcome {
        let take = Take::start(&self.rig, &self.ledger, round);
        if killed {
            // Into the copies after the take, or into the take.
            let longest = if self.random.random_bool(0.5) {
                take.await_answer();
                100
            } else {
                600
            };
            sleep_ms(self.random.random_range(0..longest));
            self.kill()?;
        } else {
            take.await_answer();
        }
        let there = take.judged(&mut self.rig, &self.ledger)?;
        ensure!(there || killed, "take {round} was refused");
        self.done.takes += u32::from(there);
        Ok(())
    }

    fn delete(&mut self, killed: bool) -> Outcome {
        let names: Vec<&String> = self.rig.pictures.keys().collect();
        if names.is_empty() {
            return Ok(());
        }
        let name = names[self.random.random_range(0..names.len())].clone();
        self.done.deletes += 1;
        if !killed {
            return self.rig.delete(&name);
        }
        let device = self.rig.snapshot_device(&name)?;
        let picture = &self.rig.pictures[&name];
        picture.same(&device.image()?, &format!("{name} before its delete"))?;
        self.rig.bed.ctl.ok(&format!("snapshot unmap {name}"))?;
        let ctl = self.rig.bed.ctl.clone();
        let line = format!("snapshot delete {name} --yes");
        let answer = std::thread::spawn(move || ctl.any(&line));
        sleep_ms(self.random.random_range(0..300));
        self.kill()?;
        let panicked = |_| csnap_tests::e2e::Fault::wrong("csnapctl could not be waited for");
        let answer = answer.join().map_err(panicked)??;
        let listed = self.rig.bed.ctl.snapshots("vol")?;
        let there = listed.iter().any(|row| row.full_name == name && row.live);
        ensure!(
            !there || answer.code != 0,
            "the delete of {name} was answered and it is back after the kill"
        );
        if there {
            // Then it is as it was; it is judged again when it goes, or at the end.
            self.done.spared += 1;
            let map = format!("snapshot map {name}");
            self.rig.bed.ctl.ok(&map).map(drop)
        } else {
            self.rig.pictures.remove(&name);
            Ok(())
        }
    }

    fn kill(&mut self) -> Outcome {
        kill(&mut self.rig, &self.device, &self.own)?;
        self.done.kills += 1;
        Ok(())
    }

    /// Stops in order, checks the store while the load waits, starts again.
    fn restart(&mut self) -> Outcome {
        self.rig.bed.stop()?;
        self.rig.bed.check_store()?;
        self.rig.bed.start()?;
        ensure!(
            self.rig.device()? == self.device,
            "it came back as another device"
        );
        self.done.checks += 1;
        Ok(())
    }

    fn finish(self) -> Outcome<Done> {
        self.own.finish()?;
        load::settle(&self.device, &self.ledger)?;
        self.rig.finish()?;
        Ok(self.done)
    }
}
