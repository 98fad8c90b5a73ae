//! What follows the header, and the bitmaps that it leads to.

use super::error::{ReadError, Result, damaged};
use super::layout::Layout;
use super::names::text;
use crate::medium::Source;
use crate::qcow2::format::{
    self, BitmapEntry, BitmapFlag, BitmapTableEntry, BitmapsExtension, ExtensionHeader,
    ExtensionKind,
};
use crate::qcow2::provenance::Provenance;
use zerocopy::FromBytes;

/// What is known of the extensions.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Extensions {
    /// Format of the backing file.
    pub backing_format: Option<String>,
    /// Name of the external data file.
    pub data_file: Option<String>,
    /// Where the bitmaps lie: how many, byte, bytes.
    pub bitmaps: Option<(u32, u64, u64)>,
    /// Of what it was made, if it tells.
    pub provenance: Option<Provenance>,
    /// Kinds that are not known, and their bytes.
    pub others: Vec<(u32, u32)>,
}

/// Most of one kind that is unknown: no image has more.
const MOST_OTHERS: usize = 64;

/// They end with the first cluster, or where the backing file's name begins.
pub(super) fn read<S: Source>(source: &S, end: u64, layout: &Layout) -> Result<Extensions> {
    let mut found = Extensions::default();
    let limit = match layout.backing_name {
        Some((at, _)) => at,
        None => layout.cluster(),
    };
    let limit = limit.min(end);
    let mut at = u64::from(layout.header_length);
    while at + size_of::<ExtensionHeader>() as u64 <= limit {
        let header = super::read(source, end, at, size_of::<ExtensionHeader>() as u64)?;
        let Ok(header) = ExtensionHeader::read_from_bytes(&header) else {
            break;
        };
        let begin = at + size_of::<ExtensionHeader>() as u64;
        let length = u64::from(header.length.get());
        if begin + length > limit {
            let flaw = format!("it has {length} bytes, beyond byte {limit}");
            return Err(damaged("header extension", at, flaw));
        }
        let kind = ExtensionKind::from_number(header.kind.get());
        if kind == Some(ExtensionKind::End) {
            break;
        }
        let contents = super::read(source, end, begin, length)?;
        found.take(at, kind, header.kind.get(), &contents)?;
        at = begin + length.next_multiple_of(8);
    }
    Ok(found)
}

impl Extensions {
    fn take(
        &mut self,
        at: u64,
        kind: Option<ExtensionKind>,
        number: u32,
        contents: &[u8],
    ) -> Result<()> {
        match kind {
            Some(ExtensionKind::BackingFormat) => self.backing_format = Some(text(contents)),
            Some(ExtensionKind::ExternalDataName) => self.data_file = Some(text(contents)),
            Some(ExtensionKind::Bitmaps) => {
                let Ok(where_) = BitmapsExtension::read_from_bytes(contents) else {
                    let flaw = format!("that of bitmaps has {} bytes, not 24", contents.len());
                    return Err(damaged("header extension", at, flaw));
                };
                let place = (where_.directory_offset.get(), where_.directory_size.get());
                self.bitmaps = Some((where_.count.get(), place.0, place.1));
            }
            Some(ExtensionKind::Encryption) => {
                let what = "it is encrypted (LUKS)".to_owned();
                return Err(ReadError::Unknown { what });
            }
            // A number that somebody else may use: what it is not is ignored.
            Some(ExtensionKind::Provenance) => self.provenance = Provenance::decode(contents),
            Some(ExtensionKind::FeatureNames | ExtensionKind::End) => {}
            None if self.others.len() < MOST_OTHERS => {
                self.others.push((number, contents.len() as u32));
            }
            None => {}
        }
        Ok(())
    }
}

/// A persistent bitmap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Bitmap {
    /// Its name.
    pub name: String,
    /// log2 of the bytes of the disk that a bit stands for.
    pub granularity_bits: u8,
    /// [`BitmapFlag`] bits.
    pub flags: u32,
    /// Byte and entries of its table.
    pub table: (u64, u32),
}

impl Bitmap {
    /// Whether this flag is set.
    #[must_use]
    pub const fn has(&self, flag: BitmapFlag) -> bool {
        self.flags & flag.mask() != 0
    }

    /// Bytes of its bits for a disk of `size` bytes.
    pub(super) const fn bytes(&self, size: u64) -> u64 {
        size.div_ceil(1 << self.granularity_bits).div_ceil(8)
    }
}

/// Largest directory (QEMU's `QCOW2_MAX_BITMAP_DIRECTORY_SIZE`).
const MOST_DIRECTORY: u64 = 64 << 20;

/// Longest name (QEMU's `BME_MAX_NAME_SIZE`).
const MOST_NAME: u64 = 1023;

/// The directory of bitmaps, entry by entry.
pub(super) fn bitmaps<S: Source>(
    source: &S,
    end: u64,
    layout: &Layout,
    extensions: &Extensions,
    give: &mut dyn FnMut(Bitmap),
) -> Result<()> {
    let Some((count, at, length)) = extensions.bitmaps else {
        return Ok(());
    };
    if count > format::MOST_BITMAPS || length > MOST_DIRECTORY || at % layout.cluster() != 0 {
        let flaw = format!("it has {count} entries in {length} bytes");
        return Err(damaged("bitmap directory", at, flaw));
    }
    let limit = at.saturating_add(length);
    let mut next = at;
    for _ in 0..count {
        let (found, after) = bitmap(source, end, next, limit)?;
        give(found);
        next = after;
    }
    Ok(())
}

/// The entry at `at` of a directory that ends at `limit`, and where the next one begins.
fn bitmap<S: Source>(source: &S, end: u64, at: u64, limit: u64) -> Result<(Bitmap, u64)> {
    let cut = || damaged("bitmap directory", at, "it is cut off");
    let fixed = size_of::<BitmapEntry>() as u64;
    if at.saturating_add(fixed) > limit {
        return Err(cut());
    }
    let bytes = super::read(source, end, at, fixed)?;
    let entry = BitmapEntry::read_from_bytes(&bytes).map_err(|_| cut())?;
    let name_at = at + fixed + u64::from(entry.extra_size.get());
    let length = u64::from(entry.name_size.get());
    if name_at + length > limit {
        return Err(cut());
    }
    if length > MOST_NAME {
        let flaw = format!("the name of a bitmap has {length} bytes");
        return Err(damaged("bitmap directory", at, flaw));
    }
    let bitmap = Bitmap {
        name: text(&super::read(source, end, name_at, length)?),
        granularity_bits: entry.granularity_bits,
        flags: entry.flags.get(),
        table: (entry.table_offset.get(), entry.table_size.get()),
    };
    if entry.kind != 1 || !(9..=31).contains(&entry.granularity_bits) {
        let flaw = format!(
            "bitmap {:?} is of kind {} and granularity 2^{}",
            bitmap.name, entry.kind, entry.granularity_bits
        );
        return Err(damaged("bitmap directory", at, flaw));
    }
    Ok((bitmap, (name_at + length).next_multiple_of(8)))
}

/// The bits of a bitmap of a disk of `size` bytes, the lowest of each byte first.
pub(super) fn bits<S: Source>(
    source: &S,
    end: u64,
    layout: &Layout,
    bitmap: &Bitmap,
) -> Result<Vec<u8>> {
    let (at, entries) = bitmap.table;
    let bad = |flaw: String| damaged("bitmap", at, format!("{:?}: {flaw}", bitmap.name));
    let bytes = bitmap.bytes(layout.size);
    let clusters = bytes.div_ceil(layout.cluster());
    if bytes > super::BITS {
        return Err(bad(format!("it has {bytes} bytes, more than 512 MiB")));
    }
    if u64::from(entries) != clusters || at % layout.cluster() != 0 {
        return Err(bad(format!(
            "its table has {entries} entries, not {clusters}"
        )));
    }
    let table = super::read(source, end, at, clusters * 8)?;
    let mut bits = Vec::with_capacity(bytes as usize);
    for raw in super::numbers(&table) {
        let now = layout.cluster().min(bytes - bits.len() as u64);
        match BitmapTableEntry::decode(raw) {
            Some(BitmapTableEntry::Zeroes) => bits.resize(bits.len() + now as usize, 0),
            Some(BitmapTableEntry::Ones) => bits.resize(bits.len() + now as usize, 0xff),
            Some(BitmapTableEntry::At(place)) if place % layout.cluster() == 0 => {
                bits.extend(super::read(source, end, place, now)?);
            }
            _ => return Err(bad(format!("its table has an entry {raw:#x}"))),
        }
    }
    Ok(bits)
}
