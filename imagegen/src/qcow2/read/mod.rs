//! Reading QCOW2, trusting nothing: whatever QEMU writes, and whatever else somebody put
//! into a file.
//!
//! An [`Image`] stands on anything that gives bytes at offsets: the image itself and, if
//! it has one, its external data file. Whatever it hands out was verified as far as a place
//! or a length is computed from it. It writes nothing, and several threads may use one.
//! What lies below it, a backing file, is for [`Disk`] to put together.
//!
//! Bounds: tables are read only as long as QEMU lets them be; a compressed cluster gives a
//! cluster, from at most [`COMPRESSED_MOST`] bytes; tables of level 2 are kept up to
//! [`TABLES`] bytes and decoded clusters up to [`DECODED`].

mod decode;
mod disk;
mod error;
mod extensions;
mod layout;
mod map;
mod names;
mod snapshots;

pub use disk::{Disk, Layer, Run, What};
pub use error::{ReadError, Result};
pub use extensions::{Bitmap, Extensions};
pub use layout::{Layout, Table};
pub use map::{Extent, Extents, Place};
pub use snapshots::Snapshot;

pub(crate) use error::damaged;

use super::format::{self, Incompatible};
use crate::medium::{Cache, Source};
use parking_lot::Mutex;

/// Bytes of level 2 tables that are kept.
pub const TABLES: usize = 32 << 20;
/// Bytes of decoded clusters that are kept.
pub const DECODED: usize = 16 << 20;
/// Bytes of a compressed cluster at most: two clusters of the largest size.
pub const COMPRESSED_MOST: u64 = 4 << 20;

/// An image that is read.
#[derive(Debug)]
pub struct Image<S> {
    source: S,
    /// Bytes of `source`.
    length: u64,
    data: Option<S>,
    layout: Layout,
    extensions: Extensions,
    backing: Option<String>,
    l1: Vec<u64>,
    tables: Mutex<Cache<u64>>,
    decoded: Mutex<Cache<u64>>,
}

impl<S: Source> Image<S> {
    /// Opens the image that `source` holds: the disk as it is now.
    ///
    /// # Errors
    /// If it cannot be read, is no QCOW2 that this program knows, or its header is not
    /// sound. Data in an external file is an error only when it is read.
    pub fn open(source: S) -> Result<Self> {
        let length = source.size().map_err(|cause| ReadError::Io {
            offset: 0,
            length: 0,
            cause,
        })?;
        let first = length.min(format::LENGTH_WITH_COMPRESSION.into());
        let layout = Layout::parse(&read(&source, length, 0, first)?)?;
        let extensions = extensions::read(&source, length, &layout)?;
        let backing = names::backing(&source, length, &layout)?;
        let l1 = read_table(&source, length, layout.l1)?;
        Ok(Self {
            source,
            length,
            data: None,
            layout,
            extensions,
            backing,
            l1,
            tables: Mutex::new(Cache::new(TABLES)),
            decoded: Mutex::new(Cache::new(DECODED)),
        })
    }

    /// The same with the file its data lies in.
    #[must_use]
    pub fn with_data(mut self, data: S) -> Self {
        self.data = Some(data);
        self
    }

    /// What the header says.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What follows the header.
    #[must_use]
    pub const fn extensions(&self) -> &Extensions {
        &self.extensions
    }

    /// The backing file's name, as it stands there.
    #[must_use]
    pub fn backing(&self) -> Option<&str> {
        self.backing.as_deref()
    }

    /// Bytes of the disk, or of the snapshot that is [applied](Self::apply).
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.layout.size
    }

    /// Bytes of the image's file.
    #[must_use]
    pub const fn length(&self) -> u64 {
        self.length
    }

    /// The level 1 table.
    #[must_use]
    pub fn l1(&self) -> &[u64] {
        &self.l1
    }

    /// The internal snapshots.
    ///
    /// # Errors
    /// If their table cannot be read or is not sound.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>> {
        snapshots::read(&self.source, self.length, &self.layout)
    }

    /// Shows from now on the disk as it was when this snapshot was taken.
    ///
    /// # Errors
    /// If its level 1 table cannot be read, or is too short for the disk.
    pub fn apply(&mut self, snapshot: &Snapshot) -> Result<()> {
        let size = snapshot.disk_size.unwrap_or(self.layout.size);
        if snapshot.l1.entries < self.layout.l1_entries(size) {
            let flaw = format!("{} entries are too few", snapshot.l1.entries);
            return Err(damaged("level 1 table", snapshot.l1.offset, flaw));
        }
        self.l1 = read_table(&self.source, self.length, snapshot.l1)?;
        self.layout.size = size;
        self.layout.l1 = snapshot.l1;
        Ok(())
    }

    /// The bitmaps.
    ///
    /// # Errors
    /// If their directory cannot be read or is not sound.
    pub fn bitmaps(&self) -> Result<Vec<Bitmap>> {
        extensions::bitmaps(&self.source, self.length, &self.layout, &self.extensions)
    }

    /// The bits of one of them, the lowest of each byte first.
    ///
    /// # Errors
    /// If they cannot be read, are more than 512 MiB, or their table is not sound.
    pub fn bits(&self, bitmap: &Bitmap) -> Result<Vec<u8>> {
        extensions::bits(&self.source, self.length, &self.layout, bitmap)
    }

    /// `length` bytes of the image's file.
    ///
    /// # Errors
    /// If they cannot be read, or are beyond its end.
    pub fn raw(&self, at: u64, length: u64) -> Result<Vec<u8>> {
        read(&self.source, self.length, at, length)
    }

    /// Where uncompressed clusters of the disk lie.
    fn data(&self) -> Result<&S> {
        match (&self.data, self.layout.has(Incompatible::ExternalData)) {
            (_, false) => Ok(&self.source),
            (Some(data), true) => Ok(data),
            (None, true) => Err(ReadError::NotGiven {
                what: "data file",
                name: self.extensions.data_file.clone().unwrap_or_default(),
            }),
        }
    }
}

/// `length` bytes at `at`; whoever asks has bounded `length`.
fn read<S: Source>(source: &S, end: u64, at: u64, length: u64) -> Result<Vec<u8>> {
    let failed = |cause| ReadError::Io {
        offset: at,
        length,
        cause,
    };
    if at.checked_add(length).is_none_or(|last| last > end) {
        let cause = std::io::Error::new(
            std::io::ErrorKind::UnexpectedEof,
            format!("the file ends at byte {end}"),
        );
        return Err(failed(cause));
    }
    let mut bytes = vec![0; usize::try_from(length).unwrap_or(usize::MAX)];
    source.read_at(at, &mut bytes).map_err(failed)?;
    Ok(bytes)
}

/// The entries of a table whose size was verified.
fn read_table<S: Source>(source: &S, end: u64, table: Table) -> Result<Vec<u64>> {
    if table.bytes() > format::MOST_L1_BYTES {
        let flaw = format!("it has {} bytes, more than 32 MiB", table.bytes());
        return Err(damaged("level 1 table", table.offset, flaw));
    }
    let bytes = read(source, end, table.offset, table.bytes())?;
    Ok(numbers(&bytes).collect())
}

/// Numbers of 64 bits.
pub(crate) fn numbers(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    let (numbers, _) = bytes.as_chunks::<8>();
    numbers.iter().map(|number| u64::from_be_bytes(*number))
}
