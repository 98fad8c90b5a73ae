//! An origin, or a store, that becomes larger while it is served.

use csnap_tests::e2e::Outcome;
use csnap_tests::e2e::ctl::{exit, rows};
use csnap_tests::ensure;
use csnap_tests::guest_bed::fio::{FioLoop, sleep_ms};
use csnap_tests::guest_bed::{Disk, RamOptions, Rig, Setup, kernel};

const SMALL: u64 = 64 << 20;
const LARGE: u64 = 96 << 20;

#[test]
fn a_volume_grows_under_load_with_its_origin() -> Outcome {
    let origin = Disk::mapped(Disk::ram(RamOptions::plain(LARGE >> 20))?)?;
    origin.retable(&format!("0 {} linear %d 0", SMALL / 512))?;
    let store = Disk::ram(RamOptions::plain(256))?;
    let mut rig = Rig::on("grow", &Setup::default(), origin, store)?;
    let device = rig.device()?;
    let small = rig.take_at_rest("small")?;
    let job = super::kill::fio_job(&device, super::seed());
    let fio = FioLoop::start(&rig.bed.dir, "grow", job);
    sleep_ms(500);
    rig.origin.retable("0 %s linear %d 0")?;
    ensure!(device.size()? == SMALL, "the volume grew by itself");
    if kernel::at_least(6, 16)? {
        rig.bed.ctl.ok("volume resize vol")?;
        fio.finish()?;
    } else {
        let resize = "volume resize vol";
        rig.bed.ctl.refuses(resize, exit::ERROR, "detach")?;
        fio.finish()?;
        let store = rig.bed.store.display().to_string();
        kernel::settle()?;
        rig.bed.ctl.ok(&format!("store detach {store}"))?;
        rig.bed.ctl.ok(&format!("store attach {store}"))?;
    }
    let device = rig.device()?;
    ensure!(
        device.size()? == LARGE,
        "{} bytes after all",
        device.size()?
    );
    device.write(LARGE - 8192, &[7; 8192])?;
    let large = rig.take_at_rest("large")?;
    device.write(LARGE - 8192, &[8; 8192])?;
    for (name, size) in [(small, SMALL), (large, LARGE)] {
        let has = rig.snapshot_device(&name)?.size()?;
        ensure!(has == size, "{name} has {has} bytes");
    }
    rig.finish()
}

/// Bytes the store has, as the daemon says.
fn store_size(rig: &Rig) -> Outcome<Option<u64>> {
    let status = format!("store status {}", rig.bed.store.display());
    Ok(rows(&rig.bed.ctl.json(&status)?)?[0]["size"].as_u64())
}

#[test]
fn a_store_grows_under_load_with_its_device() -> Outcome {
    let store = Disk::mapped(Disk::ram(RamOptions::plain((4 * SMALL) >> 20))?)?;
    store.retable(&format!("0 {} linear %d 0", SMALL / 512))?;
    let origin = Disk::ram(RamOptions::plain(SMALL >> 20))?;
    let mut rig = Rig::on("extend", &Setup::default(), origin, store)?;
    let device = rig.device()?;
    rig.take_at_rest("small")?;
    let job = super::kill::fio_job(&device, super::seed());
    let fio = FioLoop::start(&rig.bed.dir, "extend", job);
    sleep_ms(500);
    let extend = format!("store extend {}", rig.bed.store.display());
    rig.bed
        .ctl
        .refuses(&extend, exit::USAGE, "nothing to extend")?;
    rig.store.retable("0 %s linear %d 0")?;
    let size = store_size(&rig)?;
    ensure!(size == Some(SMALL), "it grew by itself: {size:?}");
    rig.bed.ctl.ok(&extend)?;
    let size = store_size(&rig)?;
    ensure!(size == Some(4 * SMALL), "{size:?} bytes after all");
    fio.finish()?;
    // More than it had room for.
    rig.take_at_rest("large")?;
    device.fill(7)?;
    rig.take_at_rest("larger")?;
    device.fill(8)?;
    let kept = rig.bed.ctl.snapshots("vol")?;
    let live = kept.len() == 3 && kept.iter().all(|snapshot| snapshot.live);
    ensure!(live, "not all are kept: {kept:?}");
    rig.bed.kill9()?;
    rig.bed.start()?;
    let size = store_size(&rig)?;
    ensure!(size == Some(4 * SMALL), "{size:?} bytes after a kill");
    rig.finish()
}
