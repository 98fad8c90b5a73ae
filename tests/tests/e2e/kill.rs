//! `kill -9` under verified load, again and again.
//!
//! Each round: a load runs, snapshots are taken, mapped and deleted beside it,
//! the daemon is killed at a random moment (every third time in the middle of a
//! take), started again, and everything acknowledged must be there: every block
//! of the volume by the ledger, every snapshot by the ledger and by its checksum.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use csnap_tests::e2e::bed::VOLUME;
use csnap_tests::e2e::files::MIB;
use csnap_tests::e2e::ledger::{BLOCK, Ledger};
use csnap_tests::e2e::load::{self, Load, Shared};
use csnap_tests::e2e::{Bed, Outcome, Setup};
use csnap_tests::{ensure, need_tools};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const ORIGIN: u64 = 32 * MIB;
const SNAPSHOTS_KEPT: usize = 6;

struct Run {
    bed: Bed,
    ledger: Shared,
    random: ChaCha8Rng,
    /// Mapped snapshots and their checksums.
    snapshots: Vec<(String, String)>,
    taken: u32,
}

#[test]
fn killed_again_and_again_nothing_is_lost() -> Outcome {
    need_tools!(
        "killed_again_and_again_nothing_is_lost",
        "nbdcopy",
        "sha256sum"
    );
    let seed = super::seed();
    let setup = Setup {
        origin_bytes: ORIGIN,
        store_bytes: 1024 * MIB,
        ..Setup::default()
    };
    let mut run = Run {
        bed: Bed::new("kill", &setup)?,
        ledger: Arc::new(Mutex::new(Ledger::new(ORIGIN as usize / BLOCK))),
        random: ChaCha8Rng::seed_from_u64(seed),
        snapshots: Vec::new(),
        taken: 0,
    };
    let rounds = super::setting("CSNAP_KILLS", 12)?;
    for round in 0..rounds {
        run.round(round)?;
        run.verify()?;
    }
    run.bed.stop()?;
    let bytes = std::fs::read(&run.bed.origin)
        .map_err(|error| csnap_tests::e2e::Fault::wrong(format!("read the origin: {error}")))?;
    load::lock(&run.ledger).settle(0, &bytes)?;
    run.bed.finish()
}

impl Run {
    fn round(&mut self, round: u32) -> Outcome {
        let seed = self.random.random();
        let load = Load::start(&self.bed.nbd_socket(), VOLUME, &self.ledger, seed);
        self.wait(50..300);
        self.take()?;
        if self.snapshots.len() > SNAPSHOTS_KEPT {
            let victim = self.random.random_range(0..self.snapshots.len());
            let (gone, _) = self.snapshots.swap_remove(victim);
            self.bed.delete(&gone)?;
        }
        if round.is_multiple_of(3) {
            self.kill_amid_a_take()?;
        } else {
            self.wait(0..300);
            self.bed.kill9()?;
        }
        load.finish(true)?;
        self.bed.start()
    }

    fn take(&mut self) -> Outcome {
        self.taken += 1;
        let mark = load::lock(&self.ledger).mark();
        let export = self.bed.take_mapped(&format!("s{}", self.taken))?;
        let until = load::lock(&self.ledger).now();
        let digest = self.bed.digest(&export)?;
        load::check_snapshot(&self.bed.nbd_socket(), &export, &self.ledger, &mark, until)?;
        self.snapshots.push((export, digest));
        Ok(())
    }

    /// The take may or may not have happened; if it did, it must be a right one.
    fn kill_amid_a_take(&mut self) -> Outcome {
        self.taken += 1;
        let full = format!("{VOLUME}@s{}", self.taken);
        let mark = load::lock(&self.ledger).mark();
        let (ctl, line) = (self.bed.ctl.clone(), format!("snapshot take {full}"));
        let taking = std::thread::spawn(move || ctl.any(&line).map(|answer| answer.code));
        self.wait(0..30);
        self.bed.kill9()?;
        let until = load::lock(&self.ledger).now();
        let code = taking
            .join()
            .map_err(|_| csnap_tests::e2e::Fault::wrong("the taking thread panicked"))??;
        self.bed.start()?;
        let listed = self
            .bed
            .ctl
            .snapshots(VOLUME)?
            .iter()
            .any(|row| row.full_name == full);
        ensure!(listed || code != 0, "{full} was acknowledged and is gone");
        if listed {
            self.bed.ctl.ok(&format!("snapshot map {full}"))?;
            load::check_snapshot(&self.bed.nbd_socket(), &full, &self.ledger, &mark, until)?;
            let digest = self.bed.digest(&full)?;
            self.snapshots.push((full, digest));
        }
        self.bed.kill9()
    }

    fn verify(&self) -> Outcome {
        load::settle_volume(&self.bed.nbd_socket(), VOLUME, &self.ledger)?;
        for (snapshot, digest) in &self.snapshots {
            ensure!(self.bed.digest(snapshot)? == *digest, "{snapshot} changed");
        }
        Ok(())
    }

    fn wait(&mut self, ms: std::ops::Range<u64>) {
        std::thread::sleep(Duration::from_millis(self.random.random_range(ms)));
    }
}
