//! Room of the image, given out from its first byte to its last, and the refcounts of it.
//!
//! A refcount block that is full is written behind what filled it, once all uses of what it
//! counts are known ([`Space::settle`]), so that few blocks and the table are held.

use super::WriteError;
use crate::medium::Medium;
use crate::qcow2::format::RefcountWidth;
use std::collections::VecDeque;
use std::ops::Range;

pub(super) struct Space<'a> {
    medium: &'a dyn Medium,
    cluster_bits: u32,
    width: RefcountWidth,
    /// How often what is given out may be used again.
    uses: u64,
    /// The first byte that is free; all after it is.
    next: u64,
    /// Blocks that have no place yet, counting what follows those that do. The last is open.
    held: VecDeque<Vec<u8>>,
    /// Where the others are.
    blocks: Vec<u64>,
}

/// Where the refcount table lies.
pub(super) struct RefcountTable {
    pub(super) offset: u64,
    pub(super) clusters: u64,
}

impl<'a> Space<'a> {
    /// What is given out may be used `uses` times.
    pub(super) fn new(
        medium: &'a dyn Medium,
        cluster_bits: u32,
        width: RefcountWidth,
        uses: u64,
    ) -> Self {
        Self {
            medium,
            cluster_bits,
            width,
            uses,
            next: 0,
            held: VecDeque::new(),
            blocks: Vec::new(),
        }
    }

    const fn cluster(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// log2 of the clusters a block counts.
    const fn per_block_bits(&self) -> u32 {
        self.width.per_cluster_bits(self.cluster_bits)
    }

    /// Up to the next cluster nothing is written.
    fn align(&mut self) -> Result<(), WriteError> {
        let at = self.next.next_multiple_of(self.cluster());
        if at > self.next {
            self.medium.skip(self.next, at - self.next)?;
        }
        self.next = at;
        Ok(())
    }

    /// So many clusters in a row, each used once; the first byte.
    pub(super) fn clusters(&mut self, count: u64) -> Result<u64, WriteError> {
        self.align()?;
        let at = self.next;
        self.next = at + (count << self.cluster_bits);
        self.count(at..self.next);
        Ok(at)
    }

    /// Writes a table into clusters of its own; its byte.
    pub(super) fn table(&mut self, mut bytes: Vec<u8>) -> Result<u64, WriteError> {
        let clusters = (bytes.len() as u64).div_ceil(self.cluster());
        bytes.resize((clusters << self.cluster_bits) as usize, 0);
        let at = self.clusters(clusters)?;
        self.medium.write(at, &bytes)?;
        Ok(at)
    }

    /// So many bytes in a row, in clusters that others share.
    pub(super) fn bytes(&mut self, length: u64) -> Result<u64, WriteError> {
        let within = self.next & (self.cluster() - 1);
        let count = self.count_of(self.next >> self.cluster_bits);
        if within != 0 && (count + 1) * self.uses > self.width.most() {
            self.align()?;
        }
        let at = self.next;
        self.next += length;
        self.count(at..self.next);
        Ok(at)
    }

    /// The block that counts a cluster, if it has no place yet, and where in it.
    fn held(&mut self, cluster: u64) -> Option<(&mut Vec<u8>, usize)> {
        let within = cluster & ((1 << self.per_block_bits()) - 1);
        let index = (cluster >> self.per_block_bits()).checked_sub(self.blocks.len() as u64)?;
        Some((self.held.get_mut(index as usize)?, within as usize))
    }

    fn count_of(&mut self, cluster: u64) -> u64 {
        let width = self.width;
        let held = self.held(cluster);
        held.and_then(|(block, within)| width.get(block, within))
            .unwrap_or(0)
    }

    /// One more use of the clusters in which these bytes lie: new ones, or some that were
    /// given out since the last [`settle`](Self::settle).
    pub(super) fn count(&mut self, bytes: Range<u64>) {
        if bytes.is_empty() {
            return;
        }
        let (bits, width) = (self.cluster_bits, self.width);
        for cluster in bytes.start >> bits..=(bytes.end - 1) >> bits {
            let count = self.count_of(cluster) + 1;
            let blocks = (cluster >> self.per_block_bits()) as usize + 1;
            let held = blocks.saturating_sub(self.blocks.len());
            while self.held.len() < held {
                self.held.push_back(vec![0; 1 << bits]);
            }
            if let Some((block, within)) = self.held(cluster) {
                width.set(block, within, count);
            }
        }
    }

    /// What was given out is not used again: full blocks go where there is room next, which
    /// may fill others.
    pub(super) fn settle(&mut self) -> Result<(), WriteError> {
        while self.held.len() > 1
            && let Some(block) = self.held.front()
        {
            let at = self.next.next_multiple_of(self.cluster());
            // It counts clusters that came before it, so not itself.
            self.medium.write(at, block)?;
            self.align()?;
            self.held.pop_front();
            self.blocks.push(at);
            self.next = at + self.cluster();
            self.count(at..self.next);
        }
        Ok(())
    }

    /// Writes what is left to be counted, itself as well.
    pub(super) fn finish(mut self) -> Result<(RefcountTable, u64), WriteError> {
        self.settle()?;
        self.align()?;
        let first = self.next;
        let used = first >> self.cluster_bits;
        let per_block = 1u64 << self.per_block_bits();
        let placed = self.blocks.len() as u64;
        let (mut more, mut clusters) = (1, 1);
        loop {
            let blocks = (used + more + clusters).div_ceil(per_block);
            let needed = (blocks * 8).div_ceil(self.cluster());
            if (blocks - placed, needed) == (more, clusters) {
                break;
            }
            (more, clusters) = (more.max(blocks - placed), clusters.max(needed));
        }
        let offset = first + (more << self.cluster_bits);
        let end = offset + (clusters << self.cluster_bits);
        self.count(first..end);
        for block in &self.held {
            let at = first + ((self.blocks.len() as u64 - placed) << self.cluster_bits);
            self.medium.write(at, block)?;
            self.blocks.push(at);
        }
        let mut table: Vec<u8> = self.blocks.iter().flat_map(|at| at.to_be_bytes()).collect();
        table.resize((clusters << self.cluster_bits) as usize, 0);
        self.medium.write(offset, &table)?;
        Ok((RefcountTable { offset, clusters }, end))
    }
}
