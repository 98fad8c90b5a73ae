//! A pointer to a metadata block, in memory and on disk.

use zerocopy::little_endian::U64;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Where a metadata block lies and which version of it is meant. A block whose
/// header names another generation is a lost or stale write.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Ptr {
    /// The block. 0, where a superblock lies, stands for "nothing".
    pub block: u64,
    /// Generation of the checkpoint that wrote it.
    pub generation: u64,
}

impl Ptr {
    /// Points to nothing.
    pub const NULL: Self = Self {
        block: 0,
        generation: 0,
    };

    /// From stored bytes; null if they are too few.
    #[must_use]
    pub fn decode(bytes: &[u8]) -> Self {
        DiskPtr::read_from_prefix(bytes).map_or(Self::NULL, |(ptr, _)| ptr.into())
    }

    /// Whether this points to nothing.
    #[must_use]
    pub const fn is_null(self) -> bool {
        self.block == 0
    }
}

/// A [`Ptr`] as it is stored.
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
pub struct DiskPtr {
    /// [`Ptr::block`].
    pub block: U64,
    /// [`Ptr::generation`].
    pub generation: U64,
}

const _: () = assert!(size_of::<DiskPtr>() == 16);

impl From<Ptr> for DiskPtr {
    fn from(ptr: Ptr) -> Self {
        Self {
            block: ptr.block.into(),
            generation: ptr.generation.into(),
        }
    }
}

impl From<DiskPtr> for Ptr {
    fn from(ptr: DiskPtr) -> Self {
        Self {
            block: ptr.block.get(),
            generation: ptr.generation.get(),
        }
    }
}
