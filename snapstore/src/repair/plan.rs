//! What a repair would do, resting on one superblock. Writes nothing.

use super::RepairError;
use std::collections::BTreeSet;

use super::judge::{Fix, Judgement, fix, judge};
use super::lost::{self, Trees};
use super::report::{Loss, Named, join};
use super::tables::{self, Tables};
use crate::alloc::Allocator;
use crate::block::Block;
use crate::device::BlockDevice;
use crate::engine::{Geometry, Roots};
use crate::format::exception::LOST;
use crate::format::journal::Record;
use crate::ids::{Tag, VolumeId};
use crate::recover::{Newest, geometry_of, roots_of};
use crate::replay::{self, Replay};
use crate::state::{Entry, State};
use crate::tree::Key;

/// Which blocks are in use, found out by looking at everything that uses one.
pub(super) struct Space {
    pub(super) alloc: Allocator,
    geometry: Geometry,
}

impl Space {
    fn new(geometry: &Geometry) -> Self {
        let mut space = Self {
            alloc: Allocator::new(geometry.blocks, geometry.chunk_blocks),
            geometry: *geometry,
        };
        let journal = (geometry.journal_first, geometry.journal_blocks);
        for (block, count) in [(0, 1), journal, (geometry.blocks - 1, 1)] {
            if space.alloc.mark_used(block, count).is_ok() {
                space.alloc.claim(block, count);
            }
        }
        space
    }

    /// Keeps blocks of the old checkpoint from being written over while it counts.
    fn spare(&mut self, blocks: impl IntoIterator<Item = u64>) {
        for block in blocks {
            // Met twice: a node of a tree and something else. Once is enough.
            let _ = self.alloc.mark_used(block, 1);
        }
    }

    /// Whether a chunk is an aligned one of its own, and if wanted as its checksums say.
    fn is_good(
        &mut self,
        dev: &mut impl BlockDevice,
        block: u64,
        crcs: &[u32],
        data: bool,
    ) -> bool {
        let blocks = u64::from(self.geometry.chunk_blocks);
        let good = block.is_multiple_of(blocks) && self.geometry.holds_chunk(block);
        good && (!data || self.verifies(dev, block, crcs))
            && self.alloc.mark_used(block, blocks).is_ok()
    }

    /// Makes a chunk of the tree's exceptions part of the store.
    pub(super) fn claim_chunk(
        &mut self,
        dev: &mut impl BlockDevice,
        block: u64,
        crcs: &[u32],
        data: bool,
    ) -> bool {
        let good = self.is_good(dev, block, crcs, data);
        if good {
            self.alloc.claim(block, self.geometry.chunk_blocks.into());
        }
        good
    }

    fn verifies(&self, dev: &mut impl BlockDevice, block: u64, crcs: &[u32]) -> bool {
        let mut data = vec![Block::zeroed(); crcs.len()];
        let checksum = self.geometry.checksum;
        dev.read(block, &mut data).is_ok()
            && data
                .iter()
                .map(|b| checksum.of(&b.0))
                .eq(crcs.iter().copied())
    }
}

/// See the module.
pub(super) struct Plan {
    pub(super) newest: Newest,
    pub(super) geometry: Geometry,
    pub(super) roots: Roots,
    pub(super) state: State,
    pub(super) space: Space,
    pub(super) trees: Trees,
    pub(super) replay: Replay,
    /// Sequence behind the last good block of the journal.
    pub(super) journal_end: u64,
    /// The journal is known to have gone on there.
    pub(super) journal_broken: bool,
    pub(super) losses: Vec<Loss>,
}

/// Which chunks are read. Those of the journal's unflushed tail always are: they may
/// be torn.
#[derive(Clone, Copy, Debug)]
pub(super) struct Verify {
    /// Those in the tree.
    pub(super) old: bool,
    /// Those in the journal.
    pub(super) recent: bool,
}

/// Finds out what there is.
pub(super) fn plan(
    dev: &mut impl BlockDevice,
    newest: &Newest,
    verify: Verify,
) -> Result<Plan, RepairError> {
    let superblock = &newest.superblock;
    let (geometry, roots) = (geometry_of(superblock), roots_of(superblock));
    let mut losses = Vec::new();
    let mut tables = tables::read(dev, &geometry, &roots, superblock);
    let journal = replay::salvage(dev, superblock, newest.generation);
    tables.replay(&journal, &mut losses);
    let trees = lost::read(dev, &geometry, &roots)?;
    drop_unknown(&mut tables, &trees, &geometry, &mut losses);

    let mut space = Space::new(&geometry);
    space.spare(tables.nodes.iter().copied());
    space.spare(trees.exceptions.nodes.iter().copied());
    space.spare(trees.eras.nodes.iter().copied());
    let image = crate::alloc::load(
        dev,
        geometry.store,
        superblock.bitmap.into(),
        geometry.blocks,
        geometry.chunk_blocks,
    );
    space.spare(image.iter().flat_map(Allocator::image_blocks));

    let mut lost = lose_found(&mut tables.state, &geometry, &trees);
    let tail = if verify.recent {
        &journal.replay.records
    } else {
        &journal.replay.unflushed
    };
    let tail: BTreeSet<Key> = tail.iter().filter_map(key_of).collect();
    let state = &mut tables.state;
    lost.extend(claim_recent(dev, state, &geometry, &mut space, &tail));
    let judged = judge(
        dev,
        &geometry,
        &trees.exceptions,
        &tables.state,
        &mut space,
        verify.old,
    )?;
    fix(&mut tables.state, &geometry, &judged.fixes);
    lost.extend(judged.lost.iter().copied());
    lost.sort_unstable();
    for chunk in lost {
        let loss = lost_chunk(&tables, chunk);
        join(&mut losses, loss);
    }
    tables.explain(&judged.unexplained, &mut losses);
    let mut state = tables.state;
    count(&mut state, judged);
    state.recent.release_nothing();
    state.rewrite_tables();
    Ok(Plan {
        newest: *newest,
        geometry,
        roots,
        state,
        space,
        trees,
        journal_end: journal.end,
        journal_broken: journal.broken.is_some(),
        replay: journal.replay,
        losses,
    })
}

/// Volumes that are missing, snapshots that may lack something nobody knows of.
fn drop_unknown(tables: &mut Tables, trees: &Trees, geometry: &Geometry, losses: &mut Vec<Loss>) {
    let chunk_size = u64::from(geometry.chunk_blocks) * crate::BLOCK_SIZE as u64;
    let recent = tables.state.recent.entries();
    let tags = recent
        .map(|(key, _)| key.c)
        .filter(|tag| tables::is_tag(Tag(*tag)));
    let tags = tags.max().map_or(1, |tag| tag + 1);
    tables.state.next_tag = tables.state.next_tag.max(trees.next_tag).max(tags);
    tables.find_missing(&trees.reach, chunk_size);
    let volumes: Vec<VolumeId> = tables.state.volumes.keys().copied().collect();
    for (id, tag) in trees.unknown(volumes.into_iter()) {
        tables.drop_up_to(id, tag, losses);
    }
    for id in &trees.too_many {
        tables.drop_up_to(*id, Tag(u64::MAX), losses);
    }
    tables.settle(chunk_size, losses);
}

/// Volume, chunk, first and last snapshot affected.
type LostChunk = (VolumeId, u64, Tag, Tag);

/// Puts LOST where an exception cannot be read, unless something newer is known.
fn lose_found(state: &mut State, geometry: &Geometry, trees: &Trees) -> Vec<LostChunk> {
    let mut lost = Vec::new();
    let mut fixes = Vec::new();
    for (id, items) in &trees.lost {
        let Some(volume) = state.volumes.get(id) else {
            continue;
        };
        for (chunk, tag, pred) in items {
            if state.recent.knows(*id, *chunk, *tag) {
                continue;
            }
            let live = volume.live_in(*pred, *tag);
            let key = Key::new(id.0.into(), *chunk, tag.0);
            match live {
                Some((from, to)) => {
                    lost.push((*id, *chunk, from, to));
                    fixes.push((key, Fix::Lose(*pred)));
                }
                None => fixes.push((key, Fix::Remove)),
            }
        }
    }
    fix(state, geometry, &fixes);
    lost
}

fn key_of(record: &Record) -> Option<Key> {
    match record {
        Record::Exception {
            volume, chunk, tag, ..
        } => Some(Key::new(volume.0.into(), *chunk, tag.0)),
        _ => None,
    }
}

/// Marks the chunks of recent exceptions, and verifies some; one that has none of its
/// own is lost.
fn claim_recent(
    dev: &mut impl BlockDevice,
    state: &mut State,
    geometry: &Geometry,
    space: &mut Space,
    verify: &BTreeSet<Key>,
) -> Vec<LostChunk> {
    let mut fixes = Vec::new();
    let mut lost = Vec::new();
    for (key, entry) in state.recent.entries() {
        let Entry::Put { place, crcs } = entry else {
            continue;
        };
        if place.block == LOST
            || space.is_good(dev, place.block, crcs.as_slice(), verify.contains(key))
        {
            continue;
        }
        fixes.push((*key, Fix::Lose(place.pred)));
        let id = tables::volume_number(key.a);
        let live = id.and_then(|id| state.volumes.get(&id)?.live_in(place.pred, Tag(key.c)));
        lost.extend(id.zip(live).map(|(id, (from, to))| (id, key.b, from, to)));
    }
    fix(state, geometry, &fixes);
    lost
}

fn lost_chunk(tables: &Tables, (volume, first, from, to): LostChunk) -> Loss {
    let named = |tag| Named {
        tag,
        name: tables.snapshot_name(volume, tag),
    };
    Loss::Chunks {
        volume,
        name: tables.volume_name(volume),
        first,
        count: 1,
        from: named(from),
        to: named(to),
    }
}

/// The counters are what was counted.
fn count(state: &mut State, judged: Judgement) {
    for (id, volume) in &mut state.volumes {
        let held = judged.held.get(id).copied().unwrap_or(0);
        volume.record.held = held.into();
    }
    for ((id, first, last), count) in judged.sharing {
        if let Some(volume) = state.volumes.get_mut(&id) {
            volume.sharing.load(first, last, count);
        }
    }
}
