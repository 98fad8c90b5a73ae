//! Reading the three tables when a store is opened.

use zerocopy::FromBytes;

use super::{OpenError, read_block};
use crate::device::BlockDevice;
use crate::engine::{Geometry, Roots, TreeId};
use crate::format::Damage;
use crate::format::exception::Place;
use crate::format::superblock::Superblock;
use crate::format::tables::{SnapshotRecord, VolumeRecord};
use crate::ids::{Tag, VolumeId};
use crate::repair::scan::{Survey, survey_where};
use crate::state::State;
use crate::tree::{Key, Missing, Node, Root, Shape, Walk};

/// Reads the volume table, the snapshot table and the sharing counters.
pub(super) fn load_tables(
    dev: &mut impl BlockDevice,
    geometry: &Geometry,
    roots: &mut Roots,
    superblock: &Superblock,
    damage: &mut Vec<(u64, String)>,
) -> Result<State, OpenError> {
    let mut state = State::new(u64::from(superblock.chunk_size.get()));
    state.next_tag = superblock.next_tag.get();
    state.next_volume = superblock.next_volume.get();
    for tree in [TreeId::Volumes, TreeId::Snapshots, TreeId::Sharing] {
        let loaded = walk(dev, geometry, roots, tree, &mut |node, index| {
            load_record(&mut state, tree, node.key(index), node.value(index))
        });
        match loaded {
            Err(OpenError::Damaged {
                block,
                damage: reason,
                ..
            }) if tree == TreeId::Sharing => {
                recount(dev, geometry, roots, &mut state)?;
                damage.push((
                    block,
                    format!("{reason}; the {} are counted anew", tree.name()),
                ));
            }
            loaded => loaded?,
        }
    }
    Ok(state)
}

/// Counts what snapshots share from the exceptions, for a tree of counters that begins
/// anew. The nodes of the old one stay in use until a repair. Exceptions that cannot be
/// read are counted where the era tree tells of them; what the roots count is not asked,
/// because nodes made anew leave it too high.
fn recount(
    dev: &mut impl BlockDevice,
    geometry: &Geometry,
    roots: &mut Roots,
    state: &mut State,
) -> Result<(), OpenError> {
    state.forget_sharing();
    let exceptions = count(
        dev,
        geometry,
        roots,
        TreeId::Exceptions,
        &mut |key, place| count_one(state, key, place),
    )?;
    if !exceptions.holes.is_empty() {
        let eras = count(dev, geometry, roots, TreeId::Eras, &mut |era, place| {
            let key = Key::new(era.a, era.c, era.b);
            match exceptions.in_hole(key) {
                true => count_one(state, key, place),
                false => Ok(()),
            }
        })?;
        if !eras.holes.is_empty() {
            return Err(OpenError::Damaged {
                what: TreeId::Eras.name(),
                block: roots.eras.ptr.block,
                damage: "damaged like the exception tree: what is shared cannot be counted"
                    .to_owned(),
            });
        }
    }
    roots.sharing = Root::EMPTY;
    state.rewrite_tables();
    Ok(())
}

fn count_one(state: &mut State, key: Key, place: Place) -> Result<(), Damage> {
    let number = u32::try_from(key.a);
    let number =
        number.map_err(|_| Damage::Field("an exception's volume number is out of range"))?;
    state.recount(VolumeId(number), Tag(key.c), place)
}

/// Visits every record that can be read of the exceptions or of the eras.
fn count(
    dev: &mut impl BlockDevice,
    geometry: &Geometry,
    roots: &Roots,
    tree: TreeId,
    each: &mut dyn FnMut(Key, Place) -> Result<(), Damage>,
) -> Result<Survey, OpenError> {
    let mut wrong = None;
    let root = *roots.get(tree);
    // What no volume can have is refused here: it is not made anew in service.
    let found = survey_where(dev, geometry, tree, root, &|_| true, &mut |_, leaf| {
        for index in 0..leaf.len() {
            if let Err(damage) = each(leaf.key(index), Place::decode(leaf.value(index))) {
                wrong.get_or_insert((leaf.ptr().block, damage.to_string()));
            }
        }
    });
    match wrong {
        None => Ok(found),
        Some((block, damage)) => Err(OpenError::Damaged {
            what: tree.name(),
            block,
            damage,
        }),
    }
}

/// Adds one record of the volume table, the snapshot table or the sharing counters.
pub(crate) fn load_record(
    state: &mut State,
    tree: TreeId,
    key: Key,
    value: &[u8],
) -> Result<(), Damage> {
    let short = Damage::Field("a table record is too short");
    let number = if tree == TreeId::Volumes {
        key.b
    } else {
        key.a
    };
    let unknown = Damage::Field("a table record's volume number is out of range");
    let volume = VolumeId(u32::try_from(number).map_err(|_| unknown)?);
    match tree {
        TreeId::Volumes => {
            let record = VolumeRecord::read_from_bytes(value).map_err(|_| short)?;
            state.load_volume(volume, record)
        }
        TreeId::Snapshots => {
            let record = SnapshotRecord::read_from_bytes(value).map_err(|_| short)?;
            state.load_snapshot(volume, Tag(key.b), record)
        }
        _ => {
            let count = <[u8; 8]>::try_from(value).map_err(|_| short)?;
            let count = u64::from_le_bytes(count);
            state.load_sharing(volume, Tag(key.b), Tag(key.c), count)
        }
    }
}

fn read_node(
    dev: &mut impl BlockDevice,
    what: &'static str,
    Missing { ptr, level, .. }: &Missing,
    shape: &Shape,
) -> Result<Node, OpenError> {
    let block = read_block(dev, ptr.block, what)?;
    let damaged = |damage: Damage| OpenError::Damaged {
        what,
        block: ptr.block,
        damage: damage.to_string(),
    };
    Node::verify(block.into(), *ptr, shape, *level).map_err(damaged)
}

/// A fault on the way is not damage.
pub(super) fn read_twice(
    dev: &mut impl BlockDevice,
    what: &'static str,
    missing: &Missing,
    shape: &Shape,
) -> Result<Node, OpenError> {
    read_node(dev, what, missing, shape).or_else(|_| read_node(dev, what, missing, shape))
}

/// Visits every record of a tree in key order.
fn walk(
    dev: &mut impl BlockDevice,
    geometry: &Geometry,
    roots: &Roots,
    tree: TreeId,
    each: &mut dyn FnMut(&Node, usize) -> Result<(), Damage>,
) -> Result<(), OpenError> {
    let what = tree.name();
    let shape: Shape = geometry.shape(tree);
    let root = *roots.get(tree);
    let fault = |block, damage: String| OpenError::Damaged {
        what,
        block,
        damage,
    };
    let mut walk = Walk::new(root).map_err(|f| fault(root.ptr.block, f.to_string()))?;
    while let Some(missing) = walk.next() {
        let at = missing.ptr.block;
        let node = match read_twice(dev, what, &missing, &shape) {
            Err(OpenError::Device { error, .. }) if tree == TreeId::Sharing => {
                return Err(fault(at, error.to_string()));
            }
            read => read?,
        };
        walk.enter(&node).map_err(|f| fault(at, f.to_string()))?;
        if missing.level == 0 {
            for index in 0..node.len() {
                each(&node, index).map_err(|d| fault(at, d.to_string()))?;
            }
        }
    }
    walk.finish()
        .map_err(|f| fault(root.ptr.block, f.to_string()))
}
