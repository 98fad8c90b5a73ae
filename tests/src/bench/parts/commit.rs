//! A commit: one journal block written, then `fdatasync`.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use super::file::{self, Aligned};
use crate::e2e::Outcome;
use crate::e2e::fault::Trying;

const BLOCK: usize = snapstore::BLOCK_SIZE;
/// Bytes of the ring.
const SIZE: u64 = 64 << 20;

/// Commits a second, one after another, for `time`.
///
/// # Errors
/// If the file fails.
pub fn measure(dir: &Path, time: Duration) -> Outcome<f64> {
    let ring = file::filled(&dir.join("journal"), SIZE)?;
    let block = Aligned::<BLOCK>::filled();
    let clock = Instant::now();
    let mut commits = 0;
    while clock.elapsed() < time {
        let at = commits * BLOCK as u64 % SIZE;
        ring.write_all_at(&block.0, at)
            .and_then(|()| ring.sync_data())
            .trying(|| format!("commit in {}", dir.display()))?;
        commits += 1;
    }
    Ok(commits as f64 / clock.elapsed().as_secs_f64())
}
