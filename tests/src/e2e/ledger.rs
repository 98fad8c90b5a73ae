//! What a volume may hold: every write to every 4 KiB block, and whether it was
//! acknowledged.
//!
//! Every write gets a number, larger than all before, and stamps it all over its
//! blocks; so a block read back names the write it comes from. At most one write
//! per block is open at a time, so the writes of a block have one order.
//!
//! A block is right if it shows its last acknowledged write or one sent later
//! (which may have landed without its answer reaching us). What was read once is
//! from then on the truth ([`Ledger::settle`]): after recovery a block may not
//! change its mind.
//!
//! A snapshot is right if each block shows the last write acknowledged before the
//! take was asked for, or one sent later but before the take's answer.

use super::fault::{Fault, Outcome};
use crate::ensure;

/// Bytes of a block.
pub const BLOCK: usize = 4096;

/// Number of a write; 0 is what the volume held first (zeroes).
pub type Number = u64;

#[derive(Clone, Copy, Debug)]
struct Entry {
    number: Number,
    zeroes: bool,
    acked: bool,
}

/// The writes of one volume.
#[derive(Clone, Debug)]
pub struct Ledger {
    blocks: Vec<Vec<Entry>>,
    next: Number,
}

/// The instant a take was asked for.
#[derive(Clone, Debug)]
pub struct Mark {
    acked: Vec<Number>,
}

impl Ledger {
    /// For a volume of `blocks` blocks, all zero.
    #[must_use]
    pub fn new(blocks: usize) -> Self {
        let first = Entry {
            number: 0,
            zeroes: true,
            acked: true,
        };
        Self {
            blocks: vec![vec![first]; blocks],
            next: 1,
        }
    }

    /// Number of blocks.
    #[must_use]
    pub fn len(&self) -> usize {
        self.blocks.len()
    }

    /// Whether the volume has no blocks.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.blocks.is_empty()
    }

    /// Whether a write to one of these blocks is sent and not answered.
    #[must_use]
    pub fn is_open(&self, first: usize, count: usize) -> bool {
        let open = |entries: &Vec<Entry>| entries.last().is_some_and(|entry| !entry.acked);
        self.blocks.iter().skip(first).take(count).any(open)
    }

    /// Notes a write about to be sent and numbers it.
    pub fn sent(&mut self, first: usize, count: usize, zeroes: bool) -> Number {
        let number = self.next;
        self.next += 1;
        for entries in self.blocks.iter_mut().skip(first).take(count) {
            entries.push(Entry {
                number,
                zeroes,
                acked: false,
            });
        }
        number
    }

    /// Notes that a write was acknowledged.
    pub fn acked(&mut self, first: usize, count: usize, number: Number) {
        for entries in self.blocks.iter_mut().skip(first).take(count) {
            for entry in entries.iter_mut().filter(|entry| entry.number == number) {
                entry.acked = true;
            }
        }
    }

    /// The instant before a take is asked for.
    #[must_use]
    pub fn mark(&self) -> Mark {
        let last = |entries: &Vec<Entry>| {
            entries
                .iter()
                .rev()
                .find(|entry| entry.acked)
                .map_or(0, |entry| entry.number)
        };
        Mark {
            acked: self.blocks.iter().map(last).collect(),
        }
    }

    /// The number of the next write: all lower ones were sent before now.
    #[must_use]
    pub fn now(&self) -> Number {
        self.next
    }

    /// Checks blocks `first ..` of the live volume against `bytes`, and from now
    /// on holds what was seen for the truth. No write may be under way.
    ///
    /// # Errors
    /// Names the first block that is wrong.
    pub fn settle(&mut self, first: usize, bytes: &[u8]) -> Outcome {
        for (index, block) in bytes.chunks(BLOCK).enumerate() {
            let number = first + index;
            let entries = self.entries(number)?;
            let from = entries.iter().rposition(|entry| entry.acked).unwrap_or(0);
            let seen = find(number, block, &entries[from..])?;
            let kept = Entry {
                acked: true,
                ..seen
            };
            let entries = &mut self.blocks[number];
            entries.retain(|entry| entry.number < kept.number);
            entries.push(kept);
        }
        Ok(())
    }

    /// Checks blocks `first ..` of a snapshot asked for at `mark` and answered
    /// when [`Self::now`] was `until`.
    ///
    /// # Errors
    /// Names the first block that is wrong.
    pub fn check_snapshot(
        &self,
        first: usize,
        bytes: &[u8],
        mark: &Mark,
        until: Number,
    ) -> Outcome {
        for (index, block) in bytes.chunks(BLOCK).enumerate() {
            let number = first + index;
            let since = mark.acked.get(number).copied().unwrap_or(0);
            let mut allowed = self.entries(number)?.to_vec();
            allowed.retain(|entry| (since..until).contains(&entry.number));
            find(number, block, &allowed)?;
        }
        Ok(())
    }

    fn entries(&self, block: usize) -> Outcome<&[Entry]> {
        let entries = self.blocks.get(block).map(Vec::as_slice);
        entries.ok_or_else(|| Fault::wrong(format!("block {block} lies beyond the volume")))
    }
}

/// The bytes of write `number` at `block`: 512 stamps of block and number, so
/// that a torn or misplaced block shows.
#[must_use]
pub fn stamped(block: usize, number: Number) -> Vec<u8> {
    let stamp = stamp_of(block, number);
    stamp.iter().copied().cycle().take(BLOCK).collect()
}

/// The write that all of `bytes`, a part of `block`, come from; none if they do not come
/// from one write to this block.
#[must_use]
pub fn stamp_in(block: usize, bytes: &[u8]) -> Option<Number> {
    let mut number = [0; 8];
    number.copy_from_slice(bytes.get(8..16)?);
    let number = Number::from_le_bytes(number);
    let stamp = stamp_of(block, number);
    let whole = bytes.len().is_multiple_of(16) && bytes.chunks(16).all(|chunk| chunk == stamp);
    whole.then_some(number)
}

fn stamp_of(block: usize, number: Number) -> [u8; 16] {
    let mut stamp = [0; 16];
    stamp[..8].copy_from_slice(&(block as u64 ^ 0xc5a9_5eed_0000_0000).to_le_bytes());
    stamp[8..].copy_from_slice(&number.to_le_bytes());
    stamp
}

/// The allowed write that `block` shows, the newest if several fit.
fn find(number: usize, block: &[u8], allowed: &[Entry]) -> Outcome<Entry> {
    ensure!(
        block.len() == BLOCK,
        "block {number} was read short: {} bytes",
        block.len()
    );
    let fits = |entry: &&Entry| {
        if entry.zeroes {
            return block.iter().all(|&byte| byte == 0);
        }
        let stamp = stamp_of(number, entry.number);
        block.chunks_exact(16).all(|chunk| chunk == stamp)
    };
    allowed.iter().rev().find(fits).copied().ok_or_else(|| {
        let allowed: Vec<_> = allowed
            .iter()
            .map(|e| (e.number, e.zeroes, e.acked))
            .collect();
        Fault::wrong(format!(
            "block {number} holds {:02x?} ... {:02x?}; allowed (write, zeroes, acknowledged): {:?}",
            &block[..16],
            &block[BLOCK - 16..],
            allowed,
        ))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_lost_acknowledged_write_is_found() {
        let mut ledger = Ledger::new(4);
        let number = ledger.sent(1, 2, false);
        ledger.acked(1, 2, number);
        assert!(ledger.clone().settle(1, &stamped(1, number)).is_ok());
        assert!(
            ledger.settle(1, &[0; BLOCK]).is_err(),
            "zeroes lost the write"
        );
        assert!(ledger.settle(1, &stamped(2, number)).is_err(), "misplaced");
    }

    #[test]
    fn an_open_write_may_show_or_not_but_then_stays() {
        let mut ledger = Ledger::new(1);
        let number = ledger.sent(0, 1, false);
        assert!(ledger.is_open(0, 1));
        assert!(ledger.clone().settle(0, &[0; BLOCK]).is_ok());
        assert!(ledger.settle(0, &stamped(0, number)).is_ok());
        assert!(
            ledger.settle(0, &[0; BLOCK]).is_err(),
            "it changed its mind"
        );
    }

    #[test]
    fn a_stamp_names_its_write_and_no_other() {
        let mut bytes = stamped(3, 17);
        assert_eq!(stamp_in(3, &bytes), Some(17));
        assert_eq!(stamp_in(3, &bytes[512..1024]), Some(17));
        assert_eq!(stamp_in(4, &bytes), None);
        bytes[4000] ^= 1;
        assert_eq!(stamp_in(3, &bytes), None);
        assert_eq!(stamp_in(3, &[]), None);
    }

    #[test]
    fn a_torn_block_is_found() {
        let mut ledger = Ledger::new(1);
        let number = ledger.sent(0, 1, false);
        let mut torn = stamped(0, number);
        torn[2048..].fill(0);
        assert!(ledger.settle(0, &torn).is_err());
    }

    #[test]
    fn a_snapshot_shows_its_window_only() {
        let mut ledger = Ledger::new(1);
        let early = ledger.sent(0, 1, false);
        ledger.acked(0, 1, early);
        let mark = ledger.mark();
        let within = ledger.sent(0, 1, false);
        let until = ledger.now();
        ledger.acked(0, 1, within);
        let late = ledger.sent(0, 1, false);
        let check = |number| ledger.check_snapshot(0, &stamped(0, number), &mark, until);
        assert!(check(early).is_ok());
        assert!(check(within).is_ok());
        assert!(check(late).is_err());
        assert!(ledger.check_snapshot(0, &[0; BLOCK], &mark, until).is_err());
    }
}
