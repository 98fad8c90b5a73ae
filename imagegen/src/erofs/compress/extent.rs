//! A compressed file as a list of extents.

/// What an extent's bytes are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// The file's own.
    Plain,
    /// Compressed by the file's first algorithm.
    First,
    /// By its second.
    Second,
}

/// A part of a file, and the physical cluster that it is decoded from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// Bytes of the file; it begins where the one before it ends.
    pub length: u32,
    /// Bytes of the cluster.
    pub size: u32,
    /// Where the cluster lies in the image, in bytes.
    pub at: u64,
    /// What it holds.
    pub kind: Kind,
    /// The cluster holds more than the extent, which is its beginning.
    pub partial: bool,
}

/// What comes after a file's extents.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Tail {
    /// Nothing.
    None,
    /// A last extent whose bytes lie behind the index.
    Inline {
        /// Bytes of the file.
        length: u32,
        /// Bytes behind the index, at most a block's.
        size: u16,
        /// What they are.
        kind: Kind,
    },
    /// Bytes that are found in the packed inode.
    Fragment {
        /// Bytes of the file.
        length: u64,
        /// Where they lie in the packed inode.
        at: u64,
    },
}

impl Tail {
    /// Bytes of the file.
    pub fn length(&self) -> u64 {
        match *self {
            Self::None => 0,
            Self::Inline { length, .. } => length.into(),
            Self::Fragment { length, .. } => length,
        }
    }
}

/// A file as an index tells it. No two extents may begin in the same logical cluster,
/// which is as large as a block, except with encoded extents.
#[derive(Debug, Clone, Copy)]
pub struct FileMap<'a> {
    /// From the file's beginning.
    pub extents: &'a [Extent],
    /// The rest.
    pub tail: Tail,
    /// Numbers of the first and the second algorithm.
    pub algorithms: [u8; 2],
    /// Clusters may have more than a block.
    pub big: bool,
    /// Plain clusters begin in the middle of their block where the file does, and wrap.
    pub interlaced: bool,
}

impl FileMap<'_> {
    /// Bytes of the file.
    pub fn size(&self) -> u64 {
        let extents: u64 = self.extents.iter().map(|e| u64::from(e.length)).sum();
        extents + self.tail.length()
    }
}
