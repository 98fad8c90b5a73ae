//! Disks that fail.

use std::time::Duration;

use csnap_tests::e2e::Outcome;
use csnap_tests::ensure;
use csnap_tests::guest_bed::fio::{Fio, sleep_ms, verified};
use csnap_tests::guest_bed::{Disk, RamOptions, Rig, Setup, kernel, rig, set};

#[test]
fn an_origin_that_vanishes_fails_its_users_and_not_the_daemon() -> Outcome {
    let origin = Disk::scsi(64, "")?;
    let store = Disk::ram(RamOptions::plain(256))?;
    let mut rig = Rig::on("vanish", &Setup::default(), origin, store)?;
    rig.take_at_rest("s")?;
    let device = rig.device()?;
    let job = format!(
        "{}bs=8k\nsize=32m\nloops=1000\n[load]\n",
        verified(&device, super::seed())
    );
    let mut fio = Fio::start(&rig.bed.dir, "vanish", &job)?;
    sleep_ms(1000);
    let name = rig.origin.device().name()?;
    set(format!("/sys/block/{name}/device/delete"), "1")?;
    let (well, said) = fio.end()?;
    ensure!(!well, "the disk vanished and fio did not notice:\n{said}");
    ensure!(
        device.read(0, 4096).is_err(),
        "a read of a vanished disk went well"
    );
    let status = rig.bed.ctl.any("status --json")?;
    let events = rig.bed.ctl.json("events")?.to_string();
    let volume = rig.bed.ctl.json("volume show vol")?;
    ensure!(
        status.code != 7,
        "the daemon does not answer: {}",
        status.stderr
    );
    ensure!(
        rig::find(&volume, "message").is_some() && events.contains("origin-failed"),
        "the volume or the events do not say that the origin is gone:\n{volume}\n{events}"
    );
    rig.pictures.clear();
    rig.finish_broken()
}

/// A rig whose store can be made to fail.
fn on_failing_store(test: &str) -> Outcome<Rig> {
    let origin = Disk::ram(RamOptions::plain(64))?;
    let store = Disk::mapped(Disk::ram(RamOptions::plain(256))?)?;
    Rig::on(test, &Setup::default(), origin, store)
}

/// The store fails by `table` under load: the origin goes on, the snapshot does not
/// lie, and everything works again with the disk.
fn store_fails(test: &str, table: &str) -> Outcome {
    let mut rig = on_failing_store(test)?;
    let full = rig.take_at_rest("s")?;
    let device = rig.device()?;
    let job = format!(
        "{}bssplit=4k/50:64k/50\nsize=48m\nloops=2\n[load]\n",
        verified(&device, super::seed())
    );
    let fio = Fio::start(&rig.bed.dir, test, &job)?;
    sleep_ms(500);
    rig.store.retable(table)?;
    fio.finish()?;
    let state = |rig: &Rig| -> Outcome<(bool, String)> {
        let rows = rig.bed.ctl.snapshots("vol")?;
        let live = rows.iter().any(|row| row.full_name == full && row.live);
        let status = rig.bed.ctl.any("store status --json")?.stdout;
        Ok((live, status))
    };
    kernel::eventually(
        "the snapshot is reported lost",
        Duration::from_secs(20),
        || {
            let (live, status) = state(&rig)?;
            ensure!(
                !live || status.contains("\"failed\""),
                "listed as live on a store that failed: {status}"
            );
            Ok(())
        },
    )?;
    if let Ok(snapshot) = rig.snapshot_device(&full) {
        let seen = snapshot.image();
        let lies = seen.is_ok_and(|seen| rig.pictures[&full].same(&seen, "").is_err());
        ensure!(!lies, "the snapshot shows something it never held");
    }
    rig.pictures.clear();
    let last = device.image()?;
    rig.store.retable("0 %s linear %d 0")?;
    rig.bed.stop()?;
    last.same(
        &rig.origin.device().image()?,
        "the origin after the store failed",
    )?;
    rig.bed.start()?;
    let (live, status) = state(&rig)?;
    ensure!(
        !live,
        "the lost snapshot is live again after a restart: {status}"
    );
    rig.finish_broken()
}

#[test]
fn a_store_that_is_gone_costs_snapshots_not_the_origin() -> Outcome {
    store_fails("store-gone", "0 %s error")
}

#[test]
fn a_store_that_fails_its_writes_costs_snapshots_not_the_origin() -> Outcome {
    kernel::load("dm_flakey")?;
    store_fails("store-flakey", "0 %s flakey %d 0 0 3600 1 error_writes")
}
