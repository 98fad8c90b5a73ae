//! Things as text, one line per thing, for people and for tools like `diff`. Damage is
//! a line beginning with `!`.

use std::fmt::{self, Write};

use super::Item;
use crate::engine::{TREES, drop_reason};
use crate::format::exception::{LOST, Place};
use crate::format::journal::Record;
use crate::format::superblock::Superblock;
use crate::format::tables::{
    HELD, MAPPED, PURGED, SnapshotPhase, SnapshotRecord, VOLUME_DELETING, VolumeRecord, text,
};
use crate::recover::roots_of;

/// Writes one thing.
///
/// # Errors
/// When `out` cannot be written.
pub fn write_item(item: &Item, out: &mut dyn Write) -> fmt::Result {
    match item {
        Item::Superblock {
            at,
            generation,
            superblock: copy,
        } => superblock(copy, *at, *generation, out),
        Item::Checkpoint { generation } => writeln!(out, "checkpoint {generation}"),
        Item::Volume { id, record } => volume(*id, record, out),
        Item::Snapshot {
            volume,
            tag,
            record,
        } => snapshot(*volume, *tag, record, out),
        Item::Sharing {
            volume,
            first,
            last,
            count,
        } => writeln!(
            out,
            "sharing {volume} snapshots {first}..={last} exceptions {count}"
        ),
        Item::Exception {
            volume,
            chunk,
            tag,
            place,
            crcs,
        } => {
            let crcs = crcs.as_slice().iter().copied();
            exception([*volume, *chunk, *tag], *place, crcs, out)
        }
        Item::Era {
            volume,
            tag,
            chunk,
            place,
        } => {
            let (pred, block) = (place.pred, place.block);
            writeln!(
                out,
                "era {volume} tag {tag} chunk {chunk} pred {pred} block {block}"
            )
        }
        Item::Node {
            tree,
            block,
            generation,
            level,
            records,
        } => writeln!(
            out,
            "node {tree}: block {block} of checkpoint {generation}, level {level}, records {records}"
        ),
        Item::Used { first, last } => writeln!(out, "used {first}..={last}"),
        Item::Journal { flushed, record } => {
            let state = if *flushed { "flushed" } else { "tail" };
            write!(out, "journal {state} ")?;
            journal_record(record, out)
        }
        Item::Damage { what } => writeln!(out, "! {what}"),
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
        " kind {} policy {} wait {} flags {:#x} size {} created {} held {} origin {:?}",
        record.kind,
        record.policy,
        record.full_wait_s,
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
    if flags & HELD != 0 {
        write!(out, " held")?;
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
