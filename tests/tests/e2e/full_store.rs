//! A store that runs full costs snapshots, in the order the user set, and never
//! the origin.

use csnap_tests::e2e::bed::VOLUME;
use csnap_tests::e2e::client::{Ask, Client, EIO};
use csnap_tests::e2e::files::MIB;
use csnap_tests::e2e::ledger::{BLOCK, stamped};
use csnap_tests::e2e::{Bed, Fault, Outcome, Setup, ctl};
use csnap_tests::{ensure, need_tools};
use serde_json::Value;
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
    let mut reader = Client::connect(&bed.nbd_socket(), &low)?;
    reader.read(0, 4096)?;
    overwrite(&mut client, 0..320, 2)?; // 20 MiB that only `low` needs
    let (precious, precious_digest) = take(&bed, "precious", 10)?;
    overwrite(&mut client, 512..1088, 3)?; // 36 MiB that all need: 80 in all
    drop(client);

    victim_is_named(&bed, &low)?;
    reason_is_listed(&bed, &low)?;
    reads_fail(&mut reader, &low)?;
    // It is mapped as before, and not one of its users is told anything else.
    reads_fail(&mut Client::connect(&bed.nbd_socket(), &low)?, &low)?;
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
    reason_is_listed(&bed, &low)?;
    let mapped = Client::connect(&bed.nbd_socket(), &low).is_ok();
    ensure!(!mapped, "{low} was dropped, and is served again");
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
    Client::connect(&bed.nbd_socket(), VOLUME)?.overwrite_all()
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
        wait_for_event(&bed, "waits-for-room")?;
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

fn wait_for_event(bed: &Bed, kind: &str) -> Outcome {
    let deadline = Instant::now() + Duration::from_secs(60);
    while !bed.ctl.ok("events")?.contains(kind) {
        ensure!(Instant::now() < deadline, "no event says {kind}");
        std::thread::sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[test]
fn an_orderly_stop_does_not_wait_for_room() -> Outcome {
    const ENOSPC: u32 = 28;
    let setup = Setup {
        origin_bytes: ORIGIN,
        store_bytes: 32 * MIB,
        noise: Some(11),
        ..Setup::default()
    };
    let mut bed = Bed::new("snapshot-first-stop", &setup)?;
    let set = format!("volume set {VOLUME} --policy snapshot-first --full-wait 300");
    bed.ctl.ok(&set)?;
    bed.ctl.ok(&format!("snapshot take {VOLUME}@a"))?;
    let socket = bed.nbd_socket();
    let writer = std::thread::spawn(move || -> Outcome<u32> {
        let mut client = Client::connect(&socket, VOLUME)?;
        for piece in 0..ORIGIN >> 16 {
            let done = client.call(piece << 16, &Ask::Write(vec![3; 16 * BLOCK], false))?;
            if done.error != 0 {
                return Ok(done.error);
            }
        }
        Ok(0)
    });
    wait_for_event(&bed, "waits-for-room")?;
    bed.stop()?;
    let panicked = |_| Fault::wrong("the writer panicked");
    // Answered, not cut off: so the origin could be sealed.
    let error = writer.join().map_err(panicked)??;
    ensure!(error == ENOSPC, "the write that waited got {error}");
    let log = bed.places.log_tail(100);
    ensure!(!log.contains("no fingerprint"), "not in order:\n{log}");
    bed.finish()
}

#[test]
fn the_warning_comes_in_time_and_says_when() -> Outcome {
    const STORE: u64 = 64 * MIB;
    // As long as it takes to 80 %: a rate is told after half a minute.
    const TIME: Duration = Duration::from_secs(50);
    let setup = Setup {
        origin_bytes: ORIGIN,
        store_bytes: STORE,
        noise: Some(12),
        ..Setup::default()
    };
    let bed = Bed::new("warning", &setup)?;
    bed.ctl.ok(&format!("snapshot take {VOLUME}@a"))?;
    let mut client = Client::connect(&bed.nbd_socket(), VOLUME)?;
    let (clock, mut piece) = (Instant::now(), 0);
    let mut write_until = |kind: &str| -> Outcome<Value> {
        loop {
            let due = TIME.mul_f64((piece << 16) as f64 / (STORE as f64 * 0.8));
            std::thread::sleep(due.saturating_sub(clock.elapsed()));
            ensure!(piece << 16 < ORIGIN, "all is overwritten, and no {kind}");
            overwrite(&mut client, piece..piece + 1, 1)?;
            piece += 1;
            if piece % 8 > 0 {
                continue;
            }
            let events = bed.ctl.json("events")?;
            if let Some(event) = ctl::rows(&events)?.iter().find(|e| e["kind"] == kind) {
                return Ok(event.clone());
            }
        }
    };
    let warning = write_until("space-low")?;
    let told = warning["message"].as_str().unwrap_or_default();
    ensure!(told.contains("full in"), "it does not say when: {told}");
    ensure!(warning["level"] == "warning", "it is {warning}");
    let warned = Instant::now();
    let status = bed
        .ctl
        .json(&format!("store status {}", bed.store.display()))?;
    let left = ctl::rows(&status)?[0]["full_in_s"].as_u64();
    let left = left.ok_or_else(|| Fault::wrong(format!("no full_in_s: {status}")))?;
    ensure!(
        (1..=60).contains(&left),
        "full in {left} s, about 12 are left"
    );
    write_until("snapshot-dropped")?;
    let took = warned.elapsed().as_secs();
    ensure!(took <= 20 + 4 * left, "{left} s were said, {took} it took");
    bed.finish()
}

#[test]
fn a_held_snapshot_stays_whatever_it_costs() -> Outcome {
    need_tools!("a_held_snapshot_stays_whatever_it_costs", "nbdcopy");
    let setup = Setup {
        origin_bytes: ORIGIN,
        store_bytes: 32 * MIB,
        noise: Some(13),
        ..Setup::default()
    };
    let mut bed = Bed::new("held", &setup)?;
    let kept = format!("{VOLUME}@kept");
    bed.ctl.ok(&format!("snapshot take {kept}"))?;
    bed.ctl.ok(&format!("snapshot set {kept} --hold"))?;
    bed.ctl
        .ok(&format!("snapshot take {VOLUME}@newer --priority 9"))?;
    let about = "--no-hold";
    for line in [
        format!("snapshot delete {kept} {VOLUME}@newer --yes"),
        format!("volume delete {VOLUME} --yes --force"),
    ] {
        bed.ctl.refuses(&line, ctl::exit::BUSY, about)?;
    }
    bed.ctl.ok(&format!("snapshot map {kept}"))?;
    let digest = bed.digest(&kept)?;
    let refused = overwrite_all(&bed)?;
    ensure!(refused > 0, "{} MiB fit into a store of 32", ORIGIN / MIB);
    victim_is_named(&bed, &format!("{VOLUME}@newer"))?;
    ensure!(bed.digest(&kept)? == digest, "{kept} changed");
    bed.kill9()?;
    bed.start()?;
    let shown = bed.ctl.ok(&format!("snapshot show {kept} --json"))?;
    ensure!(
        shown.contains("\"held\": true"),
        "not after a crash: {shown}"
    );
    bed.ctl.ok(&format!("snapshot set {kept} --no-hold"))?;
    let refused = overwrite_all(&bed)?;
    ensure!(refused == 0, "{refused} writes were refused");
    ensure!(!is_live(&bed, &kept)?, "{kept} is held no longer and stays");
    // Nothing is left in it to keep.
    bed.ctl.ok(&format!("snapshot set {kept} --hold"))?;
    bed.delete(&kept)?;
    let last = format!("{VOLUME}@last");
    bed.ctl.ok(&format!("snapshot take {last}"))?;
    bed.ctl.ok(&format!("snapshot set {last} --hold"))?;
    bed.ctl
        .ok(&format!("snapshot delete {last} --yes --force"))?;
    bed.finish()
}

#[test]
fn a_deletion_gives_back_what_was_said() -> Outcome {
    let setup = Setup {
        origin_bytes: ORIGIN,
        noise: Some(14),
        ..Setup::default()
    };
    let bed = Bed::new("gives-back", &setup)?;
    let mut client = Client::connect(&bed.nbd_socket(), VOLUME)?;
    bed.ctl.ok(&format!("snapshot take {VOLUME}@a"))?;
    overwrite(&mut client, 0..400, 1)?;
    bed.ctl.ok(&format!("snapshot take {VOLUME}@b"))?;
    overwrite(&mut client, 200..800, 2)?;
    let list = bed.ctl.json(&format!("snapshot list {VOLUME}"))?;
    let sizes = ctl::rows(&list)?.iter().map(|row| {
        let bytes = |field: &str| row[field].as_u64().unwrap_or(u64::MAX) >> 16;
        (bytes("exclusive_bytes"), bytes("shared_bytes"))
    });
    let sizes: Vec<(u64, u64)> = sizes.collect();
    ensure!(
        sizes == [(400, 400), (200, 400)],
        "own and shared: {sizes:?}"
    );
    bed.ctl.ok(&format!("snapshot delete {VOLUME}@a --yes"))?;
    let deadline = Instant::now() + Duration::from_secs(60);
    loop {
        let status = bed
            .ctl
            .json(&format!("store status {}", bed.store.display()))?;
        let store = &ctl::rows(&status)?[0];
        let left = store["purging_bytes"].as_u64().unwrap_or(u64::MAX);
        ensure!(left <= 400 << 16, "{left} bytes are still to come back");
        if store["purging"] == 0 {
            ensure!(left == 0, "all came back but {left} bytes");
            break;
        }
        ensure!(Instant::now() < deadline, "it takes too long: {store}");
        std::thread::sleep(Duration::from_millis(20));
    }
    let volume = bed.ctl.json(&format!("volume show {VOLUME}"))?;
    let held = ctl::rows(&volume)?[0]["held_bytes"].as_u64();
    ensure!(held == Some(600 << 16), "{held:?} bytes are kept for b");
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

/// The list says that it is dropped, and why.
fn reason_is_listed(bed: &Bed, snapshot: &str) -> Outcome {
    let list = bed.ctl.json(&format!("snapshot list {VOLUME}"))?;
    let is =
        |row: &&Value| snapshot.ends_with(&format!("@{}", row["name"].as_str().unwrap_or("?")));
    let row = ctl::rows(&list)?.iter().find(is);
    let row = row.ok_or_else(|| Fault::wrong(format!("{snapshot} is not listed: {list}")))?;
    let said = row["state"] == "dropped" && row["dropped"] == "the store was full";
    ensure!(said, "it is not said why: {row}");
    Ok(())
}

/// All of a dropped snapshot that is mapped fails: what was copied for it, and what the
/// origin still has.
fn reads_fail(client: &mut Client, snapshot: &str) -> Outcome {
    for at in [0, 30 * MIB, ORIGIN - 4096] {
        let error = client.call(at, &Ask::Read(4096))?.error;
        ensure!(
            error == EIO,
            "a read of dropped {snapshot} at {at} gave NBD error {error}"
        );
    }
    Ok(())
}

fn origin_shows(bed: &Bed, piece: u64, number: u64) -> Outcome {
    let bytes = Client::connect(&bed.nbd_socket(), VOLUME)?.read(piece << 16, BLOCK as u32)?;
    let right = bytes == stamped(piece as usize * 16, number);
    ensure!(right, "the origin lost write {number} of piece {piece}");
    Ok(())
}
