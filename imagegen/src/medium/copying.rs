//! Contents that go from a file into the image: shared by the file system where it can,
//! read and written in large pieces where it cannot.

use super::Medium;
use super::buffer::Buffer;
use super::stream::Failure;
use crate::tree::{Time, written};
use std::fs::File;
use std::io::{self, ErrorKind};
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Contents to be copied from a file.
pub(crate) struct Copy {
    pub(crate) file: Arc<File>,
    pub(crate) path: Arc<[u8]>,
    pub(crate) parts: Vec<Part>,
    /// When the file was last written to, as seen before it was known what to copy.
    pub(crate) written: Option<Time>,
}

/// Bytes of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Part {
    /// Where they begin.
    pub(crate) at: u64,
    pub(crate) length: u64,
    /// Where they begin in the file; zeroes have no such place.
    pub(crate) from: Option<u64>,
}

impl Copy {
    /// Does it; `buffer` holds what is read meanwhile.
    pub(crate) fn carry_out(
        &self,
        medium: &dyn Medium,
        buffer: &mut Buffer,
    ) -> Result<(), Failure> {
        let mut out = Out { medium, buffer };
        for part in &self.parts {
            match part.from {
                Some(from) => self.copy(from, part, &mut out)?,
                None => out.zeroes(part.at, part.length)?,
            }
        }
        if self.written.is_some() && self.written != written(&self.file).ok() {
            let path = Arc::clone(&self.path);
            return Err(Failure::Changed { path });
        }
        out.flush()
    }

    fn copy(&self, from: u64, part: &Part, out: &mut Out<'_>) -> Result<(), Failure> {
        let shared = out.medium.share(&self.file, from, part.at, part.length);
        let mut done = shared.map_err(Failure::Write)?;
        while done < part.length {
            out.turn_to(part.at + done)?;
            let read = |room: &mut [u8]| read(&self.file, room, from + done);
            match out.buffer.fill(part.length - done, read) {
                Ok(0) => return Err(self.failed(None)),
                Ok(read) => done += read as u64,
                Err(cause) => return Err(self.failed(Some(cause))),
            }
        }
        Ok(())
    }

    fn failed(&self, cause: Option<io::Error>) -> Failure {
        let path = Arc::clone(&self.path);
        Failure::Copy { path, cause }
    }
}

fn read(file: &File, room: &mut [u8], at: u64) -> io::Result<usize> {
    loop {
        match file.read_at(room, at) {
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            done => return done,
        }
    }
}

/// Joins what follows each other.
struct Out<'a> {
    medium: &'a dyn Medium,
    buffer: &'a mut Buffer,
}

impl Out<'_> {
    /// Makes room for bytes at `at`.
    fn turn_to(&mut self, at: u64) -> Result<(), Failure> {
        if self.buffer.next() != at || self.buffer.is_full() {
            self.flush()?;
            self.buffer.start(at);
        }
        Ok(())
    }

    fn zeroes(&mut self, at: u64, length: u64) -> Result<(), Failure> {
        let mut left = length;
        while left > 0 {
            self.turn_to(at + (length - left))?;
            left = self.buffer.push_zeroes(left);
        }
        Ok(())
    }

    fn flush(&mut self) -> Result<(), Failure> {
        let (at, bytes) = (self.buffer.at(), self.buffer.bytes());
        if !bytes.is_empty() {
            self.medium.write(at, bytes).map_err(Failure::Write)?;
        }
        self.buffer.start(0);
        Ok(())
    }
}
