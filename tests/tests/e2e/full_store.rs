//! A store that runs full costs snapshots, in the order the user set, and never
//! the origin.

use csnap_tests::e2e::bed::VOLUME;
use csnap_tests::e2e::client::{Ask, Client, EIO};
use csnap_tests::e2e::files::MIB;
use csnap_tests::e2e::ledger::{BLOCK, stamped};
use csnap_tests::e2e::{Bed, Fault, Outcome, Setup, ctl};
use csnap_tests::{ensure, need_tools};
use std::time::{Duration, Instant};

const ORIGIN: u64 = 96 * MIB;
/// Room for about 68 MiB of old contents.
const STORE: u64 = 72 * MIB;

/// Overwrites 64 KiB pieces `which` of the volume with generation `number`.
fn overwrite(client: &mut Client, which: std::ops::Range<u64>, number: u64) -> Outcome {
    for piece in which {
        let first = piece as usize * 16;
        let data = (first..first + 16)
            .flat_map(|block| stamped(block, number))
            .collect();
        client.write(piece << 16, data)?;
    }
    Ok(())
}

#[test]
fn the_victim_goes_first_and_the_origin_goes_on() -> Outcome {
    need_tools!("the_victim_goes_first_and_the_origin_goes_on", "nbdcopy");
    let setup = Setup {
        origin_bytes: ORIGIN,
        store_bytes: STORE,
        noise: Some(3),
        ..Setup::default()
    };
    let mut bed = Bed::new("full", &setup)?;
    let mut client = Client::connect(&bed.nbd_socket(), VOLUME)?;
    let (old, old_digest) = take(&bed, "old", 5)?;
    overwrite(&mut client, 0..384, 1)?; // 24 MiB that only `old` needs
    let (low, _) = take(&bed, "low", 0)?;
    overwrite(&mut client, 0..320, 2)?; // 20 MiB that only `low` needs
    let (precious, precious_digest) = take(&bed, "precious", 10)?;
    overwrite(&mut client, 512..1088, 3)?; // 36 MiB that all need: 80 in all
    drop(client);

    victim_is_named(&bed, &low)?;
    reads_fail(&bed, &low)?;
    ensure!(
        is_live(&bed, &precious)?,
        "{precious} has the highest priority and was dropped"
    );
    ensure!(
        bed.digest(&precious)? == precious_digest,
        "{precious} changed"
    );
    if is_live(&bed, &old)? {
        ensure!(bed.digest(&old)? == old_digest, "{old} changed");
    }
    origin_shows(&bed, 1087, 3)?;

    // What was dropped stays dropped, what is live stays live.
    bed.kill9()?;
    bed.start()?;
    reads_fail(&bed, &low)?;
    ensure!(
        bed.digest(&precious)? == precious_digest,
        "{precious} changed over a restart"
    );
    // Room again: a new snapshot works as ever.
    bed.delete(&low)?;
    bed.take_mapped("after")?;
    bed.finish()
}

/// Takes and maps a snapshot with a priority; returns its name and its checksum.
fn take(bed: &Bed, name: &str, priority: i32) -> Outcome<(String, String)> {
    let snapshot = bed.take_mapped(name)?;
    bed.ctl
        .ok(&format!("snapshot set {snapshot} --priority {priority}"))?;
    let digest = bed.digest(&snapshot)?;
    Ok((snapshot, digest))
}

fn is_live(bed: &Bed, snapshot: &str) -> Outcome<bool> {
    let rows = bed.ctl.snapshots(VOLUME)?;
    Ok(rows.iter().any(|row| row.full_name == snapshot && row.live))
}

#[test]
fn a_store_overrun_without_pause_never_fails_the_origin() -> Outcome {
    let setup = Setup {
        origin_bytes: ORIGIN,
        store_bytes: 32 * MIB,
        ..Setup::default()
    };
    let bed = Bed::new("overrun", &setup)?;
    for round in 1..=6 {
        // Every snapshot needs three times the room there is.
        bed.ctl.ok(&format!("snapshot take {VOLUME}@r{round}"))?;
        let mut client = Client::connect(&bed.nbd_socket(), VOLUME)?;
        overwrite(&mut client, 0..ORIGIN >> 16, round)?;
        origin_shows(&bed, 0, round)?;
        origin_shows(&bed, (ORIGIN >> 16) - 1, round)?;
    }
    bed.finish()
}

#[test]
fn snapshot_first_fails_the_write_and_keeps_the_snapshot() -> Outcome {
    need_tools!(
        "snapshot_first_fails_the_write_and_keeps_the_snapshot",
        "nbdcopy"
    );
    let setup = Setup {
        origin_bytes: ORIGIN,
        store_bytes: 32 * MIB,
        noise: Some(9),
        ..Setup::default()
    };
    let bed = Bed::new("snapshot-first", &setup)?;
    bed.ctl
        .ok(&format!("volume set {VOLUME} --policy snapshot-first"))?;
    let kept = bed.take_mapped("kept")?;
    let digest = bed.digest(&kept)?;
    let mut client = Client::connect(&bed.nbd_socket(), VOLUME)?;
    let mut refused = 0;
    for piece in 0..ORIGIN >> 16 {
        let done = client.call(piece << 16, &Ask::Write(vec![1; 16 * BLOCK], false))?;
        refused += u64::from(done.error != 0);
    }
    ensure!(
        refused > 0,
        "{} MiB of old data fit into a store of 32 MiB",
        ORIGIN / MIB
    );
    ensure!(bed.digest(&kept)? == digest, "{kept} changed");
    bed.finish()
}

/// Writes the whole volume; how many writes were refused.
fn overwrite_all(bed: &Bed) -> Outcome<u64> {
    let mut client = Client::connect(&bed.nbd_socket(), VOLUME)?;
    let mut refused = 0;
    for piece in 0..ORIGIN >> 16 {
        let done = client.call(piece << 16, &Ask::Write(vec![2; 16 * BLOCK], false))?;
        refused += u64::from(done.error != 0);
    }
    Ok(refused)
}

#[test]
fn snapshot_first_waits_for_room_as_long_as_it_was_told() -> Outcome {
    let setup = Setup {
        origin_bytes: ORIGIN,
        store_bytes: 32 * MIB,
        noise: Some(10),
        ..Setup::default()
    };
    let bed = Bed::new("snapshot-first-wait", &setup)?;
    let set = format!("volume set {VOLUME} --policy snapshot-first --full-wait");
    bed.ctl.ok(&format!("{set} 300"))?;
    bed.ctl.ok(&format!("snapshot take {VOLUME}@a"))?;
    std::thread::scope(|scope| -> Outcome {
        let writing = scope.spawn(|| overwrite_all(&bed));
        let told = "waits-for-room";
        let deadline = Instant::now() + Duration::from_secs(60);
        while !bed.ctl.ok("events")?.contains(told) {
            ensure!(Instant::now() < deadline, "no event says {told}");
            std::thread::sleep(Duration::from_millis(50));
        }
        ensure!(!writing.is_finished(), "it does not wait");
        // Room: everything that waited goes on.
        bed.delete(&format!("{VOLUME}@a"))?;
        let panicked = |_| Fault::wrong("the writer panicked");
        let refused = writing.join().map_err(panicked)??;
        ensure!(refused == 0, "{refused} writes were refused");
        Ok(())
    })?;
    // Too short a time: they are refused, once it is over at once.
    bed.ctl.ok(&format!("{set} 2"))?;
    bed.ctl.ok(&format!("snapshot take {VOLUME}@b"))?;
    let clock = Instant::now();
    let refused = overwrite_all(&bed)?;
    let took = clock.elapsed();
    ensure!(refused > 10, "{refused} writes were refused");
    ensure!(took > Duration::from_secs(1), "it waited {took:?}");
    ensure!(took < Duration::from_secs(60), "each waited: {took:?}");
    bed.finish()
}

fn victim_is_named(bed: &Bed, snapshot: &str) -> Outcome {
    let name = snapshot.rsplit('@').next().unwrap_or(snapshot);
    let events = bed.ctl.json("events")?;
    let events = ctl::rows(&events)?;
    let says = events.iter().any(|event| {
        let told = event.to_string();
        told.contains(name) && told.contains("dropped")
    });
    ensure!(
        says,
        "no event says that {snapshot} was dropped: {events:#?}"
    );
    let rows = bed.ctl.snapshots(VOLUME)?;
    let row = rows.iter().find(|row| row.full_name == snapshot);
    let row = row.ok_or_else(|| Fault::wrong(format!("{snapshot} is not listed: {rows:?}")))?;
    ensure!(!row.live, "{snapshot} is the victim and listed as live");
    Ok(())
}

/// Reads of a dropped snapshot fail, or it is not exported any more.
fn reads_fail(bed: &Bed, snapshot: &str) -> Outcome {
    let Ok(mut client) = Client::connect(&bed.nbd_socket(), snapshot) else {
        return Ok(());
    };
    let done = client.call(0, &Ask::Read(4096))?;
    ensure!(
        done.error == EIO,
        "a read of dropped {snapshot} gave NBD error {}",
        done.error
    );
    Ok(())
}

fn origin_shows(bed: &Bed, piece: u64, number: u64) -> Outcome {
    let bytes = Client::connect(&bed.nbd_socket(), VOLUME)?.read(piece << 16, BLOCK as u32)?;
    let right = bytes == stamped(piece as usize * 16, number);
    ensure!(right, "the origin lost write {number} of piece {piece}");
    Ok(())
}
