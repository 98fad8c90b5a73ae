//! A fingerprint of an origin: taken at an orderly stop, compared at the next
//! attach, to notice that someone wrote the origin without csnap meanwhile.
//!
//! Contract: covers the volume (what the device has beyond it does not count: it
//! may have been extended meanwhile): its size, the first 1 MiB (superblocks of nearly every file
//! system; partition tables; LVM metadata), the last 64 KiB (backups of those),
//! the mirrors of btrfs, and the whole log of an XFS file system, which every
//! mount for writing writes. What it cannot notice: a write that goes around all
//! of these, such as `dd` into the middle, or a mount of a partition inside a
//! partitioned disk. The manual says so.

use sha2::{Digest, Sha256};
use snapstore::engine::Seal;
use snapstore::{BLOCK_SIZE, Block, IoError};
use uuid::Uuid;

use crate::device::Device;

const MIB: u64 = 1 << 20;
/// An XFS log is at most 2 GiB; reading that would hold up every stop.
const MAX_LOG: u64 = 256 * MIB;
const BTRFS_MIRRORS: [u64; 2] = [64 * MIB, 256 << 30];

/// Bytes of a fingerprint that tell of the origin; the rest tells one stop from others.
const TELLING: usize = 24;

/// What the store is told of an origin left in good order. No two are the same, so that
/// somebody who finds one knows whether it is the one he left.
#[must_use]
pub fn left(mut fingerprint: [u8; 32]) -> Seal {
    draw(fingerprint.iter_mut().skip(TELLING));
    Seal::Fingerprint(fingerprint)
}

/// What the store is told of an origin that is used from now on. No two are the same.
#[must_use]
pub fn used() -> Seal {
    let mut bytes = [0; 32];
    draw(bytes.iter_mut());
    Seal::Use(bytes)
}

/// Puts a number there, in up to 16 bytes, that nobody draws twice.
fn draw<'a>(bytes: impl Iterator<Item = &'a mut u8>) {
    let drawn = Uuid::new_v4();
    let drawn = drawn.as_bytes().iter().rev();
    bytes.zip(drawn).for_each(|(byte, drawn)| *byte = *drawn);
}

/// Whether two fingerprints tell of the same contents.
#[must_use]
pub fn tell_the_same(one: &[u8; 32], other: &[u8; 32]) -> bool {
    one.iter().zip(other).take(TELLING).all(|(a, b)| a == b)
}

/// Computes the fingerprint of the first `size` bytes, those of the volume, through
/// the device's own open file.
///
/// # Errors
/// What the device reported.
pub fn of_device(device: &Device, size: u64) -> Result<[u8; 32], IoError> {
    compute(size, |offset, blocks| {
        device.read_blocks(offset, blocks)?;
        cut(offset, blocks, size);
        Ok(())
    })
}

/// Zeroes what blocks from byte `offset` on hold beyond byte `size`.
fn cut(offset: u64, blocks: &mut [Block], size: u64) {
    for (index, block) in blocks.iter_mut().enumerate() {
        let start = offset + (index * BLOCK_SIZE) as u64;
        let keep = size.saturating_sub(start).min(BLOCK_SIZE as u64) as usize;
        if let Some(rest) = block.0.get_mut(keep..) {
            rest.fill(0);
        }
    }
}

/// Computes the fingerprint of `size` bytes; `read` reads whole blocks at a byte
/// offset that is a multiple of the block size, zero beyond the end.
fn compute(
    size: u64,
    mut read: impl FnMut(u64, &mut [Block]) -> Result<(), IoError>,
) -> Result<[u8; 32], IoError> {
    let mut hash = Sha256::new();
    hash.update(b"csnap origin 1");
    hash.update(size.to_le_bytes());
    let mut buffer = vec![Block::zeroed(); (MIB as usize) / BLOCK_SIZE];
    read(0, &mut buffer)?;
    let log = buffer.first().and_then(|block| xfs_log(&block.0));
    let mut areas = vec![(0, MIB), (size.saturating_sub(64 << 10), 64 << 10)];
    areas.extend(BTRFS_MIRRORS.map(|offset| (offset, BLOCK_SIZE as u64)));
    areas.extend(log.map(|(offset, length)| (offset, length.min(MAX_LOG))));
    for (offset, length) in areas {
        let mut at = offset / BLOCK_SIZE as u64 * BLOCK_SIZE as u64;
        let end = offset.saturating_add(length).min(size);
        while at < end {
            let count = (end - at).min(MIB).div_ceil(BLOCK_SIZE as u64) as usize;
            let piece = buffer.get_mut(..count).unwrap_or_default();
            read(at, piece)?;
            hash.update(at.to_le_bytes());
            piece.iter().for_each(|block| hash.update(block.0));
            at += MIB;
        }
    }
    Ok(hash.finalize().into())
}

/// Byte offset and length of the internal log an XFS superblock names.
///
/// Fields (big-endian) after xfsprogs' `xfs_dsb`: magic at 0, block size at 4,
/// log start at 48, blocks in an allocation group at 84, log blocks at 96, log2 of
/// the allocation group's blocks rounded up at 124.
fn xfs_log(block: &[u8; BLOCK_SIZE]) -> Option<(u64, u64)> {
    let u32_at = |at: usize| {
        let bytes = block.get(at..at + 4)?.try_into().ok()?;
        Some(u64::from(u32::from_be_bytes(bytes)))
    };
    if !block.starts_with(b"XFSB") {
        return None;
    }
    let start = u64::from_be_bytes(block.get(48..56)?.try_into().ok()?);
    let (block_size, group_blocks, log_blocks) = (u32_at(4)?, u32_at(84)?, u32_at(96)?);
    let shift = u32::from(*block.get(124)?);
    if start == 0 || shift > 32 {
        return None; // an external log, or nonsense
    }
    let (group, within) = (start >> shift, start & ((1u64 << shift) - 1));
    let first = group.checked_mul(group_blocks)?.checked_add(within)?;
    Some((first.checked_mul(block_size)?, log_blocks * block_size))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(image: &[u8]) -> [u8; 32] {
        compute(image.len() as u64, |offset, out| {
            for (index, block) in out.iter_mut().enumerate() {
                let at = offset as usize + index * BLOCK_SIZE;
                block.0 = [0; BLOCK_SIZE];
                let have = image
                    .get(at..image.len().min(at + BLOCK_SIZE))
                    .unwrap_or(&[]);
                block.0[..have.len()].copy_from_slice(have);
            }
            Ok(())
        })
        .unwrap()
    }

    #[test]
    fn changes_of_the_covered_areas_are_noticed() {
        let image = vec![7u8; 8 << 20];
        let known = of(&image);
        assert_eq!(of(&image), known);
        for at in [
            0,
            1024,
            65536 + 64,
            (1 << 20) - 1,
            image.len() - 1,
            image.len() - 65536,
        ] {
            let mut changed = image.clone();
            changed[at] ^= 1;
            assert_ne!(of(&changed), known, "a change of byte {at} went unnoticed");
        }
        assert_ne!(
            of(&image[..image.len() - 512]),
            known,
            "a smaller size went unnoticed"
        );
        let mut beyond = image.clone();
        beyond[4 << 20] ^= 1;
        assert_eq!(of(&beyond), known, "documented: the middle is not covered");
    }

    #[test]
    fn the_log_of_an_xfs_is_covered_and_nonsense_is_survived() {
        let mut image = vec![0u8; 64 << 20];
        image[..4].copy_from_slice(b"XFSB");
        image[4..8].copy_from_slice(&4096u32.to_be_bytes());
        image[84..88].copy_from_slice(&4096u32.to_be_bytes()); // groups of 16 MiB
        image[124] = 12;
        image[48..56].copy_from_slice(&((2u64 << 12) | 5).to_be_bytes()); // group 2, block 5
        image[96..100].copy_from_slice(&1024u32.to_be_bytes()); // 4 MiB of log
        let known = of(&image);
        let log = (2 * 4096 + 5) * 4096;
        for (at, covered) in [(log, true), (log + (4 << 20) - 1, true), (log - 1, false)] {
            let mut changed = image.clone();
            changed[at] ^= 1;
            assert_eq!(of(&changed) != known, covered, "byte {at}");
        }
        image[4..128].fill(0xff);
        of(&image);
        image[124] = 32;
        of(&image);
    }

    #[test]
    fn each_stop_and_each_use_is_told_from_others_and_means_the_same() {
        let (one, other) = (of(&[1; 4096]), of(&[2; 4096]));
        let Seal::Fingerprint(kept) = left(one) else {
            panic!("no fingerprint");
        };
        assert!(tell_the_same(&kept, &one), "as the next attach computes it");
        assert!(tell_the_same(&one, &one), "as it was kept before");
        assert!(!tell_the_same(&kept, &other));
        assert_ne!(left(one), left(one));
        assert_ne!(used(), used());
        assert!(matches!(used(), Seal::Use(bytes) if bytes != [0; 32]));
    }

    #[test]
    fn small_origins_work() {
        for size in [512, 4096, 65536, 100_000] {
            assert_ne!(of(&vec![1; size]), of(&vec![0; size]));
        }
    }
}
