//! What a store holds, thing by thing: for the dump as text and as JSON.
//!
//! Damage is a thing too, and the dump goes on behind it.

mod text;

use zerocopy::FromBytes;

use super::superblocks::read_copy;
use super::trees::{Step, TreeWalk};
use crate::alloc::Allocator;
use crate::device::BlockDevice;
use crate::engine::{TREES, TreeId};
use crate::format::exception::{Crcs, Place, crcs_of};
use crate::format::journal::Record;
use crate::format::superblock::Superblock;
use crate::format::tables::{SnapshotRecord, VolumeRecord};
use crate::recover::{Newest, OpenError, geometry_of, leftover, roots_of};
use crate::replay;
use crate::tree::Node;

pub use text::write_item;

/// A part of a store that can be dumped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Structure {
    /// Both superblocks.
    Superblocks,
    /// The volume table.
    Volumes,
    /// The snapshot table.
    Snapshots,
    /// The sharing counters.
    Sharing,
    /// The exception tree.
    Exceptions,
    /// What the journal holds beyond the checkpoint.
    Journal,
    /// The era tree: the exceptions in another order.
    Eras,
    /// The nodes of every tree.
    Nodes,
    /// Which blocks are in use.
    Bitmap,
}

impl Structure {
    /// All of them, in the order they are dumped in.
    pub const ALL: [Self; 9] = [
        Self::Superblocks,
        Self::Volumes,
        Self::Snapshots,
        Self::Sharing,
        Self::Exceptions,
        Self::Journal,
        Self::Eras,
        Self::Nodes,
        Self::Bitmap,
    ];
    /// Those that say all there is to say once.
    pub const USUAL: [Self; 6] = [
        Self::Superblocks,
        Self::Volumes,
        Self::Snapshots,
        Self::Sharing,
        Self::Exceptions,
        Self::Journal,
    ];
}

/// One thing in a store. Numbers are as on disk.
#[derive(Clone, Debug)]
#[allow(missing_docs, reason = "the fields are those of docs/format.md")]
pub enum Item {
    /// A superblock.
    Superblock {
        at: u64,
        generation: u64,
        superblock: Box<Superblock>,
    },
    /// The checkpoint that all else belongs to.
    Checkpoint { generation: u64 },
    /// A record of the volume table.
    Volume { id: u64, record: Box<VolumeRecord> },
    /// A record of the snapshot table.
    Snapshot {
        volume: u64,
        tag: u64,
        record: Box<SnapshotRecord>,
    },
    /// A sharing counter.
    Sharing {
        volume: u64,
        first: u64,
        last: u64,
        count: u64,
    },
    /// An exception.
    Exception {
        volume: u64,
        chunk: u64,
        tag: u64,
        place: Place,
        crcs: Crcs,
    },
    /// An era.
    Era {
        volume: u64,
        tag: u64,
        chunk: u64,
        place: Place,
    },
    /// A node of a tree.
    Node {
        tree: &'static str,
        block: u64,
        generation: u64,
        level: u16,
        records: u64,
    },
    /// A run of blocks that the bitmap says are in use.
    Used { first: u64, last: u64 },
    /// A journal record that is not in the checkpoint.
    Journal { flushed: bool, record: Record },
    /// Something that cannot be read.
    Damage { what: String },
}

/// Writes the usual structures of a store as text, one line per thing.
///
/// # Errors
/// When the store cannot be read far enough, or `out` cannot be written.
pub fn dump(dev: &mut impl BlockDevice, out: &mut dyn std::fmt::Write) -> Result<(), OpenError> {
    let mut written = Ok(());
    items(dev, &Structure::USUAL, &mut |item| {
        if written.is_ok() {
            written = write_item(&item, out);
        }
    })?;
    written.map_err(|_| OpenError::Invalid("the dump could not be written".to_owned()))
}

/// Hands over every thing in these structures.
///
/// # Errors
/// When the store cannot be read far enough.
pub fn items(
    dev: &mut impl BlockDevice,
    structures: &[Structure],
    each: &mut dyn FnMut(Item),
) -> Result<(), OpenError> {
    let newest = super::newest_store(dev)?;
    for structure in Structure::ALL.iter().filter(|s| structures.contains(s)) {
        match structure {
            Structure::Superblocks => superblocks(dev, &newest, each),
            Structure::Volumes => tree(dev, &newest, TreeId::Volumes, each),
            Structure::Snapshots => tree(dev, &newest, TreeId::Snapshots, each),
            Structure::Sharing => tree(dev, &newest, TreeId::Sharing, each),
            Structure::Exceptions => tree(dev, &newest, TreeId::Exceptions, each),
            Structure::Eras => tree(dev, &newest, TreeId::Eras, each),
            Structure::Journal => journal(dev, &newest, each),
            Structure::Nodes => TREES.iter().for_each(|id| nodes(dev, &newest, *id, each)),
            Structure::Bitmap => bitmap(dev, &newest, each),
        }
    }
    Ok(())
}

fn superblocks(dev: &mut impl BlockDevice, newest: &Newest, each: &mut dyn FnMut(Item)) {
    // What an extension that was cut off left is shown too.
    let left = leftover(dev, &geometry_of(&newest.superblock));
    let both = [0, newest.superblock.blocks.get() - 1];
    for at in both.into_iter().chain(left) {
        each(match read_copy(dev, at) {
            Ok((superblock, generation)) => Item::Superblock {
                at,
                generation,
                superblock: Box::new(superblock),
            },
            Err(reason) => Item::Damage {
                what: format!("superblock, block {at}: {reason}"),
            },
        });
    }
    let generation = newest.generation;
    each(Item::Checkpoint { generation });
}

/// Visits the good nodes of a tree.
fn walk(
    dev: &mut impl BlockDevice,
    newest: &Newest,
    tree: TreeId,
    each: &mut dyn FnMut(Result<&Node, Item>),
) {
    let superblock = &newest.superblock;
    let mut walk = TreeWalk::new(&geometry_of(superblock), &roots_of(superblock), tree);
    while let Some(step) = walk.next(dev, None) {
        match step {
            Step::Node(node) => each(Ok(&node)),
            Step::Bad { block, reason } => each(Err(Item::Damage {
                what: format!("{}, block {block}: {reason}", tree.name()),
            })),
        }
    }
}

fn nodes(dev: &mut impl BlockDevice, newest: &Newest, tree: TreeId, each: &mut dyn FnMut(Item)) {
    walk(dev, newest, tree, &mut |node| {
        each(node.map_or_else(
            |damage| damage,
            |node| Item::Node {
                tree: tree.name(),
                block: node.ptr().block,
                generation: node.ptr().generation,
                level: node.level(),
                records: node.len() as u64,
            },
        ));
    });
}

fn tree(dev: &mut impl BlockDevice, newest: &Newest, tree: TreeId, each: &mut dyn FnMut(Item)) {
    walk(dev, newest, tree, &mut |node| match node {
        Ok(node) if node.level() == 0 => {
            (0..node.len()).for_each(|index| each(record(tree, node, index)));
        }
        Ok(_) => {}
        Err(damage) => each(damage),
    });
}

fn record(tree: TreeId, node: &Node, index: usize) -> Item {
    let (key, value) = (node.key(index), node.value(index));
    let short = || Item::Damage {
        what: format!("record {key} is too short"),
    };
    match tree {
        TreeId::Volumes => VolumeRecord::read_from_bytes(value).map_or_else(
            |_| short(),
            |record| Item::Volume {
                id: key.b,
                record: Box::new(record),
            },
        ),
        TreeId::Snapshots => SnapshotRecord::read_from_bytes(value).map_or_else(
            |_| short(),
            |record| Item::Snapshot {
                volume: key.a,
                tag: key.b,
                record: Box::new(record),
            },
        ),
        TreeId::Sharing => Item::Sharing {
            volume: key.a,
            first: key.c,
            last: key.b,
            count: value.try_into().map_or(0, u64::from_le_bytes),
        },
        TreeId::Exceptions => Item::Exception {
            volume: key.a,
            chunk: key.b,
            tag: key.c,
            place: Place::decode(value),
            crcs: Crcs::new(&crcs_of(value).collect::<Vec<u32>>()),
        },
        TreeId::Eras => Item::Era {
            volume: key.a,
            tag: key.b,
            chunk: key.c,
            place: Place::decode(value),
        },
    }
}

fn journal(dev: &mut impl BlockDevice, newest: &Newest, each: &mut dyn FnMut(Item)) {
    match replay::read(dev, &newest.superblock, newest.generation) {
        Ok(replay) => {
            let known = replay.records.len() - replay.unflushed.len();
            for (index, record) in replay.records.into_iter().enumerate() {
                let flushed = index < known;
                each(Item::Journal { flushed, record });
            }
        }
        Err(error) => each(Item::Damage {
            what: error.to_string(),
        }),
    }
}

fn bitmap(dev: &mut impl BlockDevice, newest: &Newest, each: &mut dyn FnMut(Item)) {
    let geometry = geometry_of(&newest.superblock);
    let loaded = crate::alloc::load(
        dev,
        geometry.store,
        newest.superblock.bitmap.into(),
        geometry.blocks,
        geometry.chunk_blocks,
    );
    match loaded {
        Ok(alloc) => used(&alloc, geometry.blocks, each),
        Err(error) => each(Item::Damage {
            what: error.to_string(),
        }),
    }
}

fn used(alloc: &Allocator, blocks: u64, each: &mut dyn FnMut(Item)) {
    let mut first = None;
    for block in 0..=blocks {
        match (first, alloc.is_durable(block)) {
            (None, true) => first = Some(block),
            (Some(start), false) => {
                first = None;
                let last = block - 1;
                each(Item::Used { first: start, last });
            }
            _ => {}
        }
    }
}
