//! "May not be allocated": one bit per block, searchable by block and by slot.
//!
//! A *slot* is an aligned run of as many blocks as a chunk has. A slot is
//! *whole* while all its blocks are free and *broken* otherwise. Data takes
//! whole slots; metadata takes single blocks, from broken slots first.
//!
//! Bits are grouped by 4096, with the number of used blocks and broken slots of
//! each group kept, so a search skips full groups: 65,536 of them in a TiB. A
//! slot never crosses a group. Bits beyond the end of the store are used, so no
//! search needs to know where it ends.

use std::collections::TryReserveError;

use super::bits::{all_ones, all_zeroes, pieces};

/// Blocks in a group.
const GROUP: u64 = 4096;

/// How many runs `find_run` looks at before it takes the longest seen.
const NEAR: u32 = 16;

#[derive(Clone, Copy, Debug, Default)]
struct Group {
    used: u16,
    broken: u16,
}

/// See the module.
#[derive(Clone, Debug)]
pub(super) struct Slots {
    words: Vec<u64>,
    groups: Vec<Group>,
    /// Blocks in a slot: a power of two, 1..=256.
    span: u64,
    /// One slot's bits in a word (all of them from 64 blocks a slot).
    slot_mask: u64,
    /// The first bit of every slot in a word.
    bases: u64,
    free_blocks: u64,
    free_slots: u64,
    /// No group before this one has a free block in a broken slot.
    partial_from: usize,
    /// No group before this one has a whole slot.
    whole_from: usize,
    /// Where the next search for a run begins.
    next_slot: u64,
}

impl Slots {
    /// `blocks` free blocks in slots of `span`.
    pub(super) fn new(blocks: u64, span: u32) -> Self {
        assert!(
            span.is_power_of_two() && span <= 256,
            "a chunk has 1 to 256 blocks"
        );
        let span = u64::from(span);
        let groups = blocks.div_ceil(GROUP);
        let bits = groups * GROUP;
        let slot_mask = if span >= 64 {
            u64::MAX
        } else {
            (1 << span) - 1
        };
        let mut slots = Self {
            words: vec![0; (bits / 64) as usize],
            groups: vec![Group::default(); groups as usize],
            span,
            slot_mask,
            bases: u64::MAX / slot_mask,
            free_blocks: bits,
            free_slots: bits / span,
            partial_from: 0,
            whole_from: 0,
            next_slot: 0,
        };
        slots.set(blocks, bits - blocks);
        slots
    }

    /// Makes room in memory for `blocks` blocks.
    pub(super) fn reserve(&mut self, blocks: u64) -> Result<(), TryReserveError> {
        let groups = (blocks.div_ceil(GROUP) as usize).saturating_sub(self.groups.len());
        let words = groups.saturating_mul((GROUP / 64) as usize);
        self.words.try_reserve_exact(words)?;
        self.groups.try_reserve_exact(groups)
    }

    /// There are `blocks` blocks now, the new ones used.
    pub(super) fn grow(&mut self, blocks: u64) {
        self.lengthen(blocks, blocks);
    }

    /// Fills in at most so many more blocks of those that `blocks` has, all used: which
    /// blocks beyond the end are anyhow. True when there are as many.
    pub(super) fn lengthen(&mut self, blocks: u64, most: u64) -> bool {
        let (have, want) = (self.groups.len() as u64, blocks.div_ceil(GROUP));
        let groups = want.min(have + most.div_ceil(GROUP)).max(have);
        let full = Group {
            used: GROUP as u16,
            broken: self.slots_per_group() as u16,
        };
        self.words.resize((groups * GROUP / 64) as usize, u64::MAX);
        self.groups.resize(groups as usize, full);
        groups >= want
    }

    pub(super) fn free_blocks(&self) -> u64 {
        self.free_blocks
    }

    pub(super) fn free_slots(&self) -> u64 {
        self.free_slots
    }

    pub(super) fn all_used(&self, first: u64, count: u64) -> bool {
        all_ones(&self.words, first, count)
    }

    pub(super) fn all_free(&self, first: u64, count: u64) -> bool {
        all_zeroes(&self.words, first, count)
    }

    /// Makes free blocks used.
    pub(super) fn set(&mut self, first: u64, count: u64) {
        for (word, mask) in pieces(first, count) {
            self.update(word, self.words[word] | mask);
            let group = word / (GROUP / 64) as usize;
            if group < self.partial_from && self.partial_free(group) > 0 {
                self.partial_from = group;
            }
        }
    }

    /// Makes used blocks free.
    pub(super) fn clear(&mut self, first: u64, count: u64) {
        for (word, mask) in pieces(first, count) {
            self.update(word, self.words[word] & !mask);
            let group = word / (GROUP / 64) as usize;
            self.partial_from = self.partial_from.min(group);
            self.whole_from = self.whole_from.min(group);
        }
    }

    /// Makes very many used blocks free: whole groups at once.
    pub(super) fn open(&mut self, first: u64, count: u64) {
        let end = first + count;
        let (from, to) = (first.next_multiple_of(GROUP), end / GROUP * GROUP);
        if from >= to {
            return self.clear(first, count);
        }
        self.clear(first, from - first);
        self.clear(to, end - to);
        let groups = (from / GROUP) as usize..(to / GROUP) as usize;
        self.words[(from / 64) as usize..(to / 64) as usize].fill(0);
        self.free_blocks += to - from;
        self.free_slots += (to - from) / self.span;
        self.whole_from = self.whole_from.min(groups.start);
        self.groups[groups].fill(Group::default());
    }

    /// Makes the bits of `ones` in a word used, whatever they were.
    pub(super) fn fill_word(&mut self, word: usize, ones: u64) {
        let free = ones & !self.words[word];
        if free != 0 {
            self.update(word, self.words[word] | free);
        }
        self.partial_from = 0;
    }

    /// The only place that changes a word: keeps every count true.
    fn update(&mut self, word: usize, new: u64) {
        let (used, broken) = (self.words[word].count_ones(), self.broken_slots(word));
        self.words[word] = new;
        let (now_used, now_broken) = (new.count_ones(), self.broken_slots(word));
        let group = &mut self.groups[word / (GROUP / 64) as usize];
        group.used = group.used + now_used as u16 - used as u16;
        group.broken = group.broken + now_broken as u16 - broken as u16;
        self.free_blocks = self.free_blocks + u64::from(used) - u64::from(now_used);
        self.free_slots = self.free_slots + u64::from(broken) - u64::from(now_broken);
    }

    /// The first free block of the lowest broken slot that has one; if there is
    /// none, the first block of the lowest whole slot.
    pub(super) fn find_block(&mut self) -> Option<u64> {
        if let Some(block) = self.find_partial() {
            return Some(block);
        }
        let from = self.whole_from as u64 * self.slots_per_group();
        let slot = self.next_free_slot(from, self.slots())?;
        self.whole_from = (slot / self.slots_per_group()) as usize;
        Some(slot * self.span)
    }

    /// A run of up to `want` whole slots at or after the end of the run found
    /// last, cyclic: the first that is long enough, or the longest of the nearest
    /// [`NEAR`]. Returns first block and slots.
    pub(super) fn find_run(&mut self, want: u32) -> Option<(u64, u32)> {
        let (start, all) = (self.next_slot, self.slots());
        let mut best: Option<(u64, u32)> = None;
        let mut seen = 0;
        'search: for (from, end) in [(start, all), (0, start)] {
            let mut at = from;
            while let Some(slot) = self.next_free_slot(at, end) {
                let len = self.run_length(slot, want);
                if best.is_none_or(|(_, longest)| len > longest) {
                    best = Some((slot, len));
                }
                seen += 1;
                if len == want || seen == NEAR {
                    break 'search;
                }
                at = slot + u64::from(len);
            }
        }
        let (slot, len) = best?;
        self.next_slot = slot + u64::from(len);
        Some((slot * self.span, len))
    }

    fn slots(&self) -> u64 {
        self.words.len() as u64 * 64 / self.span
    }

    fn slots_per_group(&self) -> u64 {
        GROUP / self.span
    }

    /// Free blocks in the broken slots of a group.
    fn partial_free(&self, group: usize) -> u64 {
        let Group { used, broken } = self.groups[group];
        let whole = (self.slots_per_group() - u64::from(broken)) * self.span;
        GROUP - u64::from(used) - whole
    }

    /// Every bit of the word that belongs to a broken slot.
    fn broken_bits(&self, word: usize) -> u64 {
        if self.span > 64 {
            let len = (self.span / 64) as usize;
            let first = word / len * len;
            let whole = self.words[first..first + len].iter().all(|&word| word == 0);
            return if whole { 0 } else { u64::MAX };
        }
        // Gathers each slot's bits in its first bit, then spreads that one.
        let mut gathered = self.words[word];
        let mut shift = 1;
        while shift < self.span {
            gathered |= gathered >> shift;
            shift *= 2;
        }
        (gathered & self.bases).wrapping_mul(self.slot_mask)
    }

    /// Broken slots in the word; a slot longer than a word counts as one.
    fn broken_slots(&self, word: usize) -> u32 {
        (self.broken_bits(word) & self.bases).count_ones()
    }

    fn find_partial(&mut self) -> Option<u64> {
        if self.free_blocks == self.free_slots * self.span {
            return None;
        }
        let from = self.partial_from;
        let group = (from..self.groups.len()).find(|&group| self.partial_free(group) > 0)?;
        self.partial_from = group;
        let words = (GROUP / 64) as usize;
        (group * words..(group + 1) * words).find_map(|word| {
            let free = !self.words[word] & self.broken_bits(word);
            (free != 0).then(|| word as u64 * 64 + u64::from(free.trailing_zeros()))
        })
    }

    /// The first whole slot in `from .. end`.
    fn next_free_slot(&self, from: u64, end: u64) -> Option<u64> {
        let per_group = self.slots_per_group();
        let mut at = from;
        while at < end {
            let group = at / per_group;
            if u64::from(self.groups[group as usize].broken) < per_group
                && let Some(slot) = self.free_slot_in_group(at)
            {
                return (slot < end).then_some(slot);
            }
            at = (group + 1) * per_group;
        }
        None
    }

    /// The first whole slot from `from` to the end of its group.
    fn free_slot_in_group(&self, from: u64) -> Option<u64> {
        let stride = self.span.max(64);
        let mut at = from * self.span;
        let end = (at / GROUP + 1) * GROUP;
        while at < end {
            let word = at / 64;
            let free = self.bases & !self.broken_bits(word as usize) & (u64::MAX << (at % 64));
            if free != 0 {
                return Some((word * 64 + u64::from(free.trailing_zeros())) / self.span);
            }
            at = (at / stride + 1) * stride;
        }
        None
    }

    /// Whole slots from `slot` on, at most `want`.
    fn run_length(&self, slot: u64, want: u32) -> u32 {
        let end = (slot + u64::from(want)).min(self.slots());
        let run = (slot..end).take_while(|&slot| {
            let at = slot * self.span;
            self.broken_bits((at / 64) as usize) >> (at % 64) & 1 == 0
        });
        run.count() as u32
    }
}

#[cfg(test)]
impl Slots {
    /// Counts again everything that is kept.
    pub(super) fn check_counts(&self) {
        let mut free_blocks = 0;
        let mut free_slots = 0;
        for (index, group) in self.groups.iter().enumerate() {
            let first = index as u64 * GROUP;
            let free = |block: u64| self.all_free(block, 1);
            let used = (first..first + GROUP).filter(|&block| !free(block)).count();
            let broken = (first..first + GROUP)
                .step_by(self.span as usize)
                .filter(|&slot| !(slot..slot + self.span).all(free))
                .count();
            assert_eq!(
                (usize::from(group.used), usize::from(group.broken)),
                (used, broken)
            );
            assert!(index >= self.partial_from || self.partial_free(index) == 0);
            assert!(index >= self.whole_from || broken as u64 == self.slots_per_group());
            free_blocks += GROUP - used as u64;
            free_slots += self.slots_per_group() - broken as u64;
        }
        assert_eq!(
            (self.free_blocks, self.free_slots),
            (free_blocks, free_slots)
        );
    }
}
