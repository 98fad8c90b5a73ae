//! The superblock: identity, geometry, roots and journal position of a store.
//!
//! Two copies, in the first and in the last block of the store. Checkpoints
//! write them alternately (even generations first, odd generations last) with
//! FUA, after a flush of everything they name; the newest valid one wins. How a store
//! becomes larger, and the last one moves: `engine/extend.rs`.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::header::{Damage, Header, Kind, seal, verify};
use super::ptr::DiskPtr;
use crate::block::{BLOCK_SIZE, Block};
use crate::checksum::Checksum;

/// Format version this code writes.
pub const VERSION: u32 = 1;
/// Checksum algorithm id of CRC32C (Castagnoli).
pub const CRC32C: u32 = Checksum::Crc32c.id();
/// Checksum algorithm id of the low half of XXH3-64.
pub const XXH3: u32 = Checksum::Xxh3.id();
/// Smallest chunk in bytes.
pub const MIN_CHUNK: u32 = 4096;
/// Largest chunk in bytes.
pub const MAX_CHUNK: u32 = 1 << 20;
/// Fewest blocks in a journal.
pub const MIN_JOURNAL: u64 = 16;
/// Fewest blocks in a store: 1 MiB.
pub const MIN_BLOCKS: u64 = 256;
/// Most blocks in a store: its bytes can be counted in 63 bits, as devices count them.
pub const MAX_BLOCKS: u64 = 1 << 51;
/// Generations, sequences and tags stay below this: none can be counted up to it,
/// and adding to one never overflows.
pub const COUNT_LIMIT: u64 = 1 << 63;
/// Flag: the last stop was orderly and the journal is empty.
pub const FLAG_CLEAN: u32 = 1;

/// The root of one tree.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    FromBytes,
    IntoBytes,
    Immutable,
    KnownLayout,
    Unaligned,
)]
#[repr(C)]
pub struct DiskRoot {
    /// The root node.
    pub ptr: DiskPtr,
    /// Levels; 0: the tree is empty; 1: the root is a leaf.
    pub height: U16,
    /// Zero.
    pub reserved: [u8; 6],
    /// Nodes in all.
    pub nodes: U64,
    /// Leaves.
    pub leaves: U64,
    /// Records.
    pub records: U64,
}

/// A superblock, without the rest of its block (zero).
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct Superblock {
    /// [`VERSION`].
    pub version: U32,
    /// Bytes in a chunk.
    pub chunk_size: U32,
    /// Features an old reader may ignore. None yet.
    pub compat: U64,
    /// Features an old reader may read but not write. None yet.
    pub ro_compat: U64,
    /// Features an old reader must refuse. None yet.
    pub incompat: U64,
    /// Identity of the store; its first 8 bytes (little-endian) stand in every header.
    pub uuid: [u8; 16],
    /// Blocks in the store.
    pub blocks: U64,
    /// Unix time of creation in ms.
    pub created_ms: U64,
    /// First block of the journal ring.
    pub journal_first: U64,
    /// Blocks in the journal ring.
    pub journal_blocks: U64,
    /// Sequence of the first journal block not contained in this checkpoint.
    pub journal_tail: U64,
    /// CRC (header field) of the journal block before that one; 0 if none.
    pub journal_chain: U32,
    /// Checksum algorithm of copied-out data: [`CRC32C`] or [`XXH3`].
    pub checksum: U32,
    /// Next tag to be given to a take.
    pub next_tag: U64,
    /// Next number to be given to a volume.
    pub next_volume: U32,
    /// [`FLAG_CLEAN`].
    pub flags: U32,
    /// The directory of bitmap pages.
    pub bitmap: DiskPtr,
    /// Exceptions: (volume, chunk, tag).
    pub exceptions: DiskRoot,
    /// Eras: (volume, tag, chunk).
    pub eras: DiskRoot,
    /// The volume table.
    pub volumes: DiskRoot,
    /// The snapshot table.
    pub snapshots: DiskRoot,
    /// The sharing counters.
    pub sharing: DiskRoot,
}

const BODY: usize = size_of::<Header>();
const _: () = assert!(size_of::<DiskRoot>() == 48);
const _: () = assert!(size_of::<Superblock>() == 368);
const _: () = assert!(BODY + size_of::<Superblock>() <= BLOCK_SIZE);

/// What the header of every block of the store with this UUID carries.
#[must_use]
pub fn store_id(uuid: &[u8; 16]) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = *uuid;
    u64::from_le_bytes([a, b, c, d, e, f, g, h])
}

impl Superblock {
    /// The superblock as a block for address `at`.
    #[must_use]
    pub fn encode(&self, at: u64, generation: u64) -> Block {
        let mut block = Block::zeroed();
        block.0[BODY..BODY + size_of::<Self>()].copy_from_slice(self.as_bytes());
        seal(
            &mut block,
            Kind::Superblock,
            at,
            store_id(&self.uuid),
            generation,
        );
        block
    }

    /// Reads and verifies a superblock found at address `at`; returns its
    /// generation too.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn decode(block: &Block, at: u64) -> Result<(Self, u64), Damage> {
        let (this, _) = Self::read_from_prefix(&block.0[BODY..])
            .map_err(|_| Damage::Field("the superblock is too short"))?;
        let header = verify(block, Kind::Superblock, at, store_id(&this.uuid))?;
        this.validate(at)?;
        if header.generation.get() >= COUNT_LIMIT {
            return Err(Damage::Field("generation out of range"));
        }
        Ok((this, header.generation.get()))
    }

    /// Whether `block` at least claims to be a csnap superblock.
    #[must_use]
    pub fn has_magic(block: &Block) -> bool {
        super::header::header(block).kind.get() == Kind::Superblock as u32
    }

    fn validate(&self, at: u64) -> Result<(), Damage> {
        let fail = |what| Err(Damage::Field(what));
        if self.version.get() != VERSION {
            return fail("unknown format version: a newer csnap made this store");
        }
        if self.incompat.get() != 0 || self.ro_compat.get() != 0 {
            return fail("unknown features: a newer csnap made this store");
        }
        if Checksum::of_id(self.checksum.get()).is_none() {
            return fail("unknown checksum algorithm");
        }
        let chunk = self.chunk_size.get();
        if !chunk.is_power_of_two() || !(MIN_CHUNK..=MAX_CHUNK).contains(&chunk) {
            return fail("chunk size out of range");
        }
        let (first, ring, blocks) = (
            self.journal_first.get(),
            self.journal_blocks.get(),
            self.blocks.get(),
        );
        if !(MIN_BLOCKS..=MAX_BLOCKS).contains(&blocks) || at >= blocks {
            return fail("store size out of range");
        }
        let end = first.checked_add(ring);
        if first == 0 || ring < MIN_JOURNAL || end.is_none_or(|end| end >= blocks) {
            return fail("journal position out of range");
        }
        let counted = [self.next_tag.get(), self.journal_tail.get()];
        if counted.iter().any(|n| !(1..COUNT_LIMIT).contains(n)) {
            return fail("next tag or journal tail out of range");
        }
        if !(1..u32::MAX).contains(&self.next_volume.get()) {
            return fail("next volume out of range");
        }
        Ok(())
    }

    /// Where the superblock of `generation` lies.
    #[must_use]
    pub fn address(&self, generation: u64) -> u64 {
        if generation.is_multiple_of(2) {
            0
        } else {
            self.blocks.get() - 1
        }
    }

    /// What copied-out data is covered by. [`Self::decode`] refused what it does not
    /// know.
    #[must_use]
    pub fn data_checksum(&self) -> Checksum {
        Checksum::of_id(self.checksum.get()).unwrap_or_default()
    }

    /// Blocks in a chunk.
    #[must_use]
    pub fn chunk_blocks(&self) -> u32 {
        self.chunk_size.get() / BLOCK_SIZE as u32
    }
}
