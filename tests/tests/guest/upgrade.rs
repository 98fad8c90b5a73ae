//! An orderly restart with the device open under load: the new csnapd goes on where
//! the old one stopped, and no request fails or is lost.

use std::time::{Duration, Instant};

use csnap_tests::e2e::Outcome;
use csnap_tests::ensure;
use csnap_tests::guest_bed::fio::{FioLoop, sleep_ms};
use csnap_tests::guest_bed::load::{self, BlockLoad};
use csnap_tests::guest_bed::{Rig, Setup, kernel, note};

#[test]
fn restarted_under_load_no_request_is_lost() -> Outcome {
    let seed = super::seed();
    let mut rig = Rig::new("upgrade", &Setup::default())?;
    let device = rig.device()?;
    let snapshot = rig.take_at_rest("first")?;
    let ledger = load::ledger(16);
    let fio = FioLoop::start(&rig.bed.dir, "upgrade", super::kill::fio_job(&device, seed));
    let own = BlockLoad::start(&device, &ledger, seed)?;
    let rounds = super::rounds(8)?;
    let mut times = Vec::new();
    for _ in 0..rounds {
        sleep_ms(400);
        ensure!(!fio.gave_up(), "fio gave up");
        let begin = Instant::now();
        rig.bed.stop()?;
        let left = kernel::ublk_devices()?;
        ensure!(
            left.len() == 1,
            "the open device waits, the snapshot's (closed) is gone: {left:?}"
        );
        let answered = own.answered();
        rig.bed.start()?;
        ensure!(rig.device()? == device, "it came back as another device");
        kernel::eventually("writes are answered again", Duration::from_secs(60), || {
            ensure!(own.answered() > answered + 4, "no write was answered");
            Ok(())
        })?;
        times.push(begin.elapsed());
        rig.snapshot_device(&snapshot)?;
    }
    let passes = fio.finish()?;
    let longest = own.finish()?;
    times.sort();
    note(&format!(
        "SIGTERM and restart under load {rounds} times: {} ms (median) from the signal to \
         the next answer; the longest request took {} ms; {passes} passes of fio verified",
        times
            .get(times.len() / 2)
            .copied()
            .unwrap_or_default()
            .as_millis(),
        longest.as_millis()
    ))?;
    load::settle(&device, &ledger)?;
    // Where the kernel can quiesce, nothing was in flight when the old one went.
    let log = rig.bed.places.log_tail(10_000);
    ensure!(
        !log.contains("without quiescing"),
        "the device was left without being quiesced:\n{log}"
    );
    rig.finish()
}

#[test]
fn a_device_in_use_waits_while_no_daemon_runs() -> Outcome {
    let mut rig = Rig::new("waits", &Setup::default())?;
    let device = rig.device()?;
    let file = device.open(true)?;
    rig.bed.stop()?;
    ensure!(
        kernel::ublk_devices()?.len() == 1,
        "the open device is gone"
    );
    let (waiting, path) = (Instant::now(), device.clone());
    let reader = std::thread::spawn(move || path.read(1 << 20, 4096));
    sleep_ms(1500);
    ensure!(!reader.is_finished(), "a read ended while nobody served it");
    rig.bed.start()?;
    let read = reader
        .join()
        .map_err(|_| csnap_tests::e2e::Fault::wrong("the reader panicked"))??;
    ensure!(read.len() == 4096, "a short read");
    ensure!(
        waiting.elapsed() > Duration::from_millis(1500),
        "the read did not wait"
    );
    drop(file);
    rig.finish()
}
