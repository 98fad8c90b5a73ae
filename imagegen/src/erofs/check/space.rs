//! Who uses which bytes, and whether compressed clusters give what they should.
//!
//! Bytes may be shared by chunks with chunks, and by the same cluster with itself where
//! the image is deduplicated. Anything else that overlaps is a finding, and what overlaps
//! is not decoded: so the work is bounded by the bytes that there are.

use super::problem::{Kind, Problems};
use crate::erofs::format::superblock::incompat;
use crate::erofs::read::{Area, Coding, Device, Extent, Image, Nid, Where};
use crate::medium::Source;
use crate::tree::Progress;
use std::sync::atomic::Ordering;

/// Bytes and what for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    /// Which device; none for the metabox.
    pub(super) device: Option<Device>,
    pub(super) begin: u64,
    pub(super) end: u64,
    pub(super) used: Use,
    pub(super) nid: u64,
    /// Where in the inode's contents.
    pub(super) offset: u64,
}

/// What bytes are used for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Use {
    /// An inode with attributes and map.
    Metadata,
    /// Contents of a flat inode.
    Blocks,
    /// A chunk.
    Chunk,
    /// A cluster of a compressed inode that is not compressed.
    Stored,
    /// A compressed cluster.
    Cluster {
        coding: Coding,
        length: u64,
        partial: bool,
    },
}

/// All pieces.
#[derive(Debug, Default)]
pub(super) struct Space {
    pieces: Vec<Piece>,
    /// Extents on devices that were not given.
    pub(super) unseen: u64,
}

impl Piece {
    /// Whether both may use the same bytes; they overlap.
    fn may_share(&self, other: &Self, dedupe: bool) -> bool {
        let same = (self.begin, self.end) == (other.begin, other.end);
        match (self.used, other.used) {
            (Use::Chunk, Use::Chunk) => true,
            (Use::Stored, Use::Stored) => dedupe && same,
            (Use::Cluster { coding: one, .. }, Use::Cluster { coding: two, .. }) => {
                dedupe && same && one == two
            }
            _ => false,
        }
    }

    fn overlaps(&self, other: &Self) -> bool {
        self.device == other.device && self.begin < other.end && other.begin < self.end
    }
}

impl Space {
    pub(super) fn add(&mut self, piece: Piece) {
        if piece.begin < piece.end {
            self.pieces.push(piece);
        }
    }

    /// Finds overlaps, and decodes every cluster once; returns how many bytes they gave.
    pub(super) fn check<S: Source>(
        mut self,
        image: &Image<S>,
        problems: &mut Problems,
        progress: &Progress,
    ) -> u64 {
        let dedupe = image.superblock().has(incompat::DEDUPE);
        // The longest use of a cluster comes first: its bytes are all others'.
        self.pieces.sort_unstable_by_key(|piece| {
            let length = match piece.used {
                Use::Cluster { length, .. } => length,
                _ => 0,
            };
            let order = std::cmp::Reverse((piece.end, length));
            (piece.device, piece.begin, order, piece.nid, piece.offset)
        });
        let mut decoded = 0;
        let mut last: Option<Piece> = None;
        for piece in self.pieces {
            let furthest = last.filter(|last| last.overlaps(&piece));
            match furthest {
                Some(other) if !piece.may_share(&other, dedupe) => {
                    overlap(&piece, &other, problems);
                }
                // The same cluster: decoded with the longest use of it.
                Some(_) => {}
                None => decoded += decode(image, &piece, problems, progress),
            }
            let longer = |last: &Piece| last.device == piece.device && last.end >= piece.end;
            if !last.as_ref().is_some_and(longer) {
                last = Some(piece);
            }
        }
        decoded
    }
}

fn overlap(piece: &Piece, other: &Piece, problems: &mut Problems) {
    let place = match piece.device {
        Some(device) => format!("of {device}"),
        None => "of the metabox".into(),
    };
    let text = format!(
        "bytes {} to {} {place} ({}) are used by inode {} too, bytes {} to {} ({})",
        piece.begin,
        piece.end,
        word(piece.used),
        Nid(other.nid),
        other.begin,
        other.end,
        word(other.used),
    );
    problems.inode(Kind::Space, piece.nid, text);
}

fn word(used: Use) -> &'static str {
    match used {
        Use::Metadata => "inode",
        Use::Blocks => "contents",
        Use::Chunk => "chunk",
        Use::Stored | Use::Cluster { .. } => "cluster",
    }
}

fn decode<S: Source>(
    image: &Image<S>,
    piece: &Piece,
    problems: &mut Problems,
    progress: &Progress,
) -> u64 {
    let Use::Cluster {
        coding,
        length,
        partial,
    } = piece.used
    else {
        return 0;
    };
    let stored = piece.end - piece.begin;
    let extent = Extent {
        offset: piece.offset,
        length,
        place: match piece.device {
            Some(device) => Where::Device(device, piece.begin, stored),
            None => Where::Metadata(Area::Metabox, piece.begin, stored),
        },
        coding,
        partial,
    };
    let decoded = image
        .inode(piece.nid)
        .and_then(|inode| image.decode(&inode, &extent));
    match decoded {
        Ok(decoded) => {
            // Without the feature LZ4 data stands at the beginning, anything after it.
            let told = coding != Coding::Lz4 || image.superblock().has(incompat::LZ4_0PADDING);
            if told && !decoded.ended && !partial {
                let text = format!(
                    "offset {}: the cluster at byte {} gives more than its {length} bytes",
                    piece.offset, piece.begin
                );
                problems.inode(Kind::Contents, piece.nid, text);
            }
            progress.data.fetch_add(length, Ordering::Relaxed);
            length
        }
        Err(error) => {
            problems.read(Kind::Contents, piece.nid, &error);
            0
        }
    }
}
