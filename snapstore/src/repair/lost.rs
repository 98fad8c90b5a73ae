//! Which exceptions are gone, known from the era tree, which holds each of them a
//! second time: those lose their contents and nothing else. Where both trees are
//! damaged nobody knows, and every snapshot that may be affected is dropped.

use std::collections::BTreeMap;

use super::scan::{Survey, revisit, survey};
use super::tables::{is_tag, volume_number};
use super::{RepairError, Unstable};
use crate::check::{Groups, Item, ItemKey};
use crate::device::BlockDevice;
use crate::engine::{Geometry, Roots, TreeId};
use crate::ids::{Tag, VolumeId};
use crate::tree::{Key, Node, Span};

/// More lost exceptions than these are not told apart: the snapshots are dropped.
const MOST: usize = 1 << 20;

/// What both trees say.
pub(super) struct Trees {
    pub(super) exceptions: Survey,
    pub(super) eras: Survey,
    /// Chunk, tag and what comes before of exceptions that are lost, by volume.
    pub(super) lost: BTreeMap<VolumeId, Vec<(u64, Tag, Tag)>>,
    /// Volumes of which too many are lost.
    pub(super) too_many: Vec<VolumeId>,
    /// The eras are not those of the exceptions.
    pub(super) eras_differ: bool,
    /// How many chunks each volume reaches, as far as exceptions tell.
    pub(super) reach: BTreeMap<VolumeId, u64>,
    /// Above every tag.
    pub(super) next_tag: u64,
}

fn exception_key(item: &Item) -> Key {
    Key::new(item.volume, item.chunk, item.tag)
}

fn era_key(item: &Item) -> Key {
    Key::new(item.volume, item.tag, item.chunk)
}

fn items(tree: TreeId, node: &Node) -> impl Iterator<Item = Item> + '_ {
    (0..node.len()).map(move |index| Item::of(tree, node, index))
}

/// Reads both trees.
pub(super) fn read(
    dev: &mut impl BlockDevice,
    geometry: &Geometry,
    roots: &Roots,
) -> Result<Trees, RepairError> {
    let mut groups = Groups::new();
    let mut reach = BTreeMap::new();
    let mut next_tag = 1;
    let mut note = |item: &Item| {
        if is_tag(Tag(item.tag)) {
            next_tag = next_tag.max(item.tag + 1);
        }
        if let Some(id) = volume_number(item.volume) {
            let chunks: &mut u64 = reach.entry(id).or_default();
            *chunks = (*chunks).max(item.chunk.saturating_add(1));
        }
    };
    let eras = survey(dev, geometry, TreeId::Eras, roots.eras, &mut |_, node| {
        items(TreeId::Eras, node).for_each(|item| note(&item));
    });
    let exceptions = survey(
        dev,
        geometry,
        TreeId::Exceptions,
        roots.exceptions,
        &mut |_, node| {
            for item in items(TreeId::Exceptions, node) {
                note(&item);
                if !eras.in_hole(era_key(&item)) {
                    groups.add(&item);
                }
            }
        },
    );
    let mut trees = Trees {
        exceptions,
        eras,
        lost: BTreeMap::new(),
        too_many: Vec::new(),
        eras_differ: false,
        reach,
        next_tag,
    };
    trees.find_lost(dev, geometry, &mut groups)?;
    if !groups.agree() {
        trees.eras_differ = true;
        trees.compare(dev, geometry, &groups)?;
    }
    Ok(trees)
}

impl Trees {
    /// Collects the eras of exceptions that cannot be read.
    fn find_lost(
        &mut self,
        dev: &mut impl BlockDevice,
        geometry: &Geometry,
        groups: &mut Groups,
    ) -> Result<(), Unstable> {
        let mut lost = Vec::new();
        let (eras, exceptions) = (&self.eras, &self.exceptions);
        let mut too_many = Vec::new();
        revisit(dev, geometry, TreeId::Eras, eras, &mut |_, node| {
            for item in items(TreeId::Eras, node) {
                if !exceptions.in_hole(exception_key(&item)) {
                    groups.subtract(&item);
                } else if lost.len() < MOST {
                    lost.push(item);
                } else if let Some(id) = volume_number(item.volume)
                    && !too_many.contains(&id)
                {
                    too_many.push(id);
                }
            }
        })?;
        self.eras_differ = !too_many.is_empty();
        self.too_many = too_many;
        lost.iter().for_each(|item| self.lose(item, item.pred));
        Ok(())
    }

    fn lose(&mut self, item: &Item, pred: u64) {
        if let Some(id) = volume_number(item.volume).filter(|id| !self.too_many.contains(id)) {
            let entry = (item.chunk, Tag(item.tag), Tag(pred));
            self.lost.entry(id).or_default().push(entry);
        }
    }

    /// An era that is not the exception it should be: nobody knows which is right.
    fn compare(
        &mut self,
        dev: &mut impl BlockDevice,
        geometry: &Geometry,
        groups: &Groups,
    ) -> Result<(), RepairError> {
        let mut found: BTreeMap<ItemKey, [Option<Item>; 2]> = BTreeMap::new();
        let sides = [
            (TreeId::Exceptions, &self.exceptions),
            (TreeId::Eras, &self.eras),
        ];
        let mut complete = true;
        for (side, (tree, survey)) in sides.into_iter().enumerate() {
            let (exceptions, eras) = (&self.exceptions, &self.eras);
            revisit(dev, geometry, tree, survey, &mut |_, node| {
                for item in items(tree, node) {
                    let known =
                        !exceptions.in_hole(exception_key(&item)) && !eras.in_hole(era_key(&item));
                    if !known || !groups.differs(&item) {
                        continue;
                    }
                    complete &= found.len() < MOST;
                    if complete
                        && let Some(place) = found.entry(item.key()).or_default().get_mut(side)
                    {
                        *place = Some(item);
                    }
                }
            })?;
        }
        if !complete {
            return Err(RepairError::TooDifferent);
        }
        for sides in found.into_values() {
            match sides {
                [Some(a), Some(b)] if a != b => self.lose(&a, a.pred.min(b.pred)),
                [None, Some(era)] => self.lose(&era, era.pred),
                _ => {}
            }
        }
        Ok(())
    }

    /// Volumes, with the newest tag, that may have had exceptions where both trees are
    /// damaged.
    pub(super) fn unknown(
        &self,
        volumes: impl Iterator<Item = VolumeId>,
    ) -> BTreeMap<VolumeId, Tag> {
        let mut unknown = BTreeMap::new();
        for id in volumes {
            let a = u64::from(id.0);
            let held = |hole: &&Span| hole.low.a <= a && a <= hole.last().a;
            if !self.exceptions.holes.iter().any(|hole| held(&hole)) {
                continue;
            }
            let last = self.eras.holes.iter().filter(held).map(|hole| {
                let last = hole.last();
                Tag(if last.a > a { u64::MAX } else { last.b })
            });
            if let Some(tag) = last.max() {
                unknown.insert(id, tag);
            }
        }
        unknown
    }
}
