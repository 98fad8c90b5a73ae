//! An image into a pipe. Nothing in it can be sought, and its first bytes say where its last
//! ones lie: so it is made twice, first to know the header and then to be handed on. The
//! same disk gives the same bytes, so the disk must not change meanwhile.

use super::{Contents, Options, Targets, WriteError, Written, write};
use crate::medium::{Medium, Ordered, Source};
use crate::tree::Progress;
use parking_lot::Mutex;
use std::io::{self, Write};

/// Writes an image to `out`, byte after byte. `progress` is told of everything twice.
///
/// # Errors
/// As [`write`](super::write); if the disk changed meanwhile; if there shall be an external
/// data file. What was handed on by then is no image.
pub fn stream<S: Source + Send + Sync>(
    contents: &Contents<'_, S>,
    out: impl Write + Send,
    options: &Options,
    progress: &Progress,
) -> Result<Written, WriteError> {
    if options.data_file.is_some() {
        return Err(WriteError::Option(
            "an image with an external data file does not go into a pipe",
        ));
    }
    let first = FirstOnly::default();
    let planned = write(contents, Targets::alone(&first), options, progress)?;
    let header = first.0.into_inner();
    let pipe = Ordered::new(out);
    pipe.write(0, &header)?;
    let rest = Rest { pipe, header };
    let written = write(contents, Targets::alone(&rest), options, progress)?;
    if written != planned {
        return Err(changed().into());
    }
    rest.pipe.finish(written.length)?;
    Ok(written)
}

fn changed() -> io::Error {
    io::Error::other("the disk changed while it was read: what was written is no image")
}

/// Keeps what is written at byte 0.
#[derive(Default)]
struct FirstOnly(Mutex<Vec<u8>>);

impl Medium for FirstOnly {
    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        if at == 0 {
            *self.0.lock() = bytes.to_vec();
        }
        Ok(())
    }

    fn read(&self, _: u64, _: &mut [u8]) -> io::Result<()> {
        Err(io::ErrorKind::Unsupported.into())
    }

    fn zero(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
}

/// Hands on what follows the header.
struct Rest<W> {
    pipe: Ordered<W>,
    header: Vec<u8>,
}

impl<W: Write + Send> Medium for Rest<W> {
    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        match at {
            0 if bytes == self.header => Ok(()),
            0 => Err(changed()),
            at => self.pipe.write(at, bytes),
        }
    }

    fn read(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.pipe.read(at, bytes)
    }

    fn skip(&self, at: u64, length: u64) -> io::Result<()> {
        self.pipe.skip(at, length)
    }

    fn zero(&self, at: u64, length: u64) -> io::Result<()> {
        self.pipe.zero(at, length)
    }
}
