//! The main job in small: the life of a volume and its snapshots.

use csnap_tests::e2e::bed::VOLUME;
use csnap_tests::e2e::client::{Ask, Client};
use csnap_tests::e2e::files::{self, MIB};
use csnap_tests::e2e::ledger::{BLOCK, Ledger, stamped};
use csnap_tests::e2e::load::{self, Load};
use csnap_tests::e2e::{Bed, Outcome, Setup, ctl};
use csnap_tests::{ensure, need_tools};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

#[test]
fn snapshots_keep_every_generation_of_the_volume() -> Outcome {
    need_tools!("snapshots_keep_every_generation_of_the_volume", "nbdcopy");
    let setup = Setup {
        origin_bytes: 16 * MIB,
        noise: Some(7),
        ..Setup::default()
    };
    let bed = Bed::new("generations", &setup)?;
    let mut truth = Vec::new();
    for round in 0..6_u64 {
        truth.push((bed.take_mapped(&format!("s{round}"))?, bed.digest(VOLUME)?));
        let mut client = Client::connect(&bed.nbd_socket(), VOLUME)?;
        for block in (0..4096).step_by(3 + round as usize) {
            let offset = (block * BLOCK) as u64;
            client.write(offset, stamped(block, round + 1))?;
        }
    }
    for (snapshot, digest) in &truth {
        ensure!(bed.digest(snapshot)? == *digest, "{snapshot} changed");
    }
    // Out of order, so that intervals merge both ways.
    for gone in [3, 0, 4] {
        let (snapshot, _) = truth.remove(gone.min(truth.len() - 1));
        bed.delete(&snapshot)?;
        for (snapshot, digest) in &truth {
            ensure!(
                bed.digest(snapshot)? == *digest,
                "{snapshot} changed by a deletion"
            );
        }
    }
    bed.finish()
}

#[test]
fn the_origin_alone_is_what_was_written() -> Outcome {
    let setup = Setup {
        origin_bytes: 32 * MIB,
        noise: None,
        ..Setup::default()
    };
    let mut bed = Bed::new("origin-alone", &setup)?;
    let seed = super::seed();
    let ledger = Arc::new(Mutex::new(Ledger::new(32 * MIB as usize / BLOCK)));
    let load = Load::start(&bed.nbd_socket(), VOLUME, &ledger, seed);
    for name in ["a", "b", "c"] {
        std::thread::sleep(Duration::from_millis(300));
        bed.take_mapped(name)?;
    }
    let answered = load.finish(false)?;
    ensure!(answered > 100, "only {answered} requests were answered");
    bed.stop()?;
    let bytes = std::fs::read(&bed.origin)
        .map_err(|error| csnap_tests::e2e::Fault::wrong(format!("read the origin: {error}")))?;
    load::lock(&ledger).settle(0, &bytes)?;
    bed.finish()
}

#[test]
fn exports_come_back_after_an_orderly_restart() -> Outcome {
    need_tools!("exports_come_back_after_an_orderly_restart", "nbdcopy");
    let setup = Setup {
        origin_bytes: 16 * MIB,
        noise: Some(11),
        ..Setup::default()
    };
    let mut bed = Bed::new("restart", &setup)?;
    let before = files::digest(&bed.origin)?;
    let snapshot = bed.take_mapped("kept")?;
    bed.ctl.ok(&format!("snapshot take {VOLUME}@not-mapped"))?;
    Client::connect(&bed.nbd_socket(), VOLUME)?.write(0, stamped(0, 1))?;
    bed.stop()?;
    bed.check_store()?;
    bed.start()?;
    ensure!(
        bed.digest(&snapshot)? == before,
        "{snapshot} changed over a restart"
    );
    let listed = bed
        .ctl
        .json(&format!("snapshot show {VOLUME}@not-mapped"))?;
    ensure!(
        listed.to_string().contains("\"mapped\":false"),
        "a snapshot that was not mapped is: {listed}"
    );
    ensure!(
        bed.digest(&format!("{VOLUME}@not-mapped"))? == before,
        "what is not mapped cannot be read, or changed"
    );
    bed.finish()
}

#[test]
fn what_a_write_is_zero_trim_odd_sectors() -> Outcome {
    need_tools!("what_a_write_is_zero_trim_odd_sectors", "nbdcopy");
    let setup = Setup {
        origin_bytes: 8 * MIB,
        noise: Some(5),
        ..Setup::default()
    };
    let bed = Bed::new("kinds-of-write", &setup)?;
    let before = files::digest(&bed.origin)?;
    let snapshot = bed.take_mapped("before")?;
    let mut client = Client::connect(&bed.nbd_socket(), VOLUME)?;
    let asks = [
        (0, Ask::Zero(64 << 10)),
        (512 * 1001, Ask::Zero(512 * 77)),
        (1 << 20, Ask::Trim(256 << 10)),
        (512 * 5001, Ask::Write(vec![0x5a; 512 * 3], true)),
        (8 * MIB - 512, Ask::Write(vec![0xa5; 512], false)),
    ];
    for (offset, ask) in &asks {
        let done = client.call(*offset, ask)?;
        ensure!(
            done.error == 0,
            "NBD error {} for {ask:?} at {offset}",
            done.error
        );
    }
    ensure!(
        client.read(0, 64 << 10)?.iter().all(|&b| b == 0),
        "write-zeroes did not zero"
    );
    ensure!(
        client.read(512 * 5001, 512 * 3)? == vec![0x5a; 512 * 3],
        "an odd write is lost"
    );
    ensure!(bed.digest(&snapshot)? == before, "{snapshot} changed");
    bed.finish()
}

#[test]
fn names_lists_and_refusals() -> Outcome {
    let bed = Bed::new(
        "names",
        &Setup {
            origin_bytes: 8 * MIB,
            ..Setup::default()
        },
    )?;
    let (c, code) = (&bed.ctl, ctl::exit::USAGE);
    c.ok("snapshot take vol@a")?;
    c.ok("snapshot take vol")?;
    c.ok("snapshot rename vol@a b")?;
    ensure!(
        c.snapshots(VOLUME)?.len() == 2,
        "not two snapshots: {:?}",
        c.snapshots(VOLUME)?
    );
    ensure!(
        c.snapshots(VOLUME)?[0].full_name == "vol@b",
        "the rename does not show"
    );
    c.refuses("snapshot show vol@a", ctl::exit::NOT_FOUND, "vol@a")?;
    c.refuses("snapshot take nothere@x", ctl::exit::NOT_FOUND, "nothere")?;
    c.refuses("snapshot take", code, "usage")?;
    c.refuses("no-such-noun", code, "no-such-noun")?;
    c.ok("snapshot map vol@b")?;
    c.refuses("snapshot delete vol@b --yes", ctl::exit::BUSY, "vol@b")?;
    c.ok("snapshot unmap vol@b")?;
    ensure!(
        c.any("snapshot delete vol@b")?.code != 0,
        "deleted without --yes off a terminal"
    );
    c.ok("snapshot delete vol@b --dry-run")?;
    ensure!(
        c.snapshots(VOLUME)?.len() == 2,
        "--dry-run deleted something"
    );
    c.ok("snapshot delete vol@b --yes")?;
    ensure!(
        c.snapshots(VOLUME)?.len() == 1,
        "the deleted snapshot is still listed"
    );
    bed.finish()
}

#[test]
fn one_take_of_several_volumes_is_one_instant() -> Outcome {
    let bed = Bed::new(
        "group",
        &Setup {
            origin_bytes: 8 * MIB,
            ..Setup::default()
        },
    )?;
    let second = bed.path("second.img");
    files::make_sparse(&second, 8 * MIB)?;
    bed.ctl.ok(&format!(
        "volume create vol2 {} --store {}",
        second.display(),
        bed.store.display()
    ))?;
    // One client writes n to the first volume, waits, then n to the second: any
    // instant shows first == second or first == second + 1.
    let socket = bed.nbd_socket();
    let stop = Arc::new(std::sync::atomic::AtomicBool::new(false));
    let told = Arc::clone(&stop);
    let writer = std::thread::spawn(move || -> Outcome<u64> {
        let mut first = Client::connect(&socket, "vol")?;
        let mut second = Client::connect(&socket, "vol2")?;
        let mut n = 0;
        while !told.load(std::sync::atomic::Ordering::Relaxed) {
            n += 1;
            first.write(0, stamped(0, n))?;
            second.write(0, stamped(0, n))?;
        }
        Ok(n)
    });
    for round in 0..10 {
        std::thread::sleep(Duration::from_millis(50));
        bed.ctl
            .ok(&format!("snapshot take vol@g{round} vol2@g{round}"))?;
    }
    stop.store(true, std::sync::atomic::Ordering::Relaxed);
    let written = writer
        .join()
        .map_err(|_| csnap_tests::e2e::Fault::wrong("the writer panicked"))??;
    ensure!(written > 20, "only {written} pairs were written");
    for round in 0..10 {
        let shown = |volume: &str| -> Outcome<u64> {
            bed.ctl.ok(&format!("snapshot map {volume}@g{round}"))?;
            let export = format!("{volume}@g{round}");
            let bytes = Client::connect(&bed.nbd_socket(), &export)?.read(0, 512)?;
            Ok(bytes[8..16]
                .iter()
                .rev()
                .fold(0, |n, &byte| n << 8 | u64::from(byte)))
        };
        let (first, second) = (shown("vol")?, shown("vol2")?);
        ensure!(
            first == second || first == second + 1,
            "snapshot g{round} holds {first} and {second}: not one instant"
        );
    }
    bed.finish()
}

/// What the list says of a snapshot's uses, once it says so many.
fn has_uses(bed: &Bed, name: &str, uses: u64) -> Outcome {
    let deadline = Instant::now() + Duration::from_secs(20);
    loop {
        let list = bed.ctl.json(&format!("snapshot list {VOLUME}"))?;
        let row = ctl::rows(&list)?.iter().find(|row| row["name"] == name);
        let found = row.map(|row| (row["uses"].clone(), row["clients"].clone()));
        if found == Some((uses.into(), uses.into())) {
            return Ok(());
        }
        let late = Instant::now() > deadline;
        ensure!(!late, "{found:?} uses and clients of {name}, not {uses}");
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn uses_of_a_snapshot_are_its_clients() -> Outcome {
    let setup = Setup {
        origin_bytes: 8 * MIB,
        ..Setup::default()
    };
    let bed = Bed::new("uses", &setup)?;
    let (a, socket) = (bed.take_mapped("a")?, bed.nbd_socket());
    bed.take_mapped("b")?;
    let _volume = Client::connect(&socket, VOLUME)?;
    has_uses(&bed, "a", 0)?;
    let one = Client::connect(&socket, &a)?;
    has_uses(&bed, "a", 1)?;
    let two = Client::connect(&socket, &a)?;
    has_uses(&bed, "a", 2)?;
    has_uses(&bed, "b", 0)?;
    drop(one);
    has_uses(&bed, "a", 1)?;
    let unmap = format!("snapshot unmap {a}");
    bed.ctl.refuses(&unmap, ctl::exit::BUSY, "client")?;
    drop(two);
    has_uses(&bed, "a", 0)?;
    bed.ctl.ok(&unmap)?;
    bed.finish()
}
