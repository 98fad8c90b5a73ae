//! The allocation bitmap: exactly what is referred to is in use.

use super::Checker;
use super::problems::Problems;
use crate::alloc::load;
use crate::device::BlockDevice;

/// A run of neighbouring blocks with the same fault.
struct Run {
    first: u64,
    end: u64,
    reason: &'static str,
}

impl Run {
    fn report(&self, problems: &mut Problems) {
        let (first, last, reason) = (self.first, self.end - 1, self.reason);
        if first == last {
            problems.add(format_args!("block {first}: {reason}"));
        } else {
            problems.add(format_args!("blocks {first} to {last}: {reason}"));
        }
    }
}

/// Joins one more block to the run before it, or reports that and begins another.
fn join(run: &mut Option<Run>, block: u64, reason: &'static str, problems: &mut Problems) {
    match run {
        Some(run) if run.end == block && run.reason == reason => run.end += 1,
        _ => {
            let next = Run {
                first: block,
                end: block + 1,
                reason,
            };
            if let Some(done) = run.replace(next) {
                done.report(problems);
            }
        }
    }
}

const UNOWNED: &str = "in use, but nothing refers to it";
const UNMARKED: &str = "referred to, but free according to the bitmap";

impl<D: BlockDevice> Checker<'_, D> {
    /// Reads the bitmap; its own blocks are its own.
    pub(super) fn load_bitmap(&mut self) {
        let (geometry, directory) = (self.geometry, self.newest.superblock.bitmap.into());
        let loaded = load(
            self.dev,
            geometry.store,
            directory,
            geometry.blocks,
            geometry.chunk_blocks,
        );
        match loaded {
            Ok(alloc) => {
                for block in alloc.image_blocks() {
                    self.report.blocks += 1;
                    if let Err(clash) = self.owners.claim(block, 1) {
                        self.problems
                            .add(format_args!("allocation bitmap, block {block}: {clash}"));
                    }
                }
                self.alloc = Some(alloc);
            }
            Err(error) => self.problems.add(format_args!("{error}")),
        }
    }

    /// Compares the bitmap with what was found. `whole`: exceptions and eras were
    /// read in full.
    pub(super) fn compare_bitmap(&mut self, whole: bool) {
        let Some(alloc) = &self.alloc else {
            return;
        };
        let whole = whole && self.nodes_whole;
        let mut run: Option<Run> = None;
        let words = alloc.durable_words().iter().zip(self.owners.words());
        for (word, (used, owned)) in (0u64..).zip(words) {
            let (used, owned) = (*used, *owned);
            let unowned = if whole { used & !owned } else { 0 };
            let wrong = unowned | (owned & !used);
            for bit in (0..64).filter(|bit| wrong >> bit & 1 == 1) {
                let reason = if unowned >> bit & 1 == 1 {
                    UNOWNED
                } else {
                    UNMARKED
                };
                join(&mut run, word * 64 + bit, reason, &mut self.problems);
            }
        }
        if let Some(done) = run {
            done.report(&mut self.problems);
        }
    }
}
