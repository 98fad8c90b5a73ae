//! Disks that fail in part: reads, writes and flushes of the origin, reads of the store,
//! bytes of the store changed on their way, writes of the store that are lost.
//!
//! Device mapper puts the fault below csnapd and takes it away again. Judged by what the
//! devices show: each piece of a snapshot is what it was taken of, or an error.

use csnap_tests::e2e::bed::VOLUME;
use csnap_tests::e2e::ctl::exit;
use csnap_tests::e2e::ledger::stamped;
use csnap_tests::e2e::{Fault, Outcome};
use csnap_tests::ensure;
use csnap_tests::guest_bed::device::Image;
use csnap_tests::guest_bed::{Device, Disk, RamOptions, Rig, Setup, kernel};

const CHUNK: u64 = 16 << 10;
/// Chunks of the origin.
const CHUNKS: u64 = (4 << 20) / CHUNK;
const WHOLE: &str = "0 %s linear %d 0";

/// An origin and a store below which device mapper can be told to fail; a snapshot.
fn rig(test: &str) -> Outcome<(Rig, String)> {
    kernel::load("dm_flakey")?;
    let origin = Disk::mapped(Disk::ram(RamOptions {
        cached: true,
        ..RamOptions::plain(4)
    })?)?;
    let store = Disk::mapped(Disk::ram(RamOptions::plain(32))?)?;
    let mut rig = Rig::on(test, &Setup::default(), origin, store)?;
    let full = rig.take_at_rest("s")?;
    Ok((rig, full))
}

/// A table of dm-flakey that is always down, with so many words of this fault.
fn flakey(words: &str) -> String {
    let count = words.split(' ').count();
    format!("0 %s flakey %d 0 0 3600 {count} {words}")
}

/// Overwrites a whole chunk with the stamps of `number`.
fn overwrite(device: &Device, chunk: u64, number: u64) -> Outcome {
    device.write(chunk * CHUNK, &contents(chunk, number))
}

fn contents(chunk: u64, number: u64) -> Vec<u8> {
    let blocks = chunk * 4..chunk * 4 + 4;
    blocks
        .flat_map(|block| stamped(block as usize, number))
        .collect()
}

/// The system said that it is an I/O error.
fn is_eio<T>(result: Outcome<T>, what: &str) -> Outcome {
    match result {
        Err(Fault::Io { source, .. }) if source.raw_os_error() == Some(5) => Ok(()),
        Err(other) => Err(Fault::wrong(format!("{what}: no I/O error but {other}"))),
        Ok(_) => Err(Fault::wrong(format!("{what} went well"))),
    }
}

/// Reads a snapshot chunk by chunk: each is what it was or an error; which are errors.
fn failing(snapshot: &Device, picture: &Image) -> Outcome<Vec<u64>> {
    let mut failing = Vec::new();
    for chunk in 0..CHUNKS {
        let start = (chunk * CHUNK) as usize;
        match snapshot.read(start as u64, CHUNK as usize) {
            Ok(seen) => ensure!(
                seen == picture.bytes()[start..start + CHUNK as usize],
                "chunk {chunk} of the snapshot shows what it never held"
            ),
            error => {
                is_eio(error, "a read of the snapshot")?;
                failing.push(chunk);
            }
        }
    }
    Ok(failing)
}

/// Whether the events tell of this.
fn told(rig: &Rig, event: &str) -> Outcome {
    let events = rig.bed.ctl.json("events")?.to_string();
    ensure!(events.contains(event), "no {event} in the events: {events}");
    Ok(())
}

/// Whether the store was given up.
fn not_latched(rig: &Rig) -> Outcome {
    let status = rig.bed.ctl.ok("store status --json")?;
    ensure!(!status.contains("\"failed\""), "the store failed: {status}");
    Ok(())
}

#[test]
fn writes_and_flushes_the_origin_fails_fail_for_their_users_and_take_nothing_away() -> Outcome {
    let (mut rig, full) = rig("origin-writes")?;
    let device = rig.device()?;
    overwrite(&device, 0, 2)?;
    let before = device.image()?;
    rig.origin.retable(&flakey("error_writes"))?;
    is_eio(overwrite(&device, 0, 3), "a write of a chunk that is kept")?;
    is_eio(overwrite(&device, 7, 3), "a write of a shared chunk")?;
    let flushed = device.open(true)?.sync_all();
    ensure!(flushed.is_err(), "a flush that the origin fails went well");
    // Its origin cannot be flushed, so nothing may be promised.
    let take = format!("snapshot take {VOLUME}@no");
    rig.bed.ctl.refuses(&take, exit::ERROR, "flush")?;
    before.same(&device.image()?, "the volume, whose writes failed")?;
    told(&rig, "origin-failed")?;
    rig.verify()?;
    rig.origin.retable(WHOLE)?;
    let listed = rig.bed.ctl.snapshots(VOLUME)?;
    ensure!(listed.len() == 1, "a take that failed left {listed:?}");
    overwrite(&device, 0, 4)?;
    overwrite(&device, 7, 4)?;
    device
        .open(true)?
        .sync_all()
        .map_err(|error| Fault::wrong(error.to_string()))?;
    ensure!(
        device.read(7 * CHUNK, CHUNK as usize)? == contents(7, 4),
        "not what was written"
    );
    not_latched(&rig)?;
    rig.take_at_rest("after")?;
    ensure!(
        rig.pictures.contains_key(&full),
        "the first snapshot is judged at the end"
    );
    rig.finish()
}

#[test]
fn what_the_origin_cannot_read_is_lost_to_snapshots_and_never_made_up() -> Outcome {
    let (mut rig, full) = rig("origin-reads")?;
    let (device, picture) = (rig.device()?, rig.pictures[&full].clone());
    overwrite(&device, 0, 2)?;
    rig.origin.retable(&flakey("error_reads"))?;
    is_eio(device.read(9 * CHUNK, 4096), "a read of the volume")?;
    // The old contents cannot be kept; the write must be able to heal a bad sector.
    overwrite(&device, 5, 3)?;
    told(&rig, "chunk-lost")?;
    let snapshot = rig.snapshot_device(&full)?;
    let now = failing(&snapshot, &picture)?;
    ensure!(
        now == (1..CHUNKS).collect::<Vec<_>>(),
        "{} chunks fail",
        now.len()
    );
    rig.origin.retable(WHOLE)?;
    ensure!(
        device.read(5 * CHUNK, CHUNK as usize)? == contents(5, 3),
        "the write is lost"
    );
    let lost = failing(&snapshot, &picture)?;
    ensure!(
        lost == [5],
        "{lost:?} fail with an origin that is whole again"
    );
    not_latched(&rig)?;
    rig.take_at_rest("after")?;
    rig.bed.kill9()?;
    rig.bed.start()?;
    let snapshot = rig.snapshot_device(&full)?;
    let lost = failing(&snapshot, &picture)?;
    ensure!(lost == [5], "{lost:?} fail after a kill");
    rig.pictures.remove(&full);
    rig.finish()
}

/// A snapshot of which every fourth chunk is in the store, and a fault of the store's
/// reads: those chunks fail, nothing else does, and nothing is left of it afterwards.
fn store_reads(test: &str, fault: &str) -> Outcome {
    let (rig, full) = rig(test)?;
    let (device, picture) = (rig.device()?, rig.pictures[&full].clone());
    let kept: Vec<u64> = (0..CHUNKS / 2).step_by(4).collect();
    for chunk in &kept {
        overwrite(&device, *chunk, 2)?;
    }
    let snapshot = rig.snapshot_device(&full)?;
    rig.store.retable(&flakey(fault))?;
    let now = failing(&snapshot, &picture)?;
    ensure!(
        now == kept,
        "{} chunks are kept, and {now:?} fail",
        kept.len()
    );
    let scrub = format!("store scrub {}", rig.bed.store.display());
    let scrubbed = rig.bed.ctl.any(&scrub)?;
    ensure!(
        scrubbed.code != 0,
        "a scrub finds nothing:\n{}",
        scrubbed.stdout
    );
    // Writes need nothing of the store but room.
    for chunk in CHUNKS / 2..CHUNKS {
        overwrite(&device, chunk, 3)?;
    }
    rig.store.retable(WHOLE)?;
    let lost = failing(&snapshot, &picture)?;
    ensure!(
        lost.is_empty(),
        "{lost:?} fail with a store that is whole again"
    );
    not_latched(&rig)?;
    rig.bed.ctl.ok(&scrub)?;
    rig.finish()
}

#[test]
fn a_store_that_cannot_be_read_is_an_error_and_no_data() -> Outcome {
    store_reads("store-reads", "error_reads")
}

#[test]
fn bytes_changed_on_the_way_from_the_store_are_never_served() -> Outcome {
    // Byte 9 of every read: 77 is neither the number's second byte nor any other.
    store_reads("store-rot", "corrupt_bio_byte 10 r 77 0")
}

/// What csnapd itself still knows is right; what only the store would know is an error.
/// (After a restart nobody could tell: what a disk lost in silence is gone, see media.md.)
#[test]
fn writes_the_store_lost_in_silence_are_found_and_never_made_up() -> Outcome {
    let (mut rig, full) = rig("store-lost")?;
    let (device, picture) = (rig.device()?, rig.pictures[&full].clone());
    overwrite(&device, 0, 2)?;
    rig.store.retable(&flakey("drop_writes"))?;
    let lost: Vec<u64> = (8..24).collect();
    for chunk in &lost {
        overwrite(&device, *chunk, 3)?;
    }
    rig.store.retable(WHOLE)?;
    let now = failing(&rig.snapshot_device(&full)?, &picture)?;
    ensure!(
        now == lost,
        "chunks {lost:?} never reached the store, {now:?} fail"
    );
    rig.pictures.remove(&full);
    let last = device.image()?;
    rig.stop()?;
    last.same(&rig.origin.device().image()?, "the origin alone")?;
    let check = format!("store check {} --data", rig.bed.store.display());
    let found = rig.bed.ctl.any(&check)?;
    ensure!(
        found.code == exit::CORRUPTION,
        "the check ends with {}:\n{}",
        found.code,
        found.stdout
    );
    rig.end()
}
