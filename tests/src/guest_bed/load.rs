//! A verified load of our own on a block device: a few threads, each with one
//! direct write under way, all noted in a shared [`Ledger`].
//!
//! Unlike a client of NBD a user of a ublk device never sees csnapd die: a request
//! waits for the next csnapd. So every error is a fault, and every write ends.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::Device;
use super::device::Aligned;
use crate::e2e::fault::Trying;
use crate::e2e::ledger::{BLOCK, Ledger, Mark, Number, stamped};
use crate::e2e::load::{Shared, lock};
use crate::e2e::{Fault, Outcome};

/// Number of the first write of all: the one that fills a rig's origin.
pub const FILLED: Number = 1;
const THREADS: u64 = 4;
/// Most blocks in one write.
const MAX_BLOCKS: usize = 16;

/// A running load.
#[derive(Debug)]
pub struct BlockLoad {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    threads: Vec<JoinHandle<Outcome<Duration>>>,
}

impl BlockLoad {
    /// Starts one on the first blocks of the device, as many as the ledger has.
    ///
    /// # Errors
    /// If the device cannot be opened.
    pub fn start(device: &Device, ledger: &Shared, seed: u64) -> Outcome<Self> {
        let stop = Arc::new(AtomicBool::new(false));
        let answered = Arc::new(AtomicU64::new(0));
        let mut threads = Vec::new();
        for number in 0..THREADS {
            let mut worker = Worker {
                file: device.open(true)?,
                ledger: Arc::clone(ledger),
                stop: Arc::clone(&stop),
                answered: Arc::clone(&answered),
                random: ChaCha8Rng::seed_from_u64(seed ^ (number << 48)),
                buffer: Aligned::new(MAX_BLOCKS * BLOCK),
                longest: Duration::ZERO,
            };
            threads.push(std::thread::spawn(move || worker.run()));
        }
        Ok(Self {
            stop,
            answered,
            threads,
        })
    }

    /// How many writes were answered so far.
    #[must_use]
    pub fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Tells it to stop and waits; the longest any request took.
    ///
    /// # Errors
    /// If a request failed.
    pub fn finish(mut self) -> Outcome<Duration> {
        self.stop.store(true, Ordering::Relaxed);
        let mut longest = Duration::ZERO;
        for thread in std::mem::take(&mut self.threads) {
            let ended = thread
                .join()
                .map_err(|_| Fault::wrong("the load panicked"))?;
            longest = longest.max(ended?);
        }
        Ok(longest)
    }
}

impl Drop for BlockLoad {
    fn drop(&mut self) {
        // A failed test: they end with their next answer.
        self.stop.store(true, Ordering::Relaxed);
    }
}

struct Worker {
    file: File,
    ledger: Shared,
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    random: ChaCha8Rng,
    buffer: Aligned,
    longest: Duration,
}

impl Worker {
    fn run(&mut self) -> Outcome<Duration> {
        while !self.stop.load(Ordering::Relaxed) {
            let begin = Instant::now();
            if self.random.random_ratio(1, 64) {
                self.file.sync_data().trying(|| "flush the device".into())?;
            } else {
                self.write_one()?;
            }
            self.longest = self.longest.max(begin.elapsed());
        }
        Ok(self.longest)
    }

    fn write_one(&mut self) -> Outcome {
        let mut ledger = lock(&self.ledger);
        let count = self.random.random_range(1..=MAX_BLOCKS.min(ledger.len()));
        let first = self.random.random_range(0..=ledger.len() - count);
        if ledger.is_open(first, count) {
            return Ok(()); // another place next time round
        }
        let number = ledger.sent(first, count, false);
        drop(ledger);
        let bytes = &mut self.buffer.bytes_mut()[..count * BLOCK];
        for (index, block) in bytes.chunks_mut(BLOCK).enumerate() {
            block.copy_from_slice(&stamped(first + index, number));
        }
        let at = (first * BLOCK) as u64;
        let story = || format!("write {count} blocks at {at} under load");
        self.file.write_all_at(bytes, at).trying(story)?;
        lock(&self.ledger).acked(first, count, number);
        self.answered.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }
}

/// A ledger for the first `mib` of a device that [`Device::fill`] filled with
/// [`FILLED`].
#[must_use]
pub fn ledger(mib: u64) -> Shared {
    let blocks = (mib << 20) as usize / BLOCK;
    let mut ledger = Ledger::new(blocks);
    let number = ledger.sent(0, blocks, false);
    debug_assert_eq!(number, FILLED);
    ledger.acked(0, blocks, number);
    Arc::new(Mutex::new(ledger))
}

/// Checks the ledger's part of the live device; see [`Ledger::settle`].
///
/// # Errors
/// If a block is wrong or cannot be read.
pub fn settle(device: &Device, ledger: &Shared) -> Outcome {
    let mut ledger = lock(ledger);
    let bytes = device.read(0, ledger.len() * BLOCK)?;
    ledger.settle(0, &bytes)
}

/// Checks the ledger's part of a snapshot; see [`Ledger::check_snapshot`].
///
/// # Errors
/// If a block is wrong or cannot be read.
pub fn check_snapshot(device: &Device, ledger: &Shared, mark: &Mark, until: Number) -> Outcome {
    let length = lock(ledger).len() * BLOCK;
    let bytes = device.read(0, length)?;
    lock(ledger).check_snapshot(0, &bytes, mark, until)
}
