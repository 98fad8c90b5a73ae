//! An encoded fork in memory: which block lies where, and what is in it.

use imagegen::xfs::geometry::{Features, Geometry};
use std::collections::BTreeMap;
use uuid::Uuid;

/// A file system of four groups, large enough for everything here.
pub(crate) fn geometry(block_log: u8, dir_block_log: u8) -> Geometry {
    Geometry {
        features: Features {
            finobt: true,
            inobtcount: true,
            sparse: true,
            rmapbt: true,
            reflink: true,
            bigtime: true,
            nrext64: true,
            exchange: true,
            parent: true,
            ascii_ci: false,
        },
        uuid: Uuid::from_u128(0x1234_5678_9abc_def0_0fed_cba9_8765_4321),
        label: [0; 12],
        sector_log: 9,
        block_log,
        inode_log: 9,
        dir_block_log,
        blocks: 4 * 3_000_000,
        ag_count: 4,
        ag_blocks: 3_000_000,
        log_start: 2_000_000,
        log_blocks: 20_000,
        log_unit: 1,
        stripe_unit: 0,
        stripe_width: 0,
        imax_percent: 25,
        inode_align: 8,
        sparse_align: 4,
    }
}

/// How blocks are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Layout {
    /// One after the other.
    Together,
    /// No two together, over all groups.
    Scattered,
}

/// A fork's blocks.
pub(crate) struct Placed {
    pub(crate) geometry: Geometry,
    pub(crate) owner: u64,
    /// By offset in the fork: where and what.
    pub(crate) blocks: BTreeMap<u64, (u64, Vec<u8>)>,
    /// How many times the sink was called.
    pub(crate) writes: usize,
}

impl Placed {
    /// Gives `ranges` blocks, encodes, and gathers what comes out: every block once.
    pub(crate) fn gather(
        geometry: &Geometry,
        owner: u64,
        ranges: &[(u64, u64)],
        layout: Layout,
        encode: impl FnOnce(&dyn Fn(u64) -> u64, &mut dyn FnMut(u64, &[u8])),
    ) -> Self {
        let mut places = BTreeMap::new();
        for (offset, count) in ranges {
            assert!(*count > 0);
            for offset in *offset..offset + count {
                let number = places.len() as u32;
                let place = match layout {
                    Layout::Together => geometry.fsblock(1, 500 + number),
                    Layout::Scattered => geometry.fsblock(3 - number % 4, 500 + number),
                };
                assert_eq!(places.insert(offset, place), None, "ranges overlap");
            }
        }
        let mut written = BTreeMap::new();
        let mut writes = 0;
        encode(&|offset| places[&offset], &mut |place, bytes| {
            writes += 1;
            for (place, block) in (place..).zip(bytes.chunks_exact(geometry.block_size())) {
                let again = written.insert(place, block.to_vec());
                assert_eq!(again, None, "written twice");
            }
        });
        assert_eq!(written.len(), places.len(), "not all blocks were written");
        let block = |(offset, place)| (offset, (place, written.remove(&place).unwrap()));
        Self {
            geometry: geometry.clone(),
            owner,
            blocks: places.into_iter().map(block).collect(),
            writes,
        }
    }

    /// Blocks of the fork in `range` of offsets, joined.
    pub(crate) fn bytes(&self, offset: u64, count: u64) -> Vec<u8> {
        let blocks = (offset..offset + count).map(|offset| &self.blocks[&offset].1[..]);
        blocks.collect::<Vec<_>>().concat()
    }

    /// Address in units of 512 bytes.
    pub(crate) fn daddr(&self, offset: u64) -> u64 {
        self.geometry.byte_of(self.blocks[&offset].0) / 512
    }
}
