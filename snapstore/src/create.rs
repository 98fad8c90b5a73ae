//! Making a store: an empty checkpoint of generation 1 in both superblocks.

use crate::alloc::Allocator;
use crate::block::{BLOCK_SIZE, Block};
use crate::checksum::Checksum;
use crate::device::BlockDevice;
use crate::format::superblock::{
    DiskRoot, FLAG_CLEAN, MAX_CHUNK, MIN_BLOCKS, MIN_CHUNK, MIN_JOURNAL, Superblock, VERSION,
    store_id,
};
use crate::recover::OpenError;

/// Largest journal chosen by default: 64 MiB.
const MAX_DEFAULT_JOURNAL: u64 = 16384;
/// By default one block in this many is journal.
const JOURNAL_SHARE: u64 = 64;
/// The journal begins behind the first superblock.
const JOURNAL_FIRST: u64 = 1;

/// How a store is made.
#[derive(Clone, Debug)]
pub struct CreateOptions {
    /// Identity of the store.
    pub uuid: [u8; 16],
    /// Bytes in a chunk: a power of two, 4 KiB to 1 MiB.
    pub chunk_size: u32,
    /// What covers the data copied to it; for as long as the store exists.
    pub checksum: Checksum,
    /// Unix time in ms.
    pub created_ms: u64,
    /// Blocks in the journal; `None` chooses by the store's size.
    pub journal_blocks: Option<u64>,
}

/// Writes an empty store over `dev`. Whatever it held is gone: the caller has
/// looked for signatures first.
///
/// # Errors
/// A chunk size or device size out of range, or what the device reported.
pub fn create(dev: &mut impl BlockDevice, options: &CreateOptions) -> Result<(), OpenError> {
    let blocks = dev.blocks();
    let journal = check(blocks, options)?;
    // No block of an older store of the same UUID may look like this one's journal.
    wipe_journal(dev, journal)?;
    let store = store_id(&options.uuid);
    let chunk_blocks = options.chunk_size / BLOCK_SIZE as u32;
    let mut alloc = Allocator::new(blocks, chunk_blocks);
    for (block, count) in [(0, JOURNAL_FIRST + journal), (blocks - 1, 1)] {
        alloc
            .mark_used(block, count)
            .map_err(|e| OpenError::Invalid(e.to_string()))?;
        alloc.claim(block, count);
    }
    let image = alloc
        .image(store, 1)
        .map_err(|e| OpenError::Invalid(e.to_string()))?;
    for (block, data) in &image.writes {
        write(dev, *block, data, "bitmap")?;
    }
    let superblock = Superblock {
        version: VERSION.into(),
        chunk_size: options.chunk_size.into(),
        compat: 0.into(),
        ro_compat: 0.into(),
        incompat: 0.into(),
        uuid: options.uuid,
        blocks: blocks.into(),
        created_ms: options.created_ms.into(),
        journal_first: JOURNAL_FIRST.into(),
        journal_blocks: journal.into(),
        journal_tail: 1.into(),
        journal_chain: 0.into(),
        checksum: options.checksum.id().into(),
        next_tag: 1.into(),
        next_volume: 1.into(),
        flags: FLAG_CLEAN.into(),
        bitmap: image.directory.into(),
        exceptions: DiskRoot::default(),
        eras: DiskRoot::default(),
        volumes: DiskRoot::default(),
        snapshots: DiskRoot::default(),
        sharing: DiskRoot::default(),
    };
    flush(dev)?;
    // The same generation in both places: either may be lost at once.
    for at in [blocks - 1, 0] {
        write(dev, at, &superblock.encode(at, 1), "superblock")?;
        flush(dev)?;
    }
    Ok(())
}

/// Checks the options; returns the journal's size.
fn check(blocks: u64, options: &CreateOptions) -> Result<u64, OpenError> {
    let chunk = options.chunk_size;
    if !chunk.is_power_of_two() || !(MIN_CHUNK..=MAX_CHUNK).contains(&chunk) {
        return Err(OpenError::Invalid(format!(
            "a chunk must be a power of two from 4 KiB to 1 MiB, not {chunk} bytes"
        )));
    }
    let default = (blocks / JOURNAL_SHARE).clamp(MIN_JOURNAL, MAX_DEFAULT_JOURNAL);
    let journal = options.journal_blocks.unwrap_or(default);
    let chunk_blocks = u64::from(chunk) / BLOCK_SIZE as u64;
    let least = MIN_BLOCKS.max(journal.saturating_add(32 * chunk_blocks).saturating_add(64));
    if blocks < least {
        return Err(OpenError::Invalid(format!(
            "the device holds {blocks} blocks of 4 KiB; a store with this chunk size and journal needs at least {least}"
        )));
    }
    if journal < MIN_JOURNAL {
        return Err(OpenError::Invalid(format!(
            "a journal needs at least {MIN_JOURNAL} blocks, not {journal}"
        )));
    }
    Ok(journal)
}

fn wipe_journal(dev: &mut impl BlockDevice, journal: u64) -> Result<(), OpenError> {
    const PIECE: u64 = 256;
    let zeroes = vec![Block::zeroed(); PIECE as usize];
    let mut at = 0;
    // The first superblock too: until the end this is no store at all.
    while at < JOURNAL_FIRST + journal {
        let count = PIECE.min(JOURNAL_FIRST + journal - at);
        dev.write(at, zeroes.get(..count as usize).unwrap_or(&zeroes))
            .map_err(|error| OpenError::Device {
                what: "journal",
                error,
            })?;
        at += count;
    }
    write(dev, dev.blocks() - 1, &Block::zeroed(), "superblock")?;
    flush(dev)
}

fn write(
    dev: &mut impl BlockDevice,
    at: u64,
    block: &Block,
    what: &'static str,
) -> Result<(), OpenError> {
    dev.write(at, std::slice::from_ref(block))
        .map_err(|error| OpenError::Device { what, error })
}

fn flush(dev: &mut impl BlockDevice) -> Result<(), OpenError> {
    dev.flush().map_err(|error| OpenError::Device {
        what: "store",
        error,
    })
}
