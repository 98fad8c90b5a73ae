//! Reading the bitmap's image back: recovery and the checker.
//!
//! Nothing is believed: every block is verified as itself (checksum, type,
//! address, store) and as the version that was meant (generation), the chain's
//! length and order follow from the store's size, and the image must say of its
//! own blocks that they are in use.

use std::ops::Range;

use zerocopy::transmute_ref;

use super::Allocator;
use crate::block::{BLOCK_SIZE, Block};
use crate::device::{BlockDevice, IoError};
use crate::format::bitmap::{
    BitmapDirectory, BitmapPage, DIRECTORY_ENTRIES, PAGE_BITS, PAGE_WORDS, directory_blocks_for,
};
use crate::format::{Damage, Kind, Ptr, verify};

/// Why the bitmap cannot be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LoadError {
    /// The device failed.
    #[error("cannot read block {block} of the allocation bitmap: {error}")]
    Read {
        /// The block.
        block: u64,
        /// What the device said.
        error: IoError,
    },
    /// The block is not what its pointer promised.
    #[error("allocation bitmap, block {block}: {damage}; run `csnapctl store check`")]
    Damaged {
        /// The block.
        block: u64,
        /// What is wrong with it.
        damage: Damage,
    },
}

/// Reads the image whose directory begins at `directory`, of a store of `blocks`
/// blocks with `chunk_blocks` blocks in a chunk: both as for [`Allocator::new`].
///
/// # Errors
/// [`LoadError`] with the first block that cannot be read or is damaged.
pub fn load(
    dev: &mut impl BlockDevice,
    store: u64,
    directory: Ptr,
    blocks: u64,
    chunk_blocks: u32,
) -> Result<Allocator, LoadError> {
    let mut own = Allocator::new(blocks, chunk_blocks);
    let mut reader = Reader {
        dev,
        store,
        blocks,
        buffer: Box::default(),
    };
    let mut at = directory;
    let chain = directory_blocks_for(own.durable.len() as u64) as usize;
    for index in 0..chain {
        let first = index * DIRECTORY_ENTRIES;
        let count = (own.durable.len() - first).min(DIRECTORY_ENTRIES);
        let part: &BitmapDirectory = transmute_ref!(reader.read(at, Kind::BitmapDirectory)?);
        check_directory(part, index, count, index + 1 == chain)
            .map_err(|what| damaged(at.block, what))?;
        own.directory.push(at.block);
        at = part.next.into();
        let entries: Vec<Ptr> = part
            .entries
            .iter()
            .take(count)
            .map(|&ptr| ptr.into())
            .collect();
        for (offset, entry) in entries
            .into_iter()
            .enumerate()
            .filter(|(_, ptr)| !ptr.is_null())
        {
            load_page(&mut own, &mut reader, first + offset, entry)?;
        }
    }
    check_own_blocks(&own)?;
    Ok(own)
}

fn damaged(block: u64, what: &'static str) -> LoadError {
    LoadError::Damaged {
        block,
        damage: Damage::Field(what),
    }
}

struct Reader<'a, D> {
    dev: &'a mut D,
    store: u64,
    blocks: u64,
    buffer: Box<Block>,
}

impl<D: BlockDevice> Reader<'_, D> {
    /// The verified block that `at` names.
    fn read(&mut self, at: Ptr, kind: Kind) -> Result<&[u8; BLOCK_SIZE], LoadError> {
        if at.is_null() || at.block >= self.blocks {
            return Err(damaged(
                at.block,
                "a pointer of the bitmap leads outside the store",
            ));
        }
        self.dev
            .read(at.block, std::slice::from_mut(&mut *self.buffer))
            .map_err(|error| LoadError::Read {
                block: at.block,
                error,
            })?;
        let damage = match verify(&self.buffer, kind, at.block, self.store) {
            Ok(header) if header.generation.get() == at.generation => return Ok(&self.buffer.0),
            Ok(_) => Damage::Generation,
            Err(damage) => damage,
        };
        Err(LoadError::Damaged {
            block: at.block,
            damage,
        })
    }
}

fn check_directory(
    part: &BitmapDirectory,
    index: usize,
    count: usize,
    last: bool,
) -> Result<(), &'static str> {
    if part.index.get() as usize != index {
        return Err("directory block out of order");
    }
    if part.count.get() as usize != count {
        return Err("directory block with a wrong number of entries");
    }
    if Ptr::from(part.next).is_null() != last {
        return Err("directory of a wrong length");
    }
    Ok(())
}

fn load_page<D: BlockDevice>(
    own: &mut Allocator,
    reader: &mut Reader<'_, D>,
    page: usize,
    at: Ptr,
) -> Result<(), LoadError> {
    let bits: &BitmapPage = transmute_ref!(reader.read(at, Kind::BitmapPage)?);
    let first = page as u64 * PAGE_BITS;
    if bits.first_bit.get() != first {
        return Err(damaged(at.block, "page of another part of the store"));
    }
    for (index, word) in bits.words.iter().enumerate() {
        let (start, word) = (first + index as u64 * 64, word.get());
        let room = own.blocks.saturating_sub(start).min(64) as u32;
        if word.checked_shr(room).unwrap_or(0) != 0 {
            return Err(damaged(at.block, "bits beyond the end of the store"));
        }
        if word != 0 {
            own.used.fill_word(page * PAGE_WORDS + index, word);
        }
    }
    own.durable
        .load(page, at, bits.words.iter().map(|word| word.get()));
    Ok(())
}

impl Allocator {
    /// A bitmap that calls a superblock or the journal free is not believed: what is
    /// allocated next would be written over them.
    pub(crate) fn check_fixed(&self, mut journal: Range<u64>) -> Result<(), LoadError> {
        let superblocks = [0, self.blocks.saturating_sub(1)];
        let free = superblocks
            .into_iter()
            .find(|&block| !self.is_durable(block))
            .or_else(|| journal.find(|&block| !self.is_durable(block)));
        match free {
            Some(block) => Err(damaged(
                block,
                "a superblock or of the journal, but free according to the bitmap",
            )),
            None => Ok(()),
        }
    }
}

/// Every block of the image is in use according to the image.
fn check_own_blocks(own: &Allocator) -> Result<(), LoadError> {
    match own.image_blocks().find(|&block| !own.is_durable(block)) {
        Some(block) => Err(damaged(block, "the bitmap says that its own block is free")),
        None => Ok(()),
    }
}
