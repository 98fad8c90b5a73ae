//! The store as text, one line per thing, for people and for tools like `diff`.
//!
//! Damage is a line beginning with `!` and the dump goes on behind it. Eras are
//! left out: they are the exceptions in another order.

use std::fmt::{self, Write};

use zerocopy::FromBytes;

use super::superblocks::read_copy;
use super::trees::{Step, TreeWalk};
use crate::device::BlockDevice;
use crate::engine::{TREES, TreeId, drop_reason};
use crate::format::exception::{LOST, Place, crcs_of};
use crate::format::journal::Record;
use crate::format::superblock::Superblock;
use crate::format::tables::{
    MAPPED, PURGED, SnapshotPhase, SnapshotRecord, VOLUME_DELETING, VolumeRecord, text,
};
use crate::recover::{Newest, OpenError, geometry_of, roots_of};
use crate::replay;
use crate::tree::{Key, Node};

/// Writes the store's superblocks, tables, exceptions and journal as text.
///
/// # Errors
/// When the store cannot be read far enough.
pub fn dump(dev: &mut impl BlockDevice, out: &mut dyn Write) -> Result<(), OpenError> {
    let newest = super::newest_store(dev)?;
    write_all(dev, &newest, out)
        .map_err(|_| OpenError::Invalid("the dump could not be written".to_owned()))
}

fn write_all(dev: &mut impl BlockDevice, newest: &Newest, out: &mut dyn Write) -> fmt::Result {
    let (geometry, roots) = (
        geometry_of(&newest.superblock),
        roots_of(&newest.superblock),
    );
    for at in [0, geometry.blocks - 1] {
        match read_copy(dev, at) {
            Ok((copy, generation)) => superblock(&copy, at, generation, out)?,
            Err(reason) => writeln!(out, "! superblock, block {at}: {reason}")?,
        }
    }
    writeln!(out, "checkpoint {}", newest.generation)?;
    for tree in [
        TreeId::Volumes,
        TreeId::Snapshots,
        TreeId::Sharing,
        TreeId::Exceptions,
    ] {
        let mut walk = TreeWalk::new(&geometry, &roots, tree);
        while let Some(step) = walk.next(dev, None) {
            match step {
                Step::Node(node) if node.level() == 0 => leaf(tree, &node, out)?,
                Step::Node(_) => {}
                Step::Bad { block, reason } => {
                    writeln!(out, "! {}, block {block}: {reason}", tree.name())?;
                }
            }
        }
    }
    match replay::read(dev, &newest.superblock, newest.generation) {
        Ok(replay) => {
            let flushed = replay.records.len() - replay.unflushed.len();
            for (index, record) in replay.records.iter().enumerate() {
                let state = if index < flushed { "flushed" } else { "tail" };
                write!(out, "journal {state} ")?;
                journal_record(record, out)?;
            }
            Ok(())
        }
        Err(error) => writeln!(out, "! {error}"),
    }
}

fn superblock(copy: &Superblock, at: u64, generation: u64, out: &mut dyn Write) -> fmt::Result {
    write!(
        out,
        "superblock {at} generation {generation} version {} uuid ",
        copy.version
    )?;
    copy.uuid
        .iter()
        .try_for_each(|byte| write!(out, "{byte:02x}"))?;
    writeln!(
        out,
        " blocks {} chunk {} checksum {} created {} flags {:#x} next-tag {} next-volume {}",
        copy.blocks,
        copy.chunk_size,
        copy.data_checksum(),
        copy.created_ms,
        copy.flags,
        copy.next_tag,
        copy.next_volume
    )?;
    writeln!(
        out,
        "  journal first {} blocks {} tail {} chain {:08x}; bitmap {} of checkpoint {}",
        copy.journal_first,
        copy.journal_blocks,
        copy.journal_tail,
        copy.journal_chain,
        copy.bitmap.block,
        copy.bitmap.generation
    )?;
    let roots = roots_of(copy);
    for tree in TREES {
        let root = roots.get(tree);
        writeln!(
            out,
            "  {}: block {} of checkpoint {}, height {}, nodes {}, leaves {}, records {}",
            tree.name(),
            root.ptr.block,
            root.ptr.generation,
            root.height,
            root.nodes,
            root.leaves,
            root.records
        )?;
    }
    Ok(())
}

fn leaf(tree: TreeId, node: &Node, out: &mut dyn Write) -> fmt::Result {
    for index in 0..node.len() {
        let (key, value) = (node.key(index), node.value(index));
        match tree {
            TreeId::Volumes => match VolumeRecord::read_from_bytes(value) {
                Ok(record) => volume(key.b, &record, out)?,
                Err(_) => short(key, out)?,
            },
            TreeId::Snapshots => match SnapshotRecord::read_from_bytes(value) {
                Ok(record) => snapshot(key.a, key.b, &record, out)?,
                Err(_) => short(key, out)?,
            },
            TreeId::Sharing => {
                let count = value.try_into().map_or(0, u64::from_le_bytes);
                writeln!(
                    out,
                    "sharing {} snapshots {}..={} exceptions {count}",
                    key.a, key.c, key.b
                )?;
            }
            TreeId::Exceptions | TreeId::Eras => {
                let place = Place::decode(value);
                exception([key.a, key.b, key.c], place, crcs_of(value), out)?;
            }
        }
    }
    Ok(())
}

fn short(key: Key, out: &mut dyn Write) -> fmt::Result {
    writeln!(out, "! record {key} is too short")
}

fn volume(id: u64, record: &VolumeRecord, out: &mut dyn Write) -> fmt::Result {
    let state = if record.state.get() == VOLUME_DELETING {
        "deleting"
    } else {
        "live"
    };
    write!(out, "volume {id} {:?} {state} uuid ", text(&record.name))?;
    record
        .uuid
        .iter()
        .try_for_each(|byte| write!(out, "{byte:02x}"))?;
    writeln!(
        out,
        " kind {} policy {} flags {:#x} size {} created {} held {} origin {:?}",
        record.kind,
        record.policy,
        record.flags,
        record.size,
        record.created_ms,
        record.held,
        text(&record.origin)
    )
}

fn snapshot(volume: u64, tag: u64, record: &SnapshotRecord, out: &mut dyn Write) -> fmt::Result {
    let phase = match record.phase() {
        Some(SnapshotPhase::Prepared) => "prepared",
        Some(SnapshotPhase::Live) => "live",
        Some(SnapshotPhase::Deleting) => "deleting",
        Some(SnapshotPhase::Dropped) => "dropped",
        None => "unknown",
    };
    write!(
        out,
        "snapshot {volume} {tag} {:?} {phase}",
        text(&record.name)
    )?;
    let flags = record.flags.get();
    if flags & MAPPED != 0 {
        write!(out, " mapped")?;
    }
    if flags & PURGED != 0 {
        write!(out, " purged")?;
    }
    if record.phase() == Some(SnapshotPhase::Dropped) {
        write!(
            out,
            " because {:?}",
            drop_reason(record.reason.get()).to_string()
        )?;
    }
    writeln!(
        out,
        " size {} created {} priority {}",
        record.size, record.created_ms, record.priority
    )
}

fn exception(
    [volume, chunk, tag]: [u64; 3],
    place: Place,
    crcs: impl Iterator<Item = u32>,
    out: &mut dyn Write,
) -> fmt::Result {
    write!(
        out,
        "exception {volume} chunk {chunk} tags {}<..={tag} ",
        place.pred
    )?;
    if place.block == LOST {
        return writeln!(out, "lost");
    }
    write!(out, "block {} crc", place.block)?;
    for crc in crcs {
        write!(out, " {crc:08x}")?;
    }
    writeln!(out)
}

fn journal_record(record: &Record, out: &mut dyn Write) -> fmt::Result {
    match record {
        Record::Exception {
            volume,
            chunk,
            tag,
            pred,
            block,
            crcs,
        } => {
            let (pred, block) = (*pred, *block);
            let crcs = crcs.as_slice().iter().copied();
            exception(
                [volume.0.into(), *chunk, tag.0],
                Place { pred, block },
                crcs,
                out,
            )
        }
        Record::TakePrepared {
            volume,
            tag,
            snapshot: record,
        } => {
            write!(out, "take-prepared ")?;
            snapshot(volume.0.into(), tag.0, record, out)
        }
        Record::VolumeChanged { volume: id, record } => {
            write!(out, "changed ")?;
            volume(id.0.into(), record, out)
        }
        Record::SnapshotChanged {
            volume,
            tag,
            flags,
            priority,
            name,
        } => writeln!(
            out,
            "changed snapshot {volume} {tag} {:?} flags {flags:#x} priority {priority}",
            text(name.as_slice())
        ),
        Record::Purged {
            volume,
            chunk,
            tag,
            block,
        } => writeln!(out, "purged {volume} chunk {chunk} tag {tag} block {block}"),
        Record::SnapshotDropped {
            volume,
            tag,
            reason,
        } => writeln!(
            out,
            "snapshot-dropped {volume} {tag} because {:?}",
            drop_reason(*reason).to_string()
        ),
        Record::TakeCommitted { tag } => writeln!(out, "take-committed {tag}"),
        Record::TakeAborted { tag } => writeln!(out, "take-aborted {tag}"),
        Record::SnapshotDeleted { volume, tag } => writeln!(out, "snapshot-deleted {volume} {tag}"),
        Record::SnapshotPurged { volume, tag } => writeln!(out, "snapshot-purged {volume} {tag}"),
        Record::VolumeDeleted { volume } => writeln!(out, "volume-deleted {volume}"),
        Record::VolumeGone { volume } => writeln!(out, "volume-gone {volume}"),
    }
}
