//! Where contents lie: from offsets of an inode to places on a device, with what decodes
//! them.
//!
//! - `flat`: blocks that follow each other, chunks
//! - `index`: one entry of a logical cluster, full or compact
//! - `indexed`: extents out of these entries
//! - `encoded`: extents as such

mod encoded;
mod flat;
mod index;
mod indexed;

use super::error::{Result, damaged};
use super::{Area, DECODED_MAX, Device, Image, Inode, Layout};
use crate::erofs::format::compressed::{
    CLUSTER_MAX, MAP_ALIGN, MapHeader, WHOLE_IN_PACKED, advise,
};
use crate::erofs::format::superblock::algorithm;
use crate::medium::Source;
use encoded::Encoded;
use indexed::Indexed;
use serde::Serialize;
use zerocopy::FromBytes;

pub(super) const NAME: &str = "map of contents";

/// A piece of contents that lies together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Extent {
    /// First byte in the contents.
    pub offset: u64,
    /// Bytes there, at least 1.
    pub length: u64,
    /// Where they lie.
    pub place: Where,
    /// What makes them out of what lies there.
    pub coding: Coding,
    /// What lies there may hold more than `length` bytes, which belong to others.
    pub partial: bool,
}

impl Extent {
    /// The byte after the last, in the contents.
    pub fn end(&self) -> u64 {
        self.offset.saturating_add(self.length)
    }
}

/// A place of data.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Where {
    /// Nowhere: zeroes.
    Hole,
    /// On a device: first byte and bytes.
    Device(Device, u64, u64),
    /// Beside the inode: first byte and bytes.
    Metadata(Area, u64, u64),
    /// In the contents of the packed inode, from this byte on.
    Packed(u64),
}

/// How data is kept.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Coding {
    /// As it is.
    Plain,
    /// As it is, but where the contents cross into the next block, the rest stands before
    /// the beginning.
    Interlaced,
    /// LZ4 block format.
    Lz4,
    /// MicroLZMA.
    Lzma,
    /// Raw DEFLATE.
    Deflate,
    /// Zstandard.
    Zstd,
}

impl Coding {
    /// Whether something must be decompressed.
    pub fn is_compressed(self) -> bool {
        !matches!(self, Self::Plain | Self::Interlaced)
    }
}

/// The map of one inode.
#[derive(Debug)]
pub struct Map<'a, S> {
    image: &'a Image<S>,
    inode: Inode,
    form: Form,
}

/// How a map is kept.
#[derive(Debug, Clone)]
pub(super) enum Form {
    Flat,
    Chunks,
    /// All of it is a fragment.
    Fragment(u64),
    Indexed(Indexed),
    Encoded(Encoded),
}

impl<S: Source> Image<S> {
    /// The map of `inode`'s contents.
    ///
    /// # Errors
    /// If what describes it is damaged.
    pub fn map(&self, inode: &Inode) -> Result<Map<'_, S>> {
        let mut map = Map {
            image: self,
            inode: inode.clone(),
            form: Form::Flat,
        };
        map.form = match inode.layout {
            Layout::Plain | Layout::Inline => Form::Flat,
            Layout::Chunks => Form::Chunks,
            Layout::Full | Layout::Compact if inode.size == 0 => Form::Flat,
            Layout::Full | Layout::Compact => self.form(&map)?,
        };
        Ok(map)
    }

    /// The form of a compressed inode. Those of the packed inode and the metabox are kept:
    /// they are opened for every fragment and every piece of metadata.
    fn form(&self, map: &Map<'_, S>) -> Result<Form> {
        let nid = map.inode.nid;
        if ![self.superblock.packed, self.superblock.metabox].contains(&Some(nid)) {
            return map.compressed();
        }
        let known = |forms: &[(u64, Form)]| {
            let found = forms.iter().find(|(of, _)| *of == nid);
            found.map(|(_, form)| form.clone())
        };
        if let Some(form) = known(&self.forms.lock()) {
            return Ok(form);
        }
        // Not locked: what it reads may need the other's.
        let form = map.compressed()?;
        let mut forms = self.forms.lock();
        if known(&forms).is_none() {
            forms.push((nid, form.clone()));
        }
        Ok(form)
    }
}

impl<'a, S: Source> Map<'a, S> {
    /// The extent that holds byte `offset` of the contents, which have that many.
    ///
    /// # Errors
    /// If the map is damaged there.
    pub fn extent(&mut self, offset: u64) -> Result<Extent> {
        let extent = match &mut self.form {
            Form::Flat => flat::extent(self.image, &self.inode, offset)?,
            Form::Chunks => flat::chunk(self.image, &self.inode, offset)?,
            Form::Fragment(at) => fragment(0, self.inode.size, *at),
            Form::Indexed(indexed) => indexed.extent(self.image, &self.inode, offset)?,
            Form::Encoded(encoded) => encoded.extent(self.image, &self.inode, offset)?,
        };
        self.verify(&extent, offset)?;
        Ok(extent)
    }

    /// All extents in their order; after an error nothing more.
    pub fn extents(self) -> Extents<'a, S> {
        Extents {
            map: self,
            offset: 0,
        }
    }

    /// The byte after the inode, its attributes and its map; inline data, which begins
    /// there, is not counted.
    pub(crate) fn metadata_end(&self) -> u64 {
        let end = self.inode.body_end();
        match &self.form {
            Form::Flat => end,
            Form::Chunks => flat::table_end(self.image, &self.inode),
            Form::Fragment(_) => end.next_multiple_of(MAP_ALIGN) + size_of::<MapHeader>() as u64,
            Form::Indexed(indexed) => indexed.metadata_end(&self.inode),
            Form::Encoded(encoded) => encoded.metadata_end(),
        }
    }

    fn verify(&self, extent: &Extent, offset: u64) -> Result<()> {
        let bad = |flaw: String| Err(damaged(NAME, self.inode.contents_at(offset), flaw));
        let inside = extent.offset <= offset && offset < extent.end();
        if !inside || extent.end() > self.inode.size {
            return bad(format!(
                "an extent of {} bytes from {} on",
                extent.length, extent.offset
            ));
        }
        let (Where::Device(_, _, stored) | Where::Metadata(_, _, stored)) = extent.place else {
            return Ok(());
        };
        if extent.coding.is_compressed() {
            if stored > u64::from(CLUSTER_MAX) || extent.length > DECODED_MAX {
                let length = extent.length;
                return bad(format!("a cluster of {stored} bytes that gives {length}"));
            }
            let bit = 1 << extent.coding.number();
            if self.image.superblock.algorithms & bit == 0 {
                let coding = extent.coding;
                return bad(format!("{coding:?}, of which the superblock says nothing"));
            }
        } else if extent.length > stored {
            return bad(format!("{} bytes in {stored}, plain", extent.length));
        }
        Ok(())
    }

    /// The form of a compressed inode.
    fn compressed(&self) -> Result<Form> {
        let (image, inode) = (self.image, &self.inode);
        let bad = |flaw: &str| Err(damaged(NAME, inode.place(), flaw));
        let at = inode.body_end().next_multiple_of(MAP_ALIGN);
        let header: MapHeader = image.structure(inode.area, at)?;
        let in_packed = image.superblock.packed == Some(inode.nid);
        if header.cluster_bits & WHOLE_IN_PACKED != 0 {
            if in_packed {
                return bad("the packed inode is a fragment of itself");
            }
            let whole: [u8; 8] = zerocopy::transmute!(header);
            return Ok(Form::Fragment(u64::from_le_bytes(whole) & !(1 << 63)));
        }
        let advise = header.advise.get();
        let fragment = advise & advise::FRAGMENT != 0;
        if fragment && in_packed {
            return bad("a fragment in the packed inode");
        }
        if inode.layout == Layout::Full && advise & advise::EXTENTS != 0 {
            return Ok(Form::Encoded(Encoded::open(image, inode, &header, at)?));
        }
        let indexed = Indexed::open(image, inode, &header, at)?;
        Ok(Form::Indexed(indexed))
    }
}

impl Coding {
    /// Number of a compression algorithm; that of LZ4 for what is not compressed.
    pub(crate) fn number(self) -> u8 {
        match self {
            Self::Plain | Self::Interlaced | Self::Lz4 => algorithm::LZ4,
            Self::Lzma => algorithm::LZMA,
            Self::Deflate => algorithm::DEFLATE,
            Self::Zstd => algorithm::ZSTD,
        }
    }

    fn of(number: u8) -> Option<Self> {
        Some(match number {
            algorithm::LZ4 => Self::Lz4,
            algorithm::LZMA => Self::Lzma,
            algorithm::DEFLATE => Self::Deflate,
            algorithm::ZSTD => Self::Zstd,
            _ => return None,
        })
    }
}

/// An extent that lies in the packed inode.
fn fragment(offset: u64, length: u64, at: u64) -> Extent {
    Extent {
        offset,
        length,
        place: Where::Packed(at),
        coding: Coding::Plain,
        partial: false,
    }
}

/// The extents of an inode.
#[derive(Debug)]
pub struct Extents<'a, S> {
    map: Map<'a, S>,
    offset: u64,
}

impl<S: Source> Iterator for Extents<'_, S> {
    type Item = Result<Extent>;

    fn next(&mut self) -> Option<Self::Item> {
        let inode = &self.map.inode;
        if self.offset >= inode.size {
            return None;
        }
        let place = inode.contents_at(self.offset);
        let extent = self.map.extent(self.offset).and_then(|extent| {
            if extent.offset == self.offset {
                return Ok(extent);
            }
            let flaw = format!(
                "an extent from {} on overlaps the one before",
                extent.offset
            );
            Err(damaged(NAME, place, flaw))
        });
        self.offset = extent.as_ref().map_or(u64::MAX, Extent::end);
        Some(extent)
    }
}

impl<S: Source> Image<S> {
    /// Where byte `at` of the space that all devices share lies.
    pub(crate) fn locate(&self, at: u64) -> (Device, u64) {
        let bits = self.superblock.block_bits;
        for (index, slot) in self.superblock.devices.iter().enumerate() {
            let begin = slot.address << bits;
            let inside = at.checked_sub(begin).filter(|_| slot.address != 0);
            if let Some(inside) = inside.filter(|inside| *inside < slot.blocks << bits) {
                let number = u16::try_from(index + 1).unwrap_or(u16::MAX);
                return (Device(number), inside);
            }
        }
        (Device(0), at)
    }

    /// The structure at byte `at` of `area`, of which only the first `length` bytes are
    /// there; the others are zero.
    pub(super) fn prefix_of<T: FromBytes>(&self, area: Area, at: u64, length: usize) -> Result<T> {
        let mut bytes = vec![0; size_of::<T>()];
        let part = bytes.get_mut(..length).unwrap_or_default();
        self.metadata(area, at, part)?;
        T::read_from_bytes(&bytes).map_err(|_| damaged(NAME, area.place(at), "it is cut off"))
    }
}
