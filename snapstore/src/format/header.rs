//! The header every metadata block begins with.
//!
//! A block identifies itself: it says what it is, which store it belongs to,
//! where it lies and when it was written, and its CRC32C covers all its bytes
//! but the checksum itself. A block that is misdirected, stale, foreign or torn
//! is therefore an error and never data.

use zerocopy::little_endian::{U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use crate::block::{BLOCK_SIZE, Block};

/// What a metadata block holds.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u32)]
pub enum Kind {
    /// A superblock.
    Superblock = u32::from_le_bytes(*b"CSsb"),
    /// A journal block.
    Journal = u32::from_le_bytes(*b"CSjl"),
    /// A page of the allocation bitmap.
    BitmapPage = u32::from_le_bytes(*b"CSbm"),
    /// A block of the directory of bitmap pages.
    BitmapDirectory = u32::from_le_bytes(*b"CSbd"),
    /// A node of the exception tree: (volume, chunk, tag).
    ExceptionNode = u32::from_le_bytes(*b"CSex"),
    /// A node of the era tree: (volume, tag, chunk).
    EraNode = u32::from_le_bytes(*b"CSer"),
    /// A node of the volume table.
    VolumeNode = u32::from_le_bytes(*b"CSvo"),
    /// A node of the snapshot table.
    SnapshotNode = u32::from_le_bytes(*b"CSsn"),
    /// A node of the sharing counters: (volume, last snapshot, first snapshot).
    SharingNode = u32::from_le_bytes(*b"CSsh"),
}

impl Kind {
    /// Every kind, in the order of `docs/format.md`.
    pub const ALL: [Self; 9] = [
        Self::Superblock,
        Self::Journal,
        Self::BitmapPage,
        Self::BitmapDirectory,
        Self::ExceptionNode,
        Self::EraNode,
        Self::VolumeNode,
        Self::SnapshotNode,
        Self::SharingNode,
    ];
}

/// The first 32 bytes of every metadata block.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Header {
    /// CRC32C (Castagnoli) of bytes 4..4096.
    pub crc: U32,
    /// A [`Kind`].
    pub kind: U32,
    /// Where the block lies, in blocks of 4 KiB from the start of the store.
    pub block: U64,
    /// Low 64 bits of the store's UUID.
    pub store: U64,
    /// Generation of the checkpoint that wrote it (journal: see the journal).
    pub generation: U64,
}

const _: () = assert!(size_of::<Header>() == HEADER_LEN);

/// Bytes of [`Header`].
pub const HEADER_LEN: usize = 32;

/// Why a block is not what it should be.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Damage {
    /// The checksum does not match.
    #[error("checksum mismatch")]
    Checksum,
    /// Another kind of block.
    #[error("wrong block type")]
    Kind,
    /// The block says it lies elsewhere: a misdirected write or read.
    #[error("the block belongs to another address")]
    Address,
    /// The block belongs to another store.
    #[error("the block belongs to another store")]
    Store,
    /// An older or newer version than its pointer names: a lost write.
    #[error("the block is of another generation than its pointer")]
    Generation,
    /// A field makes no sense.
    #[error("{0}")]
    Field(&'static str),
}

/// Fills in the header of `block` and its checksum: the last thing before it is
/// written.
pub fn seal(block: &mut Block, kind: Kind, at: u64, store: u64, generation: u64) {
    let header = Header {
        crc: U32::ZERO,
        kind: (kind as u32).into(),
        block: at.into(),
        store: store.into(),
        generation: generation.into(),
    };
    block.0[..HEADER_LEN].copy_from_slice(header.as_bytes());
    let crc = crc32c::crc32c(&block.0[4..]);
    block.0[..4].copy_from_slice(&crc.to_le_bytes());
}

/// Verifies checksum, kind, address and store; returns the header.
///
/// # Errors
/// The first thing that is wrong.
pub fn verify(block: &Block, kind: Kind, at: u64, store: u64) -> Result<Header, Damage> {
    let header = header(block);
    if header.crc.get() != crc32c::crc32c(&block.0[4..]) {
        return Err(Damage::Checksum);
    }
    if header.kind.get() != kind as u32 {
        return Err(Damage::Kind);
    }
    if header.store.get() != store {
        return Err(Damage::Store);
    }
    if header.block.get() != at {
        return Err(Damage::Address);
    }
    Ok(header)
}

/// The header as it stands, unverified.
#[must_use]
pub fn header(block: &Block) -> Header {
    // A block is longer than a header, so the read cannot fail.
    Header::read_from_prefix(&block.0).map_or(Header::ZERO, |(header, _)| header)
}

impl Header {
    /// What the block says it holds, if that is known.
    #[must_use]
    pub fn kind(&self) -> Option<Kind> {
        let mut all = Kind::ALL.into_iter();
        all.find(|kind| *kind as u32 == self.kind.get())
    }

    const ZERO: Self = Self {
        crc: U32::ZERO,
        kind: U32::ZERO,
        block: U64::ZERO,
        store: U64::ZERO,
        generation: U64::ZERO,
    };
}

const _: () = assert!(HEADER_LEN < BLOCK_SIZE);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_flipped_bit_is_seen() {
        let mut block = Block::zeroed();
        block.0[100] = 7;
        seal(&mut block, Kind::EraNode, 5, 9, 3);
        assert_eq!(
            verify(&block, Kind::EraNode, 5, 9)
                .unwrap()
                .generation
                .get(),
            3
        );
        assert_eq!(
            verify(&block, Kind::Journal, 5, 9).unwrap_err(),
            Damage::Kind
        );
        assert_eq!(
            verify(&block, Kind::EraNode, 6, 9).unwrap_err(),
            Damage::Address
        );
        assert_eq!(
            verify(&block, Kind::EraNode, 5, 8).unwrap_err(),
            Damage::Store
        );
        for bit in 0..BLOCK_SIZE * 8 {
            block.0[bit / 8] ^= 1 << (bit % 8);
            assert_eq!(
                verify(&block, Kind::EraNode, 5, 9).unwrap_err(),
                Damage::Checksum
            );
            block.0[bit / 8] ^= 1 << (bit % 8);
        }
    }
}
