//! The superblock, with which a checkpoint becomes valid.
//!
//! Written with FUA after everything it leads to has been flushed, in one of two places
//! in turn, so that the last one stays whole until the next is durable.

use std::sync::Arc;

use super::{Effect, Effects, Engine, Io};
use crate::BLOCK_SIZE;
use crate::format::superblock::{DiskRoot, FLAG_CLEAN, Superblock, VERSION};
use crate::tree::Root;

impl Engine {
    /// Writes the superblock in the place of its generation.
    pub(super) fn write_superblock(&mut self, out: &mut Effects) {
        let generation = self.checkpoint.next.generation;
        let superblock = self.next_superblock();
        let at = superblock.address(generation);
        let data = Arc::new(superblock.encode(at, generation));
        self.counters.checkpoint_bytes += BLOCK_SIZE as u64;
        let io = self.new_io(Io::Superblock);
        out.list.push(Effect::WriteBlock {
            io,
            block: at,
            data,
            fua: true,
        });
    }

    fn next_superblock(&self) -> Superblock {
        let (geometry, next) = (&self.geometry, &self.checkpoint.next);
        Superblock {
            version: VERSION.into(),
            chunk_size: (geometry.chunk_blocks * BLOCK_SIZE as u32).into(),
            compat: 0.into(),
            ro_compat: 0.into(),
            incompat: 0.into(),
            uuid: geometry.uuid,
            blocks: next.blocks.into(),
            created_ms: geometry.created_ms.into(),
            journal_first: self.journal.first.into(),
            journal_blocks: self.journal.blocks.into(),
            journal_tail: next.tail.into(),
            journal_chain: next.chain.into(),
            checksum: geometry.checksum.id().into(),
            next_tag: next.tag.into(),
            next_volume: next.volume.into(),
            flags: if next.clean { FLAG_CLEAN } else { 0 }.into(),
            bitmap: next.bitmap.into(),
            exceptions: disk_root(&next.roots.exceptions),
            eras: disk_root(&next.roots.eras),
            volumes: disk_root(&next.roots.volumes),
            snapshots: disk_root(&next.roots.snapshots),
            sharing: disk_root(&next.roots.sharing),
        }
    }
}

/// A root as it stands on disk.
pub(crate) fn disk_root(root: &Root) -> DiskRoot {
    DiskRoot {
        ptr: root.ptr.into(),
        height: root.height.into(),
        reserved: [0; 6],
        nodes: root.nodes.into(),
        leaves: root.leaves.into(),
        records: root.records.into(),
    }
}

/// A root read from disk.
pub(crate) fn root_of(disk: &DiskRoot) -> Root {
    Root {
        ptr: disk.ptr.into(),
        height: disk.height.get(),
        nodes: disk.nodes.get(),
        leaves: disk.leaves.get(),
        records: disk.records.get(),
    }
}
