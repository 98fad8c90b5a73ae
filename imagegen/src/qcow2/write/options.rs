//! What an image shall be, and what cannot be together.

use super::{Contents, PIECE, WriteError, header, whole_sectors};
use crate::medium::Source;
use crate::qcow2::format::{self, CompressionType, RefcountWidth, Width};
use crate::qcow2::open::{self, Format};
use crate::qcow2::provenance::Provenance;
use std::str::FromStr;

/// What an image shall be.
#[derive(Debug, Clone)]
pub struct Options {
    /// 2 or 3.
    pub version: u32,
    /// log2 of a cluster's bytes.
    pub cluster_bits: u32,
    /// Width of refcounts; 16 bits in version 2.
    pub refcounts: RefcountWidth,
    /// Entries with subclusters.
    pub extended: bool,
    /// Whether and how to compress.
    pub compression: Option<Compression>,
    /// The name of the file below, as it shall stand in the image, and its format. What is
    /// in no layer of the disk shows it.
    pub backing: Option<(String, Format)>,
    /// The name of the external data file, as it shall stand in the image: what the disk
    /// holds lies there, byte for byte.
    pub data_file: Option<String>,
    /// Of what the image is made, if it shall tell.
    pub provenance: Option<Provenance>,
    /// That read and compress; 0: as many as there are processors.
    pub threads: usize,
}

impl Default for Options {
    /// As `qemu-img create` has it.
    fn default() -> Self {
        Self {
            version: 3,
            cluster_bits: 16,
            refcounts: RefcountWidth::V2,
            extended: false,
            compression: None,
            backing: None,
            data_file: None,
            provenance: None,
            threads: 0,
        }
    }
}

/// How to compress.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Compression {
    /// By what.
    pub kind: CompressionType,
    /// How hard: deflate 0 to 9, zstd 1 to 22.
    pub level: i32,
}

/// Why text is no compression.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadCompression {
    /// No algorithm is called so.
    #[error("write zlib or zstd, with a level behind a comma if you like")]
    Name,
    /// It has no such level.
    #[error("levels of {name} are {lowest} to {highest}")]
    Level {
        /// The algorithm.
        name: &'static str,
        /// Its quickest level.
        lowest: i32,
        /// Its hardest level.
        highest: i32,
    },
}

impl FromStr for Compression {
    type Err = BadCompression;

    /// `zlib` or `zstd`, with a level as in `zstd,9`. Without: of zlib 9, which takes as
    /// long here as QEMU's 6, of zstd 3.
    fn from_str(text: &str) -> Result<Self, BadCompression> {
        let (name, level) = match text.split_once(',') {
            Some((name, level)) => (name, Some(level)),
            None => (text, None),
        };
        let (kind, name, levels, usual) = match name {
            "zlib" => (CompressionType::Deflate, "zlib", 0..=9, 9),
            "zstd" => (CompressionType::Zstd, "zstd", 1..=22, 3),
            _ => return Err(BadCompression::Name),
        };
        let wrong = BadCompression::Level {
            name,
            lowest: *levels.start(),
            highest: *levels.end(),
        };
        let level = match level {
            None => usual,
            Some(level) => {
                let level = level.parse().ok().filter(|level| levels.contains(level));
                level.ok_or(wrong)?
            }
        };
        Ok(Self { kind, level })
    }
}

impl Options {
    pub(super) const fn width(&self) -> Width {
        Width {
            cluster_bits: self.cluster_bits,
            extended: self.extended,
        }
    }

    pub(super) fn compression_type(&self) -> CompressionType {
        let kind = self.compression.map(|compression| compression.kind);
        kind.unwrap_or(CompressionType::Deflate)
    }

    /// Clusters of a piece.
    pub(super) fn piece(&self) -> u64 {
        (PIECE >> self.cluster_bits).max(1)
    }

    /// Whether an image of these contents can be like that.
    ///
    /// # Errors
    /// Why not.
    pub fn verify<S>(&self, contents: &Contents<'_, S>) -> Result<(), WriteError>
    where
        S: Source,
    {
        let now = whole_sectors(contents.disk.size());
        let sizes = || contents.versions.iter().map(|version| version.disk.size());
        let size = sizes().map(whole_sectors).fold(now, u64::max);
        let is_resized = sizes().any(|size| whole_sectors(size) != now);
        let versions = contents.versions.len() as u64;
        let flaw = self.flaw().or_else(|| {
            let tables = size.div_ceil(1 << self.width().table_bits());
            if tables * 8 > format::MOST_L1_BYTES {
                Some("the disk is too large for clusters so small")
            } else if size > i64::MAX as u64 {
                Some("the disk is larger than 2^63 bytes")
            } else if contents.most_uses() > self.refcounts.most() {
                Some("there are more snapshots than refcounts so narrow can count")
            } else if versions > format::MOST_SNAPSHOTS.into() {
                Some("there are more than 65,536 snapshots")
            } else if versions > 0 && self.data_file.is_some() {
                Some("an image with an external data file has no snapshots")
            } else if versions > 0 && contents.below.is_some() {
                Some("snapshots cannot be told from a backing file")
            } else if contents.below.is_some() && self.backing.is_none() {
                Some("what is compared with a backing file has one")
            } else if self.version == 2 && !contents.bitmaps.is_empty() {
                Some("version 2 has no bitmaps")
            } else if self.version == 2 && is_resized {
                Some("version 2 cannot say that a snapshot's disk has another size; take version 3")
            } else {
                None
            }
        });
        flaw.map_or(Ok(()), |text| Err(WriteError::Option(text)))?;
        header::fits(self, !contents.bitmaps.is_empty())
    }

    /// What contradicts each other.
    fn flaw(&self) -> Option<&'static str> {
        let least = match self.extended {
            true => format::LEAST_SUBCLUSTER_BITS,
            false => format::LEAST_CLUSTER_BITS,
        };
        let is_old = self.version == 2;
        Some(if !(2..=3).contains(&self.version) {
            "the version is 2 or 3"
        } else if !(least..=format::MOST_CLUSTER_BITS).contains(&self.cluster_bits) {
            "a cluster has 512 bytes to 2 MiB, and with subclusters 16 KiB or more"
        } else if is_old && self.refcounts != RefcountWidth::V2 {
            "version 2 has refcounts of 16 bits"
        } else if is_old && self.extended {
            "version 2 has no subclusters"
        } else if is_old && self.compression_type() != CompressionType::Deflate {
            "version 2 knows no compression but deflate"
        } else if is_old && self.data_file.is_some() {
            "version 2 has no external data file"
        } else if self.data_file.is_some() && self.compression.is_some() {
            "what lies in an external data file is not compressed"
        } else if self.data_file.is_some() && self.backing.is_some() {
            "an external data file holds all of the disk, so there is nothing below it"
        } else {
            return self.backing_flaw();
        })
    }

    /// Why no image can have this backing file.
    fn backing_flaw(&self) -> Option<&'static str> {
        let (name, _) = self.backing.as_ref()?;
        if name.is_empty() {
            Some("the name of the backing file is empty")
        } else if name.len() > format::MOST_BACKING_NAME as usize {
            Some("the name of the backing file has more than 1023 bytes; take a shorter path")
        } else {
            open::file_name(name).err()
        }
    }
}
