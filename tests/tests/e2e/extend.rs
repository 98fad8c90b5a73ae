//! A store grows under load: writes that wait for room go on, snapshots stay as they
//! are, and a kill at any moment leaves the old size or the new one.

use std::fs::File;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use csnap_tests::e2e::bed::VOLUME;
use csnap_tests::e2e::client::Client;
use csnap_tests::e2e::fault::Trying;
use csnap_tests::e2e::files::MIB;
use csnap_tests::e2e::ledger::{BLOCK, Ledger};
use csnap_tests::e2e::load::{self, Load};
use csnap_tests::e2e::{Bed, Fault, Outcome, Setup, ctl};
use csnap_tests::ensure;

const ORIGIN: u64 = 64 * MIB;
const LITTLE: u64 = 16 * MIB;
const SMALL: u64 = 24 * MIB;
const LARGE: u64 = 96 * MIB;

/// Bytes the store has, as the daemon says.
fn size(bed: &Bed) -> Outcome<u64> {
    let status = bed
        .ctl
        .json(&format!("store status {}", bed.store.display()))?;
    let size = ctl::rows(&status)?
        .first()
        .and_then(|row| row["size"].as_u64());
    size.ok_or_else(|| Fault::wrong(format!("no size in {status}")))
}

fn contents(bed: &Bed, export: &str) -> Outcome<Vec<u8>> {
    Client::connect(&bed.nbd_socket(), export)?.read_all()
}

fn owner_extends(bed: &Bed, size: u64) -> Outcome {
    let story = || format!("extend {}", bed.store.display());
    let store = File::options().write(true).open(&bed.store);
    store.trying(story)?.set_len(size).trying(story)
}

/// Writes the whole volume; how many writes were refused.
fn overwrite_all(bed: &Bed) -> Outcome<u64> {
    Client::connect(&bed.nbd_socket(), VOLUME)?.overwrite_all()
}

#[test]
fn writes_that_wait_for_room_go_on_when_the_store_grows() -> Outcome {
    let setup = Setup {
        origin_bytes: ORIGIN,
        store_bytes: SMALL,
        noise: Some(12),
        ..Setup::default()
    };
    let mut bed = Bed::new("extend-full", &setup)?;
    let store = bed.store.display().to_string();
    bed.ctl.ok(&format!(
        "volume set {VOLUME} --policy snapshot-first --full-wait 300"
    ))?;
    let kept = bed.take_mapped("kept")?;
    let before = contents(&bed, &kept)?;
    std::thread::scope(|scope| -> Outcome {
        let writing = scope.spawn(|| overwrite_all(&bed));
        let deadline = Instant::now() + Duration::from_secs(60);
        while !bed.ctl.ok("events")?.contains("waits-for-room") {
            ensure!(Instant::now() < deadline, "the store did not run full");
            std::thread::sleep(Duration::from_millis(50));
        }
        ensure!(!writing.is_finished(), "it does not wait");
        let extend = format!("store extend {store}");
        bed.ctl
            .refuses(&extend, ctl::exit::USAGE, "nothing to extend")?;
        bed.ctl.ok(&format!("{extend} --size {LARGE}"))?;
        let panicked = |_| Fault::wrong("the writer panicked");
        let refused = writing.join().map_err(panicked)??;
        ensure!(refused == 0, "{refused} writes were refused");
        Ok(())
    })?;
    ensure!(size(&bed)? == LARGE, "{} bytes", size(&bed)?);
    ensure!(contents(&bed, &kept)? == before, "{kept} changed");
    bed.ctl.refuses(
        &format!("store extend {store} --size {SMALL}"),
        ctl::exit::USAGE,
        "not cut",
    )?;
    bed.kill9()?;
    bed.start()?;
    ensure!(size(&bed)? == LARGE, "{} bytes after a kill", size(&bed)?);
    ensure!(contents(&bed, &kept)? == before, "{kept} changed");
    bed.finish()
}

#[test]
fn killed_amid_an_extension_the_store_has_one_size_or_the_other() -> Outcome {
    let setup = Setup {
        origin_bytes: LITTLE,
        store_bytes: 160 * MIB,
        ..Setup::default()
    };
    let mut bed = Bed::new("extend-kill", &setup)?;
    let ledger = Arc::new(Mutex::new(Ledger::new(LITTLE as usize / BLOCK)));
    let extend = format!("store extend {}", bed.store.display());
    let mut snapshots = Vec::new();
    for step in 1..=8u64 {
        let old = size(&bed)?;
        let new = old + step * 3 * MIB;
        owner_extends(&bed, new)?;
        let load = Load::start(&bed.nbd_socket(), VOLUME, &ledger, super::seed() + step);
        let mark = load::lock(&ledger).mark();
        let export = bed.take_mapped(&format!("s{step}"))?;
        let until = load::lock(&ledger).now();
        load::check_snapshot(&bed.nbd_socket(), &export, &ledger, &mark, until)?;
        let bytes = contents(&bed, &export)?;
        snapshots.push((export, bytes));
        let (ctl, line) = (bed.ctl.clone(), extend.clone());
        let extending = std::thread::spawn(move || ctl.any(&line).map(|answer| answer.code));
        // From before it begins to after it ends.
        std::thread::sleep(Duration::from_millis((step - 1) * 12));
        bed.kill9()?;
        let panicked = |_| Fault::wrong("the extending thread panicked");
        let code = extending.join().map_err(panicked)??;
        load.finish(true)?;
        bed.start()?;
        let found = size(&bed)?;
        ensure!(
            found == new || found == old,
            "{found} bytes of {old}, {new}"
        );
        ensure!(found == new || code != 0, "{new} bytes were acknowledged");
        if found == old {
            bed.ctl.ok(&extend)?;
            ensure!(size(&bed)? == new, "{} bytes at last", size(&bed)?);
        }
        for (export, bytes) in &snapshots {
            ensure!(contents(&bed, export)? == *bytes, "{export} changed");
        }
        load::settle_volume(&bed.nbd_socket(), VOLUME, &ledger)?;
    }
    bed.finish()
}
