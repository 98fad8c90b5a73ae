//! A volume grows under verified load: its origin is extended, the volume resized,
//! what is new written, and the daemon killed right after.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use csnap_tests::e2e::bed::VOLUME;
use csnap_tests::e2e::client::{Ask, Client};
use csnap_tests::e2e::fault::Trying;
use csnap_tests::e2e::files::{self, MIB};
use csnap_tests::e2e::ledger::{BLOCK, Ledger, stamped};
use csnap_tests::e2e::load::{self, Load};
use csnap_tests::e2e::{Bed, Outcome, Setup, ctl};
use csnap_tests::ensure;

/// Not a whole number of 16 KiB chunks, so that the last one is padded.
const SMALL: u64 = 8 * MIB + 3 * BLOCK as u64;
const LARGE: u64 = 24 * MIB;

#[test]
fn a_volume_grows_under_load_and_snapshots_keep_their_size() -> Outcome {
    let setup = Setup {
        origin_bytes: SMALL,
        ..Setup::default()
    };
    let mut bed = Bed::new("grow", &setup)?;
    let socket = bed.nbd_socket();
    let ledger = Arc::new(Mutex::new(Ledger::new(SMALL as usize / BLOCK)));
    let load = Load::start(&socket, VOLUME, &ledger, super::seed());
    std::thread::sleep(Duration::from_millis(200));
    let before = bed.take_mapped("before")?;
    let before = (before.clone(), contents(&bed, &before)?);

    // Noise behind the end: nothing of it may show in what is older.
    let noise = extend_with_noise(&bed)?;
    let mut early = Client::connect(&socket, VOLUME)?;
    ensure!(early.size() == SMALL, "the volume grew by itself");
    bed.ctl.ok(&format!("volume resize {VOLUME}"))?;
    let refused = early.call(SMALL, &Ask::Read(BLOCK as u32))?;
    ensure!(refused.error != 0, "a client outgrew what it had been told");
    let mut late = Client::connect(&socket, VOLUME)?;
    ensure!(late.size() == LARGE, "{} bytes after all", late.size());
    let between = bed.take_mapped("between")?;
    let new = (SMALL as usize / BLOCK..LARGE as usize / BLOCK).step_by(3);
    let mut tail = noise.clone();
    for block in new {
        let data = stamped(block, 1 << 40);
        let at = block * BLOCK - SMALL as usize;
        tail[at..at + BLOCK].copy_from_slice(&data);
        late.write((block * BLOCK) as u64, data)?;
    }
    ensure!(late.call(0, &Ask::Flush)?.error == 0, "the flush failed");
    let answered = load.finish(false)?;
    ensure!(answered > 100, "only {answered} requests were answered");
    let between = (between.clone(), contents(&bed, &between)?);
    let shrink = format!("volume resize {VOLUME} --size {SMALL}");
    bed.ctl
        .refuses(&shrink, ctl::exit::USAGE, "never shrinks")?;

    bed.kill9()?;
    bed.start()?;
    for ((snapshot, known), size) in [(&before, SMALL), (&between, LARGE)] {
        let found = contents(&bed, snapshot)?;
        ensure!(found.len() as u64 == size, "{snapshot}: {}", found.len());
        ensure!(found == *known, "{snapshot} changed");
    }
    let behind = SMALL as usize;
    ensure!(between.1[behind..] == noise, "the snapshot took part");
    let bytes = contents(&bed, VOLUME)?;
    ensure!(bytes[behind..] == tail, "what was written last is lost");
    load::lock(&ledger).settle(0, &bytes[..behind])?;
    bed.finish()
}

#[test]
fn killed_right_after_a_resize_the_volume_is_large() -> Outcome {
    let setup = Setup {
        origin_bytes: SMALL,
        ..Setup::default()
    };
    let mut bed = Bed::new("grow-kill", &setup)?;
    let size_at = |step: u64| SMALL + step * 5 * BLOCK as u64;
    for step in 1..=4 {
        let size = size_at(step);
        extend(&bed, size)?;
        bed.ctl.ok(&format!("volume resize {VOLUME}"))?;
        bed.kill9()?;
        bed.start()?;
        let found = Client::connect(&bed.nbd_socket(), VOLUME)?.size();
        ensure!(found == size, "{found} bytes after the kill, not {size}");
        bed.take_mapped(&format!("s{step}"))?;
        let mut client = Client::connect(&bed.nbd_socket(), VOLUME)?;
        client.write(size - BLOCK as u64, vec![step as u8; BLOCK])?;
    }
    for step in 1..=4 {
        let size = size_at(step);
        let mut snapshot = Client::connect(&bed.nbd_socket(), &format!("{VOLUME}@s{step}"))?;
        ensure!(snapshot.size() == size, "s{step}: {}", snapshot.size());
        let last = snapshot.read(size - BLOCK as u64, BLOCK as u32)?;
        ensure!(last.iter().all(|b| *b == 0), "s{step} shows a later write");
    }
    bed.finish()
}

fn contents(bed: &Bed, export: &str) -> Outcome<Vec<u8>> {
    Client::connect(&bed.nbd_socket(), export)?.read_all()
}

fn extend(bed: &Bed, size: u64) -> Outcome {
    let story = || format!("extend {}", bed.origin.display());
    let origin = File::options().write(true).open(&bed.origin);
    origin.trying(story)?.set_len(size).trying(story)
}

/// Extends the origin to `LARGE` and hands back what is new in it.
fn extend_with_noise(bed: &Bed) -> Outcome<Vec<u8>> {
    let story = || "extend the origin with noise".to_owned();
    let noise = bed.path("noise");
    files::make_noise(&noise, LARGE - SMALL, 3)?;
    let noise = std::fs::read(&noise).trying(story)?;
    let origin = File::options().write(true).open(&bed.origin);
    origin
        .trying(story)?
        .write_all_at(&noise, SMALL)
        .trying(story)?;
    Ok(noise)
}
