//! A bad block among the kept data: found while the store is served, then given up by
//! a repair that says what it cost.

use csnap_tests::e2e::bed::VOLUME;
use csnap_tests::e2e::client::{Ask, Client};
use csnap_tests::e2e::files::{self, MIB};
use csnap_tests::e2e::{Bed, Outcome, Setup, ctl};
use csnap_tests::ensure;
use serde_json::Value;

const PIECE: usize = 16 << 10;

#[test]
fn a_scrub_finds_it_and_a_repair_gives_it_up() -> Outcome {
    let setup = Setup {
        origin_bytes: 8 * MIB,
        ..Setup::default()
    };
    let mut bed = Bed::new("scrub", &setup)?;
    let store = bed.store.clone();
    let store = store.display();
    let mut client = Client::connect(&bed.nbd_socket(), VOLUME)?;
    client.write(0, vec![1; 8 * PIECE])?;
    let snapshot = bed.take_mapped("before")?;
    client.write(0, vec![2; 8 * PIECE])?;
    drop(client);
    // An orderly stop brings what was copied into the tree.
    bed.stop()?;
    let lines = bed
        .ctl
        .ok(&format!("store dump {store} --json --only exceptions"))?;
    let kept = lines
        .lines()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    let kept: Vec<Value> = kept.filter(|line| line["kind"] == "exception").collect();
    ensure!(kept.len() == 8, "{} exceptions", kept.len());
    let (bad, chunk) = (&kept[3]["block"], &kept[3]["chunk"]);
    bed.start()?;

    let sound = bed.ctl.json(&format!("store scrub {store}"))?;
    ensure!(sound["complete"] == true && sound["chunks"] == 8, "{sound}");
    let block = bad.as_u64().unwrap_or(0);
    files::flip_byte(&bed.store, block * 4096 + 7)?;
    // A read meets it first, then the same one again: one event.
    reads(&bed, &snapshot, chunk)?;
    reads(&bed, &snapshot, chunk)?;
    let events = bed.ctl.ok("events")?;
    let named = |line: &&str| line.contains(&format!("block {block} of store {store}"));
    let told: Vec<&str> = events.lines().filter(named).collect();
    ensure!(told.len() == 1, "{events}");
    let whose = format!("chunk {chunk} of {VOLUME}@before");
    ensure!(told[0].contains(&whose), "{events}");
    let found = bed.ctl.any(&format!("store scrub {store} --json"))?;
    ensure!(found.code == ctl::exit::CORRUPTION, "{found:?}");
    let report: Value = serde_json::from_str(&found.stdout).unwrap_or_default();
    let damage = &report["damage"][0];
    ensure!(report["damaged"] == 1, "{report}");
    ensure!(
        damage["block"] == *bad && damage["chunk"] == *chunk,
        "{report}"
    );
    ensure!(
        damage["volume"] == VOLUME && damage["snapshots"][0] == "before",
        "{report}"
    );
    let events = bed.ctl.ok("events")?;
    ensure!(events.lines().filter(named).count() == 2, "{events}");
    reads(&bed, &snapshot, chunk)?;

    bed.stop()?;
    let repaired = bed
        .ctl
        .json(&format!("store repair {store} --data --yes"))?;
    let lost = &repaired["lost"];
    ensure!(
        lost[0]["first_chunk"] == *chunk && lost[1].is_null(),
        "{repaired}"
    );
    bed.start()?;
    reads(&bed, &snapshot, chunk)?;
    bed.finish()
}

/// The damaged chunk fails, all others are as they were.
fn reads(bed: &Bed, snapshot: &str, bad: &Value) -> Outcome {
    let mut client = Client::connect(&bed.nbd_socket(), snapshot)?;
    for chunk in 0..8 {
        let done = client.call(chunk * PIECE as u64, &Ask::Read(PIECE as u32))?;
        let wanted = *bad != chunk;
        ensure!(
            (done.error == 0) == wanted,
            "chunk {chunk}: error {}",
            done.error
        );
        if wanted {
            let data = client.read(chunk * PIECE as u64, PIECE as u32)?;
            ensure!(data == vec![1; PIECE], "chunk {chunk} changed");
        }
    }
    Ok(())
}
