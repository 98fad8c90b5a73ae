//! Data blocks: entries one after the other, each in the first block with room after the
//! block before it was full, and what is left at a block's end as one unused space
//! (`xfs_dir2_data.c`).

use super::leaf::Index;
use super::{BlockTail, DataHeader, LeafEntry};
use crate::xfs::format::U16;
use crate::xfs::format::dir::{ADDRESS_UNIT, BestFree, CRC_AT, FREE_TAG, magic};
use crate::xfs::write::output::{Output, put};

/// Bytes of an entry besides its name: number, length, kind, own offset.
const ENTRY_OVERHEAD: usize = 8 + 1 + 1 + 2;
/// Where an entry's name begins.
const NAME_AT: usize = 9;

/// Bytes of an entry whose name has `length` bytes (`xfs_dir2_data_entsize`).
pub(super) fn entry_size(length: usize) -> usize {
    (ENTRY_OVERHEAD + length).next_multiple_of(ADDRESS_UNIT as usize)
}

/// All data blocks of a directory, their headers still empty.
#[derive(Debug)]
pub(super) struct Data {
    block_size: usize,
    /// Each as long as it is filled.
    blocks: Vec<Vec<u8>>,
}

/// An entry in a data block.
pub(super) struct Entry<'a> {
    /// Its place in its block, in bytes.
    pub(super) at: usize,
    pub(super) name: &'a [u8],
    pub(super) ino: u64,
    pub(super) file_type: u8,
}

impl Data {
    pub(super) fn new(block_size: usize) -> Self {
        let first = vec![0; size_of::<DataHeader>()];
        Self {
            block_size,
            blocks: vec![first],
        }
    }

    /// Adds an entry whose name has 1 to 255 bytes.
    pub(super) fn push(&mut self, name: &[u8], ino: u64, file_type: u8) {
        let size = entry_size(name.len());
        let block_size = self.block_size;
        let block = match self.blocks.pop() {
            Some(last) if last.len() + size <= block_size => last,
            full => {
                self.blocks.extend(full);
                let mut block = Vec::with_capacity(block_size);
                block.resize(size_of::<DataHeader>(), 0);
                block
            }
        };
        self.blocks.push(with_entry(block, name, ino, file_type));
    }

    /// Data blocks.
    pub(super) fn count(&self) -> usize {
        self.blocks.len()
    }

    /// Bytes of all blocks.
    pub(super) fn bytes(&self) -> u64 {
        self.blocks.len() as u64 * self.block_size as u64
    }

    /// The entries of block `block`, in order.
    pub(super) fn entries(&self, block: usize) -> impl Iterator<Item = Entry<'_>> {
        let mut at = size_of::<DataHeader>();
        let bytes = &self.blocks[block];
        std::iter::from_fn(move || {
            let entry = (at < bytes.len()).then(|| read(bytes, at))?;
            at += entry_size(entry.name.len());
            Some(entry)
        })
    }

    /// The entry at `address`, which is in units of [`ADDRESS_UNIT`].
    pub(super) fn entry(&self, address: u32) -> Entry<'_> {
        let byte = u64::from(address) * ADDRESS_UNIT;
        let size = self.block_size as u64;
        read(&self.blocks[(byte / size) as usize], (byte % size) as usize)
    }

    /// The address of what lies at `at` in block `block`.
    pub(super) fn address(&self, block: usize, at: usize) -> u32 {
        ((block as u64 * self.block_size as u64 + at as u64) / ADDRESS_UNIT) as u32
    }

    /// Whether all fits into one block together with `entries` leaf entries.
    pub(super) fn is_one_block_with(&self, entries: usize) -> bool {
        self.blocks.len() == 1 && self.blocks[0].len() <= leaf_at(self.block_size, entries)
    }

    /// The longest unused space of each block, in bytes.
    pub(super) fn longest_free(&self) -> impl ExactSizeIterator<Item = u16> {
        self.blocks
            .iter()
            .map(|block| (self.block_size - block.len()) as u16)
    }

    /// Hands out all blocks of a directory whose leaves lie elsewhere.
    pub(super) fn encode(&self, output: &mut Output<'_>) {
        let unit = output.geometry.dir_block_blocks();
        for (index, filled) in self.blocks.iter().enumerate() {
            let offset = index as u64 * unit;
            let mut block = self.block(magic::DATA, offset, filled, self.block_size, output);
            output.write(offset, &mut block, CRC_AT);
        }
    }

    /// Hands out the only block, with the leaf at its end.
    pub(super) fn encode_with_leaf(&self, index: &Index, output: &mut Output<'_>) {
        let mut at = leaf_at(self.block_size, index.len());
        let mut block = self.block(magic::BLOCK, 0, &self.blocks[0], at, output);
        for entry in index.entries(0..index.len()) {
            put(&mut block, at, &entry);
            at += size_of::<LeafEntry>();
        }
        let tail = BlockTail {
            count: (index.len() as u32).into(),
            stale: 0.into(),
        };
        put(&mut block, at, &tail);
        output.write(0, &mut block, CRC_AT);
    }

    /// A whole block with header, and the unused space from what is filled up to `end`.
    fn block(
        &self,
        kind: u32,
        offset: u64,
        filled: &[u8],
        end: usize,
        out: &Output<'_>,
    ) -> Vec<u8> {
        let mut block = filled.to_vec();
        block.resize(self.block_size, 0);
        let begin = filled.len();
        let mut header = DataHeader {
            block: out.block_header(kind, offset),
            ..DataHeader::default()
        };
        if begin < end {
            header.best_free[0] = BestFree {
                offset: (begin as u16).into(),
                length: ((end - begin) as u16).into(),
            };
            put(&mut block, begin, &U16::new(FREE_TAG));
            put(&mut block, begin + 2, &U16::new((end - begin) as u16));
            put(&mut block, end - 2, &U16::new(begin as u16));
        }
        put(&mut block, 0, &header);
        block
    }
}

/// Where the leaf of a directory of one block begins.
fn leaf_at(block_size: usize, entries: usize) -> usize {
    let leaf = entries * size_of::<LeafEntry>() + size_of::<BlockTail>();
    block_size.saturating_sub(leaf)
}

fn with_entry(mut block: Vec<u8>, name: &[u8], ino: u64, file_type: u8) -> Vec<u8> {
    let at = block.len();
    block.extend(ino.to_be_bytes());
    block.push(name.len() as u8);
    block.extend(name);
    block.push(file_type);
    let end = at + entry_size(name.len());
    block.resize(end - 2, 0);
    block.extend((at as u16).to_be_bytes());
    block
}

fn read(bytes: &[u8], at: usize) -> Entry<'_> {
    let length = usize::from(bytes[at + 8]);
    let name_end = at + NAME_AT + length;
    let mut ino = [0; 8];
    ino.copy_from_slice(&bytes[at..at + 8]);
    Entry {
        at,
        name: &bytes[at + NAME_AT..name_end],
        ino: u64::from_be_bytes(ino),
        file_type: bytes[name_end],
    }
}
