//! A pointer to a metadata block, as the code holds it.

use super::DiskPtr;

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

    /// Whether this points to nothing.
    #[must_use]
    pub const fn is_null(self) -> bool {
        self.block == 0
    }
}

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
