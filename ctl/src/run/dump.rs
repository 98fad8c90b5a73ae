//! `csnapctl store dump`: what a store holds, as text or as one JSON object a line.

use std::path::Path;

use serde_json::{Value, json};
use snapstore::check::{self, DumpItem, Structure};
use snapstore::engine::drop_reason;
use snapstore::format::exception::{Crcs, LOST, Place};
use snapstore::format::journal::Record;
use snapstore::format::superblock::{DiskRoot, Superblock};
use snapstore::format::tables::{
    HAS_FINGERPRINT, HELD, MAPPED, PURGED, SnapshotPhase, SnapshotRecord, VOLUME_DELETING,
    VolumeRecord, text,
};
use ublk_target::daemon::failures::opening;
use ublk_target::device::StoreDevice;

use super::offline::held;
use crate::Done;
use crate::cli::StructureArg;
use crate::output::SCHEMA;
use crate::session::Session;

#[cfg(test)]
mod tests;

/// Bytes gathered before they are written.
const PIECE: usize = 1 << 16;

/// Prints a store that is not attached.
pub(super) fn dump(session: &mut Session, path: &Path, only: &[StructureArg]) -> Done {
    let mut device = StoreDevice::open(path, true).map_err(held)?;
    let chosen: Vec<Structure> = only.iter().map(|arg| (*arg).into()).collect();
    let structures = if chosen.is_empty() {
        &Structure::USUAL[..]
    } else {
        &chosen
    };
    let mut text = String::new();
    if session.style.json {
        text += &(json!({"kind": "dump", "schema": SCHEMA}).to_string() + "\n");
    }
    let mut written = Ok(());
    let result = check::items(&mut device, structures, &mut |item| {
        if session.style.json {
            text += &(value(&item).to_string() + "\n");
        } else {
            let _ = check::write_item(&item, &mut text);
        }
        if text.len() >= PIECE && written.is_ok() {
            written = session.write(&std::mem::take(&mut text));
        }
    });
    written?;
    session.write(&text)?;
    result.map_err(|error| opening(path, &error))
}

fn value(item: &DumpItem) -> Value {
    match item {
        DumpItem::Superblock {
            at,
            generation,
            superblock: copy,
        } => superblock(*at, *generation, copy),
        DumpItem::Checkpoint { generation } => {
            json!({"kind": "checkpoint", "generation": generation})
        }
        DumpItem::Volume { id, record } => volume(*id, record),
        DumpItem::Snapshot {
            volume,
            tag,
            record,
        } => snapshot(*volume, *tag, record),
        DumpItem::Sharing {
            volume,
            first,
            last,
            count,
        } => json!({"kind": "sharing", "volume": volume, "first": first, "last": last,
            "exceptions": count}),
        DumpItem::Exception {
            volume,
            chunk,
            tag,
            place,
            crcs,
        } => exception([*volume, *chunk, *tag], *place, crcs),
        DumpItem::Era {
            volume,
            tag,
            chunk,
            place,
        } => json!({"kind": "era", "volume": volume, "tag": tag, "chunk": chunk,
            "pred": place.pred.0, "block": place.block, "lost": place.block == LOST}),
        DumpItem::Node {
            tree,
            block,
            generation,
            level,
            records,
        } => json!({"kind": "node", "tree": tree, "block": block, "generation": generation,
            "level": level, "records": records}),
        DumpItem::Used { first, last } => json!({"kind": "used", "first": first, "last": last}),
        DumpItem::Journal { flushed, record } => json!({"kind": "journal", "flushed": flushed,
            "record": journal(record)}),
        DumpItem::Damage { what } => json!({"kind": "damage", "what": what}),
    }
}

fn superblock(at: u64, generation: u64, copy: &Superblock) -> Value {
    let trees = json!({
        "exceptions": root(&copy.exceptions),
        "eras": root(&copy.eras),
        "volumes": root(&copy.volumes),
        "snapshots": root(&copy.snapshots),
        "sharing": root(&copy.sharing),
    });
    json!({
        "kind": "superblock",
        "block": at,
        "generation": generation,
        "version": copy.version.get(),
        "uuid": uuid::Uuid::from_bytes(copy.uuid).to_string(),
        "blocks": copy.blocks.get(),
        "chunk_size": copy.chunk_size.get(),
        "checksum": copy.data_checksum().to_string(),
        "created_ms": copy.created_ms.get(),
        "flags": copy.flags.get(),
        "next_tag": copy.next_tag.get(),
        "next_volume": copy.next_volume.get(),
        "journal": {
            "first": copy.journal_first.get(),
            "blocks": copy.journal_blocks.get(),
            "tail": copy.journal_tail.get(),
            "chain": copy.journal_chain.get(),
        },
        "bitmap": {"block": copy.bitmap.block.get(), "generation": copy.bitmap.generation.get()},
        "trees": trees,
    })
}

fn root(root: &DiskRoot) -> Value {
    json!({"block": root.ptr.block.get(), "generation": root.ptr.generation.get(),
        "height": root.height.get(), "nodes": root.nodes.get(), "leaves": root.leaves.get(),
        "records": root.records.get()})
}

fn volume(id: u64, record: &VolumeRecord) -> Value {
    json!({
        "kind": "volume",
        "volume": id,
        "name": text(&record.name),
        "deleting": record.state.get() == VOLUME_DELETING,
        "uuid": uuid::Uuid::from_bytes(record.uuid).to_string(),
        "policy": if record.policy.get() == 0 { "origin-first" } else { "snapshot-first" },
        "full_wait_s": record.full_wait_s.get(),
        "size": record.size.get(),
        "created_ms": record.created_ms.get(),
        "held": record.held.get(),
        "fingerprint": record.flags.get() & HAS_FINGERPRINT != 0,
        "origin": text(&record.origin),
    })
}

fn snapshot(volume: u64, tag: u64, record: &SnapshotRecord) -> Value {
    let phase = match record.phase() {
        Some(SnapshotPhase::Prepared) => "prepared",
        Some(SnapshotPhase::Live) => "live",
        Some(SnapshotPhase::Deleting) => "deleting",
        Some(SnapshotPhase::Dropped) => "dropped",
        None => "unknown",
    };
    let dropped = record.phase() == Some(SnapshotPhase::Dropped);
    json!({
        "kind": "snapshot",
        "volume": volume,
        "tag": tag,
        "name": text(&record.name),
        "phase": phase,
        "mapped": record.flags.get() & MAPPED != 0,
        "purged": record.flags.get() & PURGED != 0,
        "held": record.flags.get() & HELD != 0,
        "reason": dropped.then(|| drop_reason(record.reason.get()).to_string()),
        "priority": record.priority.get(),
        "size": record.size.get(),
        "created_ms": record.created_ms.get(),
    })
}

fn exception([volume, chunk, tag]: [u64; 3], place: Place, crcs: &Crcs) -> Value {
    let lost = place.block == LOST;
    let sums = if lost { &[] } else { crcs.as_slice() };
    json!({"kind": "exception", "volume": volume, "chunk": chunk, "tag": tag,
        "pred": place.pred.0, "block": place.block, "lost": lost, "checksums": sums})
}

fn journal(record: &Record) -> Value {
    let mark = |kind, volume: u32, tag: u64| json!({"kind": kind, "volume": volume, "tag": tag});
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
            exception(
                [volume.0.into(), *chunk, tag.0],
                Place { pred, block },
                crcs,
            )
        }
        Record::TakePrepared {
            volume,
            tag,
            snapshot: record,
        } => json!({"kind": "take_prepared", "snapshot": snapshot(volume.0.into(), tag.0, record)}),
        Record::VolumeChanged { volume: id, record } => {
            json!({"kind": "volume_changed", "record": volume(id.0.into(), record)})
        }
        Record::SnapshotChanged {
            volume,
            tag,
            flags,
            priority,
            name,
        } => json!({"kind": "snapshot_changed", "volume": volume.0, "tag": tag.0,
            "name": text(name.as_slice()), "mapped": flags & MAPPED != 0,
            "held": flags & HELD != 0, "priority": priority}),
        Record::Purged {
            volume,
            chunk,
            tag,
            block,
        } => json!({"kind": "purged", "volume": volume.0, "chunk": chunk, "tag": tag.0,
            "block": block}),
        Record::SnapshotDropped {
            volume,
            tag,
            reason,
        } => json!({"kind": "snapshot_dropped", "volume": volume.0, "tag": tag.0,
            "reason": drop_reason(*reason).to_string()}),
        Record::TakeCommitted { tag } => json!({"kind": "take_committed", "tag": tag.0}),
        Record::TakeAborted { tag } => json!({"kind": "take_aborted", "tag": tag.0}),
        Record::SnapshotDeleted { volume, tag } => mark("snapshot_deleted", volume.0, tag.0),
        Record::SnapshotPurged { volume, tag } => mark("snapshot_purged", volume.0, tag.0),
        Record::VolumeDeleted { volume } => json!({"kind": "volume_deleted", "volume": volume.0}),
        Record::VolumeGone { volume } => json!({"kind": "volume_gone", "volume": volume.0}),
    }
}
