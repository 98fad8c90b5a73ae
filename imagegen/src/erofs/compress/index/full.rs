//! Full indexes: 8 bytes for each logical cluster.

use zerocopy::IntoBytes;

use super::clusters::{self, Cluster, Place, number};
use super::{Form, IndexError, header};
use crate::erofs::compress::extent::FileMap;
use crate::erofs::format::compressed::{BLOCK_COUNT, Index, PARTIAL, kind};

/// Bytes before the indexes: the map header, and as many unused.
const BEFORE: usize = 16;

/// Bytes that [`encode`] makes.
pub(super) fn length(map: &FileMap<'_>, form: Form) -> usize {
    let clusters = map.size().div_ceil(1 << form.block_bits);
    usize::try_from(clusters.saturating_mul(8)).map_or(usize::MAX, |n| n.saturating_add(BEFORE))
}

pub(super) fn encode(map: &FileMap<'_>, form: Form) -> Result<Vec<u8>, IndexError> {
    let mut bytes = Vec::with_capacity(length(map, form));
    bytes.extend_from_slice(&header(map, 0));
    bytes.resize(BEFORE, 0);
    clusters::each(map, form, |cluster| {
        bytes.extend_from_slice(index(cluster, map.big).as_bytes());
    })?;
    Ok(bytes)
}

fn index(cluster: Cluster, big: bool) -> Index {
    match cluster {
        Cluster::Head {
            kind,
            offset,
            place,
            partial,
        } => Index {
            advise: (u16::from(number(kind)) | if partial { PARTIAL } else { 0 }).into(),
            offset: offset.into(),
            value: match place {
                Place::Blocks { first, .. } => first.into(),
                Place::Inline => 0.into(),
                Place::Fragment { high } => high.into(),
            },
        },
        Cluster::Rest {
            back,
            forward,
            blocks,
        } => {
            let back = match blocks {
                Some(blocks) if big => blocks as u16 | BLOCK_COUNT, // at most 2047
                _ => near(back),
            };
            let forward = u32::from(forward.min(u16::MAX.into()) as u16);
            Index {
                advise: u16::from(kind::NONHEAD).into(),
                offset: 0.into(),
                value: (u32::from(back) | forward << 16).into(),
            }
        }
        Cluster::End { offset } => Index {
            advise: u16::from(kind::PLAIN).into(),
            offset: offset.into(),
            value: 0.into(),
        },
    }
}

/// A distance that is not taken for a count of blocks: a shorter one leads to a cluster
/// from which it goes on.
pub(super) fn near(distance: u32) -> u16 {
    distance.min(u32::from(BLOCK_COUNT) - 1) as u16
}
