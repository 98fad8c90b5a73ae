//! Every exception against the volumes and snapshots there are: which stay, which
//! lose their contents, and what that leaves to be counted.
//!
//! Exceptions of a chunk are judged together. Whatever makes no sense is LOST for the
//! snapshots it may have been meant for, never removed: an exception that is missing
//! would show a snapshot what the origin holds now.

use std::collections::{BTreeMap, BTreeSet};

use super::Unstable;
use super::plan::Space;
use super::scan::{Survey, revisit};
use super::tables::{is_tag, volume_number};
use crate::device::BlockDevice;
use crate::engine::{Geometry, TreeId};
use crate::format::exception::{Crcs, LOST, Place, crcs_of};
use crate::ids::{Tag, VolumeId};
use crate::state::{Entry, State, Volume};
use crate::tree::{Key, Node};

/// An exception of the chunk being judged.
#[derive(Clone, Debug)]
struct Item {
    tag: Tag,
    place: Place,
    /// To be claimed and verified; `None`: that was done, or there is nothing.
    crcs: Option<Vec<u32>>,
    /// It is not what is written down.
    changed: bool,
}

impl Item {
    fn lose(&mut self, pred: Tag) {
        self.place = Place { pred, block: LOST };
        self.changed = true;
    }
}

/// What is to be changed.
#[derive(Clone, Copy, Debug)]
pub(super) enum Fix {
    /// Its contents are lost for the snapshots after this one.
    Lose(Tag),
    /// It cannot mean anything.
    Remove,
}

/// What a pass over all exceptions comes to.
#[derive(Debug, Default)]
pub(super) struct Judgement {
    /// Volume, chunk, tag.
    pub(super) fixes: Vec<(Key, Fix)>,
    /// Chunks lost by a fix that live snapshots (first, last) need.
    pub(super) lost: Vec<(VolumeId, u64, Tag, Tag)>,
    pub(super) held: BTreeMap<VolumeId, u64>,
    pub(super) sharing: BTreeMap<(VolumeId, Tag, Tag), u64>,
    /// Tags of exceptions that no snapshot, live or dead, needs.
    pub(super) unexplained: BTreeSet<(VolumeId, Tag)>,
}

/// A pass under way.
struct Judge<'a> {
    state: &'a State,
    space: &'a mut Space,
    data: bool,
    found: Judgement,
    chunk: Option<(u64, u64)>,
    items: Vec<Item>,
}

/// Judges the exceptions of the tree with the recent ones of `state` above them.
/// Chunks of the tree's exceptions are claimed from `space`; with `data` they are
/// read too.
pub(super) fn judge<D: BlockDevice>(
    dev: &mut D,
    geometry: &Geometry,
    tree: &Survey,
    state: &State,
    space: &mut Space,
    data: bool,
) -> Result<Judgement, Unstable> {
    let mut judge = Judge {
        state,
        space,
        data,
        found: Judgement::default(),
        chunk: None,
        items: Vec::new(),
    };
    let mut recent = state.recent.entries().peekable();
    let visit = &mut |dev: &mut D, node: &Node| {
        for index in 0..node.len() {
            let key = node.key(index);
            while let Some((at, entry)) = recent.next_if(|(at, _)| **at < key) {
                judge.recent(dev, *at, entry);
            }
            match recent.next_if(|(at, _)| **at == key) {
                Some((at, entry)) => judge.recent(dev, *at, entry),
                None => judge.old(dev, key, node.value(index)),
            }
        }
    };
    revisit(dev, geometry, TreeId::Exceptions, tree, visit)?;
    for (at, entry) in recent {
        judge.recent(dev, *at, entry);
    }
    judge.finish_chunk(dev);
    Ok(judge.found)
}

impl Judge<'_> {
    fn recent(&mut self, dev: &mut impl BlockDevice, key: Key, entry: &Entry) {
        if let Entry::Put { place, .. } = entry {
            let item = Item {
                tag: Tag(key.c),
                place: *place,
                crcs: None,
                changed: false,
            };
            self.add(dev, key, item);
        }
    }

    fn old(&mut self, dev: &mut impl BlockDevice, key: Key, value: &[u8]) {
        let place = Place::decode(value);
        let crcs = (place.block != LOST).then(|| crcs_of(value).collect());
        let item = Item {
            tag: Tag(key.c),
            place,
            crcs,
            changed: false,
        };
        self.add(dev, key, item);
    }

    fn add(&mut self, dev: &mut impl BlockDevice, key: Key, item: Item) {
        let chunk = Some((key.a, key.b));
        if self.chunk != chunk {
            self.finish_chunk(dev);
            self.chunk = chunk;
        }
        self.items.push(item);
    }

    fn finish_chunk(&mut self, dev: &mut impl BlockDevice) {
        let items = std::mem::take(&mut self.items);
        let Some((number, chunk)) = self.chunk else {
            return;
        };
        let key = |item: &Item| Key::new(number, chunk, item.tag.0);
        let volume = volume_number(number).and_then(|id| self.state.volumes.get(&id));
        let Some(volume) = volume.filter(|volume| chunk < volume.chunks) else {
            let gone = items.iter().map(|item| (key(item), Fix::Remove));
            return self.found.fixes.extend(gone);
        };
        let (items, senseless): (Vec<Item>, Vec<Item>) =
            items.into_iter().partition(|item| is_tag(item.tag));
        let gone = senseless.iter().map(|item| (key(item), Fix::Remove));
        self.found.fixes.extend(gone);
        for mut item in sensible(volume, items) {
            if let Some(crcs) = item.crcs.take()
                && !self
                    .space
                    .claim_chunk(dev, item.place.block, &crcs, self.data)
            {
                item.lose(item.place.pred);
            }
            self.settle(volume, chunk, &item);
        }
    }

    /// Counts an exception as it will be.
    fn settle(&mut self, volume: &Volume, chunk: u64, item: &Item) {
        let (found, id, tag, pred) = (&mut self.found, volume.id, item.tag, item.place.pred);
        let key = Key::new(id.0.into(), chunk, tag.0);
        let live = volume.live_in(pred, tag);
        if item.changed {
            found.fixes.push((key, Fix::Lose(pred)));
            found
                .lost
                .extend(live.map(|(from, to)| (id, chunk, from, to)));
        }
        if item.place.block != LOST {
            *found.held.entry(id).or_default() += 1;
        }
        match live {
            Some((from, to)) => *found.sharing.entry((id, from, to)).or_default() += 1,
            None if volume.unpurged_in(pred, tag) => {}
            None => {
                found.unexplained.insert((id, tag));
            }
        }
    }
}

/// The exceptions of a chunk, by ascending tag, with intervals that are disjoint and
/// leave no live snapshot out. What contradicts another loses its contents, and so
/// does the other.
fn sensible(volume: &Volume, items: Vec<Item>) -> Vec<Item> {
    let mut out: Vec<Item> = Vec::with_capacity(items.len());
    for mut item in items {
        let before = out.last().map_or(Tag(0), |item| item.tag);
        if item.place.pred < before {
            if let Some(other) = out.last_mut() {
                other.lose(other.place.pred);
            }
            item.lose(before);
        }
        if item.place.pred >= item.tag {
            item.lose(before);
        }
        if volume.live_in(before, item.place.pred).is_some() {
            let mut gap = Item {
                tag: item.place.pred,
                place: item.place,
                crcs: None,
                changed: true,
            };
            gap.lose(before);
            out.push(gap);
        }
        out.push(item);
    }
    // What was lost has no chunk to be claimed.
    for item in out.iter_mut().filter(|item| item.place.block == LOST) {
        item.crcs = None;
    }
    out
}

/// Carries out the fixes on the recent exceptions: the next checkpoint brings them
/// into the trees.
pub(super) fn fix(state: &mut State, geometry: &Geometry, fixes: &[(Key, Fix)]) {
    let crcs = Crcs::new(&vec![0; geometry.chunk_blocks as usize]);
    for (key, fix) in fixes {
        // Of others the survey reads no leaf.
        let Ok(volume) = u32::try_from(key.a).map(VolumeId) else {
            continue;
        };
        let (chunk, tag) = (key.b, Tag(key.c));
        match fix {
            Fix::Lose(pred) => {
                let place = Place {
                    pred: *pred,
                    block: LOST,
                };
                state.recent.put(volume, chunk, tag, place, crcs.clone());
            }
            Fix::Remove => state.recent.remove(volume, chunk, tag, LOST),
        }
    }
}
