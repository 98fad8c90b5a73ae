//! The journal on top of the checkpoint: it reads, it replays over the tables,
//! and the data of its exceptions is there as far as that is promised.

use super::Checker;
use crate::device::BlockDevice;
use crate::format::exception::LOST;
use crate::format::journal::Record;
use crate::replay::{self, Replay};

impl<D: BlockDevice> Checker<'_, D> {
    pub(super) fn check_journal(&mut self) {
        self.report.blocks += self.geometry.journal_blocks;
        let superblock = self.newest.superblock;
        let replay = match replay::read(self.dev, &superblock, self.newest.generation) {
            Ok(replay) => replay,
            Err(error) => return self.problems.add(format_args!("{error}")),
        };
        self.report.journal_records = replay.records.len() as u64;
        // Over tables with holes a good record would look like a bad one.
        let whole = self.tables_whole && self.sharing_whole;
        if let (true, Some(mut alloc)) = (whole, self.alloc.take()) {
            let applied = replay::apply(&replay, &self.geometry, &mut self.state, &mut alloc);
            if let Err(error) = applied {
                self.problems.add(format_args!("{error}"));
            }
        }
        if self.options.data {
            self.check_flushed(&replay);
        }
    }

    /// Verifies the data of exceptions known to have been flushed. What follows
    /// them may be torn: recovery looks at it together with the origin.
    fn check_flushed(&mut self, replay: &Replay) {
        let flushed = replay.records.len() - replay.unflushed.len();
        for record in replay.records.iter().take(flushed) {
            if let Record::Exception {
                volume,
                chunk,
                tag,
                block,
                crcs,
                ..
            } = record
                && *block != LOST
                && self.geometry.holds_chunk(*block)
            {
                let what =
                    format!("journal, exception of volume {volume}, chunk {chunk}, tag {tag}");
                self.check_data(&what, *block, crcs.as_slice());
            }
        }
    }
}
