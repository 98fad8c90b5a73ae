//! A store that runs full: what those see of it who have a block device open.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::process::Command;
use std::time::Duration;

use csnap_tests::e2e::Outcome;
use csnap_tests::e2e::fault::Trying;
use csnap_tests::ensure;
use csnap_tests::guest_bed::device::Aligned;
use csnap_tests::guest_bed::{Device, Rig, Setup, kernel, load, rig};
use serde_json::Value;

const EIO: i32 = 5;

/// How reading a page at `at` fails, with the file as it was opened before.
fn errno(file: &File, at: u64) -> Option<i32> {
    let mut page = Aligned::new(4096);
    let read = file.read_exact_at(page.bytes_mut(), at);
    read.err().and_then(|error| error.raw_os_error())
}

fn reads_fail(file: &File, snapshot: &Device) -> Outcome {
    let size = snapshot.size()?;
    for at in [0, size / 2, size - 4096] {
        let found = errno(file, at);
        ensure!(found == Some(EIO), "a read at {at} gave {found:?}");
    }
    Ok(())
}

#[test]
fn a_dropped_snapshot_fails_who_has_its_device_open() -> Outcome {
    let setup = Setup {
        store_mib: 32,
        ..Setup::default()
    };
    let mut rig = Rig::new("dropped", &setup)?;
    let full = rig.take_at_rest("s")?;
    let (device, snapshot) = (rig.device()?, rig.snapshot_device(&full)?);
    let file = snapshot.open(false)?;
    ensure!(errno(&file, 0).is_none(), "it cannot be read at first");
    device.fill(load::FILLED + 1)?; // twice the store
    let rows = rig.bed.ctl.snapshots("vol")?;
    let dropped = rows.iter().any(|row| row.full_name == full && !row.live);
    ensure!(dropped, "there was room: {rows:?}");
    rig.pictures.clear();
    // Before and after, it is the same device; nobody reads what is no longer kept.
    reads_fail(&file, &snapshot)?;
    reads_fail(&snapshot.open(false)?, &snapshot)?;
    drop(file);
    kernel::settle()?;
    rig.bed.delete(&full)?;
    rig.take_at_rest("next")?;
    rig.finish()
}

#[test]
fn uses_of_a_snapshot_are_those_who_have_its_device_open() -> Outcome {
    let mut rig = Rig::new("uses", &Setup::default())?;
    let (full, other) = (rig.take_at_rest("s")?, rig.take_at_rest("t")?);
    let has_uses = |full: &str, uses: u64| -> Outcome {
        // udev looks at every device now and then.
        kernel::eventually("the uses are counted", Duration::from_secs(20), || {
            let shown = rig.bed.ctl.json(&format!("snapshot show {full}"))?;
            let found = rig::find_any(&shown, "uses", &Value::is_u64);
            let found = found.and_then(Value::as_u64);
            ensure!(found == Some(uses), "{found:?} uses of {full}, not {uses}");
            Ok(())
        })
    };
    has_uses(&full, 0)?;
    let snapshot = rig.snapshot_device(&full)?;
    let file = snapshot.open(false)?;
    has_uses(&full, 1)?;
    let mut sleeping = Command::new("sleep")
        .arg("600")
        .stdin(snapshot.open(false)?)
        .spawn()
        .trying(|| "start sleep".into())?;
    let two = has_uses(&full, 2).and_then(|()| has_uses(&other, 0));
    let _ = sleeping.kill().and_then(|()| sleeping.wait());
    two?;
    has_uses(&full, 1)?;
    drop(file);
    has_uses(&full, 0)?;
    rig.finish()
}
