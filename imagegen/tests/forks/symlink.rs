//! Symbolic links: in the inode, or in blocks.

use crate::naive::{be32, be64};
use crate::placed::{Layout, Placed, geometry};
use imagegen::xfs::format::checksum;
use imagegen::xfs::write::{ForkError, symlink};

const INO: u64 = 140;

#[test]
fn a_target_that_fits_the_inode_lies_there() {
    assert!(symlink::is_inline(&[b'x'; 336], 336));
    assert!(!symlink::is_inline(&[b'x'; 337], 336));
}

#[test]
fn targets_have_1_to_1023_bytes() {
    let refused = |bytes| Err(ForkError::TargetLength { bytes });
    let check = |bytes| symlink::check(&vec![b'x'; bytes]);
    assert_eq!([check(0), check(1024)], [refused(0), refused(1024)]);
    assert_eq!([check(1), check(1023)], [Ok(()), Ok(())]);
}

/// Reads a target whose blocks lie in extents of `together` blocks.
fn read(placed: &Placed, together: u64) -> Vec<u8> {
    let mut found = Vec::<u8>::new();
    let blocks = placed.blocks.len() as u64;
    for offset in (0..blocks).step_by(together as usize) {
        let extent = placed.bytes(offset, together);
        assert!(checksum::holds(&extent, 12));
        assert_eq!(be32(&extent, 0), 0x5853_4c4d);
        assert_eq!(be32(&extent, 4) as usize, found.len());
        assert_eq!(extent[16..32], *placed.geometry.uuid.as_bytes());
        let own = (be64(&extent, 32), be64(&extent, 40));
        assert_eq!(own, (INO, placed.daddr(offset)));
        assert_eq!(be64(&extent, 48), 0);
        found.extend(&extent[56..56 + be32(&extent, 8) as usize]);
    }
    found
}

#[test]
fn a_longer_target_fills_blocks() {
    for (block_log, length, blocks) in [
        (12, 337, 1),
        (12, 1023, 1),
        (10, 968, 1),
        (10, 969, 2),
        (10, 1023, 2),
    ] {
        let geometry = geometry(block_log, 0);
        let target: Vec<u8> = (0..length).map(|at| b'a' + (at % 26) as u8).collect();
        assert_eq!(symlink::blocks_needed(&geometry, &target), blocks);
        for (layout, together) in [(Layout::Scattered, 1), (Layout::Together, blocks)] {
            let placed = Placed::gather(&geometry, INO, &[(0, blocks)], layout, |place, sink| {
                symlink::encode(&geometry, INO, &target, place, sink);
            });
            assert_eq!(read(&placed, together), target);
        }
    }
}
