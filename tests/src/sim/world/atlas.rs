//! Which blocks of a store may be damaged, and what each leads to.
//!
//! Only what belongs to the checkpoint of the newest superblock, and only while both
//! superblocks are at rest: else nobody could say what a block is for.

use snapstore::check::{DumpItem, Structure, items};
use snapstore::{Tag, VolumeId};

use crate::sim::dice::Dice;
use crate::sim::disk::SimDisk;
use crate::sim::disk::sync::SyncDisk;
use crate::sim::oracle::damage::Hurt;
use crate::sim::value::PER_BLOCK;

/// Blocks of copied-out chunks.
pub(super) const CHUNK: &str = "chunk";
/// The superblock that is not the newest.
pub(super) const SUPERBLOCK: &str = "older superblock";
/// The directory of the bitmap's pages.
pub(super) const BITMAP: &str = "bitmap";
/// The tree of exceptions, as a dump names it; others likewise.
pub(super) const EXCEPTIONS: &str = "exception tree";

/// A block that may be damaged.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) kind: &'static str,
    pub(super) block: u64,
    /// What it leads to, and nothing else does.
    pub(super) hurts: Vec<Hurt>,
}

impl Place {
    fn new(kind: &'static str, block: u64, hurts: Vec<Hurt>) -> Self {
        Self { kind, block, hurts }
    }
}

/// All such blocks; none if they are not clear. `chunk`: its sectors.
pub(super) fn atlas(store: &SimDisk, dice: &mut Dice, chunk: u64) -> Vec<Place> {
    let mut copy = store.clone();
    let mut found = Vec::new();
    let structures = [
        Structure::Superblocks,
        Structure::Exceptions,
        Structure::Nodes,
    ];
    let mut disk = SyncDisk::new(&mut copy, dice, None);
    if items(&mut disk, &structures, &mut |item| found.push(item)).is_err() {
        return Vec::new();
    }
    let mut places = superblocks(&found);
    let rests = |place: &Place| store.at_rest(place.block * PER_BLOCK, PER_BLOCK);
    if !places.iter().all(rests) {
        return Vec::new();
    }
    let hurts = exceptions(&found, chunk, &mut places);
    nodes(&found, &hurts, &mut places);
    places
}

/// The two superblocks of the store. One newer than the checkpoint is what an extension
/// that was cut off left at the device's end: it does not count, nor what it leads to.
fn superblocks(found: &[DumpItem]) -> Vec<Place> {
    let checkpoint = found.iter().find_map(|item| match item {
        DumpItem::Checkpoint { generation } => Some(*generation),
        _ => None,
    });
    let copies = found.iter().filter_map(|item| match item {
        DumpItem::Superblock {
            at,
            generation,
            superblock,
        } if Some(*generation) <= checkpoint => {
            Some((*generation, *at, superblock.bitmap.block.get()))
        }
        _ => None,
    });
    let mut copies: Vec<_> = copies.collect();
    copies.sort_unstable();
    let newest = copies.last().map(|(_, _, bitmap)| *bitmap);
    let mut places = Vec::new();
    if let [(_, older, _), _] = copies[..] {
        places.push(Place::new(SUPERBLOCK, older, Vec::new()));
    }
    places.extend(newest.map(|block| Place::new(BITMAP, block, Vec::new())));
    places
}

/// What every exception keeps, in the order of the leaves.
fn exceptions(found: &[DumpItem], sectors: u64, places: &mut Vec<Place>) -> Vec<Hurt> {
    let mut hurts = Vec::new();
    for item in found {
        let DumpItem::Exception {
            volume,
            chunk,
            tag,
            place,
            ..
        } = item
        else {
            continue;
        };
        let hurt = Hurt {
            volume: VolumeId(*volume as u32),
            sectors: chunk * sectors..(chunk + 1) * sectors,
            tags: Tag(place.pred.0 + 1)..=Tag(*tag),
        };
        // Block 0: it is lost already.
        if place.block != 0 {
            let blocks = place.block..place.block + sectors / PER_BLOCK;
            places.extend(blocks.map(|block| Place::new(CHUNK, block, vec![hurt.clone()])));
        }
        hurts.push(hurt);
    }
    hurts
}

/// The leaves and the nodes above leaves: parents come before their children, and what
/// the leaves hold in the same order.
fn nodes(found: &[DumpItem], hurts: &[Hurt], places: &mut Vec<Place>) {
    let mut hurts = hurts.iter();
    let mut parent = None;
    for item in found {
        let DumpItem::Node {
            tree,
            block,
            level,
            records,
            ..
        } = item
        else {
            continue;
        };
        let mut held = Vec::new();
        if *level == 0 && *tree == EXCEPTIONS {
            held.extend(hurts.by_ref().take(*records as usize).cloned());
            if let Some(above) = parent.and_then(|index: usize| places.get_mut(index)) {
                above.hurts.extend(held.iter().cloned());
            }
        }
        if *level == 1 && *tree == EXCEPTIONS {
            parent = Some(places.len());
        }
        if *level < 2 {
            places.push(Place::new(tree, *block, held));
        }
    }
}
