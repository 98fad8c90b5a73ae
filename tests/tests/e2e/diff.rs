//! `snapshot diff` against what a test wrote.

use std::collections::BTreeSet;

use csnap_tests::e2e::bed::VOLUME;
use csnap_tests::e2e::client::{Ask, Client};
use csnap_tests::e2e::files::MIB;
use csnap_tests::e2e::{Bed, Outcome, Setup, ctl};
use csnap_tests::ensure;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;

const SIZE: u64 = 32 * MIB;
const CHUNK: u64 = 16 << 10;

/// Chunks that were written.
type Chunks = BTreeSet<u64>;

#[test]
fn a_diff_names_the_chunks_that_were_written() -> Outcome {
    let setup = Setup {
        origin_bytes: SIZE,
        noise: Some(31),
        ..Setup::default()
    };
    let mut bed = Bed::new("diff", &setup)?;
    let mut rng = ChaCha8Rng::seed_from_u64(super::seed());
    let mut written: Vec<Chunks> = Vec::new();
    for name in ["a", "b", "c"] {
        bed.ctl.ok(&format!("snapshot take {VOLUME}@{name}"))?;
        written.push(scribble(&bed, &mut rng)?);
    }
    let since = |first: usize, end: usize| -> Chunks {
        written[first..end].iter().flatten().copied().collect()
    };
    let between = [
        ("a", "@b", since(0, 1)),
        ("b", "@c", since(1, 2)),
        ("a", "@c", since(0, 2)),
        ("a", "", since(0, 3)),
        ("b", "", since(1, 3)),
        ("c", "", since(2, 3)),
    ];
    let all = |bed: &Bed| -> Outcome {
        for (from, to, expected) in &between {
            let found = diff(bed, &format!("{VOLUME}@{from} {VOLUME}{to}"))?;
            ensure!(
                found == *expected,
                "{from} to {to:?}: {found:?} instead of {expected:?}"
            );
        }
        Ok(())
    };
    all(&bed)?;
    // What lies in the middle may go: the changes of its time are still told.
    bed.ctl.ok(&format!("snapshot delete {VOLUME}@b --yes"))?;
    ensure!(
        diff(&bed, &format!("{VOLUME}@a {VOLUME}@c"))? == since(0, 2),
        "changes went with the snapshot between"
    );
    bed.kill9()?;
    bed.start()?;
    ensure!(
        diff(&bed, &format!("{VOLUME}@a {VOLUME}"))? == since(0, 3),
        "changes went with the daemon"
    );
    bed.finish()
}

#[test]
fn a_diff_is_told_as_table_and_as_lines_and_refused_in_words() -> Outcome {
    let setup = Setup {
        origin_bytes: SIZE,
        ..Setup::default()
    };
    let bed = Bed::new("diff-words", &setup)?;
    bed.ctl.ok(&format!("snapshot take {VOLUME}@a"))?;
    let mut client = Client::connect(&bed.nbd_socket(), VOLUME)?;
    client.write(3 * CHUNK + 512, vec![1; CHUNK as usize])?;
    client.write(MIB, vec![1; 512])?;
    bed.ctl.ok(&format!("snapshot take {VOLUME}@b"))?;

    let lines = bed
        .ctl
        .ok(&format!("snapshot diff {VOLUME}@a {VOLUME}@b --json-lines"))?;
    let expected = [(3 * CHUNK, 2 * CHUNK), (MIB, CHUNK)];
    let lines: Vec<Value> = lines
        .lines()
        .map(serde_json::from_str)
        .collect::<Result<_, _>>()?;
    ensure!(lines.len() == 2, "{lines:?}");
    for (line, (start, length)) in lines.iter().zip(expected) {
        ensure!(
            line["start"] == start && line["length"] == length,
            "{line} is not {length} bytes from {start}"
        );
    }
    let table = bed
        .ctl
        .ok(&format!("snapshot diff {VOLUME}@a {VOLUME}@b"))?;
    ensure!(
        table.contains("FIRST BYTE") && table.contains("LENGTH"),
        "{table}"
    );
    let blocks = |to: &str| {
        bed.ctl
            .json(&format!("snapshot diff {VOLUME}@a {to} --blocks"))
    };
    // What was zeroes and is written as zeroes has not changed.
    client.write(2 * MIB, vec![0; 4096])?;
    for to in ["vol@b", "vol"] {
        let list = blocks(to)?;
        let found: Vec<_> = ctl::rows(&list)?
            .iter()
            .map(|row| (row["start"].as_u64(), row["length"].as_u64()))
            .collect();
        let expected = [(3 * CHUNK, 5 * 4096), (MIB, 4096)];
        let expected = expected.map(|(start, length)| (Some(start), Some(length)));
        ensure!(found == expected, "{to}: {found:?}");
    }
    ensure!(bed.ctl.snapshots(VOLUME)?.len() == 2, "one more is left");
    bed.ctl.ok(&format!("snapshot take {VOLUME}@c"))?;
    ensure!(
        diff(&bed, &format!("{VOLUME}@c {VOLUME}"))?.is_empty(),
        "nothing was written since"
    );
    let refused = [
        (format!("{VOLUME}@b {VOLUME}@a"), ctl::exit::USAGE, "newer"),
        (format!("{VOLUME}@a {VOLUME}@a"), ctl::exit::USAGE, "newer"),
        (
            format!("{VOLUME}@a other@b"),
            ctl::exit::USAGE,
            "two volumes",
        ),
        (
            format!("{VOLUME}@none {VOLUME}"),
            ctl::exit::NOT_FOUND,
            "none",
        ),
        (
            format!("{VOLUME}@a {VOLUME}@none"),
            ctl::exit::NOT_FOUND,
            "none",
        ),
    ];
    for (arguments, code, about) in refused {
        let line = format!("snapshot diff {arguments}");
        bed.ctl.refuses(&line, code, about)?;
    }
    bed.finish()
}

/// Writes, zeroes and trims here and there; returns the chunks that were touched.
fn scribble(bed: &Bed, rng: &mut ChaCha8Rng) -> Outcome<Chunks> {
    let mut client = Client::connect(&bed.nbd_socket(), VOLUME)?;
    let mut touched = Chunks::new();
    for round in 0..40_u64 {
        let offset = rng.random_range(0..SIZE / 512 - 128) * 512;
        let length = rng.random_range(1..128_u32) * 512;
        let ask = match round % 4 {
            0 => Ask::Zero(length),
            _ => Ask::Write(vec![round as u8 + 1; length as usize], false),
        };
        let done = client.call(offset, &ask)?;
        ensure!(done.error == 0, "NBD error {} for {ask:?}", done.error);
        touched.extend(offset / CHUNK..=(offset + u64::from(length) - 1) / CHUNK);
    }
    Ok(touched)
}

/// The chunks that a diff names.
fn diff(bed: &Bed, arguments: &str) -> Outcome<Chunks> {
    let list = bed.ctl.json(&format!("snapshot diff {arguments}"))?;
    let mut chunks = Chunks::new();
    for row in ctl::rows(&list)? {
        let (start, length) = (row["start"].as_u64(), row["length"].as_u64());
        let (Some(start), Some(length)) = (start, length) else {
            return Err(csnap_tests::e2e::Fault::wrong(format!("an odd row: {row}")));
        };
        ensure!(
            start % CHUNK == 0 && length % CHUNK == 0 && length > 0,
            "not whole chunks: {row}"
        );
        chunks.extend(start / CHUNK..(start + length) / CHUNK);
    }
    Ok(chunks)
}
