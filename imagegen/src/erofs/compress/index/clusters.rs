//! A map by logical clusters, as both forms of indexes tell it: each either has the
//! beginning of an extent, its head, or is a later part of one.

use super::{Form, IndexError};
use crate::erofs::compress::extent::{FileMap, Kind, Tail};

/// A logical cluster, one block of the file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Cluster {
    /// An extent begins here.
    Head {
        kind: Kind,
        /// Where in the logical cluster, in bytes.
        offset: u16,
        place: Place,
        partial: bool,
    },
    /// None begins here.
    Rest {
        /// Logical clusters to the head before.
        back: u32,
        /// To the next, or to the end.
        forward: u32,
        /// In the first after a head: blocks of its physical cluster.
        blocks: Option<u32>,
    },
    /// The last one, in which the file ends and no extent begins.
    End {
        /// Where, in bytes.
        offset: u16,
    },
}

/// Where a head's data lies.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// In blocks.
    Blocks {
        /// The first.
        first: u32,
        /// How many.
        count: u32,
    },
    /// Behind the index.
    Inline,
    /// In the packed inode, at a byte of which these are the upper bits.
    Fragment { high: u32 },
}

/// One extent or the tail.
#[derive(Clone, Copy)]
struct Piece {
    length: u64,
    kind: Kind,
    place: Place,
    partial: bool,
}

/// Calls `each` for every logical cluster of `map`, in order.
pub(super) fn each(
    map: &FileMap<'_>,
    form: Form,
    mut each: impl FnMut(Cluster),
) -> Result<(), IndexError> {
    let bits = form.block_bits;
    let mask = (1 << bits) - 1;
    let mut at = 0;
    let size = map.size();
    for piece in pieces(map, form) {
        let piece = piece?;
        let offset = at & mask;
        let spanned = (offset + piece.length) >> bits;
        if spanned == 0 && at + piece.length != size {
            return Err(IndexError::Crowded(at));
        }
        each(Cluster::Head {
            kind: piece.kind,
            offset: offset as u16, // below the block size
            place: piece.place,
            partial: piece.partial,
        });
        for back in 1..spanned {
            each(Cluster::Rest {
                back: u32::try_from(back).map_err(|_| IndexError::Number(at))?,
                forward: u32::try_from(spanned - back).map_err(|_| IndexError::Number(at))?,
                blocks: (back == 1).then(|| piece.place.blocks()),
            });
        }
        at += piece.length;
        if at == size && spanned > 0 && at & mask != 0 {
            each(Cluster::End {
                offset: (at & mask) as u16,
            });
        }
    }
    Ok(())
}

fn pieces(map: &FileMap<'_>, form: Form) -> impl Iterator<Item = Result<Piece, IndexError>> {
    let bits = form.block_bits;
    let blocks = map.extents.iter().map(move |extent| {
        let first = u32::try_from(extent.at >> bits).map_err(|_| IndexError::Number(extent.at))?;
        Ok(Piece {
            length: extent.length.into(),
            kind: extent.kind,
            place: Place::Blocks {
                first,
                count: extent.size >> bits,
            },
            partial: extent.partial,
        })
    });
    let tail = match map.tail {
        Tail::None => None,
        Tail::Inline { length, kind, .. } => Some((length.into(), kind, Place::Inline)),
        Tail::Fragment { length, at } => {
            let high = (at >> 32) as u32;
            Some((length, Kind::First, Place::Fragment { high }))
        }
    };
    blocks.chain(tail.into_iter().map(|(length, kind, place)| {
        Ok(Piece {
            length,
            kind,
            place,
            partial: false,
        })
    }))
}

impl Place {
    fn blocks(self) -> u32 {
        match self {
            Self::Blocks { count, .. } => count,
            Self::Inline => 1,
            Self::Fragment { .. } => 0,
        }
    }
}

/// The number of a kind of head.
pub(super) fn number(kind: Kind) -> u8 {
    use crate::erofs::format::compressed::kind;
    match kind {
        Kind::Plain => kind::PLAIN,
        Kind::First => kind::HEAD1,
        Kind::Second => kind::HEAD2,
    }
}
