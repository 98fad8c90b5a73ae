//! The bare loop of a first overwrite: read a chunk of the origin, write it to the
//! store, write the origin. What a copyout costs before anything is recorded.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use super::file::{self, Aligned};
use crate::e2e::fault::Trying;
use crate::e2e::{Fault, Outcome};
use crate::sim::dice::Dice;

/// Bytes of a chunk.
pub const CHUNK: usize = 16 << 10;
/// Bytes of each of the two files.
const SIZE: u64 = 128 << 20;

/// Chunks a second with `threads` of them in flight, in random order, for `time`.
///
/// # Errors
/// If a file fails.
pub fn measure(dir: &Path, threads: u64, time: Duration) -> Outcome<f64> {
    let origin = file::filled(&dir.join("origin"), SIZE)?;
    let store = file::filled(&dir.join("store"), SIZE)?;
    // The store is filled from its beginning on, as the allocator does.
    let next = AtomicU64::new(0);
    let clock = Instant::now();
    let copied: Outcome<u64> = std::thread::scope(|scope| {
        let copy = |seed| copy_until(&origin, &store, &next, Dice::new(seed), clock + time);
        let threads: Vec<_> = (0..threads)
            .map(|seed| scope.spawn(move || copy(seed)))
            .collect();
        threads.into_iter().try_fold(0, |sum, thread| {
            let died = |_| Fault::wrong("a copying thread died");
            let copied = thread.join().map_err(died)?;
            Ok(sum + copied.trying(|| format!("copy in {}", dir.display()))?)
        })
    });
    Ok(copied? as f64 / clock.elapsed().as_secs_f64())
}

fn copy_until(
    origin: &File,
    store: &File,
    next: &AtomicU64,
    mut dice: Dice,
    end: Instant,
) -> io::Result<u64> {
    let chunks = SIZE / CHUNK as u64;
    let (mut old, new) = (Aligned::<CHUNK>::filled(), Aligned::<CHUNK>::filled());
    let mut copied = 0;
    while Instant::now() < end {
        let from = dice.below(chunks) * CHUNK as u64;
        let to = next.fetch_add(1, Ordering::Relaxed) % chunks * CHUNK as u64;
        origin.read_exact_at(&mut old.0, from)?;
        store.write_all_at(&old.0, to)?;
        origin.write_all_at(&new.0, from)?;
        copied += 1;
    }
    Ok(copied)
}
