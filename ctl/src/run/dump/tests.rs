//! Every kind of thing in a dump, as JSON: whoever reads it relies on the names.

use serde_json::{Value, json};
use snapstore::check::{DumpItem, Structure, items};
use snapstore::create::{CreateOptions, create};
use snapstore::format::exception::{Crcs, LOST, Place};
use snapstore::format::journal::Record;
use snapstore::format::tables::{
    HAS_FINGERPRINT, MAPPED, PURGED, SnapshotPhase, SnapshotRecord, VOLUME_DELETING, VOLUME_LIVE,
    VolumeRecord, padded,
};
use snapstore::{Checksum, Tag, VolumeId};
use ublk_target::device::StoreDevice;

use super::value;

fn shows(item: &DumpItem, expected: &Value) {
    assert_eq!(&value(item), expected, "{item:?}");
}

fn volume_record() -> VolumeRecord {
    VolumeRecord {
        state: VOLUME_LIVE.into(),
        kind: 1.into(),
        policy: 1.into(),
        flags: HAS_FINGERPRINT.into(),
        size: 8192.into(),
        created_ms: 5.into(),
        held: 3.into(),
        parent_volume: 0.into(),
        full_wait_s: 30.into(),
        parent_tag: 0.into(),
        uuid: [0x11; 16],
        fingerprint: [0; 32],
        name: padded("web"),
        origin: padded("/dev/web"),
    }
}

fn volume_json() -> Value {
    json!({"kind": "volume", "volume": 2, "name": "web", "deleting": false,
        "uuid": "11111111-1111-1111-1111-111111111111", "policy": "snapshot-first",
        "full_wait_s": 30, "size": 8192, "created_ms": 5, "held": 3, "fingerprint": true,
        "origin": "/dev/web"})
}

fn snapshot_record() -> SnapshotRecord {
    SnapshotRecord {
        phase: (SnapshotPhase::Live as u32).into(),
        flags: MAPPED.into(),
        reason: 0.into(),
        priority: (-7).into(),
        created_ms: 9.into(),
        size: 4096.into(),
        name: padded("monday"),
    }
}

fn snapshot_json() -> Value {
    json!({"kind": "snapshot", "volume": 2, "tag": 4, "name": "monday", "phase": "live",
        "mapped": true, "held": false, "purged": false, "reason": null, "priority": -7, "size": 4096,
        "created_ms": 9})
}

/// `object` with other values for some of its fields.
fn with(mut object: Value, fields: &Value) -> Value {
    for (name, value) in fields.as_object().unwrap() {
        assert!(object.get(name).is_some(), "no field {name}");
        object[name] = value.clone();
    }
    object
}

#[test]
fn superblocks_and_bitmap_of_a_new_store() {
    let file = tempfile::NamedTempFile::new().unwrap();
    file.as_file().set_len(16 << 20).unwrap();
    let mut device = StoreDevice::open(file.path(), false).unwrap();
    let options = CreateOptions {
        uuid: [0x11; 16],
        chunk_size: 16384,
        checksum: Checksum::default(),
        created_ms: 5,
        journal_blocks: Some(64),
    };
    create(&mut device, &options).unwrap();
    let mut found = Vec::new();
    let structures = [Structure::Superblocks, Structure::Bitmap];
    items(&mut device, &structures, &mut |item| {
        found.push(value(&item))
    })
    .unwrap();
    let tree = json!({"block": 0, "generation": 0, "height": 0, "nodes": 0, "leaves": 0,
        "records": 0});
    let last = (16 << 20) / 4096 - 1;
    let superblock = |at: u64, copy: &Value| {
        json!({"kind": "superblock", "block": at, "generation": copy["generation"], "version": 1,
            "uuid": "11111111-1111-1111-1111-111111111111", "blocks": last + 1,
            "chunk_size": 16384, "checksum": "crc32c", "created_ms": 5,
            "flags": copy["flags"], "next_tag": 1, "next_volume": 1,
            "journal": {"first": 1, "blocks": 64, "tail": 1, "chain": 0},
            "bitmap": copy["bitmap"],
            "trees": {"exceptions": tree, "eras": tree, "volumes": tree, "snapshots": tree,
                "sharing": tree}})
    };
    let [first, second, checkpoint, used @ ..] = &found[..] else {
        panic!("{found:?}");
    };
    assert_eq!(first, &superblock(0, first));
    assert_eq!(second, &superblock(last, second));
    let generations = [first, second].map(|copy| copy["generation"].as_u64().unwrap());
    let newest = generations.into_iter().max().unwrap();
    assert_eq!(
        checkpoint,
        &json!({"kind": "checkpoint", "generation": newest})
    );
    for copy in [first, second] {
        assert!(copy["bitmap"]["block"].as_u64() > Some(64), "{copy}");
        assert!(
            copy["bitmap"]["generation"].is_u64() && copy["flags"].is_u64(),
            "{copy}"
        );
    }
    assert_eq!(used[0]["first"], 0);
    assert_eq!(
        used.last().unwrap(),
        &json!({"kind": "used", "first": last, "last": last})
    );
}

#[test]
fn tables() {
    let volume = |record: VolumeRecord| DumpItem::Volume {
        id: 2,
        record: Box::new(record),
    };
    shows(&volume(volume_record()), &volume_json());
    let other = VolumeRecord {
        state: VOLUME_DELETING.into(),
        policy: 0.into(),
        flags: 0.into(),
        full_wait_s: 0.into(),
        ..volume_record()
    };
    let fields = json!({"deleting": true, "policy": "origin-first", "fingerprint": false,
        "full_wait_s": 0});
    shows(&volume(other), &with(volume_json(), &fields));

    let snapshot = |record: SnapshotRecord| DumpItem::Snapshot {
        volume: 2,
        tag: 4,
        record: Box::new(record),
    };
    shows(&snapshot(snapshot_record()), &snapshot_json());
    for (phase, name) in [(1, "prepared"), (3, "deleting"), (9, "unknown")] {
        let phase = phase.into();
        let record = SnapshotRecord {
            phase,
            ..snapshot_record()
        };
        let fields = json!({"phase": name});
        shows(&snapshot(record), &with(snapshot_json(), &fields));
    }
    let dropped = SnapshotRecord {
        phase: (SnapshotPhase::Dropped as u32).into(),
        flags: PURGED.into(),
        reason: 1.into(),
        ..snapshot_record()
    };
    let fields = json!({"phase": "dropped", "mapped": false, "purged": true,
        "reason": "the store was full"});
    shows(&snapshot(dropped), &with(snapshot_json(), &fields));
    let sharing = DumpItem::Sharing {
        volume: 2,
        first: 3,
        last: 5,
        count: 8,
    };
    shows(
        &sharing,
        &json!({"kind": "sharing", "volume": 2, "first": 3, "last": 5, "exceptions": 8}),
    );
}

#[test]
fn exceptions_eras_and_nodes() {
    let exception = |block| DumpItem::Exception {
        volume: 2,
        chunk: 7,
        tag: 4,
        place: Place {
            pred: Tag(1),
            block,
        },
        crcs: Crcs::new(&[5, 6]),
    };
    let expected = json!({"kind": "exception", "volume": 2, "chunk": 7, "tag": 4, "pred": 1,
        "block": 64, "lost": false, "checksums": [5, 6]});
    shows(&exception(64), &expected);
    let lost = json!({"block": 0, "lost": true, "checksums": []});
    shows(&exception(LOST), &with(expected, &lost));
    let era = |block| DumpItem::Era {
        volume: 2,
        tag: 4,
        chunk: 7,
        place: Place {
            pred: Tag(1),
            block,
        },
    };
    let expected = json!({"kind": "era", "volume": 2, "tag": 4, "chunk": 7, "pred": 1,
        "block": 64, "lost": false});
    shows(&era(64), &expected);
    shows(
        &era(LOST),
        &with(expected, &json!({"block": 0, "lost": true})),
    );
    let node = DumpItem::Node {
        tree: "era tree",
        block: 70,
        generation: 3,
        level: 1,
        records: 12,
    };
    let expected = json!({"kind": "node", "tree": "era tree", "block": 70, "generation": 3,
        "level": 1, "records": 12});
    shows(&node, &expected);
    let what = "superblock, block 0: checksum mismatch".to_owned();
    let expected = json!({"kind": "damage", "what": what});
    shows(&DumpItem::Damage { what }, &expected);
}

#[test]
fn every_record_of_the_journal() {
    let (volume, tag) = (VolumeId(2), Tag(4));
    let exception = Record::Exception {
        volume,
        chunk: 7,
        tag,
        pred: Tag(1),
        block: 64,
        crcs: Crcs::new(&[5]),
    };
    let prepared = Record::TakePrepared {
        volume,
        tag,
        snapshot: Box::new(snapshot_record()),
    };
    let purged = Record::Purged {
        volume,
        chunk: 7,
        tag,
        block: 64,
    };
    let renamed = Record::SnapshotChanged {
        volume,
        tag,
        flags: MAPPED,
        priority: -7,
        name: Box::new(padded("tuesday")),
    };
    let changed = Record::VolumeChanged {
        volume,
        record: Box::new(volume_record()),
    };
    let reason = 5;
    let dropped = Record::SnapshotDropped {
        volume,
        tag,
        reason,
    };
    let records = [
        (
            exception,
            json!({"kind": "exception", "volume": 2, "chunk": 7, "tag": 4, "pred": 1,
                "block": 64, "lost": false, "checksums": [5]}),
        ),
        (
            prepared,
            json!({"kind": "take_prepared", "snapshot": snapshot_json()}),
        ),
        (
            Record::TakeCommitted { tag },
            json!({"kind": "take_committed", "tag": 4}),
        ),
        (
            Record::TakeAborted { tag },
            json!({"kind": "take_aborted", "tag": 4}),
        ),
        (
            Record::SnapshotDeleted { volume, tag },
            json!({"kind": "snapshot_deleted", "volume": 2, "tag": 4}),
        ),
        (
            dropped,
            json!({"kind": "snapshot_dropped", "volume": 2, "tag": 4,
                "reason": snapstore::engine::drop_reason(reason).to_string()}),
        ),
        (
            purged,
            json!({"kind": "purged", "volume": 2, "chunk": 7, "tag": 4, "block": 64}),
        ),
        (
            Record::SnapshotPurged { volume, tag },
            json!({"kind": "snapshot_purged", "volume": 2, "tag": 4}),
        ),
        (
            renamed,
            json!({"kind": "snapshot_changed", "volume": 2, "tag": 4, "name": "tuesday",
                "mapped": true, "held": false, "priority": -7}),
        ),
        (
            changed,
            json!({"kind": "volume_changed", "record": volume_json()}),
        ),
        (
            Record::VolumeDeleted { volume },
            json!({"kind": "volume_deleted", "volume": 2}),
        ),
        (
            Record::VolumeGone { volume },
            json!({"kind": "volume_gone", "volume": 2}),
        ),
    ];
    for (record, expected) in records {
        for flushed in [false, true] {
            let item = DumpItem::Journal {
                flushed,
                record: record.clone(),
            };
            let expected = json!({"kind": "journal", "flushed": flushed, "record": expected});
            shows(&item, &expected);
        }
    }
}
