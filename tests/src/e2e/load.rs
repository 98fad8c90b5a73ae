//! A verified load on one volume, in a thread of its own.
//!
//! Random writes of 4 to 64 KiB, some with FUA, some write-zeroes, some flushes,
//! [`DEPTH`] in flight, all noted in a shared [`Ledger`]. The load ends when it is
//! told to, or when its connection breaks: after a `kill -9` that is no fault,
//! and what was not answered stays open in the ledger. An error *answer* is a
//! fault always: the origin must go on.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::JoinHandle;

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::client::{Ask, Client};
use super::fault::{Fault, Outcome};
use super::ledger::{BLOCK, Ledger, Mark, Number, stamped};
use crate::ensure;

/// Requests in flight.
pub const DEPTH: usize = 16;
/// Most blocks in one write.
const MAX_BLOCKS: usize = 16;

/// A ledger shared by a load and the test that watches it.
pub type Shared = Arc<Mutex<Ledger>>;

/// Locks it; a load that panicked has already failed the test.
pub fn lock(ledger: &Shared) -> MutexGuard<'_, Ledger> {
    ledger.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A running load.
#[derive(Debug)]
pub struct Load {
    stop: Arc<AtomicBool>,
    thread: JoinHandle<Outcome<u64>>,
}

impl Load {
    /// Starts one.
    #[must_use]
    pub fn start(socket: &Path, export: &str, ledger: &Shared, seed: u64) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let mut worker = Worker {
            socket: socket.to_path_buf(),
            export: export.to_owned(),
            ledger: Arc::clone(ledger),
            stop: Arc::clone(&stop),
            random: ChaCha8Rng::seed_from_u64(seed),
            open: HashMap::new(),
        };
        Self {
            stop,
            thread: std::thread::spawn(move || worker.run()),
        }
    }

    /// Tells it to stop, waits, and hands back how many requests were answered.
    ///
    /// # Errors
    /// If a request was answered with an error, or the connection broke although
    /// `broken` (the daemon was killed) does not excuse it.
    pub fn finish(self, broken: bool) -> Outcome<u64> {
        self.stop.store(true, Ordering::Relaxed);
        let ended = self
            .thread
            .join()
            .map_err(|_| Fault::wrong("the load panicked"))?;
        match ended {
            Err(Fault::Io { .. }) if broken => Ok(0),
            other => other,
        }
    }
}

struct Worker {
    socket: PathBuf,
    export: String,
    ledger: Shared,
    stop: Arc<AtomicBool>,
    random: ChaCha8Rng,
    open: HashMap<u64, (usize, usize, Number)>,
}

impl Worker {
    fn run(&mut self) -> Outcome<u64> {
        let mut client = Client::connect(&self.socket, &self.export)?;
        let mut answered = 0;
        while !self.stop.load(Ordering::Relaxed) {
            while client.in_flight() < DEPTH {
                self.send_one(&mut client)?;
            }
            self.receive_one(&mut client)?;
            answered += 1;
        }
        while client.in_flight() > 0 {
            self.receive_one(&mut client)?;
            answered += 1;
        }
        Ok(answered)
    }

    fn send_one(&mut self, client: &mut Client) -> Outcome {
        if self.random.random_ratio(1, 64) {
            client.send(0, &Ask::Flush)?;
            return Ok(());
        }
        let mut ledger = lock(&self.ledger);
        let count = self.random.random_range(1..=MAX_BLOCKS.min(ledger.len()));
        let first = self.random.random_range(0..=ledger.len() - count);
        if ledger.is_open(first, count) {
            return Ok(()); // another place next time round
        }
        let zeroes = self.random.random_ratio(1, 16);
        let number = ledger.sent(first, count, zeroes);
        drop(ledger);
        let ask = if zeroes {
            Ask::Zero((count * BLOCK) as u32)
        } else {
            let data = (first..first + count)
                .flat_map(|block| stamped(block, number))
                .collect();
            Ask::Write(data, self.random.random_ratio(1, 16))
        };
        let cookie = client.send((first * BLOCK) as u64, &ask)?;
        self.open.insert(cookie, (first, count, number));
        Ok(())
    }

    fn receive_one(&mut self, client: &mut Client) -> Outcome {
        let done = client.wait()?;
        let what = self.open.remove(&done.cookie);
        ensure!(
            done.error == 0,
            "NBD error {} for {what:?} of the load",
            done.error
        );
        if let Some((first, count, number)) = what {
            lock(&self.ledger).acked(first, count, number);
        }
        Ok(())
    }
}

/// Reads the whole live volume and checks it; see [`Ledger::settle`].
///
/// # Errors
/// If a block is wrong or cannot be read.
pub fn settle_volume(socket: &Path, export: &str, ledger: &Shared) -> Outcome {
    read_all(socket, export, |first, bytes| {
        lock(ledger).settle(first, bytes)
    })
}

/// Reads a whole mapped snapshot and checks it; see [`Ledger::check_snapshot`].
///
/// # Errors
/// If a block is wrong or cannot be read.
pub fn check_snapshot(
    socket: &Path,
    export: &str,
    ledger: &Shared,
    mark: &Mark,
    until: Number,
) -> Outcome {
    read_all(socket, export, |first, bytes| {
        lock(ledger)
            .check_snapshot(first, bytes, mark, until)
            .map_err(|fault| Fault::wrong(format!("snapshot {export}: {fault}")))
    })
}

fn read_all(
    socket: &Path,
    export: &str,
    mut check: impl FnMut(usize, &[u8]) -> Outcome,
) -> Outcome {
    let mut client = Client::connect(socket, export)?;
    let mut at = 0;
    while at < client.size() {
        let length = (client.size() - at).min(1 << 20) as u32;
        let bytes = client.read(at, length)?;
        check(at as usize / BLOCK, &bytes)?;
        at += u64::from(length);
    }
    Ok(())
}
