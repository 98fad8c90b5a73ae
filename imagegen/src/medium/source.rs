//! What a file system is read from: an image, a device, bytes in memory.

use rustix::io::Errno;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::ops::Range;
use std::os::unix::fs::FileExt;

/// Bytes at offsets, for reading.
pub trait Source {
    /// Fills `buffer` from byte `offset` on.
    ///
    /// # Errors
    /// If not all of it can be read; an end before is `UnexpectedEof`.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()>;

    /// Bytes it holds.
    ///
    /// # Errors
    /// If it cannot tell.
    fn size(&self) -> io::Result<u64>;

    /// The next bytes from `offset` on that may be other than zeroes, as far as can be told
    /// without reading; none if there are none up to the end.
    ///
    /// # Errors
    /// If it cannot tell its size.
    fn data_from(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let size = self.size()?;
        Ok((offset < size).then_some(offset..size))
    }
}

impl Source for File {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.read_exact_at(buffer, offset)
    }

    /// By seeking, because a block device has no length in its metadata.
    fn size(&self) -> io::Result<u64> {
        let mut file = self;
        file.seek(SeekFrom::End(0))
    }

    fn data_from(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let size = self.size()?;
        if offset >= size {
            return Ok(None);
        }
        // Where holes are not known there are none.
        let begin = match rustix::fs::seek(self, rustix::fs::SeekFrom::Data(offset)) {
            Ok(begin) => begin,
            Err(Errno::NXIO) => return Ok(None),
            Err(_) => return Ok(Some(offset..size)),
        };
        let end = rustix::fs::seek(self, rustix::fs::SeekFrom::Hole(begin));
        Ok(Some(begin..end.map_or(size, |end| end.min(size))))
    }
}

impl Source for [u8] {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let begin = usize::try_from(offset).unwrap_or(usize::MAX);
        let end = begin.saturating_add(buffer.len());
        let bytes = self.get(begin..end).ok_or(io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(bytes);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.len() as u64)
    }
}

impl Source for Vec<u8> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.as_slice().read_at(offset, buffer)
    }

    fn size(&self) -> io::Result<u64> {
        self.as_slice().size()
    }
}

impl<S: Source + ?Sized> Source for &S {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        (**self).read_at(offset, buffer)
    }

    fn size(&self) -> io::Result<u64> {
        (**self).size()
    }

    fn data_from(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        (**self).data_from(offset)
    }
}
