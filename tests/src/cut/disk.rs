//! The disk that is logged: an origin, a store and a diary, one behind the other.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;

use snapstore::{BLOCK_SIZE, Block};

use crate::e2e::fault::Trying;
use crate::e2e::{Fault, Outcome};
use crate::memory::MemoryStore;

const MIB: u64 = 1 << 20;
/// Bytes of the origin: small, so that chunks are overwritten, kept and freed often.
pub const ORIGIN: u64 = 4 * MIB;
/// Bytes of the store.
pub const STORE: u64 = 64 * MIB;
/// Bytes of the diary.
pub const DIARY: u64 = 32 * MIB;
/// Where each begins and how long it is.
pub const PARTS: [(&str, u64, u64); 3] = [
    ("origin", 0, ORIGIN),
    ("store", ORIGIN, STORE),
    ("diary", ORIGIN + STORE, DIARY),
];
/// Bytes of it all.
pub const WHOLE: u64 = ORIGIN + STORE + DIARY;
/// Bytes that are written as a whole or not at all.
pub const SECTOR: usize = 512;

/// What it holds. Copies share their blocks.
#[derive(Clone, Debug)]
pub struct Disk {
    parts: [MemoryStore; 3],
}

impl Default for Disk {
    fn default() -> Self {
        Self {
            parts: PARTS.map(|(_, _, bytes)| MemoryStore::new(bytes / BLOCK_SIZE as u64)),
        }
    }
}

impl Disk {
    /// The origin.
    #[must_use]
    pub fn origin(&self) -> &MemoryStore {
        &self.parts[0]
    }

    /// The store.
    #[must_use]
    pub fn store(&self) -> &MemoryStore {
        &self.parts[1]
    }

    /// The diary.
    #[must_use]
    pub fn diary(&self) -> &MemoryStore {
        &self.parts[2]
    }

    /// Whether a byte belongs to the diary.
    #[must_use]
    pub fn is_diary(at: u64) -> bool {
        at >= PARTS[2].1
    }

    /// Writes whole sectors.
    ///
    /// # Errors
    /// If the disk has no such place.
    pub fn write(&mut self, at: u64, bytes: &[u8]) -> Outcome {
        let mut done = 0;
        while done < bytes.len() {
            let place = at + done as u64;
            let within = (place % BLOCK_SIZE as u64) as usize;
            let step = (BLOCK_SIZE - within).min(bytes.len() - done);
            self.write_block(place, within, &bytes[done..done + step])?;
            done += step;
        }
        Ok(())
    }

    fn write_block(&mut self, place: u64, within: usize, bytes: &[u8]) -> Outcome {
        let inside =
            |(_, start, length): &(&str, u64, u64)| (*start..start + length).contains(&place);
        let part = PARTS.iter().position(inside);
        let part = part.ok_or_else(|| Fault::wrong(format!("the disk has no byte {place}")))?;
        let number = (place - PARTS[part].1) / BLOCK_SIZE as u64;
        let mut block = Block::clone(&self.parts[part].get(number));
        block.0[within..within + bytes.len()].copy_from_slice(bytes);
        self.parts[part].put(number, Arc::new(block));
        Ok(())
    }

    /// Writes it into a file, which is made.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn save(&self, path: &Path) -> Outcome {
        let story = || format!("write {}", path.display());
        let file = File::create(path).trying(story)?;
        file.set_len(WHOLE).trying(story)?;
        for (part, (_, start, _)) in self.parts.iter().zip(PARTS) {
            for number in part.written() {
                let at = start + number * BLOCK_SIZE as u64;
                file.write_all_at(&part.get(number).0, at).trying(story)?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_write_goes_to_its_part_and_may_cross_blocks() {
        let mut disk = Disk::default();
        disk.write(ORIGIN - 512, &[3; 1536]).unwrap();
        let last = ORIGIN / BLOCK_SIZE as u64 - 1;
        assert_eq!(disk.origin().get(last).0[BLOCK_SIZE - 512..], [3; 512]);
        assert_eq!(disk.origin().get(last).0[..512], [0; 512]);
        assert_eq!(disk.store().get(0).0[..1024], [3; 1024]);
        assert_eq!(disk.store().get(0).0[1024..1536], [0; 512]);
        assert!(disk.write(WHOLE - 512, &[1; 1024]).is_err());
    }
}
