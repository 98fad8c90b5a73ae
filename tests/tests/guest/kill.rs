//! `kill -9` of csnapd under load, again and again, with the device open: nobody
//! sees an error, nothing is lost, no snapshot changes.
//!
//! fio verifies one part of the device, our own load with its ledger another; every
//! twelfth round a snapshot is taken under load and judged by the ledger.

use std::time::{Duration, Instant};

use csnap_tests::e2e::bed::VOLUME;
use csnap_tests::e2e::load::lock;
use csnap_tests::e2e::{Fault, Outcome};
use csnap_tests::ensure;
use csnap_tests::guest_bed::fio::{FioLoop, sleep_ms, verified};
use csnap_tests::guest_bed::load::{self, BlockLoad};
use csnap_tests::guest_bed::{Device, RamOptions, Rig, Setup, kernel, note};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// The ledger's part of the device.
const LEDGER_MIB: u64 = 16;
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
    rig.take_at_rest("first")?;
    let ledger = load::ledger(LEDGER_MIB);
    let fio = FioLoop::start(&rig.bed.dir, "kill", fio_job(&device, seed));
    let own = BlockLoad::start(&device, &ledger, seed)?;
    let rounds = super::setting("CSNAP_KILLS", 50)?;
    let mut times = Vec::new();
    for round in 0..rounds {
        ensure!(!fio.gave_up(), "fio gave up before kill {round}");
        sleep_ms(random.random_range(0..500));
        if round % 12 == 0 {
            take_judged(&mut rig, &ledger, round)?;
        }
        times.push(kill(&mut rig, &device, &own)?);
    }
    let passes = fio.finish()?;
    let longest = own.finish()?;
    ensure!(passes > 0, "fio never came to an end of a pass");
    report(rounds, &mut times, longest, passes)?;
    load::settle(&device, &ledger)?;
    rig.finish()
}

/// Kills, starts again, and waits until writes are answered; how long they were not.
fn kill(rig: &mut Rig, device: &Device, own: &BlockLoad) -> Outcome<Duration> {
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

/// A snapshot under load, judged by the ledger, and one fewer of the old ones.
fn take_judged(rig: &mut Rig, ledger: &csnap_tests::e2e::load::Shared, round: u32) -> Outcome {
    let mark = lock(ledger).mark();
    let full = format!("{VOLUME}@k{round}");
    rig.bed.ctl.ok(&format!("snapshot take {full}"))?;
    let until = lock(ledger).now();
    rig.bed.ctl.ok(&format!("snapshot map {full}"))?;
    let device = rig.snapshot_device(&full)?;
    load::check_snapshot(&device, ledger, &mark, until)
        .map_err(|fault| Fault::wrong(format!("{full}: {fault}")))?;
    rig.pictures.insert(full, device.image()?);
    if rig.pictures.len() > KEPT {
        let oldest = rig.pictures.keys().next().cloned().unwrap_or_default();
        rig.delete(&oldest)?;
    }
    Ok(())
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
