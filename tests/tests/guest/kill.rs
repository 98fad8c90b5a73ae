//! `kill -9` of csnapd under load, again and again, with the device open: nobody
//! sees an error, nothing is lost, no snapshot changes.
//!
//! fio verifies one part of the device, our own load with its ledger another. In every
//! fourth round the kill falls into a `snapshot take` or into the rush of copies after
//! it; the ledger judges what came of it, and before it is deleted, some kills later,
//! it must still show the same.

use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use csnap_tests::e2e::bed::VOLUME;
use csnap_tests::e2e::ctl::Answer;
use csnap_tests::e2e::ledger::{Mark, Number};
use csnap_tests::e2e::load::{Shared, lock};
use csnap_tests::e2e::{Fault, Outcome};
use csnap_tests::ensure;
use csnap_tests::guest_bed::fio::{FioLoop, sleep_ms, verified};
use csnap_tests::guest_bed::load::{self, BlockLoad};
use csnap_tests::guest_bed::{Device, RamOptions, Rig, Setup, kernel, note};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The ledger's part of the device.
const LEDGER_MIB: u64 = 16;
/// Snapshots beside the first one, which stays to the end.
const KEPT: usize = 2;

/// Not for the whole file: fio 3.33 never ends where a job has bssplit and bsrange.
const SIZES: &str = "4k/50:16k/30:128k/20";

/// fio's part: two jobs, so that one writes while the other reads back.
pub(crate) fn fio_job(device: &Device, seed: u64) -> impl Fn(u32) -> String + Send + 'static {
    let device = device.clone();
    move |pass| {
        format!(
            "{}[one]\nbssplit={SIZES}\nsize=8m\noffset=16m\n\
             [two]\nbssplit={SIZES}\nsize=8m\noffset=32m\nstartdelay=500ms\n\
             [odd]\nbsrange=512-16k\noffset=48m\nsize=2m\n",
            verified(&device, seed + u64::from(pass))
        )
    }
}

#[test]
fn killed_fifty_times_under_load_nobody_notices() -> Outcome {
    let seed = super::seed();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let setup = Setup {
        origin: RamOptions {
            cached: true,
            ..RamOptions::plain(64)
        },
        store_mib: 512,
        ..Setup::default()
    };
    let mut rig = Rig::new("kill", &setup)?;
    let device = rig.device()?;
    let first = rig.take_at_rest("first")?;
    let ledger = load::ledger(LEDGER_MIB);
    let fio = FioLoop::start(&rig.bed.dir, "kill", fio_job(&device, seed));
    let own = BlockLoad::start(&device, &ledger, seed)?;
    let rounds = super::setting("CSNAP_KILLS", 50)?;
    let mut times = Vec::new();
    let mut taken = 0;
    for round in 0..rounds {
        ensure!(!fio.gave_up(), "fio gave up before kill {round}");
        sleep_ms(random.random_range(0..500));
        let take = (round % 4 == 0).then(|| Take::start(&rig, &ledger, round));
        if let Some(take) = take.as_ref().filter(|_| round % 8 == 0) {
            take.await_answer();
        }
        sleep_ms(random.random_range(0..150));
        times.push(kill(&mut rig, &device, &own)?);
        if let Some(take) = take {
            taken += u32::from(take.judged(&mut rig, &ledger)?);
            thin_out(&mut rig, &first)?;
        }
    }
    ensure!(taken >= rounds / 8, "only {taken} takes were done");
    ensure!(copied(&rig)? > 0, "nothing was copied for any snapshot");
    let passes = fio.finish()?;
    let longest = own.finish()?;
    ensure!(passes > 0, "fio never came to an end of a pass");
    report(rounds, &mut times, longest, passes)?;
    load::settle(&device, &ledger)?;
    rig.finish()
}

/// Kills, starts again, and waits until writes are answered; how long they were not.
pub(crate) fn kill(rig: &mut Rig, device: &Device, own: &BlockLoad) -> Outcome<Duration> {
    let killed = Instant::now();
    rig.bed.kill9()?;
    let answered = own.answered();
    rig.bed.start()?;
    let again = rig.device()?;
    ensure!(
        again == *device,
        "it came back as {} and was {}",
        again.path.display(),
        device.path.display()
    );
    kernel::eventually("writes are answered again", Duration::from_secs(60), || {
        // What was under way at the kill may be counted a moment late; more than the
        // threads there are is new.
        ensure!(own.answered() > answered + 4, "no write was answered");
        Ok(())
    })?;
    Ok(killed.elapsed())
}

/// A `snapshot take` under load, with the kill still to come.
pub(crate) struct Take {
    name: String,
    mark: Mark,
    /// What csnapctl said, and which write came next then.
    answer: JoinHandle<Outcome<(Answer, Number)>>,
}

impl Take {
    pub(crate) fn start(rig: &Rig, ledger: &Shared, round: u32) -> Self {
        let name = format!("{VOLUME}@k{round}");
        let mark = lock(ledger).mark();
        let (ctl, line) = (rig.bed.ctl.clone(), format!("snapshot take {name}"));
        let ledger = Shared::clone(ledger);
        let answer = move || Ok((ctl.any(&line)?, lock(&ledger).now()));
        Self {
            name,
            mark,
            answer: std::thread::spawn(answer),
        }
    }

    /// Waits for what csnapd says: then the kill falls into the copies after the take.
    pub(crate) fn await_answer(&self) {
        while !self.answer.is_finished() {
            sleep_ms(1);
        }
    }

    /// After the kill: whether it is there, and then it must be right. One that was
    /// acknowledged must be there.
    pub(crate) fn judged(self, rig: &mut Rig, ledger: &Shared) -> Outcome<bool> {
        let panicked = |_| Fault::wrong("csnapctl could not be waited for");
        let (answer, until) = self.answer.join().map_err(panicked)??;
        let name = self.name;
        let listed = rig.bed.ctl.snapshots(VOLUME)?;
        let there = listed.iter().any(|row| row.full_name == name && row.live);
        ensure!(
            there || answer.code != 0,
            "{name} was acknowledged and is gone after the kill"
        );
        if there {
            rig.bed.ctl.ok(&format!("snapshot map {name}"))?;
            let device = rig.snapshot_device(&name)?;
            load::check_snapshot(&device, ledger, &self.mark, until)
                .map_err(|fault| Fault::wrong(format!("{name}: {fault}")))?;
            rig.pictures.insert(name, device.image()?);
        }
        Ok(there)
    }
}

/// Deletes one of the old ones, but never the first.
fn thin_out(rig: &mut Rig, first: &str) -> Outcome {
    if rig.pictures.len() <= KEPT + 1 {
        return Ok(());
    }
    let oldest = rig.pictures.keys().find(|name| *name != first).cloned();
    oldest.map_or(Ok(()), |name| rig.delete(&name))
}

/// Bytes that one snapshot alone holds, of all.
fn copied(rig: &Rig) -> Outcome<u64> {
    let rows = rig.bed.ctl.snapshots(VOLUME)?;
    Ok(rows.iter().map(|row| row.exclusive_bytes).sum())
}

fn report(rounds: u32, times: &mut [Duration], longest: Duration, passes: u32) -> Outcome {
    times.sort();
    let median = times.get(times.len() / 2).copied().unwrap_or_default();
    let most = times.last().copied().unwrap_or_default();
    note(&format!(
        "kill -9 under load {rounds} times: live again after {} ms (median), {} ms (most); \
         the longest request took {} ms; {passes} passes of fio verified",
        median.as_millis(),
        most.as_millis(),
        longest.as_millis()
    ))
}
