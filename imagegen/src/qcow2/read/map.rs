//! From bytes of the disk to where they lie.
//!
//! Level 1 entries lead to tables of level 2, a cluster each, whose entries lead to
//! clusters; in extended entries each of 32 subclusters is there, zeroes, or neither.

use super::error::{Result, damaged};
use super::{COMPRESSED_MOST, Image, decode};
use crate::medium::Source;
use crate::qcow2::format::{
    Compressed, CompressionType, Incompatible, L1Entry, L2Entry, SUBCLUSTERS, Subclusters,
};
use std::sync::Arc;

/// Bytes of the disk that lie together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First byte on the disk.
    pub at: u64,
    /// Bytes.
    pub length: u64,
    /// Where.
    pub place: Place,
}

impl Extent {
    /// The first byte after it.
    #[must_use]
    pub const fn end(&self) -> u64 {
        self.at + self.length
    }
}

/// Where bytes of the disk lie.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Place {
    /// Not here: the backing file shows, or zeroes.
    Below,
    /// They are zeroes, whatever is at this byte, if one is set aside for them.
    Zero(Option<u64>),
    /// From this byte of the image or of its data file on.
    Data(u64),
    /// In this compressed cluster.
    Compressed(Compressed),
}

impl Place {
    /// What `length` bytes further lie at, if that goes on.
    const fn after(self, length: u64) -> Option<Self> {
        match self {
            Self::Below | Self::Zero(None) => Some(self),
            Self::Zero(Some(at)) => Some(Self::Zero(Some(at + length))),
            Self::Data(at) => Some(Self::Data(at + length)),
            Self::Compressed(_) => None,
        }
    }
}

/// Extents one after the other, as [`Image::extents`] gives them.
#[derive(Debug)]
pub struct Extents<'a, S> {
    image: &'a Image<S>,
    at: u64,
}

impl<S: Source> Iterator for Extents<'_, S> {
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.at >= self.image.size() {
            return None;
        }
        let extent = self.image.extent(self.at, u64::MAX);
        self.at = match &extent {
            Ok(extent) => extent.end(),
            Err(_) => u64::MAX,
        };
        Some(extent)
    }
}

/// An entry of a level 2 table, whole.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Cluster {
    entry: L2Entry,
    subclusters: Subclusters,
}

impl<S: Source> Image<S> {
    /// All that the disk is made of, from byte `at` on.
    #[must_use]
    pub const fn extents(&self, at: u64) -> Extents<'_, S> {
        Extents { image: self, at }
    }

    /// The extent in which byte `at` lies, from there on, of `most` bytes at most. What
    /// follows may be like it.
    ///
    /// # Errors
    /// If a table cannot be read or is not sound.
    ///
    /// Beyond the end of the disk nothing is there: an extent without bytes.
    pub fn extent(&self, at: u64, most: u64) -> Result<Extent> {
        let width = self.layout.width;
        let left = self.size().saturating_sub(at).min(most);
        let index = at >> width.table_bits();
        let Some(table) = self.table(index)? else {
            let needed = (left >> width.table_bits()).saturating_add(2);
            let tables = self.tables_missing(index, needed);
            let end = index.saturating_add(tables) << width.table_bits();
            return Ok(Extent {
                at,
                length: (end - at).min(left),
                place: Place::Below,
            });
        };
        let mut extent = self.in_table(&table, index, at)?;
        // No more than was asked for: whoever reads in small pieces pays for those alone.
        let end = ((index + 1) << width.table_bits()).min(at.saturating_add(left));
        while extent.end() < end {
            let Some(wanted) = extent.place.after(extent.length) else {
                break;
            };
            let next = self.in_table(&table, index, extent.end())?;
            if next.place != wanted {
                break;
            }
            extent.length += next.length;
        }
        extent.length = extent.length.min(left);
        Ok(extent)
    }

    /// How many tables are not there from this one on, counted up to `most`.
    fn tables_missing(&self, index: u64, most: u64) -> u64 {
        let from = self.l1.get(index as usize..).unwrap_or_default();
        let from = from
            .iter()
            .take(usize::try_from(most).unwrap_or(usize::MAX));
        let missing = from.take_while(|entry| **entry == 0).count();
        missing.max(1) as u64
    }

    /// The table of level 2 that entry `index` leads to.
    fn table(&self, index: u64) -> Result<Option<Arc<[u8]>>> {
        let raw = self.l1.get(index as usize).copied().unwrap_or(0);
        let place = self.layout.l1.offset + index * 8;
        let Some(entry) = L1Entry::decode(raw) else {
            let flaw = format!("entry {index} is {raw:#x}");
            return Err(damaged("level 1 table", place, flaw));
        };
        if entry.offset == 0 {
            return Ok(None);
        }
        if entry.offset % self.layout.cluster() != 0 {
            let flaw = format!("entry {index} leads to byte {}", entry.offset);
            return Err(damaged("level 1 table", place, flaw));
        }
        if let Some(table) = self.file.tables.lock().get(&entry.offset) {
            return Ok(Some(table));
        }
        let table = self.raw(entry.offset, self.layout.cluster())?.into();
        self.file.tables.lock().put(entry.offset, &table);
        Ok(Some(table))
    }

    /// The bytes from `at` on that lie in one cluster or subclusters alike.
    fn in_table(&self, table: &[u8], index: u64, at: u64) -> Result<Extent> {
        let cluster_bits = self.layout.width.cluster_bits;
        let number = (at >> cluster_bits) & ((1 << self.layout.width.entries_bits()) - 1);
        let cluster = self.cluster(table, index, number)?;
        let within = at & (self.layout.cluster() - 1);
        let rest = self.layout.cluster() - within;
        let (place, length) = match cluster.entry {
            L2Entry::Compressed(compressed) => (Place::Compressed(compressed), rest),
            L2Entry::Standard {
                offset,
                copied,
                zero,
            } => {
                let aside = (offset != 0).then_some(offset + within);
                let is_there = offset != 0 || copied && self.layout.has(Incompatible::ExternalData);
                match (self.layout.width.extended, zero, is_there) {
                    (true, ..) => self.subclusters(cluster.subclusters, offset, within),
                    (_, true, _) => (Place::Zero(aside), rest),
                    (_, _, true) => (Place::Data(offset + within), rest),
                    (_, _, false) => (Place::Below, rest),
                }
            }
        };
        Ok(Extent { at, length, place })
    }

    /// Subclusters alike, from byte `within` of the cluster on.
    fn subclusters(&self, states: Subclusters, offset: u64, within: u64) -> (Place, u64) {
        let size = self.layout.cluster() / u64::from(SUBCLUSTERS);
        let state = |number: u64| {
            let bit = 1u32 << number;
            (states.allocated & bit != 0, states.zero & bit != 0)
        };
        let first = within / size;
        let alike = (first..SUBCLUSTERS.into()).take_while(|next| state(*next) == state(first));
        let end = (first + alike.count() as u64) * size;
        let place = match state(first) {
            (true, _) => Place::Data(offset + within),
            (_, true) => Place::Zero((offset != 0).then_some(offset + within)),
            _ => Place::Below,
        };
        (place, end - within)
    }

    /// Entry `number` of a table, verified.
    fn cluster(&self, table: &[u8], index: u64, number: u64) -> Result<Cluster> {
        let width = self.layout.width;
        let word = |at: u64| {
            let at = at as usize;
            let bytes = table
                .get(at..at + 8)
                .and_then(|bytes| bytes.try_into().ok());
            bytes.map_or(0, u64::from_be_bytes)
        };
        let place = number * width.entry();
        let raw = word(place);
        let bad = |flaw: String| {
            let table = self.l1.get(index as usize).copied().unwrap_or(0);
            let at = L1Entry::decode(table).map_or(0, |entry| entry.offset);
            damaged("level 2 table", at, format!("entry {number}: {flaw}"))
        };
        let Some(entry) = L2Entry::decode(raw, width) else {
            return Err(bad(format!("{raw:#x} has reserved bits")));
        };
        let mut subclusters = Subclusters::default();
        if width.extended {
            subclusters = Subclusters::decode(word(place + 8));
        }
        match entry {
            L2Entry::Standard { zero: true, .. } if self.layout.version < 3 => {
                Err(bad("zeroes are said of it, which version 2 cannot".into()))
            }
            L2Entry::Standard { offset, .. } if offset % self.layout.cluster() != 0 => {
                Err(bad(format!("byte {offset} is no cluster")))
            }
            L2Entry::Standard { offset, copied, .. }
                if !subclusters.is_sound()
                    || subclusters.allocated != 0
                        && offset == 0
                        && !(copied && self.layout.has(Incompatible::ExternalData)) =>
            {
                Err(bad(format!("its subclusters are {subclusters:?}")))
            }
            L2Entry::Compressed(_) if self.layout.has(Incompatible::ExternalData) => {
                Err(bad("it is compressed beside an external data file".into()))
            }
            entry => Ok(Cluster { entry, subclusters }),
        }
    }

    /// What the extent holds, from its byte `skip` on; [`Place::Below`] is left as it is.
    ///
    /// # Errors
    /// If it cannot be read or decoded.
    pub fn read_extent(&self, extent: &Extent, skip: u64, buffer: &mut [u8]) -> Result<()> {
        match extent.place {
            Place::Below => Ok(()),
            Place::Zero(_) => {
                buffer.fill(0);
                Ok(())
            }
            Place::Data(at) => self.read_data(at + skip, buffer),
            Place::Compressed(compressed) => {
                let cluster = self.decoded(compressed)?;
                let within = (extent.at + skip) & (self.layout.cluster() - 1);
                let from = cluster.get(within as usize..).unwrap_or_default();
                let bytes = from.get(..buffer.len()).unwrap_or_default();
                if bytes.len() != buffer.len() {
                    let flaw = "it ends before its cluster";
                    return Err(damaged("compressed cluster", compressed.offset, flaw));
                }
                buffer.copy_from_slice(bytes);
                Ok(())
            }
        }
    }

    /// QEMU gives the last cluster its size late: zeroes follow where the data file or the
    /// image ends within it. What lies beyond that cluster was cut off.
    fn read_data(&self, at: u64, buffer: &mut [u8]) -> Result<()> {
        let source = self.data()?;
        let length = buffer.len() as u64;
        let failed = |cause| super::ReadError::Io {
            offset: at,
            length,
            cause,
        };
        let end = match self.data {
            Some(_) => source.size().map_err(failed)?,
            None => self.length(),
        };
        if at + length > end.next_multiple_of(self.layout.cluster()) {
            let flaw = format!("it lies beyond the file's end, byte {end}");
            return Err(damaged("cluster", at, flaw));
        }
        let there = end.saturating_sub(at).min(length) as usize;
        let (bytes, beyond) = buffer.split_at_mut(there);
        beyond.fill(0);
        if bytes.is_empty() {
            return Ok(());
        }
        source.read_at(at, bytes).map_err(failed)
    }

    /// A compressed cluster's contents.
    fn decoded(&self, compressed: Compressed) -> Result<Arc<[u8]>> {
        let key = compressed.offset;
        if let Some(cluster) = self.file.decoded.lock().get(&key) {
            return Ok(cluster);
        }
        let cluster = self.layout.cluster() as usize;
        let stored = self.stored(compressed)?;
        let decode = match self.layout.compression {
            CompressionType::Deflate => decode::deflate,
            CompressionType::Zstd => decode::zstd,
        };
        let decoded = decode(&stored, cluster);
        let decoded = decoded.map_err(|flaw| damaged("compressed cluster", key, flaw))?;
        let decoded: Arc<[u8]> = decoded.into();
        self.file.decoded.lock().put(key, &decoded);
        Ok(decoded)
    }

    /// The bytes of a compressed cluster, and what follows them in their last sector.
    ///
    /// # Errors
    /// If they cannot be read, or are more than can be.
    pub fn stored(&self, compressed: Compressed) -> Result<Vec<u8>> {
        // The last sector may be cut off.
        let end = self.length().saturating_sub(compressed.offset);
        let length = compressed.length().min(end);
        if length == 0 || length > COMPRESSED_MOST.min(2 * self.layout.cluster() + 1024) {
            let flaw = format!("it has {length} bytes, and the file {}", self.length());
            return Err(damaged("compressed cluster", compressed.offset, flaw));
        }
        self.raw(compressed.offset, length)
    }
}
