//! Many snapshots of a volume of 8 TiB, by the real programs on sparse files.
//!
//! `CSNAP_SNAPSHOTS=65536` takes as many as csnap is made for; the figures are printed.
#![allow(clippy::print_stdout)] // what a run by hand is for

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Instant;

use csnap_tests::e2e::bed::VOLUME;
use csnap_tests::e2e::client::Client;
use csnap_tests::e2e::fault::Trying;
use csnap_tests::e2e::files::MIB;
use csnap_tests::e2e::{Bed, Fault, Outcome, Setup, setting};
use csnap_tests::ensure;

const CHUNK: u64 = 16 << 10;
const ORIGIN: u64 = 8 << 40;
/// As `--cache` gets it.
const CACHE: u64 = 64 * MIB;
/// What csnapd may take besides: buffers of two threads, exceptions on their way to the
/// trees, snapshots.
const REST: u64 = 256 * MIB;

/// The control socket without csnapctl, which takes as long to start as a take.
struct Control(UnixStream);

impl Control {
    fn connect(run_dir: &Path) -> Outcome<Self> {
        let path = run_dir.join("control.sock");
        let stream = UnixStream::connect(&path).trying(|| format!("connect {}", path.display()))?;
        Ok(Self(stream))
    }

    fn take(&mut self, name: &str) -> Outcome {
        let request = format!(
            r#"{{"version":1,"id":1,"request":{{"verb":"snapshot.take","targets":[{{"volume":"{VOLUME}","name":"{name}"}}],"priority":0}}}}"#
        );
        let asking = || format!("take {name}");
        let length = (request.len() as u32).to_le_bytes();
        self.0
            .write_all(&[&length, request.as_bytes()].concat())
            .trying(asking)?;
        let mut length = [0; 4];
        self.0.read_exact(&mut length).trying(asking)?;
        let mut answer = vec![0; u32::from_le_bytes(length) as usize];
        self.0.read_exact(&mut answer).trying(asking)?;
        let answer = String::from_utf8_lossy(&answer);
        ensure!(answer.contains(r#""ok""#), "a take was answered {answer}");
        Ok(())
    }
}

/// The chunk that is overwritten after snapshot `number`: far from the others.
fn place(number: u32) -> u64 {
    let chunks = ORIGIN / CHUNK;
    u64::from(number).wrapping_mul(0x9E37_79B9_7F4A_7C15) % chunks * CHUNK
}

fn name(number: u32) -> String {
    format!("s{number}")
}

/// Most bytes of a process that were in memory at once.
fn most_memory(pid: u32) -> Outcome<u64> {
    let path = format!("/proc/{pid}/status");
    let status = std::fs::read_to_string(&path).trying(|| format!("read {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kib = line.and_then(|line| line.split_whitespace().next()?.parse::<u64>().ok());
    kib.map(|kib| kib << 10)
        .ok_or_else(|| Fault::wrong(format!("{path} has no VmHWM")))
}

#[test]
fn many_snapshots_of_a_large_volume() -> Outcome {
    let count = setting("CSNAP_SNAPSHOTS", 2000)?;
    let setup = Setup {
        origin_bytes: ORIGIN,
        store_bytes: 64 << 30,
        options: vec!["--cache".into(), "64M".into()],
        ..Setup::default()
    };
    let mut bed = Bed::new("scale", &setup)?;
    let mut client = Client::connect(&bed.nbd_socket(), VOLUME)?;
    ensure!(
        client.size() == ORIGIN,
        "the export has {} bytes",
        client.size()
    );

    let clock = Instant::now();
    let mut control = Control::connect(&bed.places.run_dir)?;
    for number in 0..count {
        control.take(&name(number))?;
        client.write(place(number), vec![7; CHUNK as usize])?;
    }
    let each = clock.elapsed() / count;
    println!("{count} snapshots, a take and a first overwrite: {each:.0?}");
    drop((control, client));

    listed(&bed, count)?;
    for how in ["an orderly stop", "a kill"] {
        match how {
            "a kill" => bed.kill9()?,
            _ => bed.stop()?,
        }
        let clock = Instant::now();
        bed.start()?;
        println!("start after {how}: {:.0?}", clock.elapsed());
        contents(&bed, count)?;
    }
    listed(&bed, count)?;
    let most = most_memory(bed.pid()?)?;
    println!("most memory: {} MiB", most / MIB);
    ensure!(most < CACHE + REST, "csnapd took {most} bytes of memory");
    let middle = format!("{VOLUME}@{}", name(count / 2));
    bed.ctl.ok(&format!("snapshot delete {middle} --yes"))?;
    bed.finish()
}

/// Every snapshot is listed, page by page, and keeps what was overwritten after it.
fn listed(bed: &Bed, count: u32) -> Outcome {
    let clock = Instant::now();
    let list = bed.ctl.snapshots(VOLUME)?;
    println!("all listed: {:.0?}", clock.elapsed());
    ensure!(list.len() == count as usize, "{} are listed", list.len());
    ensure!(
        list.iter().all(|snapshot| snapshot.live),
        "some are not live"
    );
    // The first snapshot alone needs the first chunk, all others share theirs.
    ensure!(
        list[0].exclusive_bytes == CHUNK,
        "the first keeps {:?}",
        list[0]
    );
    ensure!(
        list[1].exclusive_bytes == 0,
        "the second keeps {:?}",
        list[1]
    );
    Ok(())
}

/// The oldest, a middle and the newest snapshot show each chunk as it was then.
fn contents(bed: &Bed, count: u32) -> Outcome {
    for number in [0, count / 2, count - 1] {
        let full = format!("{VOLUME}@{}", name(number));
        bed.ctl.ok(&format!("snapshot map {full}"))?;
        let mut client = Client::connect(&bed.nbd_socket(), &full)?;
        for other in (0..count).step_by(97).chain([number]) {
            let seen = client.read(place(other), CHUNK as u32)?;
            let wanted = if other < number { 7 } else { 0 };
            ensure!(
                seen.iter().all(|byte| *byte == wanted),
                "snapshot {number} shows chunk {other} otherwise than {wanted}"
            );
        }
        drop(client);
        bed.ctl.ok(&format!("snapshot unmap {full}"))?;
    }
    Ok(())
}
