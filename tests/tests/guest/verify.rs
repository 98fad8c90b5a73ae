//! fio with verification on the live device while snapshots are taken, mapped and
//! deleted: fio judges the origin; each snapshot must hold what the volume held at
//! the take (fio paused and at rest every other time) and hold it to the end.

use csnap_tests::e2e::Outcome;
use csnap_tests::ensure;
use csnap_tests::guest_bed::fio::{Fio, sleep_ms, verified};
use csnap_tests::guest_bed::{Device, RamOptions, Rig, Setup};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// So few that every run deletes some.
const KEPT: usize = 2;

/// Runs the jobs that `jobs` makes for the device, with snapshots beside them.
fn with_snapshots(
    test: &str,
    setup: &Setup,
    least: u32,
    jobs: impl Fn(&Device, u64) -> String,
) -> Outcome {
    let seed = super::seed();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut rig = Rig::new(test, setup)?;
    let device = rig.device()?;
    let mut fio = Fio::start(&rig.bed.dir, "verify", &jobs(&device, seed))?;
    let mut taken = 0;
    while fio.running()? {
        taken += 1;
        let name = format!("s{taken}");
        if taken % 2 == 1 {
            fio.pause()?;
            rig.take_at_rest(&name)?;
            fio.resume()?;
        } else {
            rig.take_in_motion(&name)?;
        }
        if rig.pictures.len() > KEPT {
            let victim = random.random_range(0..rig.pictures.len());
            let victim = rig.pictures.keys().nth(victim).cloned().unwrap_or_default();
            rig.delete(&victim)?;
        }
        sleep_ms(random.random_range(0..300));
    }
    fio.finish()?;
    ensure!(
        taken >= least,
        "fio was done after only {taken} snapshots: give it more to do"
    );
    rig.finish()
}

/// A job of its own region of 4 MiB for each block size.
fn every_size(device: &Device, seed: u64) -> String {
    let mut job = verified(device, seed);
    for (index, size) in [512, 1024, 2048, 4096, 8192, 16384, 32768, 65536, 131_072]
        .into_iter()
        .chain([262_144, 524_288, 1_048_576])
        .enumerate()
    {
        // Few large ones are as much data as many small ones, and small ones are slow.
        let (room, loops) = if size < 4096 { (1, 2) } else { (4, 3) };
        job.push_str(&format!(
            "[bs{size}]\nbs={size}\noffset={}m\nsize={room}m\nloops={loops}\n",
            index * 4
        ));
    }
    job
}

#[test]
fn every_block_size_from_512_bytes_to_1_mib_is_verified() -> Outcome {
    with_snapshots("every-size", &Setup::default(), 3, every_size)
}

/// Sizes that are no powers of two at offsets that respect only the sector, across
/// the borders of chunks.
fn odd(device: &Device, seed: u64) -> String {
    format!(
        "{}\
         [small]\nbsrange=512-24k\nsize=8m\nloops=2\n\
         [large]\nbsrange=512-1m\noffset=16m\nsize=32m\nloops=4\n\
         [border]\nbsrange=3584-20k\noffset=50333184\nsize=12m\nloops=2\n",
        verified(device, seed)
    )
}

#[test]
fn odd_sizes_and_offsets_are_verified() -> Outcome {
    let setup = Setup {
        chunk: "4K".into(),
        ..Setup::default()
    };
    with_snapshots("odd", &setup, 3, odd)
}

#[test]
fn odd_sizes_are_verified_with_large_chunks() -> Outcome {
    let setup = Setup {
        chunk: "256K".into(),
        store_mib: 1024,
        ..Setup::default()
    };
    with_snapshots("odd-large", &setup, 3, odd)
}

/// Trims before the writes, beside trims alone.
fn trims(device: &Device, seed: u64) -> String {
    format!(
        "{}[trimwrite]\nrw=randtrimwrite\nbs=16k\nsize=24m\nloops=3\n\
         [odd]\nrw=randtrimwrite\nbs=3584\noffset=24m\nsize=4m\nloops=2\n\
         [trim]\nrw=randtrim\nbssplit=4k/40:64k/40:1m/20\nverify=0\n\
         offset=32m\nsize=16m\nloops=20\n\
         [write]\nbs=8k\noffset=48m\nsize=16m\nloops=3\n",
        verified(device, seed)
    )
}

#[test]
fn trims_and_writes_are_verified() -> Outcome {
    let setup = Setup {
        origin: RamOptions {
            cached: true,
            ..RamOptions::plain(64)
        },
        ..Setup::default()
    };
    with_snapshots("trims", &setup, 3, trims)
}

/// Through the page cache, with O_SYNC (FUA or flush), and direct beside it.
fn buffered(device: &Device, seed: u64) -> String {
    format!(
        "{}[buffered]\nioengine=psync\ndirect=0\nfsync=64\nbssplit=4k/60:64k/40\nsize=16m\nloops=3\n\
         [mixed]\nrw=randrw\nbs=4k\noffset=16m\nsize=16m\nloops=2\n\
         [sync]\nioengine=psync\nsync=1\nbs=8k\noffset=32m\nsize=8m\nloops=2\n\
         [fsync]\nfsync=8\nbs=16k\noffset=48m\nsize=16m\nloops=3\n",
        verified(device, seed)
    )
}

#[test]
fn buffered_and_synchronous_writes_are_verified() -> Outcome {
    let setup = Setup {
        origin: RamOptions {
            cached: true,
            ..RamOptions::plain(64)
        },
        chunk: "64K".into(),
        ..Setup::default()
    };
    with_snapshots("buffered", &setup, 3, buffered)
}
