//! The exception tree: intervals, places, and what is counted of them elsewhere.
//!
//! Exceptions of a chunk come in the order of their tags. Their intervals are
//! disjoint and ascending; a gap between them is fine only where no live snapshot
//! lies in it, since that snapshot's old contents would be nowhere. An interval
//! without a live snapshot is fine only while a dead one in it waits to be purged.

use std::collections::BTreeMap;

use super::Checker;
use super::eras::{Groups, Item};
use super::trees::Leaf;
use crate::block::Block;
use crate::checksum::Checksum;
use crate::device::{BlockDevice, IoError};
use crate::engine::TreeId;
use crate::format::exception::{LOST, Place, crcs_of};
use crate::ids::{Tag, VolumeId};
use crate::tree::{Key, Node};

/// What a pass over the tree counts.
#[derive(Default)]
struct Counted {
    /// Exceptions that hold a chunk, per volume.
    held: BTreeMap<VolumeId, u64>,
    /// Per volume and run (first, last) of live snapshots.
    sharing: BTreeMap<(VolumeId, Tag, Tag), u64>,
    /// The exception before; `None` behind a hole and at the beginning.
    previous: Option<Key>,
    /// What came before is not known.
    after_hole: bool,
}

impl<D: BlockDevice> Checker<'_, D> {
    /// Checks every exception; whether the whole tree was read.
    pub(super) fn check_exceptions(&mut self, groups: &mut Groups) -> bool {
        let mut counted = Counted::default();
        let mut walk = self.walk(TreeId::Exceptions);
        while let Some(leaf) = self.next_leaf(&mut walk) {
            match leaf {
                Leaf::Node(node) => self.check_leaf(&node, &mut counted, groups),
                Leaf::Hole => {
                    counted.previous = None;
                    counted.after_hole = true;
                }
            }
        }
        let whole = self.finish_walk(walk);
        if whole && self.tables_whole {
            self.compare_counts(&mut counted);
        }
        whole
    }

    fn check_leaf(&mut self, node: &Node, counted: &mut Counted, groups: &mut Groups) {
        let mut chunks = Vec::new();
        for index in 0..node.len() {
            let (key, place) = (node.key(index), Place::decode(node.value(index)));
            self.report.exceptions += 1;
            groups.add(&Item::new(key.a, key.b, key.c, place));
            if self.check_place(key, place, counted) && place.block != LOST {
                chunks.push((place.block, index));
            }
            self.check_interval(key, place, counted);
            counted.previous = Some(key);
            counted.after_hole = false;
        }
        if self.options.data {
            // In the order they lie in, which is mostly the order they were made in.
            chunks.sort_unstable();
            for (block, index) in chunks {
                let expected: Vec<u32> = crcs_of(node.value(index)).collect();
                self.check_data(&name(node.key(index)), block, &expected);
            }
        }
    }

    /// The chunk of an exception: an aligned one of its own; whether it is.
    fn check_place(&mut self, key: Key, place: Place, counted: &mut Counted) -> bool {
        if place.block == LOST {
            return true;
        }
        if let Ok(volume) = self.volume(key.a) {
            *counted.held.entry(volume.id).or_default() += 1;
        }
        let blocks = u64::from(self.geometry.chunk_blocks);
        let problem = if !place.block.is_multiple_of(blocks) {
            Some("its chunk is not aligned".to_owned())
        } else {
            let claimed = self.owners.claim(place.block, blocks);
            claimed.err().map(|clash| clash.to_string())
        };
        if let Some(reason) = &problem {
            self.exception_problem(key, reason);
        }
        problem.is_none()
    }

    fn check_interval(&mut self, key: Key, place: Place, counted: &mut Counted) {
        let (pred, tag) = (place.pred, Tag(key.c));
        if tag.0 == 0 || tag.0 >= self.state.next_tag {
            self.exception_problem(key, "its tag is not below the superblock's next one");
        }
        if pred >= tag {
            return self.exception_problem(key, "its interval is empty");
        }
        let same = counted.previous.filter(|previous| previous.same_list(&key));
        let before = Tag(same.map_or(0, |previous| previous.c));
        if pred < before {
            self.exception_problem(key, "its interval overlaps the one before");
        }
        let volume = match self.volume(key.a) {
            Ok(volume) => volume,
            Err(true) => return,
            Err(false) => return self.exception_problem(key, "its volume does not exist"),
        };
        if key.b >= volume.chunks {
            return self.exception_problem(key, "it lies beyond the end of the volume");
        }
        if !self.tables_whole {
            return;
        }
        let gap = volume.live_in(before, pred);
        let live = volume.live_in(pred, tag);
        let explained = live.is_some() || volume.unpurged().any(|dead| pred < dead && dead <= tag);
        if let Some((first, last)) = live {
            let run = (volume.id, first, last);
            *counted.sharing.entry(run).or_default() += 1;
        }
        // What came before a hole may have covered it.
        if let Some((snapshot, _)) = gap.filter(|_| same.is_some() || !counted.after_hole) {
            let reason = format!("no exception before it covers live snapshot {snapshot}");
            self.exception_problem(key, &reason);
        }
        if !explained {
            self.exception_problem(key, "no snapshot, live or to be purged, needs it");
        }
    }

    /// Compares what was counted with what the tables say.
    fn compare_counts(&mut self, counted: &mut Counted) {
        for volume in self.state.volumes.values() {
            let (held, found) = (
                volume.record.held.get(),
                counted.held.get(&volume.id).copied().unwrap_or(0),
            );
            if held != found {
                self.problems.add(format_args!(
                    "volume {}: it counts {held} chunks held, but there are {found}",
                    volume.id
                ));
            }
            if !self.sharing_whole {
                continue;
            }
            for ((first, last), count) in volume.sharing.iter() {
                let found = counted.sharing.remove(&(volume.id, first, last));
                if found != Some(count) {
                    self.problems.add(format_args!(
                        "volume {}: its counter for snapshots {first} to {last} says {count}, but they share {} exceptions",
                        volume.id,
                        found.unwrap_or(0)
                    ));
                }
            }
        }
        if self.sharing_whole {
            for ((volume, first, last), count) in &counted.sharing {
                self.problems.add(format_args!(
                    "volume {volume}: no counter for snapshots {first} to {last}, but they share {count} exceptions"
                ));
            }
        }
    }

    /// Reads a chunk and compares its checksums.
    pub(super) fn check_data(&mut self, what: &str, block: u64, expected: &[u32]) {
        self.report.chunks_verified += 1;
        self.progress.step();
        match chunk_checksums(self.dev, self.geometry.checksum, block, expected.len()) {
            Ok(found) => {
                for (at, _) in (block..)
                    .zip(expected.iter().zip(&found))
                    .filter(|(_, (expected, found))| expected != found)
                {
                    self.problems
                        .add(format_args!("{what}: data block {at}: checksum mismatch"));
                }
            }
            Err(error) => self
                .problems
                .add(format_args!("{what}: data block {block}: {error}")),
        }
    }

    fn exception_problem(&mut self, key: Key, reason: &str) {
        self.problems.add(format_args!("{}: {reason}", name(key)));
    }
}

/// The checksum of every block of a chunk in the store.
fn chunk_checksums(
    dev: &mut impl BlockDevice,
    checksum: Checksum,
    block: u64,
    count: usize,
) -> Result<Vec<u32>, IoError> {
    let mut data = vec![Block::zeroed(); count];
    dev.read(block, &mut data)?;
    Ok(data.iter().map(|b| checksum.of(&b.0)).collect())
}

/// How an exception is named to a person.
fn name(key: Key) -> String {
    format!(
        "exception of volume {}, chunk {}, tag {}",
        key.a, key.b, key.c
    )
}
