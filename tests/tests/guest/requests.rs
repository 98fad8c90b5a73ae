//! What a block device must do besides reading and writing.

use std::os::unix::fs::FileTypeExt;
use std::path::Path;

use csnap_tests::e2e::fault::Trying;
use csnap_tests::e2e::{Fault, Outcome, skip, tools};
use csnap_tests::ensure;
use csnap_tests::guest_bed::{Device, Disk, RamOptions, Rig, Setup, kernel, rig};
use std::io::Write;

/// Places in `stat`.
const WRITES: usize = 4;
const DISCARDS: usize = 11;
const FLUSHES: usize = 15;

fn cached() -> Setup {
    Setup {
        origin: RamOptions {
            cached: true,
            ..RamOptions::plain(64)
        },
        ..Setup::default()
    }
}

#[test]
fn a_flush_reaches_the_origin() -> Outcome {
    let rig = Rig::new("flush", &cached())?;
    let (live, origin) = (rig.device()?, rig.origin.device().clone());
    let before = origin.counter(FLUSHES)?;
    let file = live.open(true)?;
    for round in 1..=5 {
        live.write(round << 20, &[round as u8; 4096])?;
        file.sync_data().trying(|| "fdatasync".into())?;
        let flushes = origin.counter(FLUSHES)?;
        ensure!(
            flushes >= before + round,
            "{round} times fdatasync, {} flushes at the origin",
            flushes - before
        );
    }
    drop(file);
    rig.finish()
}

#[test]
fn a_fua_write_is_durable_in_the_origin() -> Outcome {
    let rig = Rig::new("fua", &cached())?;
    let (live, origin) = (rig.device()?, rig.origin.device().clone());
    // The origin has no FUA of its own: its kernel makes a flush of each.
    ensure!(
        origin.attribute("queue/fua")? == "0",
        "the disk below should have no FUA"
    );
    let before = origin.counter(FLUSHES)?;
    let mut dd = tools::program("dd");
    dd.args([
        "if=/dev/urandom",
        "bs=4k",
        "count=8",
        "oflag=direct,dsync",
        "conv=notrunc",
    ]);
    tools::run(dd.arg(format!("of={}", live.path.display())))?;
    let flushes = origin.counter(FLUSHES)? - before;
    ensure!(
        flushes >= 8,
        "8 FUA writes, {flushes} flushes at the origin"
    );
    rig.finish()
}

#[test]
fn a_discard_reaches_the_origin_and_no_snapshot() -> Outcome {
    let mut rig = Rig::new("discard", &cached())?;
    let (live, origin) = (rig.device()?, rig.origin.device().clone());
    // Without a snapshot everything is the origin's own.
    let before = origin.counter(DISCARDS)?;
    blkdiscard(&live, &["-o", "40M", "-l", "8M"])?;
    let counted = origin.counter(DISCARDS)?;
    ensure!(counted > before, "no discard arrived at the origin");
    let seen = live.read(40 << 20, 8 << 20)?;
    ensure!(
        seen.iter().all(|byte| *byte == 0),
        "this disk reads zeroes where it was discarded"
    );
    rig.take_at_rest("before")?;
    // Shared chunks: the discard may be ignored, the snapshot may not change.
    blkdiscard(&live, &["-o", "8M", "-l", "16M"])?;
    rig.verify()?;
    // A chunk no snapshot shares any more may be discarded again.
    live.write(8 << 20, &[7; 8192])?;
    blkdiscard(&live, &["-o", "8M", "-l", "16K"])?;
    rig.verify()?;
    rig.finish()
}

#[test]
fn write_zeroes_zeroes_the_origin_and_no_snapshot() -> Outcome {
    // One that takes the command itself: WRITE SAME with UNMAP.
    let origin = Disk::scsi(64, "lbpws=1 lbpws10=1 lbprz=1")?;
    let store = Disk::ram(RamOptions::plain(256))?;
    let mut rig = Rig::on("zeroes", &Setup::default(), origin, store)?;
    let live = rig.device()?;
    rig.take_at_rest("before")?;
    ensure!(
        live.number("queue/write_zeroes_max_bytes")? > 0,
        "the device does not take WRITE_ZEROES"
    );
    // Odd borders inside chunks.
    blkdiscard(&live, &["-z", "-o", "4198912", "-l", "9437696"])?;
    let (at, length) = (4_198_912, 9_437_696);
    let seen = live.read(at, length)?;
    ensure!(seen.iter().all(|byte| *byte == 0), "not everything is zero");
    let around = [
        live.read(at - 512, 512)?,
        live.read(at + length as u64, 512)?,
    ];
    ensure!(
        around.iter().all(|part| part.iter().any(|byte| *byte != 0)),
        "more than asked for is zero"
    );
    rig.verify()?;
    rig.finish()
}

fn blkdiscard(device: &Device, options: &[&str]) -> Outcome {
    let mut command = tools::program("blkdiscard");
    tools::run(command.args(options).arg(&device.path)).map(drop)
}

#[test]
fn snapshots_refuse_writes() -> Outcome {
    let mut rig = Rig::new("read-only", &Setup::default())?;
    let full = rig.take_at_rest("s")?;
    let snapshot = rig.snapshot_device(&full)?;
    ensure!(
        snapshot.attribute("ro")? == "1",
        "the kernel thinks it writable"
    );
    let mut getro = tools::program("blockdev");
    let says = tools::run(getro.arg("--getro").arg(&snapshot.path))?;
    ensure!(says.trim() == "1", "blockdev --getro says {says}");
    let wrote = snapshot.write(0, &[1; 4096]);
    ensure!(wrote.is_err(), "a write into a snapshot was taken");
    // Somebody may set a device writable behind our back: the server refuses still.
    let mut setrw = tools::program("blockdev");
    let set = tools::run(setrw.arg("--setrw").arg(&snapshot.path)).is_ok();
    if set {
        let wrote = snapshot.write(0, &[1; 4096]);
        ensure!(wrote.is_err(), "after --setrw a write was taken");
    }
    let discarded = blkdiscard(&snapshot, &["-f"]);
    ensure!(discarded.is_err(), "a discard of a snapshot was taken");
    rig.finish()
}

#[test]
fn the_devices_say_what_they_are() -> Outcome {
    let mut rig = Rig::new("attributes", &cached())?;
    let full = rig.take_at_rest("s")?;
    let (live, origin) = (rig.device()?, rig.origin.device().clone());
    let snapshot = rig.snapshot_device(&full)?;
    ensure!(live.size()? == origin.size()?, "sizes differ");
    ensure!(
        snapshot.size()? == origin.size()?,
        "the snapshot's size differs"
    );
    for name in ["queue/logical_block_size", "queue/physical_block_size"] {
        let (ours, theirs) = (live.number(name)?, origin.number(name)?);
        ensure!(ours == theirs, "{name}: {ours}, the origin's {theirs}");
    }
    let cache = live.attribute("queue/write_cache")?;
    ensure!(cache == "write back", "write_cache: {cache}");
    ensure!(live.attribute("queue/fua")? == "1", "no FUA");
    ensure!(live.attribute("ro")? == "0", "the volume is read-only");
    for name in ["queue/discard_max_bytes", "queue/discard_granularity"] {
        ensure!(live.number(name)? > 0, "{name} of the volume is 0");
    }
    rig.finish()
}

#[test]
fn an_origin_of_4096_byte_sectors_is_served_as_one() -> Outcome {
    let origin = Disk::scsi(64, "sector_size=4096")?;
    let store = Disk::ram(RamOptions::plain(256))?;
    let mut rig = Rig::on("4kn", &Setup::default(), origin, store)?;
    let live = rig.device()?;
    let full = rig.take_at_rest("s")?;
    for device in [&live, &rig.snapshot_device(&full)?] {
        for name in ["queue/logical_block_size", "queue/physical_block_size"] {
            let bytes = device.number(name)?;
            ensure!(
                bytes == 4096,
                "{name} of {}: {bytes}",
                device.path.display()
            );
        }
    }
    let half = live.write(512, &[1; 512]);
    ensure!(half.is_err(), "a write of half a KiB was taken");
    live.write(4096, &[1; 4096])?;
    // The kernel counts a request just after it has told who waits for it.
    for _ in 0..100 {
        if live.counter(WRITES)? > 0 {
            return rig.finish();
        }
        std::thread::sleep(std::time::Duration::from_millis(10));
    }
    Err(Fault::wrong("nothing was written"))
}

/// A master boot record with one partition from 1 MiB to the end.
fn partition_table(sectors: u32) -> [u8; 512] {
    let mut record = [0; 512];
    record[446 + 4] = 0x83;
    record[446 + 8..446 + 12].copy_from_slice(&2048_u32.to_le_bytes());
    record[446 + 12..446 + 16].copy_from_slice(&(sectors - 2048).to_le_bytes());
    record[510..].copy_from_slice(&[0x55, 0xaa]);
    record
}

#[test]
fn partitions_of_snapshots_are_not_scanned() -> Outcome {
    if !kernel::at_least(7, 0)? {
        let reason = "NO_AUTO_PART_SCAN came with Linux 7.0";
        return skip("partitions_of_snapshots_are_not_scanned", reason);
    }
    let mut rig = Rig::new("partitions", &Setup::default())?;
    let live = rig.device()?;
    let sectors = (live.size()? / 512) as u32;
    live.write(0, &partition_table(sectors))?;
    let full = rig.take_at_rest("s")?;
    let snapshot = rig.snapshot_device(&full)?;
    kernel::settle()?;
    let partition = |device: &Device| -> Outcome<bool> {
        let name = device.name()?;
        Ok(Path::new(&format!("/sys/class/block/{name}p1")).exists())
    };
    ensure!(
        !partition(&snapshot)?,
        "partitions of a snapshot were scanned"
    );
    // Whoever asks gets them: the table is there.
    let mut reread = tools::program("blockdev");
    tools::run(reread.arg("--rereadpt").arg(&live.path))?;
    ensure!(partition(&live)?, "the volume's partition is not seen");
    kernel::settle()?;
    rig.finish()
}

#[test]
fn status_and_features_agree_with_sysfs() -> Outcome {
    let mut rig = Rig::new("status", &Setup::default())?;
    let full = rig.take_at_rest("s")?;
    let status = rig.bed.ctl.json("status")?;
    let text = status.to_string();
    ensure!(
        rig::find(&status, "frontend") == Some("ublk"),
        "status names another front end: {text}"
    );
    let volume = rig.bed.ctl.json("volume show vol")?;
    let (live, snapshot) = (rig.device()?, rig.snapshot_device(&full)?);
    let number = live.name()?.replace("ublkb", "");
    let queues = std::fs::read_dir(format!("/sys/block/ublkb{number}/mq"));
    let queues = queues.trying(|| "count the queues".into())?.count();
    ensure!(
        volume.to_string().contains(&format!("\"queues\":{queues}")),
        "sysfs has {queues} queues: {volume}"
    );
    let chars = kernel::ublk_devices()?;
    ensure!(chars.len() == 2, "one volume, one snapshot: {chars:?}");
    for (link, device) in [("vol", &live), (full.as_str(), &snapshot)] {
        let link = Path::new("/dev/csnap").join(link);
        let kind = std::fs::metadata(&link).trying(|| format!("follow {}", link.display()))?;
        ensure!(kind.file_type().is_block_device(), "{link:?} is no device");
        let seen = Device::new(&link)?.name()?;
        ensure!(seen == device.name()?, "{link:?} leads to {seen}");
    }
    rig.finish()
}

/// What a kernel from 7.0 on must have agreed to besides recovery, and 6.12 must not.
const OF_7_0: [&str; 7] = [
    "zero-copy",
    "auto-buf-reg",
    "update-size",
    "quiesce",
    "per-io-daemon",
    "buf-reg-off-daemon",
    "safe-stop-dev",
];

#[test]
fn what_was_agreed_is_all_that_this_kernel_has_and_is_shown() -> Outcome {
    let rig = Rig::new("agreed", &Setup::default())?;
    let new = kernel::at_least(7, 0)?;
    let volume = rig.bed.ctl.json("volume show vol")?;
    let agreed = rig::find_any(&volume, "features", &serde_json::Value::is_array);
    let agreed = agreed.ok_or_else(|| Fault::wrong(format!("nothing agreed: {volume}")))?;
    let agreed_to = |name: &str| {
        agreed
            .as_array()
            .is_some_and(|all| all.iter().any(|f| f == name))
    };
    let known = rig.bed.ctl.json("features")?;
    let rows = rig::find_any(&known, "features", &serde_json::Value::is_array);
    let rows = rows.and_then(serde_json::Value::as_array);
    let rows = rows.ok_or_else(|| Fault::wrong(format!("no features: {known}")))?;
    let wanted = ["user-recovery", "user-recovery-reissue"].map(|name| (name, true));
    for (name, there) in wanted.into_iter().chain(OF_7_0.map(|name| (name, new))) {
        ensure!(
            agreed_to(name) == there,
            "{name} should be {there}: {volume}"
        );
        let row = rows.iter().find(|row| row["name"] == name);
        let row = row.ok_or_else(|| Fault::wrong(format!("no row {name}: {known}")))?;
        ensure!(
            row["offered"] == there && row["used"] == there,
            "features says of {name}: {row}"
        );
    }
    let how = if new { "auto" } else { "off" };
    ensure!(
        rig::find(&volume, "zero_copy") == Some(how),
        "data should move {how}: {volume}"
    );
    rig.finish()
}

#[test]
fn a_buffered_write_is_there_after_fsync() -> Outcome {
    let rig = Rig::new("buffered", &cached())?;
    let live = rig.device()?;
    let story = || "write through the page cache".to_owned();
    let mut file = std::fs::File::options()
        .write(true)
        .open(&live.path)
        .trying(story)?;
    file.write_all(&[9; 100_000]).trying(story)?;
    file.sync_all().trying(story)?;
    drop(file);
    let seen = rig.origin.device().read(0, 98_304)?;
    ensure!(
        seen.iter().all(|byte| *byte == 9),
        "it is not in the origin"
    );
    rig.finish()
}
