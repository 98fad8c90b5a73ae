//! The engine at the sizes it is made for: many snapshots of a large volume, many
//! exceptions. What that costs in memory, in the store and in time.
//!
//! The engine is csnapd's; its every I/O to the metadata is done, on a sparse file or
//! in memory. Copied data is not: the file reads as the zeroes it was summed as, so
//! that recovery, which reads data again, finds what it looks for.
//!
//! Between two snapshots an equal part of the exceptions is made, by writes of `run`
//! neighbouring chunks at places chosen by chance and always the same. With runs of one
//! chunk every exception lies in a leaf of its own: the worst a tree can meet.
//!
//! - [`mod@file`]: the store
//! - [`phases`]: what is measured, each in a process of its own

pub mod file;
pub mod phases;

use std::path::PathBuf;

use snapstore::engine::Config;
use snapstore::{BLOCK_SIZE, Tag, VolumeId};

use crate::bench::engine::driver::Driver;
use crate::e2e::fault::Trying;
use crate::e2e::{Fault, Outcome};
use crate::memory::Blocks;
use crate::sim::dice::Dice;

/// Writes in flight.
pub const DEPTH: u64 = 32;
const SEED: u64 = 2004;

/// How large.
#[derive(Clone, Debug)]
pub struct Scale {
    /// Snapshots of the volume.
    pub snapshots: u64,
    /// Exceptions, all told; a few less, because chance meets a chunk twice.
    pub exceptions: u64,
    /// Bytes of the origin.
    pub origin: u64,
    /// Bytes of a chunk.
    pub chunk: u64,
    /// Chunks of a write.
    pub run: u32,
    /// Bytes of the node cache.
    pub cache: u64,
    /// Where the store is.
    pub store: PathBuf,
}

impl Scale {
    /// What the engine is told.
    #[must_use]
    pub fn config(&self) -> Config {
        Config {
            cache_blocks: Config::nodes_in(self.cache),
            ..Config::default()
        }
    }

    /// Blocks of a store with room for everything, half as much again, and trees.
    #[must_use]
    pub fn blocks(&self) -> u64 {
        let data = self.exceptions * self.chunk;
        (data + data / 2 + (16 << 30)) / BLOCK_SIZE as u64
    }

    /// What is written after snapshot `number`, and so kept for it.
    pub fn runs(&self, number: u64) -> impl Iterator<Item = (u64, u32)> + use<> {
        let mut dice = Dice::new(SEED + number);
        let (run, places) = (self.run, self.origin / self.chunk / u64::from(self.run));
        let each = self.exceptions.div_ceil(self.snapshots.max(1));
        let writes = each.div_ceil(run.into());
        (0..writes).map(move |_| (dice.below(places) * u64::from(run), run))
    }

    /// `count` chunks that were written, each with its snapshot, by chance.
    fn lookups(&self, count: u64, tags: &[Tag]) -> Vec<(Tag, u64)> {
        let mut dice = Dice::new(SEED);
        let one = |_| {
            let number = dice.below(self.snapshots);
            let nth = dice.below(self.runs(number).count() as u64) as usize;
            let (first, run) = self.runs(number).nth(nth).unwrap_or_default();
            (tags[number as usize], first + dice.below(run.into()))
        };
        (0..count).map(one).collect()
    }

    /// Makes the volume, its snapshots and exceptions; `each` is called after every
    /// snapshot.
    ///
    /// # Errors
    /// If the engine refuses.
    pub fn build<S: Blocks>(
        &self,
        driver: &mut Driver<S>,
        mut each: impl FnMut(u64, &mut Driver<S>, VolumeId) -> Outcome,
    ) -> Outcome<VolumeId> {
        let volume = driver.create_volume(self.origin)?;
        for number in 0..self.snapshots {
            driver.take(volume, format!("snapshot-{number}"))?;
            each(number, driver, volume)?;
            driver.write_runs(volume, self.runs(number), DEPTH)?;
        }
        Ok(volume)
    }
}

/// Bytes of this process in memory, now and at most.
///
/// # Errors
/// If the kernel does not say.
pub fn resident() -> Outcome<(u64, u64)> {
    let path = "/proc/self/status";
    let status = std::fs::read_to_string(path).trying(|| format!("reading {path}"))?;
    let of = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name))?;
        let kib: u64 = line.split_whitespace().next()?.parse().ok()?;
        Some(kib << 10)
    };
    let missing = || Fault::wrong("the kernel does not say how much is resident");
    of("VmRSS:").zip(of("VmHWM:")).ok_or_else(missing)
}
