//! The origins of a store while it is being recovered.

use std::collections::HashMap;
use std::os::fd::AsFd;

use snapstore::{BLOCK_SIZE, Block, Checksum, IoError, Origins, VolumeId};

use super::{OriginDevice, is_unreachable};

/// Open origins by volume, for `snapstore::recover`; handed over to the runtime
/// one by one afterwards.
#[derive(Debug)]
pub struct OriginSet {
    chunk_blocks: usize,
    origins: HashMap<VolumeId, OriginDevice>,
    buffer: Vec<Block>,
}

impl OriginSet {
    /// No origin yet, for a store with chunks of `chunk_size` bytes.
    #[must_use]
    pub fn new(chunk_size: u32) -> Self {
        let chunk_blocks = chunk_size as usize / BLOCK_SIZE;
        Self {
            chunk_blocks,
            origins: HashMap::new(),
            buffer: vec![Block::zeroed(); chunk_blocks],
        }
    }

    /// Adds the origin of `volume`.
    pub fn insert(&mut self, volume: VolumeId, device: OriginDevice) {
        self.origins.insert(volume, device);
    }

    /// The origin of `volume`, if it is here.
    #[must_use]
    pub fn get(&self, volume: VolumeId) -> Option<&OriginDevice> {
        self.origins.get(&volume)
    }

    /// Hands out the origin of `volume`.
    pub fn take(&mut self, volume: VolumeId) -> Option<OriginDevice> {
        self.origins.remove(&volume)
    }
}

impl Origins for OriginSet {
    fn chunk_checksums(
        &mut self,
        checksum: Checksum,
        volume: VolumeId,
        chunk: u64,
        size: u64,
        out: &mut [u32],
    ) -> Result<(), IoError> {
        let device = self.origins.get(&volume).ok_or(IoError::Absent)?;
        let offset = chunk
            .checked_mul((self.chunk_blocks * BLOCK_SIZE) as u64)
            .filter(|offset| *offset < size)
            .ok_or(IoError::OutOfRange)?;
        let read = device.read_blocks(offset, &mut self.buffer);
        read.map_err(|error| match error {
            // What it holds is not lost.
            IoError::Errno(errno) if is_unreachable(device.as_fd(), errno) => IoError::Absent,
            error => error,
        })?;
        // A device larger than its volume: what lies beyond the volume is zero.
        for (index, (block, found)) in self.buffer.iter_mut().zip(out).enumerate() {
            let start = offset + (index * BLOCK_SIZE) as u64;
            let keep = size.saturating_sub(start).min(BLOCK_SIZE as u64) as usize;
            if let Some(rest) = block.0.get_mut(keep..) {
                rest.fill(0);
            }
            *found = checksum.of(&block.0);
        }
        Ok(())
    }
}
