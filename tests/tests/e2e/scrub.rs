//! A scrub keeps to its rate and ends when it is told to.

use std::time::{Duration, Instant};

use csnap_tests::e2e::bed::VOLUME;
use csnap_tests::e2e::client::Client;
use csnap_tests::e2e::files::MIB;
use csnap_tests::e2e::{Bed, Outcome, Setup};
use csnap_tests::ensure;

const CHUNK: u64 = 16 << 10;
const CHUNKS: u64 = 256;
/// What is read between two waits: a leaf of the exception tree and its chunks.
const STEP: u64 = 85 * CHUNK;
const RATE: u64 = 2 * MIB;

/// A store that keeps `CHUNKS` chunks, all in its tree.
fn filled() -> Outcome<Bed> {
    let setup = Setup {
        origin_bytes: CHUNKS * CHUNK,
        ..Setup::default()
    };
    let mut bed = Bed::new("scrub-rate", &setup)?;
    bed.ctl.ok(&format!("snapshot take {VOLUME}@before"))?;
    let mut client = Client::connect(&bed.nbd_socket(), VOLUME)?;
    for chunk in 0..CHUNKS {
        client.write(chunk * CHUNK, vec![7; CHUNK as usize])?;
    }
    drop(client);
    bed.stop()?;
    bed.start()?;
    Ok(bed)
}

#[test]
fn a_scrub_keeps_to_its_rate_and_stops_when_told() -> Outcome {
    let bed = filled()?;
    let store = bed.store.display().to_string();
    let scrub = |options: &str| bed.ctl.json(&format!("store scrub {store} {options}"));

    let began = Instant::now();
    let whole = scrub("--rate 2M")?;
    let took = began.elapsed();
    ensure!(
        whole["complete"] == true && whole["chunks"] == CHUNKS,
        "{whole}"
    );
    let bytes = whole["bytes"].as_u64().unwrap_or(0);
    ensure!(bytes > CHUNKS * CHUNK, "{whole}");
    // After its last step it waits no more.
    let least = Duration::from_millis((bytes - STEP) * 1000 / RATE);
    ensure!(took >= least, "{bytes} bytes in {took:?}, not {least:?}");

    // At half the rate it takes twice as long: it is in its middle when it is stopped.
    scrub("--rate 1M --background")?;
    std::thread::sleep(Duration::from_millis(300));
    let running = scrub("--status")?;
    ensure!(
        running["running"] == true && running["complete"] == false,
        "{running}"
    );
    bed.ctl
        .refuses(&format!("store scrub {store}"), 4, "already")?;
    let began = Instant::now();
    let stopped = scrub("--stop")?;
    let took = began.elapsed();
    ensure!(took < Duration::from_secs(1), "it went on for {took:?}");
    ensure!(
        stopped["running"] == false && stopped["complete"] == false,
        "{stopped}"
    );
    ensure!(stopped["chunks"].as_u64() < Some(CHUNKS), "{stopped}");
    let events = bed.ctl.ok("events")?;
    ensure!(events.contains("was stopped"), "{events}");
    // It can be begun anew, and holds up nobody who lets go of the store.
    scrub("--rate 1M --background")?;
    let began = Instant::now();
    bed.ctl.ok(&format!("store detach {store}"))?;
    let took = began.elapsed();
    ensure!(
        took < Duration::from_secs(2),
        "it held the store for {took:?}"
    );
    bed.finish()
}
