//! fio with verification through NBD while snapshots are taken and deleted: fio
//! judges the origin, each snapshot's checksum at the take judges the snapshot.

use std::process::Child;
use std::time::Duration;

use csnap_tests::e2e::bed::VOLUME;
use csnap_tests::e2e::fault::Trying;
use csnap_tests::e2e::files::MIB;
use csnap_tests::e2e::{Bed, Fault, Outcome, Setup, tools};
use csnap_tests::{ensure, need_tools};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

#[test]
fn fio_verifies_small_chunks() -> Outcome {
    fio_verifies(
        "fio_verifies_small_chunks",
        "4K",
        "bssplit=4k/50:8k/20:64k/30",
    )
}

#[test]
fn fio_verifies_default_chunks() -> Outcome {
    fio_verifies(
        "fio_verifies_default_chunks",
        "16K",
        "bssplit=4k/40:16k/40:128k/20",
    )
}

#[test]
fn fio_verifies_large_chunks() -> Outcome {
    fio_verifies("fio_verifies_large_chunks", "256K", "bssplit=4k/60:256k/40")
}

fn fio_verifies(test: &str, chunk: &str, sizes: &str) -> Outcome {
    need_tools!(test, "fio", "nbdcopy", "sha256sum");
    let mut random = ChaCha8Rng::seed_from_u64(super::seed());
    let setup = Setup {
        origin_bytes: 128 * MIB,
        store_bytes: 4096 * MIB,
        chunk: chunk.into(),
        noise: None,
        options: Vec::new(),
    };
    let bed = Bed::new(test, &setup)?;
    let loops = super::setting("CSNAP_FIO_LOOPS", 4)?;
    let mut fio = start_fio(&bed, sizes, loops)?;
    let mut snapshots: Vec<(String, String)> = Vec::new();
    let mut taken = 0;
    loop {
        if fio.try_wait().trying(|| "look after fio".into())?.is_some() {
            must_be_content(fio)?;
            if taken >= 3 {
                break;
            }
            // It was quick: once more, so that there is something to compare.
            fio = start_fio(&bed, sizes, loops)?;
        }
        taken += 1;
        let export = bed.take_mapped(&format!("s{taken}"))?;
        let digest = bed.digest(&export)?;
        snapshots.push((export, digest));
        if snapshots.len() > 5 {
            let victim = random.random_range(0..snapshots.len());
            bed.delete(&snapshots.swap_remove(victim).0)?;
        }
        std::thread::sleep(Duration::from_millis(random.random_range(0..200)));
    }
    for (snapshot, digest) in &snapshots {
        ensure!(
            bed.digest(snapshot)? == *digest,
            "{snapshot} changed while fio wrote"
        );
    }
    bed.finish()
}

/// It ended, and found what it had written.
fn must_be_content(fio: Child) -> Outcome {
    let output = fio.wait_with_output().trying(|| "wait for fio".into())?;
    let said = String::from_utf8_lossy(&output.stdout);
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "fio: {}\n{said}\n{complaint}",
        output.status
    );
    Ok(())
}

/// Writes every part of the volume in random order and verifies, `loops` times.
fn start_fio(bed: &Bed, sizes: &str, loops: u32) -> Outcome<Child> {
    let job = format!(
        "[global]\nioengine=nbd\nuri={}\nsize=100%\n{sizes}\niodepth=16\n\
         verify=crc32c\nverify_fatal=1\nverify_backlog=256\nserialize_overlap=1\n\
         randseed={}\nloops={loops}\n[over]\nrw=randwrite\n",
        bed.uri(VOLUME),
        super::seed()
    );
    let path = bed.path("job.fio");
    std::fs::write(&path, job).trying(|| format!("write {}", path.display()))?;
    let mut command = tools::program("fio");
    command
        .arg("--output-format=normal")
        .arg(&path)
        .current_dir(&bed.dir);
    command
        .stdout(std::process::Stdio::piped())
        .stderr(std::process::Stdio::piped());
    command
        .spawn()
        .map_err(|error| Fault::wrong(format!("start fio: {error}")))
}
