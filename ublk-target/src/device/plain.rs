//! Plain, blocking I/O in whole blocks: for making, recovering and checking.

use std::io::{IoSlice, IoSliceMut};

use nix::errno::Errno;
use nix::sys::uio::{preadv, pwritev};
use snapstore::{BLOCK_SIZE, Block, BlockDevice, IoError};

use super::{Device, StoreDevice};

/// Blocks in one call; the kernel takes at most 1024 pieces.
const BATCH: usize = 256;

impl Device {
    /// Reads whole blocks from byte `offset` (a multiple of 4096) on. What lies
    /// beyond the end of the device reads as zeroes.
    ///
    /// # Errors
    /// What the device reported.
    pub fn read_blocks(&self, offset: u64, out: &mut [Block]) -> Result<(), IoError> {
        let mut at = offset;
        for batch in out.chunks_mut(BATCH) {
            let want = batch.len() * BLOCK_SIZE;
            let have = usize::try_from(self.size().saturating_sub(at))
                .unwrap_or(want)
                .min(want);
            self.read_batch(at, batch, have)?;
            at += want as u64;
        }
        Ok(())
    }

    /// Reads `have` bytes into `batch` and zeroes the rest.
    fn read_batch(&self, offset: u64, batch: &mut [Block], have: usize) -> Result<(), IoError> {
        let mut done = 0;
        while done < have {
            let mut pieces = pieces_mut(batch, done, have);
            let n = retry(|| preadv(&self.file, &mut pieces, (offset + done as u64) as i64))?;
            if n == 0 {
                return Err(IoError::OutOfRange);
            }
            done += n;
        }
        for (index, block) in batch.iter_mut().enumerate() {
            let keep = have.saturating_sub(index * BLOCK_SIZE).min(BLOCK_SIZE);
            if let Some(rest) = block.0.get_mut(keep..) {
                rest.fill(0);
            }
        }
        Ok(())
    }

    fn write_blocks(&self, offset: u64, data: &[Block]) -> Result<(), IoError> {
        let mut at = offset;
        for batch in data.chunks(BATCH) {
            let want = batch.len() * BLOCK_SIZE;
            let mut done = 0;
            while done < want {
                let pieces = pieces(batch, done);
                let n = retry(|| pwritev(&self.file, &pieces, (at + done as u64) as i64))?;
                if n == 0 {
                    return Err(IoError::Errno(libc::EIO));
                }
                done += n;
            }
            at += want as u64;
        }
        Ok(())
    }

    /// Makes every completed write durable (`fdatasync`).
    ///
    /// # Errors
    /// What the device reported.
    pub fn sync(&self) -> Result<(), IoError> {
        self.file
            .sync_data()
            .map_err(|error| IoError::Errno(error.raw_os_error().unwrap_or(libc::EIO)))
    }
}

impl BlockDevice for StoreDevice {
    fn blocks(&self) -> u64 {
        self.size() / BLOCK_SIZE as u64
    }

    fn read(&mut self, first: u64, out: &mut [Block]) -> Result<(), IoError> {
        in_range(self.blocks(), first, out.len())?;
        self.read_blocks(first * BLOCK_SIZE as u64, out)
    }

    fn write(&mut self, first: u64, data: &[Block]) -> Result<(), IoError> {
        in_range(self.blocks(), first, data.len())?;
        self.write_blocks(first * BLOCK_SIZE as u64, data)
    }

    fn flush(&mut self) -> Result<(), IoError> {
        self.sync()
    }
}

fn in_range(blocks: u64, first: u64, count: usize) -> Result<(), IoError> {
    match first.checked_add(count as u64) {
        Some(end) if end <= blocks => Ok(()),
        _ => Err(IoError::OutOfRange),
    }
}

/// What of `batch` lies in bytes `done .. have`, block by block.
fn pieces_mut(batch: &mut [Block], done: usize, have: usize) -> Vec<IoSliceMut<'_>> {
    let clip = |index: usize, at: usize| at.saturating_sub(index * BLOCK_SIZE).min(BLOCK_SIZE);
    batch
        .iter_mut()
        .enumerate()
        .filter_map(|(index, block)| block.0.get_mut(clip(index, done)..clip(index, have)))
        .filter(|piece| !piece.is_empty())
        .map(IoSliceMut::new)
        .collect()
}

/// What of `batch` lies at byte `done` and beyond, block by block.
fn pieces(batch: &[Block], done: usize) -> Vec<IoSlice<'_>> {
    batch
        .iter()
        .enumerate()
        .filter_map(|(index, block)| {
            block
                .0
                .get(done.saturating_sub(index * BLOCK_SIZE).min(BLOCK_SIZE)..)
        })
        .filter(|piece| !piece.is_empty())
        .map(IoSlice::new)
        .collect()
}

fn retry(mut call: impl FnMut() -> nix::Result<usize>) -> Result<usize, IoError> {
    loop {
        match call() {
            Ok(n) => return Ok(n),
            Err(Errno::EINTR | Errno::EAGAIN) => {}
            Err(errno) => return Err(IoError::Errno(errno as i32)),
        }
    }
}
