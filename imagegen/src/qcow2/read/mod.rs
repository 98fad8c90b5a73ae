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
//! [`TABLES`] bytes and decoded clusters up to [`DECODED`], for an image and all of its
//! snapshots together.

mod decode;
mod disk;
mod error;
mod extensions;
mod layout;
mod level;
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

use super::format::{self, Autoclear, Incompatible};
use crate::medium::{Cache, Source};
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::Arc;

/// Bytes of level 2 tables that are kept.
pub const TABLES: usize = 32 << 20;
/// Bytes of decoded clusters that are kept.
pub const DECODED: usize = 16 << 20;
/// Bytes of a compressed cluster at most: two clusters of the largest size.
pub const COMPRESSED_MOST: u64 = 4 << 20;
/// Bytes of a bitmap at most, and of all that whoever copies them holds: a bit for each 512
/// bytes of 2 TiB.
pub const BITS: u64 = 512 << 20;

/// An image that is read: the disk, or what a snapshot of it was.
#[derive(Debug)]
pub struct Image<S> {
    file: Arc<Opened<S>>,
    data: Option<Arc<S>>,
    layout: Layout,
    l1: Arc<[u64]>,
}

/// What the disk and its snapshots have in common.
#[derive(Debug)]
struct Opened<S> {
    source: S,
    /// Bytes of `source`.
    length: u64,
    extensions: Extensions,
    backing: Option<String>,
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
        let mut image = Self::header(source)?;
        let opened = &image.file;
        let backing = names::backing(&opened.source, opened.length, &image.layout)?;
        image.l1 = read_table(&opened.source, opened.length, image.layout.l1)?;
        if let Some(opened) = Arc::get_mut(&mut image.file) {
            opened.backing = backing;
        }
        Ok(image)
    }

    /// The header and what follows it alone: all that an image that is cut off may have.
    pub(crate) fn header(source: S) -> Result<Self> {
        let length = source.size()?;
        let first = length.min(format::LENGTH_WITH_COMPRESSION.into());
        let layout = Layout::parse(&read(&source, length, 0, first)?)?;
        let extensions = extensions::read(&source, length, &layout)?;
        let opened = Opened {
            source,
            length,
            extensions,
            backing: None,
            tables: Mutex::new(Cache::new(TABLES)),
            decoded: Mutex::new(Cache::new(DECODED)),
        };
        Ok(Self {
            file: Arc::new(opened),
            data: None,
            layout,
            l1: Arc::default(),
        })
    }

    /// The same with the file its data lies in.
    #[must_use]
    pub fn with_data(mut self, data: S) -> Self {
        self.data = Some(Arc::new(data));
        self
    }

    /// What the header says.
    #[must_use]
    pub const fn layout(&self) -> &Layout {
        &self.layout
    }

    /// What follows the header.
    #[must_use]
    pub fn extensions(&self) -> &Extensions {
        &self.file.extensions
    }

    /// The backing file's name, as it stands there.
    #[must_use]
    pub fn backing(&self) -> Option<&str> {
        self.file.backing.as_deref()
    }

    /// Bytes of the disk, or of the snapshot that is [applied](Self::apply).
    #[must_use]
    pub const fn size(&self) -> u64 {
        self.layout.size
    }

    /// Bytes of the image's file.
    #[must_use]
    pub fn length(&self) -> u64 {
        self.file.length
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
        let mut all = Vec::new();
        self.each_snapshot(&mut |snapshot| all.push(snapshot))?;
        Ok(all)
    }

    /// Gives one snapshot after the other, as far as their table is sound.
    pub(crate) fn each_snapshot(&self, give: &mut dyn FnMut(Snapshot)) -> Result<()> {
        snapshots::each(&self.file.source, self.file.length, &self.layout, give)
    }

    /// Shows from now on the disk as it was when this snapshot was taken.
    ///
    /// # Errors
    /// If its level 1 table cannot be read, or is too short for the disk.
    pub fn apply(&mut self, snapshot: &Snapshot) -> Result<()> {
        *self = self.then(snapshot, None)?;
        Ok(())
    }

    /// The disk as it was when this snapshot was taken, of the same open file. If the
    /// snapshot has the level 1 table of `like`, that is not read again.
    ///
    /// # Errors
    /// If its level 1 table cannot be read, or is too short for the disk.
    pub fn then(&self, snapshot: &Snapshot, like: Option<&Self>) -> Result<Self> {
        let mut layout = self.layout.clone();
        layout.size = snapshot.disk_size.unwrap_or(layout.size);
        layout.l1 = snapshot.l1;
        if snapshot.l1.entries < layout.l1_entries(layout.size) {
            let flaw = format!("{} entries are too few", snapshot.l1.entries);
            return Err(damaged("level 1 table", snapshot.l1.offset, flaw));
        }
        let is_like =
            |like: &&Self| like.layout.l1 == snapshot.l1 && Arc::ptr_eq(&like.file, &self.file);
        let l1 = match like.filter(is_like) {
            Some(like) => Arc::clone(&like.l1),
            None => read_table(&self.file.source, self.file.length, snapshot.l1)?,
        };
        Ok(Self {
            file: Arc::clone(&self.file),
            data: self.data.clone(),
            layout,
            l1,
        })
    }

    /// The bitmaps.
    ///
    /// # Errors
    /// If their directory cannot be read or is not sound.
    pub fn bitmaps(&self) -> Result<Vec<Bitmap>> {
        let mut all = Vec::new();
        self.each_bitmap(&mut |bitmap| all.push(bitmap))?;
        Ok(all)
    }

    /// Gives one bitmap after the other, as far as their directory is sound.
    pub(crate) fn each_bitmap(&self, give: &mut dyn FnMut(Bitmap)) -> Result<()> {
        let Opened { source, length, .. } = &*self.file;
        extensions::bitmaps(source, *length, &self.layout, self.extensions(), give)
    }

    /// Whether a program that knows no bitmaps wrote to the image since they were stored:
    /// what they say does not hold, and what they lie in may be used for something else.
    #[must_use]
    pub const fn has_stale_bitmaps(&self) -> bool {
        !self.layout.keeps(Autoclear::Bitmaps)
    }

    /// Bytes of the bits of a bitmap.
    #[must_use]
    pub const fn bits_length(&self, bitmap: &Bitmap) -> u64 {
        bitmap.bytes(self.layout.size)
    }

    /// The bits of one of them, the lowest of each byte first.
    ///
    /// # Errors
    /// If they cannot be read, are more than [`BITS`], or their table is not sound.
    pub fn bits(&self, bitmap: &Bitmap) -> Result<Vec<u8>> {
        extensions::bits(&self.file.source, self.file.length, &self.layout, bitmap)
    }

    /// `length` bytes of the image's file.
    ///
    /// # Errors
    /// If they cannot be read, or are beyond its end.
    pub fn raw(&self, at: u64, length: u64) -> Result<Vec<u8>> {
        read(&self.file.source, self.file.length, at, length)
    }

    /// The same, with zeroes for what is beyond its end.
    pub(crate) fn padded(&self, at: u64, length: u64) -> Result<Vec<u8>> {
        let there = self.length().saturating_sub(at).min(length);
        let mut bytes = self.raw(at.min(self.length()), there)?;
        bytes.resize(usize::try_from(length).unwrap_or(usize::MAX), 0);
        Ok(bytes)
    }

    /// Whether the cluster at this byte of the file is in one of its holes.
    pub(crate) fn is_hole(&self, at: u64) -> Result<bool> {
        let next = self.data_from(at)?;
        Ok(next.is_none_or(|data| data.start >= at.saturating_add(self.layout.cluster())))
    }

    /// Whether the backing file's name can be read.
    pub(crate) fn verify_backing(&self) -> Result<()> {
        names::backing(&self.file.source, self.file.length, &self.layout).map(drop)
    }

    /// The next bytes of the image's file from `at` on that may be other than zeroes.
    pub(crate) fn data_from(&self, at: u64) -> Result<Option<Range<u64>>> {
        Ok(self.file.source.data_from(at)?)
    }

    /// Where uncompressed clusters of the disk lie.
    fn data(&self) -> Result<&S> {
        match (&self.data, self.layout.has(Incompatible::ExternalData)) {
            (_, false) => Ok(&self.file.source),
            (Some(data), true) => Ok(data),
            (None, true) => Err(ReadError::NotGiven {
                what: "data file",
                name: self.extensions().data_file.clone().unwrap_or_default(),
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
fn read_table<S: Source>(source: &S, end: u64, table: Table) -> Result<Arc<[u64]>> {
    if table.bytes() > format::MOST_L1_BYTES {
        let flaw = format!("it has {} bytes, more than 32 MiB", table.bytes());
        return Err(damaged("level 1 table", table.offset, flaw));
    }
    if table.entries == 0 {
        return Ok(Arc::default());
    }
    let bytes = read(source, end, table.offset, table.bytes())?;
    Ok(numbers(&bytes).collect())
}

/// Numbers of 64 bits.
pub(crate) fn numbers(bytes: &[u8]) -> impl Iterator<Item = u64> + '_ {
    let (numbers, _) = bytes.as_chunks::<8>();
    numbers.iter().map(|number| u64::from_be_bytes(*number))
}
