//! Encoded extents: a record for each extent, of as few bytes as tell it.
//!
//! Records of 4 bytes, a length and nothing else, are for extents that lie one after the
//! other behind a first place; those of 8 bytes also tell where. Both need extents of equal
//! length. Records of 16 bytes say where in the file they begin, those of 32 beyond 4 GiB.

use zerocopy::IntoBytes;

use super::{Form, IndexError};
use crate::erofs::compress::extent::{Extent, FileMap, Kind, Tail};
use crate::erofs::format::compressed::{
    EXTENT_FORMAT_SHIFT, EXTENT_LENGTH_MASK, EXTENT_PARTIAL, Extent as Record, MapHeader, advise,
};

pub(super) fn encode(map: &FileMap<'_>, form: Form, header_at: u64) -> Result<Vec<u8>, IndexError> {
    let shape = Shape::of(map, form);
    let records_at = (header_at + 8).next_multiple_of(shape.record as u64) - header_at;
    let mut bytes = header(map, shape)?;
    bytes.resize(records_at as usize, 0); // less than 40
    if shape.record == 4 {
        let first = map.extents.first().map_or(0, |extent| extent.at);
        bytes.extend_from_slice(&first.to_le_bytes());
    }
    let mut logical = 0u64;
    for extent in map.extents {
        let length = length(extent, map.algorithms).ok_or(IndexError::Number(logical))?;
        push(&mut bytes, shape, length, extent.at, logical);
        logical += u64::from(extent.length);
    }
    if let Tail::Fragment { at, .. } = map.tail {
        push(&mut bytes, shape, at as u32, at >> 32, logical);
    }
    Ok(bytes)
}

/// What records look like.
#[derive(Clone, Copy)]
struct Shape {
    /// Bytes of one: 4, 8, 16 or 32.
    record: usize,
    /// Logarithm of the length of extents that all have the same, less the block's.
    equal_bits: u8,
}

impl Shape {
    fn of(map: &FileMap<'_>, form: Form) -> Self {
        let long = match map.size() <= u32::MAX.into() {
            true => 16,
            false => 32,
        };
        let equal = equal_bits(map, form.block_bits);
        let chained = matches!(map.tail, Tail::None)
            && map.extents.windows(2).all(|pair| match pair {
                [one, next] => one.at + u64::from(one.size) == next.at,
                _ => true,
            });
        let near = map.extents.iter().all(|e| e.at <= u32::MAX.into());
        let record = match equal {
            Some(_) if chained => 4,
            Some(_) if near && long == 16 && matches!(map.tail, Tail::None) => 8,
            _ => long,
        };
        Self {
            record,
            equal_bits: equal.filter(|_| record < 16).unwrap_or(0),
        }
    }
}

/// Logarithm of the length that all extents have, the last at most, less the block's.
fn equal_bits(map: &FileMap<'_>, block_bits: u8) -> Option<u8> {
    let (last, others) = map.extents.split_last()?;
    let length = others.first().map_or(last.length, |extent| extent.length);
    let bits = match others.is_empty() {
        true => length.checked_next_power_of_two()?.ilog2(),
        false if length.is_power_of_two() => length.ilog2(),
        false => return None,
    };
    let bits = u8::try_from(bits).ok()?.max(block_bits);
    let whole = 1u64 << bits;
    let equal = others.iter().all(|e| u64::from(e.length) == whole);
    (equal && u64::from(last.length) <= whole && bits - block_bits < 16).then(|| bits - block_bits)
}

fn header(map: &FileMap<'_>, shape: Shape) -> Result<Vec<u8>, IndexError> {
    let mut flags =
        advise::EXTENTS | (shape.record.ilog2() as u16 - 2) << advise::EXTENT_SIZE_SHIFT;
    if map.interlaced {
        flags |= advise::INTERLACED;
    }
    if matches!(map.tail, Tail::Fragment { .. }) {
        flags |= advise::FRAGMENT;
    }
    let count = map.extents.len() as u64 + u64::from(matches!(map.tail, Tail::Fragment { .. }));
    let high = u16::try_from(count >> 32).map_err(|_| IndexError::Number(0))?;
    let header = match shape.record {
        4 | 8 => MapHeader {
            word: 0.into(),
            advise: flags.into(),
            algorithms: 0,
            cluster_bits: shape.equal_bits,
        },
        _ => {
            let [algorithms, cluster_bits] = high.to_le_bytes();
            MapHeader {
                word: (count as u32).into(),
                advise: flags.into(),
                algorithms,
                cluster_bits,
            }
        }
    };
    Ok(header.as_bytes().to_vec())
}

/// The word that tells a cluster's bytes and format.
fn length(extent: &Extent, algorithms: [u8; 2]) -> Option<u32> {
    let [first, second] = algorithms;
    let format = match extent.kind {
        Kind::Plain => 0,
        Kind::First => u32::from(first) + 1,
        Kind::Second => u32::from(second) + 1,
    };
    let partial = if extent.partial { EXTENT_PARTIAL } else { 0 };
    (extent.size <= EXTENT_LENGTH_MASK)
        .then_some(extent.size | partial | format << EXTENT_FORMAT_SHIFT)
}

fn push(bytes: &mut Vec<u8>, shape: Shape, length: u32, at: u64, logical: u64) {
    let record = Record {
        length: length.into(),
        at_low: (at as u32).into(),
        at_high: ((at >> 32) as u32).into(),
        logical_low: (logical as u32).into(),
        logical_high: ((logical >> 32) as u32).into(),
        ..Record::default()
    };
    let told = record.as_bytes().get(..shape.record);
    bytes.extend_from_slice(told.unwrap_or_default());
}
