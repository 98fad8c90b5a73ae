//! What is asked of an image.

use super::super::compress::algorithm::Algorithm;
use super::super::compress::choice::{Choice, Compression, Fragments, Method};
use super::super::format::compressed::{BLOCK_COUNT, CLUSTER_MAX};
use super::space::MOST_BLOCKS;
use uuid::Uuid;

/// Blocks of a cluster that an index can tell.
const BLOCK_COUNT_MAX: u32 = BLOCK_COUNT as u32 - 1;

/// Bytes of clusters of inodes, if nothing else is asked for: larger ones save little, and
/// make looking at a single file slower.
const USUAL_CLUSTER: u32 = 4 << 10;

/// How an image is made.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Options {
    /// Bytes of a block: a power of two from 512 to 65,536.
    pub block_size: u32,
    /// Form of inodes.
    pub inodes: InodeForm,
    /// Whether block numbers have 48 bits and short inodes times of their own. An image
    /// that needs the former gets it all the same.
    pub bit48: bool,
    /// Bytes of a chunk, if all files come in chunks.
    pub chunk_size: Option<u64>,
    /// Whether chunks with the same contents are kept once; these have 4096 bytes at least.
    pub dedupe: bool,
    /// How files are compressed, if they are.
    pub compression: Option<Compression>,
    /// How inodes with what lies beside them are compressed, if they are: from Linux 6.17 on.
    /// Block numbers have 48 bits then.
    pub metadata: Option<Metadata>,
    /// Whether the ends of files lie beside their inodes where they fit.
    pub inline_tails: bool,
    /// At most 16 bytes.
    pub label: Vec<u8>,
    /// When the image was made, in seconds since 1970; the newest time of the tree if not
    /// given.
    pub build_time: Option<i64>,
    /// Attribute names that begin with one of these are kept without it.
    pub xattr_prefixes: Vec<Vec<u8>>,
    /// Whether attributes have filters of their names.
    pub xattr_filter: bool,
    /// Where the data of files goes.
    pub data: DataIn,
    /// Threads that write; 0 for as many as there are processors.
    pub threads: usize,
}

/// How inodes are compressed, together, as the contents of an inode called the metabox.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Metadata {
    /// By what.
    pub algorithm: Algorithm,
    /// Bytes of a physical cluster at most: a multiple of the block size. Whoever reads an
    /// inode reads and decompresses as much.
    pub cluster: u32,
}

impl Metadata {
    /// By `algorithm`, in clusters as they are usual in blocks of `block` bytes.
    pub fn new(algorithm: Algorithm, block: u32) -> Self {
        let cluster = block.max(USUAL_CLUSTER);
        Self { algorithm, cluster }
    }
}

/// Where the data of files goes; everything else lies in the image.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum DataIn {
    /// Into the image.
    Image,
    /// Into a second file, the image's only device besides itself, in chunks.
    Blob {
        /// What the image calls it: at most 64 bytes.
        tag: Vec<u8>,
    },
    /// Nowhere: it stays in the archive that the tree comes from, which becomes the image's
    /// only device besides itself. Blocks are those of the archive, 512 bytes.
    Archive {
        /// Bytes of the archive.
        bytes: u64,
    },
}

/// Form of inodes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum InodeForm {
    /// 32 bytes where nothing is lost, else 64.
    Auto,
    /// All of 32 bytes: times of their own are lost, what else does not fit is refused.
    Compact,
    /// All of 64 bytes.
    Extended,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            block_size: 4096,
            inodes: InodeForm::Auto,
            bit48: false,
            chunk_size: None,
            dedupe: false,
            compression: None,
            metadata: None,
            inline_tails: true,
            label: Vec::new(),
            build_time: None,
            xattr_prefixes: Vec::new(),
            xattr_filter: true,
            data: DataIn::Image,
            threads: 0,
        }
    }
}

/// An option that cannot be as it is.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{option}{}{value}: {reason}", if value.is_empty() { "" } else { " " })]
pub struct OptionError {
    /// Which, as it is called on the command line.
    pub option: &'static str,
    /// What it was.
    pub value: String,
    /// What is wrong with it and what it could be.
    pub reason: String,
}

impl OptionError {
    /// That `option` cannot be `value`.
    pub(crate) fn new(
        option: &'static str,
        value: impl ToString,
        reason: impl Into<String>,
    ) -> Self {
        Self {
            option,
            value: value.to_string(),
            reason: reason.into(),
        }
    }
}

impl Options {
    /// Logarithm of the block size.
    pub(crate) fn block_bits(&self) -> u32 {
        self.block_size.trailing_zeros()
    }

    /// Whether block numbers have 48 bits because of what was asked for.
    pub(crate) fn has_bit48(&self) -> bool {
        // Two bytes do not hold the number of a root in the metabox.
        self.bit48 || self.metadata.is_some()
    }

    /// Finds what cannot be before anything is read or written.
    ///
    /// # Errors
    /// The first option that cannot be as it is.
    pub fn check(&self) -> Result<(), OptionError> {
        if !self.block_size.is_power_of_two() || !(512..=65_536).contains(&self.block_size) {
            let reason = "must be a power of two from 512 to 65536";
            return Err(OptionError::new("--block-size", self.block_size, reason));
        }
        if self.label.len() > 16 {
            let (label, bytes) = (self.label.escape_ascii(), self.label.len());
            let reason = format!("has {bytes} bytes, at most 16 fit");
            return Err(OptionError::new("--label", label, reason));
        }
        self.check_data()?;
        self.check_compression()?;
        self.check_metadata()?;
        self.check_chunks()
    }

    fn check_compression(&self) -> Result<(), OptionError> {
        let Some(compression) = &self.compression else {
            return Ok(());
        };
        let with = with(compression);
        // Its chunks need not have been asked for.
        if let DataIn::Blob { .. } = self.data {
            let reason =
                "files go there in chunks, which are not compressed; leave one of both out";
            return Err(OptionError::new("--blob", with, reason));
        }
        if self.chunk_size.is_some() {
            let reason = "files in chunks are not compressed; leave one of both out";
            return Err(OptionError::new("--chunk-size", with, reason));
        }
        let rules = compression.rules.iter().filter_map(|rule| rule.cluster);
        for cluster in rules.chain([compression.cluster]) {
            self.check_cluster("--cluster-size", cluster)?;
        }
        Choice::new(compression)
            .map_err(|error| OptionError::new("--compress-rule", error.pattern, error.cause))?;
        Ok(())
    }

    fn check_cluster(&self, option: &'static str, cluster: u32) -> Result<(), OptionError> {
        let most = CLUSTER_MAX.min(BLOCK_COUNT_MAX * self.block_size);
        if cluster == 0 || !cluster.is_multiple_of(self.block_size) || cluster > most {
            let block = self.block_size;
            let reason =
                format!("clusters must be a multiple of a block, {block}, up to {most} bytes");
            return Err(OptionError::new(option, cluster, reason));
        }
        Ok(())
    }

    fn check_metadata(&self) -> Result<(), OptionError> {
        let Some(metadata) = self.metadata else {
            return Ok(());
        };
        let beside = |c: &Compression| c.inline_tails && c.fragments == Fragments::None;
        if self.compression.as_ref().is_some_and(beside) {
            let reason = "erofs-utils 1.9 does not find compressed ends of files beside compressed inodes; add --fragments";
            return Err(OptionError::new(
                "--ztailpacking",
                "with --metadata-compress",
                reason,
            ));
        }
        self.check_cluster("--metadata-compress", metadata.cluster)
    }

    fn check_data(&self) -> Result<(), OptionError> {
        match (&self.data, &self.compression) {
            (DataIn::Blob { tag }, _) if tag.len() > 64 => {
                let reason = format!("has {} bytes, at most 64 fit", tag.len());
                Err(OptionError::new("--blob-tag", tag.escape_ascii(), reason))
            }
            (DataIn::Archive { .. }, Some(compression)) => {
                let reason = "leaves files where they are: they cannot be compressed";
                Err(OptionError::new("--tar-index", with(compression), reason))
            }
            (DataIn::Blob { .. }, _) if self.chunk_size.is_none() => {
                let reason = "takes files in chunks only (--chunk-size)";
                Err(OptionError::new("--blob", "", reason))
            }
            (DataIn::Archive { .. }, _) if self.block_size != 512 || self.dedupe => {
                let reason = "needs --block-size 512, the archive's, and no --dedupe";
                Err(OptionError::new("--tar-index", "", reason))
            }
            (DataIn::Archive { bytes }, _) if bytes / 512 >= MOST_BLOCKS => {
                let reason = format!("the archive has {bytes} bytes, more than can be numbered");
                Err(OptionError::new("--tar-index", "", reason))
            }
            _ => Ok(()),
        }
    }

    fn check_chunks(&self) -> Result<(), OptionError> {
        let digested = super::chunks::DIGESTED;
        let plain = self.compression.is_none();
        if self.dedupe && plain && self.chunk_size.is_none_or(|chunk| chunk < digested) {
            let reason = format!("needs chunks of {digested} bytes or more (--chunk-size)");
            return Err(OptionError::new("--dedupe", "", reason));
        }
        let Some(chunk) = self.chunk_size else {
            return Ok(());
        };
        let block = u64::from(self.block_size);
        let most = block << super::super::format::chunk::format::BLOCK_BITS;
        if !chunk.is_power_of_two() || !(block..=most).contains(&chunk) {
            let reason = format!("must be a power of two from a block, {block}, to {most}");
            return Err(OptionError::new("--chunk-size", chunk, reason));
        }
        Ok(())
    }
}

/// The option that asked for compression.
fn with(compression: &Compression) -> &'static str {
    match compression.usual {
        Method::Plain => "with --compress-rule",
        _ => "with --compress",
    }
}

/// Identity that is given, or derived from what is called by it.
pub(crate) fn identity(given: Option<Uuid>, options: &Options, tree: &[u8; 32]) -> Uuid {
    use sha2::{Digest, Sha256};
    if let Some(uuid) = given {
        return uuid;
    }
    // By how many threads it is made, is nothing of the image.
    let options = Options {
        threads: 0,
        ..options.clone()
    };
    let mut digest = Sha256::new();
    digest.update(tree);
    digest.update(format!("erofs {options:?}"));
    uuid::Builder::from_custom_bytes(crate::digest::short(digest)).into_uuid()
}
