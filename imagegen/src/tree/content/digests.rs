//! Digests of the blocks of a file that hold data.

use std::fs::File;
use std::ops::Range;

use sha2::{Digest, Sha256};

use super::exact_at;
use crate::digest::{Short, short};
use crate::tree::TreeError;

/// Bytes of a block.
const BLOCK: u64 = 4096;
/// Bytes of a file that are read at a time.
const STRETCH: u64 = 1 << 20;

/// Makes digests of bytes that come in ascending order of their place in a file.
struct Hasher {
    block: [u8; BLOCK as usize],
    /// Which block is in hand.
    number: Option<u64>,
    found: Vec<[u8; 16]>,
}

impl Hasher {
    fn new() -> Self {
        let block = [0; BLOCK as usize];
        let (number, found) = (None, Vec::new());
        Self {
            block,
            number,
            found,
        }
    }

    /// Takes the bytes at `at`.
    fn add(&mut self, mut at: u64, mut bytes: &[u8]) {
        while !bytes.is_empty() {
            let within = (at % BLOCK) as usize;
            let (now, later) = bytes.split_at(bytes.len().min(BLOCK as usize - within));
            if self.number != Some(at / BLOCK) {
                self.seal();
                self.number = Some(at / BLOCK);
            }
            if now.len() == BLOCK as usize {
                self.found.push(digest(now));
                self.number = None;
            } else {
                self.block[within..within + now.len()].copy_from_slice(now);
            }
            at += now.len() as u64;
            bytes = later;
        }
    }

    fn seal(&mut self) {
        if self.number.take().is_some() {
            self.found.push(digest(&self.block));
            self.block.fill(0);
        }
    }

    fn finish(mut self) -> Vec<[u8; 16]> {
        self.seal();
        self.found
    }
}

fn digest(block: &[u8]) -> Short {
    short(Sha256::new_with_prefix(block))
}

/// Of a file whose data is `bytes`, one range after the other.
pub(in crate::tree) fn of_bytes(data: &[Range<u64>], mut bytes: &[u8]) -> Vec<[u8; 16]> {
    let mut hasher = Hasher::new();
    for range in data {
        let length = ((range.end - range.start) as usize).min(bytes.len());
        let (now, later) = bytes.split_at(length);
        hasher.add(range.start, now);
        bytes = later;
    }
    hasher.finish()
}

/// Of a file whose data lies at `offsets` of `file`.
pub(in crate::tree) fn of_file(
    file: &File,
    data: &[Range<u64>],
    offsets: &[u64],
    path: &[u8],
) -> Result<Vec<[u8; 16]>, TreeError> {
    let mut hasher = Hasher::new();
    let mut buffer = vec![0; STRETCH as usize];
    for (range, &offset) in data.iter().zip(offsets) {
        let mut at = range.start;
        while at < range.end {
            let now = &mut buffer[..STRETCH.min(range.end - at) as usize];
            exact_at(file, now, offset + (at - range.start), path)?;
            hasher.add(at, now);
            at += now.len() as u64;
        }
    }
    Ok(hasher.finish())
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;

    /// The same, by the definition: block for block over the whole file.
    fn naive(size: usize, data: &[Range<u64>], bytes: &[u8]) -> Vec<[u8; 16]> {
        let mut file = vec![0; size.next_multiple_of(4096)];
        let mut touched = vec![false; file.len() / 4096];
        let mut rest = bytes;
        for range in data {
            let range = range.start as usize..range.end as usize;
            let (now, later) = rest.split_at(range.len());
            file[range.clone()].copy_from_slice(now);
            touched[range.start / 4096..=(range.end - 1) / 4096].fill(true);
            rest = later;
        }
        let blocks = file.chunks(4096).zip(touched);
        let touched = blocks.filter(|(_, touched)| *touched);
        touched.map(|(block, _)| digest(block)).collect()
    }

    proptest::proptest! {
        #[test]
        fn digests_are_those_of_the_blocks_touched(
            steps in proptest::collection::vec((1u64..9000, 1u64..9000), 0..6),
        ) {
            let mut data = Vec::new();
            let mut at = 0;
            for (hole, length) in steps {
                data.push(at + hole..at + hole + length);
                at += hole + length;
            }
            let total = data.iter().map(|range| range.end - range.start).sum::<u64>();
            let bytes: Vec<u8> = (0..total).map(|n| (n * 7 / 3) as u8).collect();
            let wanted = naive(at as usize, &data, &bytes);
            proptest::prop_assert_eq!(&of_bytes(&data, &bytes), &wanted);
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            let mut offsets = Vec::new();
            let mut offset = 0;
            for range in &data {
                offsets.push(offset);
                offset += range.end - range.start;
            }
            proptest::prop_assert_eq!(of_file(&file, &data, &offsets, b"x").unwrap(), wanted);
        }
    }
}
