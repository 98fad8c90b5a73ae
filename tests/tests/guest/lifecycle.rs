//! Devices come and go, often, with udev looking at each.

use std::path::Path;
use std::time::Duration;

use csnap_tests::e2e::bed::VOLUME;
use csnap_tests::e2e::ctl::exit;
use csnap_tests::e2e::{Fault, Outcome};
use csnap_tests::ensure;
use csnap_tests::guest_bed::fio::{Fio, FioLoop, sleep_ms, verified};
use csnap_tests::guest_bed::{Device, Disk, RamOptions, Rig, Setup, kernel};
use nix::errno::Errno;
use nix::sys::inotify::{AddWatchFlags, InitFlags, Inotify};

/// A load that leaves the slow machine time for what is done beside it.
fn calm_job(device: &Device, seed: u64) -> impl Fn(u32) -> String + Send + 'static {
    let job = super::kill::fio_job(device, seed);
    move |pass| job(pass).replacen("[one]", "rate_iops=60\n[one]", 1)
}

#[test]
fn snapshots_are_mapped_and_unmapped_200_times_under_load() -> Outcome {
    let seed = super::seed();
    let rig = Rig::new("map-200", &Setup::default())?;
    let device = rig.device()?;
    let picture = device.image()?;
    let full = format!("{VOLUME}@s");
    rig.bed.ctl.ok(&format!("snapshot take {full}"))?;
    let fio = FioLoop::start(&rig.bed.dir, "map", calm_job(&device, seed));
    for round in 0..u64::from(super::setting("CSNAP_MAPS", 200)?) {
        rig.bed.ctl.ok(&format!("snapshot map {full}"))?;
        let snapshot = rig.snapshot_device(&full)?;
        if round % 20 == 0 {
            picture.same(&snapshot.image()?, "the snapshot, mapped again")?;
        } else {
            let at = (round % 16) << 20;
            let seen = snapshot.read(at, 65536)?;
            ensure!(
                seen == picture.bytes()[at as usize..at as usize + 65536],
                "round {round}: the snapshot differs at {at}"
            );
        }
        let unmap = format!("snapshot unmap {full}");
        if round % 10 == 0 {
            let held = snapshot.open(false)?;
            rig.bed.ctl.refuses(&unmap, exit::BUSY, "guest-tests")?;
            drop(held);
        }
        // udev and what it runs may hold it for a moment: csnapd waits for those.
        rig.bed.ctl.ok(&unmap)?;
        ensure!(
            !snapshot.path.exists(),
            "{:?} is still there",
            snapshot.path
        );
        ensure!(!fio.gave_up(), "fio gave up in round {round}");
    }
    let left = kernel::ublk_devices()?;
    ensure!(left.len() == 1, "at the end there are {left:?}");
    fio.finish()?;
    rig.finish()
}

#[test]
fn volumes_come_and_go_40_times_beside_one_under_load() -> Outcome {
    let rig = Rig::new("volumes", &Setup::default())?;
    let device = rig.device()?;
    let fio = FioLoop::start(&rig.bed.dir, "volumes", calm_job(&device, super::seed()));
    let second = Disk::ram(RamOptions::plain(16))?;
    second.device().fill(5)?;
    let path = second.device().path.display().to_string();
    for round in 0..super::rounds(40)? {
        rig.bed.ctl.ok(&format!("volume create other {path}"))?;
        let link = Path::new("/dev/csnap/other");
        ensure!(link.exists(), "round {round}: no {}", link.display());
        rig.bed.ctl.ok("snapshot take other@s")?;
        rig.bed.ctl.ok("volume delete other --yes")?;
        ensure!(!link.exists(), "round {round}: {} stays", link.display());
        ensure!(!fio.gave_up(), "fio gave up in round {round}");
    }
    fio.finish()?;
    ensure!(kernel::ublk_devices()?.len() == 1, "devices were left");
    rig.finish()
}

#[test]
fn a_store_is_detached_and_attached_20_times() -> Outcome {
    let mut rig = Rig::new("detach", &Setup::default())?;
    rig.take_at_rest("s")?;
    let store = rig.bed.store.display().to_string();
    for round in 0..super::rounds(20)? {
        kernel::settle()?;
        rig.bed.ctl.ok(&format!("store detach {store}"))?;
        let left = kernel::ublk_devices()?;
        ensure!(left.is_empty(), "round {round}: left {left:?}");
        rig.bed.ctl.ok(&format!("store attach {store}"))?;
        rig.verify()?;
    }
    rig.finish()
}

/// It would wait for itself.
#[test]
fn csnap_is_never_put_below_itself() -> Outcome {
    let rig = Rig::new("stacked", &Setup::default())?;
    let own = rig.device()?.path.display().to_string();
    let (ctl, about) = (&rig.bed.ctl, "a block device of this csnapd");
    ctl.refuses(&format!("volume create inner {own}"), exit::BUSY, about)?;
    ctl.ok(&format!("store create {own} --yes"))?;
    ctl.refuses(&format!("store attach {own}"), exit::BUSY, about)?;
    rig.finish()
}

#[test]
fn an_open_device_is_removed_only_by_force() -> Outcome {
    let mut rig = Rig::new("held", &Setup::default())?;
    let full = rig.take_at_rest("s")?;
    let snapshot = rig.snapshot_device(&full)?;
    let held = snapshot.open(false)?;
    let unmap = format!("snapshot unmap {full}");
    let name = snapshot.path.display().to_string();
    rig.bed.ctl.refuses(&unmap, exit::BUSY, "guest-tests")?;
    ensure!(snapshot.path.exists(), "{name} was refused and is gone");
    rig.verify()?;
    rig.bed.ctl.ok(&format!("{unmap} --force"))?;
    rig.pictures.clear();
    // Who has it open still gets errors, never data of another device.
    let mut buffer = csnap_tests::guest_bed::device::Aligned::new(4096);
    let read = std::os::unix::fs::FileExt::read_exact_at(&held, buffer.bytes_mut(), 0);
    ensure!(read.is_err(), "a read of the removed device went well");
    drop(held);
    let store = rig.bed.store.display().to_string();
    let live = rig.device()?;
    let held = live.open(false)?;
    rig.bed
        .ctl
        .refuses(&format!("store detach {store}"), exit::BUSY, "open")?;
    live.read(0, 4096)?;
    rig.bed
        .ctl
        .refuses("volume delete vol --yes", exit::BUSY, "open")?;
    live.read(0, 4096)?;
    drop(held);
    rig.finish()
}

#[test]
fn a_device_removed_by_force_under_load_ends_in_errors_not_in_a_hang() -> Outcome {
    let mut rig = Rig::new("force", &Setup::default())?;
    let device = rig.device()?;
    let job = format!(
        "{}bs=4k\nsize=32m\nloops=1000\n[load]\n",
        verified(&device, super::seed())
    );
    let mut fio = Fio::start(&rig.bed.dir, "force", &job)?;
    sleep_ms(1500);
    let store = rig.bed.store.display().to_string();
    rig.bed.ctl.ok(&format!("store detach {store} --force"))?;
    let (well, said) = fio.end()?;
    ensure!(!well, "fio lost its device and did not complain:\n{said}");
    kernel::eventually("the device is gone", Duration::from_secs(20), || {
        let left = kernel::ublk_devices()?;
        ensure!(left.is_empty(), "left: {left:?}");
        Ok(())
    })?;
    rig.bed.ctl.ok(&format!("store attach {store}"))?;
    rig.take_at_rest("after")?;
    rig.finish()
}

/// A mount or `swapon` opens the device for itself alone: whoever had it open at that
/// moment to look at it would be in the way.
#[test]
fn lists_are_in_nobodys_way() -> Outcome {
    let rig = Rig::new("lists", &Setup::default())?;
    let full = rig.bed.take_mapped("s")?;
    let snapshot = rig.snapshot_device(&full)?;
    kernel::settle()?;
    let story = |error: Errno| Fault::wrong(format!("watch the device: {error}"));
    let watch = Inotify::init(InitFlags::IN_NONBLOCK).map_err(story)?;
    let added = watch.add_watch(&snapshot.path, AddWatchFlags::IN_OPEN);
    added.map_err(story)?;
    let opened = || match watch.read_events() {
        Ok(events) => Ok(events.len()),
        Err(Errno::EAGAIN) => Ok(0),
        Err(error) => Err(story(error)),
    };
    for _ in 0..20 {
        let listed = rig.bed.ctl.ok("snapshot list")?;
        let device = snapshot.path.display().to_string();
        ensure!(listed.contains(&device), "it is not listed:\n{listed}");
    }
    let opens = opened()?;
    ensure!(opens == 0, "20 lists opened the snapshot {opens} times");
    snapshot.read(0, 4096)?;
    ensure!(opened()? > 0, "nobody was seen to open it");
    rig.bed.ctl.ok(&format!("snapshot unmap {full}"))?;
    rig.finish()
}
