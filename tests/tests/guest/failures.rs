//! Disks that fail.

use std::time::Duration;

use csnap_tests::e2e::Outcome;
use csnap_tests::e2e::fault::Trying;
use csnap_tests::ensure;
use csnap_tests::guest_bed::fio::{Fio, sleep_ms, verified};
use csnap_tests::guest_bed::{Disk, RamOptions, Rig, Setup, kernel, load, rig};

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
    rig.origin.pull()?;
    let (well, said) = fio.end()?;
    ensure!(!well, "the disk vanished and fio did not notice:\n{said}");
    ensure!(
        device.read(0, 4096).is_err(),
        "a read of a vanished disk went well"
    );
    let status = rig.bed.ctl.any("status --json")?;
    ensure!(
        status.code != 7,
        "the daemon does not answer: {}",
        status.stderr
    );
    // Its errors are told too, if one was met before it was missed.
    missed(&rig)?;
    let events = rig.bed.ctl.json("events")?.to_string();
    let told = events.matches("\"origin-gone\"").count();
    ensure!(told == 1, "its end was told {told} times:\n{events}");
    rig.pictures.clear();
    rig.finish_broken()
}

/// Lets the link `rig.bed.origin` lead to where the origin is now.
fn relink(rig: &Rig) -> Outcome {
    let (link, target) = (&rig.bed.origin, &rig.origin.device().path);
    let _ = std::fs::remove_file(link);
    std::os::unix::fs::symlink(target, link).trying(|| format!("link {}", link.display()))
}

/// The state the origin's volume is in, and all that `volume show` says.
fn shown(rig: &Rig) -> Outcome<(String, String)> {
    let volume = rig.bed.ctl.json("volume show vol")?;
    let state = rig::find(&volume, "state").unwrap_or_default().to_owned();
    Ok((state, volume.to_string()))
}

fn pull(rig: &Rig) -> Outcome {
    rig.origin.pull()?;
    missed(rig)
}

/// Waits until csnapd knows that the origin is gone.
fn missed(rig: &Rig) -> Outcome {
    kernel::eventually("it is missed", Duration::from_secs(10), || {
        let (state, all) = shown(rig)?;
        ensure!(state == "origin-missing", "{all}");
        Ok(())
    })
}

#[test]
fn an_origin_that_was_pulled_comes_back_below_its_users() -> Outcome {
    let origin = Disk::scsi(64, "")?;
    let store = Disk::ram(RamOptions::plain(256))?;
    let setup = Setup::default();
    let mut rig = Rig::unserved("pulled", &setup, origin, store)?;
    rig.bed.origin = rig.bed.path("origin");
    relink(&rig)?;
    rig.origin.device().fill(load::FILLED)?;
    rig.bed.serve(&setup.chunk)?;
    let snapshot = rig.take_at_rest("s")?;
    let device = rig.device()?;
    device.write(8 << 20, &[1; 65536])?;

    pull(&rig)?;
    ensure!(rig.bed.ctl.any("status")?.code == 1, "status is content");
    ensure!(device.read(0, 4096).is_err(), "read from nowhere");
    // Of a chunk the snapshot shares: nothing of it may be given up for lost.
    ensure!(
        device.write(1 << 20, &[2; 4096]).is_err(),
        "written to nowhere"
    );
    let part = rig.snapshot_device(&snapshot)?;
    ensure!(part.read(0, 4096).is_err(), "the snapshot needs the origin");
    ensure!(part.read(8 << 20, 65536).is_ok(), "this is in the store");

    rig.origin.plug()?;
    relink(&rig)?;
    let attach = format!("store attach {}", rig.bed.store.display());
    rig.bed.ctl.ok(&attach)?;
    let (state, all) = shown(&rig)?;
    ensure!(state == "served", "it is back, but: {all}");
    device.write(1 << 20, &[3; 65536])?;
    // What the disk had not made durable when it went may be missing: said once.
    let flushes = [device.flush(), device.flush(), device.flush()].map(|done| done.is_ok());
    ensure!(flushes == [false, true, true], "flushes: {flushes:?}");
    rig.verify()?;
    let events = rig.bed.ctl.json("events")?.to_string();
    for (kind, times) in [("origin-gone", 1), ("origin-back", 1), ("chunk-lost", 0)] {
        let told = events.matches(&format!("\"{kind}\"")).count();
        ensure!(told == times, "{kind} was told {told} times:\n{events}");
    }

    // Written elsewhere meanwhile, it does not come back by itself.
    pull(&rig)?;
    rig.origin.plug()?;
    relink(&rig)?;
    rig.origin.device().write(0, &[4; 4096])?;
    let answer = rig.bed.ctl.any(&attach)?;
    ensure!(answer.code == 1, "attach is content: {answer:?}");
    let (state, all) = shown(&rig)?;
    ensure!(
        state == "origin-missing" && all.contains("written without csnap"),
        "{all}"
    );
    rig.bed
        .ctl
        .ok(&format!("store detach --force {}", rig.bed.store.display()))?;
    rig.bed
        .ctl
        .ok(&format!("{attach} --accept-changed-origin vol --yes"))?;
    let (state, all) = shown(&rig)?;
    ensure!(state == "served", "accepted, but: {all}");
    ensure!(rig.device()?.read(0, 4096)? == [4; 4096], "another origin");
    rig.pictures.clear();
    rig.finish_broken()
}

#[test]
fn an_origin_that_is_cut_off_has_lost_nothing() -> Outcome {
    let origin = Disk::scsi(64, "")?;
    let store = Disk::ram(RamOptions::plain(256))?;
    let mut rig = Rig::on("cut-off", &Setup::default(), origin, store)?;
    rig.take_at_rest("s")?;
    let device = rig.device()?;
    rig.origin.answers(false)?;
    ensure!(
        device.write(1 << 20, &[2; 4096]).is_err(),
        "written to nowhere"
    );
    rig.origin.answers(true)?;
    let attach = format!("store attach {}", rig.bed.store.display());
    rig.bed.ctl.ok(&attach)?;
    device.write(1 << 20, &[3; 65536])?;
    rig.verify()?;
    let events = rig.bed.ctl.json("events")?.to_string();
    ensure!(!events.contains("\"chunk-lost\""), "{events}");
    rig.pictures.clear();
    rig.finish_broken()
}

/// A rig whose store can be made to fail.
fn on_failing_store(test: &str) -> Outcome<Rig> {
    let origin = Disk::ram(RamOptions::plain(64))?;
    let store = Disk::mapped(Disk::ram(RamOptions::plain(256))?)?;
    Rig::on(test, &Setup::default(), origin, store)
}

/// However many writes fail, it is told once.
fn failed_once(rig: &Rig) -> Outcome {
    let events = rig.bed.ctl.json("events")?.to_string();
    let told = events.matches("\"store-failed\"").count();
    ensure!(told == 1, "store-failed was told {told} times:\n{events}");
    Ok(())
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
    failed_once(&rig)?;
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

/// By what the manual says: detach, check, attach.
#[test]
fn a_store_that_failed_is_back_without_a_restart() -> Outcome {
    let mut rig = on_failing_store("store-back")?;
    let full = rig.take_at_rest("s")?;
    let (pid, device) = (rig.bed.pid()?, rig.device()?);
    rig.store.retable("0 %s error")?;
    device.fill(load::FILLED + 1)?;
    let last = device.image()?;
    rig.pictures.clear();
    failed_once(&rig)?;
    rig.store.retable("0 %s linear %d 0")?;
    kernel::settle()?;
    let store = rig.bed.store.display().to_string();
    rig.bed.ctl.ok(&format!("store detach {store}"))?;
    rig.bed.check_store()?;
    rig.bed.ctl.ok(&format!("store attach {store}"))?;
    rig.bed.ctl.ok("status")?;
    last.same(&rig.device()?.image()?, "the volume over all that")?;
    let rows = rig.bed.ctl.snapshots("vol")?;
    let lost = rows.iter().any(|row| row.full_name == full && !row.live);
    ensure!(lost, "{full} was invalid: {rows:?}");
    failed_once(&rig)?;
    ensure!(rig.bed.pid()? == pid, "csnapd was started again");
    // It keeps snapshots again.
    rig.take_at_rest("after")?;
    rig.device()?.fill(load::FILLED + 2)?;
    rig.finish()
}
