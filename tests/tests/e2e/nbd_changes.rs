//! What changed since a snapshot, asked over NBD: libnbd's and qemu's tools and a client
//! of our own against what this test has written.

use std::collections::BTreeSet;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::Duration;

use csnap_tests::e2e::bed::VOLUME;
use csnap_tests::e2e::client::Client;
use csnap_tests::e2e::fault::Trying;
use csnap_tests::e2e::files::MIB;
use csnap_tests::e2e::{Bed, Outcome, Setup, tools};
use csnap_tests::{ensure, need_tools};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const CHUNK: u64 = 16 << 10;
/// Not a whole number of chunks.
const SIZE: u64 = 24 * MIB + 4096;
const LARGE: u64 = 30 * MIB;

fn setup() -> Setup {
    Setup {
        origin_bytes: SIZE,
        noise: Some(5),
        ..Setup::default()
    }
}

/// Writes at random places, and says which chunks these were.
fn scribble(bed: &Bed, random: &mut ChaCha8Rng) -> Outcome<BTreeSet<u64>> {
    let mut client = Client::connect(&bed.nbd_socket(), VOLUME)?;
    let mut touched = BTreeSet::new();
    for _ in 0..random.random_range(1..40) {
        let length = 512 * random.random_range(1..200_u64);
        let at = 512 * random.random_range(0..(SIZE - length) / 512);
        client.write(at, vec![random.random(); length as usize])?;
        touched.extend(at / CHUNK..(at + length).div_ceil(CHUNK));
    }
    Ok(touched)
}

/// Bytes of chunks, as ranges of a disk of `size` bytes.
fn ranges(chunks: &BTreeSet<u64>, size: u64) -> Vec<(u64, u64)> {
    let mut ranges: Vec<(u64, u64)> = Vec::new();
    for chunk in chunks {
        let (start, end) = (chunk * CHUNK, ((chunk + 1) * CHUNK).min(size));
        match ranges.last_mut() {
            Some(last) if last.1 == start => last.1 = end,
            _ => ranges.push((start, end)),
        }
    }
    ranges
}

/// What a tool prints as JSON: the ranges that `dirty` picks, neighbours joined.
fn picked(
    text: &str,
    start: &str,
    dirty: impl Fn(&serde_json::Value) -> bool,
) -> Outcome<Vec<(u64, u64)>> {
    let parsed: Vec<serde_json::Value> = serde_json::from_str(text)?;
    let mut found: Vec<(u64, u64)> = Vec::new();
    for one in parsed.iter().filter(|one| dirty(one)) {
        let at = one[start].as_u64().unwrap_or(u64::MAX);
        let end = at + one["length"].as_u64().unwrap_or(0);
        match found.last_mut() {
            Some(last) if last.1 == at => last.1 = end,
            _ => found.push((at, end)),
        }
    }
    Ok(found)
}

fn nbdinfo(bed: &Bed, export: &str, since: &str) -> Outcome<Vec<(u64, u64)>> {
    let map = format!("--map=qemu:dirty-bitmap:{since}");
    let said = tools::run(tools::program("nbdinfo").args(["--json", &map, &bed.uri(export)]))?;
    picked(&said, "offset", |one| one["type"] == 1)
}

/// qemu shows what is dirty as what is no data.
fn qemu_img(bed: &Bed, export: &str, since: &str) -> Outcome<Vec<(u64, u64)>> {
    let socket = bed.nbd_socket();
    let image = format!(
        "driver=nbd,server.type=unix,server.path={},export={export},\
         x-dirty-bitmap=qemu:dirty-bitmap:{since}",
        socket.display()
    );
    let mut map = tools::program("qemu-img");
    map.args(["map", "--output=json", "--image-opts", &image]);
    picked(&tools::run(&mut map)?, "start", |one| one["data"] == false)
}

fn agree(bed: &Bed, export: &str, since: &str, expected: &[(u64, u64)]) -> Outcome {
    for (who, found) in [
        ("nbdinfo", nbdinfo(bed, export, since)?),
        ("qemu-img", qemu_img(bed, export, since)?),
    ] {
        ensure!(
            found == expected,
            "{who}, {export} since {since}: {found:?} instead of {expected:?}"
        );
    }
    Ok(())
}

#[test]
fn judges_see_what_was_written_since_a_snapshot() -> Outcome {
    let name = "judges_see_what_was_written_since_a_snapshot";
    need_tools!(name, "nbdinfo", "qemu-img");
    let bed = Bed::new("nbd-changes", &setup())?;
    let mut random = ChaCha8Rng::seed_from_u64(super::seed());
    scribble(&bed, &mut random)?;
    bed.ctl.ok("snapshot take vol@a")?;
    let first = scribble(&bed, &mut random)?;
    bed.ctl.ok("snapshot take vol@b")?;
    let second = scribble(&bed, &mut random)?;
    bed.ctl.ok("snapshot take vol@c")?;
    let both = &first | &second;

    agree(&bed, "vol@b", "a", &ranges(&first, SIZE))?;
    agree(&bed, "vol@c", "b", &ranges(&second, SIZE))?;
    agree(&bed, "vol@c", "a", &ranges(&both, SIZE))?;
    agree(&bed, VOLUME, "a", &ranges(&both, SIZE))?;
    agree(&bed, VOLUME, "c", &[])?;

    // Deleting what lies between changes nothing.
    bed.ctl.ok("snapshot delete vol@b --yes")?;
    agree(&bed, "vol@c", "a", &ranges(&both, SIZE))?;

    // Grown: what is new has changed, down to the byte.
    let story = || "extend the origin".to_owned();
    let origin = std::fs::File::options().write(true).open(&bed.origin);
    origin.trying(story)?.set_len(LARGE).trying(story)?;
    bed.ctl.ok(&format!("volume resize {VOLUME}"))?;
    agree(&bed, VOLUME, "c", &[(SIZE, LARGE)])?;
    agree(&bed, "vol@c", "a", &ranges(&both, SIZE))?;
    bed.finish()
}

#[test]
fn contexts_are_listed_for_what_is_older() -> Outcome {
    let name = "contexts_are_listed_for_what_is_older";
    need_tools!(name, "nbdinfo");
    let bed = Bed::new("nbd-contexts", &setup())?;
    for snapshot in ["a", "b", "c"] {
        bed.ctl.ok(&format!("snapshot take vol@{snapshot}"))?;
    }
    for (export, older) in [
        (VOLUME, &["a", "b", "c"][..]),
        ("vol@b", &["a"]),
        ("vol@a", &[]),
    ] {
        let said = tools::run(tools::program("nbdinfo").args(["--json", &bed.uri(export)]))?;
        let parsed: serde_json::Value = serde_json::from_str(&said)?;
        let mut expected = vec![serde_json::json!("base:allocation")];
        let bitmaps = older.iter().map(|name| format!("qemu:dirty-bitmap:{name}"));
        expected.extend(bitmaps.map(Into::into));
        let found = &parsed["exports"][0]["contexts"];
        ensure!(*found == serde_json::json!(expected), "{export}: {found}");
    }
    bed.finish()
}

/// A client's socket, from the greeting on.
struct Raw(UnixStream);

impl Raw {
    fn put(&mut self, bytes: &[u8]) -> Outcome {
        self.0
            .write_all(bytes)
            .trying(|| "send to the server".into())
    }

    fn take(&mut self, count: usize) -> Outcome<Vec<u8>> {
        let mut bytes = vec![0; count];
        self.0
            .read_exact(&mut bytes)
            .trying(|| "read from the server".into())?;
        Ok(bytes)
    }

    /// An option, and the kinds of its replies.
    fn option(&mut self, number: u32, data: &[u8]) -> Outcome<Vec<u32>> {
        let number = number.to_be_bytes();
        let length = (data.len() as u32).to_be_bytes();
        self.put(&[b"IHAVEOPT", &number[..], &length, data].concat())?;
        let mut kinds = Vec::new();
        loop {
            let head = self.take(20)?;
            let word = |at: usize| {
                head[at..at + 4]
                    .iter()
                    .fold(0, |n, b| n << 8 | u32::from(*b))
            };
            self.take(word(16) as usize)?;
            kinds.push(word(12));
            if word(12) == 1 || word(12) >= 1 << 31 {
                return Ok(kinds);
            }
        }
    }

    /// Connected to an export, with a metadata context.
    fn connect(bed: &Bed, export: &str, context: &str) -> Outcome<Self> {
        let story = || "connect".to_owned();
        let stream = UnixStream::connect(bed.nbd_socket()).trying(story)?;
        let patience = Some(Duration::from_secs(60));
        stream.set_read_timeout(patience).trying(story)?;
        let mut this = Self(stream);
        this.take(18)?;
        this.put(&3_u32.to_be_bytes())?;
        let string = |text: &str| [&(text.len() as u32).to_be_bytes(), text.as_bytes()].concat();
        ensure!(this.option(8, &[])? == [1], "no structured replies");
        let wanted = [string(export), vec![0, 0, 0, 1], string(context)].concat();
        let chosen = this.option(10, &wanted)?;
        ensure!(chosen == [4, 1], "no such context: {chosen:?}");
        this.option(7, &[string(export), vec![0, 0]].concat())?;
        Ok(this)
    }

    /// Block status of a range: the type of the chunk it is answered with, and its data.
    fn status(&mut self, offset: u64, length: u32) -> Outcome<(u16, Vec<u8>)> {
        let mut request = 0x2560_9513_u32.to_be_bytes().to_vec();
        request.extend([0, 0, 0, 7]);
        request.extend(7_u64.to_be_bytes());
        request.extend(offset.to_be_bytes());
        request.extend(length.to_be_bytes());
        self.put(&request)?;
        let head = self.take(20)?;
        let length = head[16..].iter().fold(0, |n, b| n << 8 | usize::from(*b));
        let kind = u16::from_be_bytes([head[6], head[7]]);
        Ok((kind, self.take(length)?))
    }
}

/// The older snapshot goes while a client has chosen it: an error, also after another
/// one has taken its name, and the connection goes on.
#[test]
fn a_base_that_is_deleted_is_an_error_and_nothing_else() -> Outcome {
    let bed = Bed::new("nbd-base-gone", &setup())?;
    bed.ctl.ok("snapshot take vol@a")?;
    let mut random = ChaCha8Rng::seed_from_u64(super::seed());
    scribble(&bed, &mut random)?;
    bed.ctl.ok("snapshot take vol@b")?;
    let mut raw = Raw::connect(&bed, "vol@b", "qemu:dirty-bitmap:a")?;
    let (kind, _) = raw.status(0, SIZE as u32)?;
    ensure!(kind == 5, "chunk of type {kind}");
    bed.ctl.ok("snapshot delete vol@a --yes")?;
    let error = |raw: &mut Raw| -> Outcome {
        let (kind, data) = raw.status(0, SIZE as u32)?;
        ensure!(kind == 32769, "chunk of type {kind}");
        ensure!(data[..4] == [0, 0, 0, 5], "not EIO: {data:?}");
        let text = String::from_utf8_lossy(&data[6..]).into_owned();
        ensure!(text.contains("gone"), "{text}");
        Ok(())
    };
    error(&mut raw)?;
    bed.ctl.ok("snapshot take vol@a")?;
    error(&mut raw)?;
    drop(raw);
    bed.finish()
}
