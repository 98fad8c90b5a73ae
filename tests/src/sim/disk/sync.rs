//! Synchronous access to simulated disks, for making, recovering and checking a
//! store. A fuse cuts the power after so many operations, so that crashes inside
//! recovery happen too.

use std::collections::BTreeMap;

use snapstore::{Block, BlockDevice, Checksum, IoError, Origins, VolumeId};

use super::{Done, OpId, SimDisk};
use crate::sim::dice::Dice;
use crate::sim::value::{Data, PER_BLOCK, SECTOR, checksums_of};

/// A store seen block by block, at once.
#[derive(Debug)]
pub struct SyncDisk<'a> {
    disk: &'a mut SimDisk,
    dice: &'a mut Dice,
    fuse: Option<u64>,
}

impl<'a> SyncDisk<'a> {
    /// The whole disk. With a `fuse`, the power fails inside that operation.
    pub fn new(disk: &'a mut SimDisk, dice: &'a mut Dice, fuse: Option<u64>) -> Self {
        Self { disk, dice, fuse }
    }

    /// Whether the power failed.
    #[must_use]
    pub fn blown(&self) -> bool {
        self.fuse == Some(0)
    }

    /// Counts an operation; true if the power fails inside it.
    fn burn(&mut self) -> bool {
        match &mut self.fuse {
            Some(0) => true,
            Some(left) => {
                *left -= 1;
                *left == 0
            }
            None => false,
        }
    }

    fn finish(&mut self, op: OpId) -> Result<Vec<Data>, IoError> {
        match self.disk.complete(op, self.dice) {
            Some(Done::Read(result)) => result,
            Some(Done::Plain(result)) => result.map(|()| Vec::new()),
            None => Err(IoError::Absent),
        }
    }
}

impl BlockDevice for SyncDisk<'_> {
    fn blocks(&self) -> u64 {
        self.disk.sectors() / PER_BLOCK
    }

    fn read(&mut self, first: u64, out: &mut [Block]) -> Result<(), IoError> {
        if self.burn() {
            return Err(IoError::Absent);
        }
        let count = out.len() as u64 * PER_BLOCK;
        let first = first.checked_mul(PER_BLOCK).ok_or(IoError::OutOfRange)?;
        if first
            .checked_add(count)
            .is_none_or(|end| end > self.disk.sectors())
        {
            return Err(IoError::OutOfRange);
        }
        let op = self.disk.read(first, count, self.dice);
        let sectors = self.finish(op)?;
        for (block, sectors) in out.iter_mut().zip(sectors.chunks(PER_BLOCK as usize)) {
            *block = block_of(sectors);
        }
        Ok(())
    }

    fn write(&mut self, first: u64, data: &[Block]) -> Result<(), IoError> {
        if self.blown() {
            return Err(IoError::Absent);
        }
        let cut = self.burn();
        let first = first.checked_mul(PER_BLOCK).ok_or(IoError::OutOfRange)?;
        let sectors: Vec<Data> = data.iter().flat_map(sectors_of_block).collect();
        let op = self.disk.write(first, &sectors, false);
        if cut {
            // Left in flight: the power cut decides how much of it landed.
            return Err(IoError::Absent);
        }
        self.finish(op).map(drop)
    }

    fn flush(&mut self) -> Result<(), IoError> {
        if self.burn() {
            return Err(IoError::Absent);
        }
        let op = self.disk.flush();
        self.finish(op).map(drop)
    }
}

/// A block made of eight sectors.
#[must_use]
pub fn block_of(sectors: &[Data]) -> Block {
    let mut block = Block::zeroed();
    for (bytes, sector) in block.0.chunks_exact_mut(SECTOR).zip(sectors) {
        bytes.copy_from_slice(sector.bytes());
    }
    block
}

/// The eight sectors of a block.
pub fn sectors_of_block(block: &Block) -> impl Iterator<Item = Data> + '_ {
    block.0.chunks_exact(SECTOR).map(Data::of)
}

/// The origins, for recovery.
#[derive(Debug)]
pub struct SyncOrigins<'a> {
    /// The disk of each volume.
    pub disks: BTreeMap<VolumeId, &'a SimDisk>,
    /// Sectors in a chunk.
    pub chunk: u64,
}

impl Origins for SyncOrigins<'_> {
    fn chunk_checksums(
        &mut self,
        checksum: Checksum,
        volume: VolumeId,
        chunk: u64,
        size: u64,
        out: &mut [u32],
    ) -> Result<(), IoError> {
        let disk = self.disks.get(&volume).ok_or(IoError::Absent)?;
        let first = chunk * self.chunk;
        let end = (size / SECTOR as u64).min(first + self.chunk);
        if first >= end || end > disk.sectors() {
            return Err(IoError::OutOfRange);
        }
        if disk.faults.bad.range(first..end).next().is_some() {
            return Err(super::EIO);
        }
        let mut sectors: Vec<Data> = (first..end).map(|s| disk.visible(s)).collect();
        sectors.resize(self.chunk as usize, Data::zero());
        for (out, found) in out.iter_mut().zip(checksums_of(checksum, &sectors)) {
            *out = found;
        }
        Ok(())
    }
}
