//! `docs/format.md` says what the code does: every byte table, constant, block
//! type and record type is read from it and compared.

use std::collections::BTreeMap;
use std::mem::offset_of;

use zerocopy::IntoBytes;

use super::bitmap::{BitmapDirectory, BitmapPage, DIRECTORY_ENTRIES, PAGE_BITS, PAGE_WORDS};
use super::exception::{Crcs, ERA_LEN, EXCEPTION_FIXED, LOST};
use super::journal::{JOURNAL_ROOM, JournalHead, Record};
use super::superblock::{
    COUNT_LIMIT, CRC32C, DiskRoot, FLAG_CLEAN, MAX_BLOCKS, MAX_CHUNK, MIN_BLOCKS, MIN_CHUNK,
    MIN_JOURNAL, Superblock, VERSION, XXH3,
};
use super::tables::{
    HAS_FINGERPRINT, HELD, KIND_CLONE, KIND_ORIGIN, MAPPED, PURGED, SHARING_LEN, SNAPSHOT_LEN,
    SnapshotPhase, SnapshotRecord, VOLUME_DELETING, VOLUME_LEN, VOLUME_LIVE, VolumeRecord, padded,
};
use super::{DiskPtr, HEADER_LEN, Header, Kind};
use crate::BLOCK_SIZE;
use crate::engine::{DropReason, drop_reason};
use crate::ids::{Tag, VolumeId};
use crate::tree::{InteriorKey, LeafKey, MAX_HEIGHT, NODE_HEADER_LEN, NodeHeader};

const DOCUMENT: &str = include_str!("../../../docs/format.md");

/// Offset, size and name of a field.
type Field = (usize, usize, String);

/// Cells of every table row between the heading that begins so and the next one.
fn rows(heading: &str) -> Vec<Vec<String>> {
    let mut lines = DOCUMENT
        .lines()
        .skip_while(|line| !line.starts_with(heading));
    assert!(lines.next().is_some(), "docs/format.md has no {heading:?}");
    lines
        .take_while(|line| !line.starts_with('#'))
        .filter(|line| line.starts_with('|'))
        .map(|line| {
            let cells = line.trim_matches('|').split('|');
            cells.map(|cell| cell.trim().replace('`', "")).collect()
        })
        .collect()
}

/// The byte table under a heading.
fn fields(heading: &str) -> Vec<Field> {
    let parse = |row: &Vec<String>| {
        let (offset, size) = (row[0].parse().ok()?, row[1].parse().ok()?);
        Some((offset, size, row[2].clone()))
    };
    rows(heading).iter().filter_map(parse).collect()
}

fn size_of_field<T, F>(_: fn(&T) -> &F) -> usize {
    size_of::<F>()
}

/// Compares a structure with its table. The fields listed must fill it, so none
/// can be left out.
macro_rules! compare {
    ($type:ident: $($field:ident)*) => {
        let code: Vec<Field> = vec![$((
            offset_of!($type, $field),
            size_of_field(|this: &$type| &this.$field),
            stringify!($field).to_owned(),
        )),*];
        let end = code.iter().fold(0, |end, (offset, size, name)| {
            assert_eq!(*offset, end, "before {name} of {}", stringify!($type));
            end + size
        });
        assert_eq!(end, size_of::<$type>());
        let heading = format!("### `{}` {}", stringify!($type), size_of::<$type>());
        assert_eq!(fields(&heading), code, "{heading}");
    };
}

#[test]
fn structures_are_as_documented() {
    compare!(Header: crc kind block store generation);
    compare!(DiskPtr: block generation);
    compare!(Superblock: version chunk_size compat ro_compat incompat uuid blocks created_ms
        journal_first journal_blocks journal_tail journal_chain checksum next_tag next_volume
        flags bitmap exceptions eras volumes snapshots sharing);
    compare!(DiskRoot: ptr height reserved nodes leaves records);
    compare!(BitmapPage: header first_bit reserved words);
    compare!(BitmapDirectory: header next index count reserved entries);
    compare!(NodeHeader: level count value_len reserved a reserved2);
    compare!(LeafKey: b c);
    compare!(InteriorKey: a b c);
    compare!(VolumeRecord: state kind policy flags size created_ms held parent_volume full_wait_s
        parent_tag uuid fingerprint name origin);
    compare!(SnapshotRecord: phase flags reason priority created_ms size name);
    compare!(JournalHead: seq flushed chain count used reserved);
}

macro_rules! constants {
    ($($name:ident)*) => {
        vec![$((stringify!($name).to_owned(), ($name as u64).to_string())),*]
    };
}

#[test]
fn constants_are_as_documented() {
    let mut code = constants!(BLOCK_SIZE VERSION CRC32C XXH3 MIN_CHUNK MAX_CHUNK MIN_BLOCKS MAX_BLOCKS MIN_JOURNAL
        COUNT_LIMIT FLAG_CLEAN HEADER_LEN PAGE_WORDS PAGE_BITS DIRECTORY_ENTRIES NODE_HEADER_LEN
        MAX_HEIGHT JOURNAL_ROOM EXCEPTION_FIXED ERA_LEN VOLUME_LEN SNAPSHOT_LEN SHARING_LEN LOST
        VOLUME_LIVE VOLUME_DELETING KIND_ORIGIN KIND_CLONE HAS_FINGERPRINT MAPPED PURGED HELD);
    let phases = [
        SnapshotPhase::Prepared,
        SnapshotPhase::Live,
        SnapshotPhase::Deleting,
        SnapshotPhase::Dropped,
    ];
    code.extend(phases.map(|phase| (format!("{phase:?}"), (phase as u32).to_string())));
    let reasons = (1..=5).map(|code| (drop_reason(code), code));
    code.extend(
        reasons.map(|(reason, code): (DropReason, u32)| (format!("{reason:?}"), code.to_string())),
    );
    let documented: Vec<(String, String)> = rows("## Constants")
        .iter()
        .skip(2)
        .map(|row| (row[0].clone(), row[1].clone()))
        .collect();
    assert_eq!(documented, code);
}

#[test]
fn block_types_are_as_documented() {
    let code = Kind::ALL.map(|kind| {
        let letters = (kind as u32).to_le_bytes();
        vec![
            String::from_utf8_lossy(&letters).into_owned(),
            format!("{kind:?}"),
        ]
    });
    let documented: Vec<Vec<String>> = rows("### `Header`")
        .into_iter()
        .filter(|row| row[0].starts_with("CS"))
        .collect();
    assert_eq!(documented, code);
}

/// A record of each type, with different bytes in every field.
fn samples() -> Vec<(Record, BTreeMap<&'static str, Vec<u8>>)> {
    let (volume, tag, chunk, pred, block) = (VolumeId(0x0102_0304), Tag(11), 12u64, Tag(13), 14u64);
    let snapshot = SnapshotRecord {
        phase: 1.into(),
        flags: 2.into(),
        reason: 3.into(),
        priority: (-4).into(),
        created_ms: 5.into(),
        size: 6.into(),
        name: padded("snapshot"),
    };
    let record = VolumeRecord {
        state: 1.into(),
        kind: 2.into(),
        policy: 3.into(),
        flags: 4.into(),
        size: 5.into(),
        created_ms: 6.into(),
        held: 7.into(),
        parent_volume: 8.into(),
        full_wait_s: 0.into(),
        parent_tag: 9.into(),
        uuid: [10; 16],
        fingerprint: [11; 32],
        name: padded("volume"),
        origin: [12; 200],
    };
    let (flags, reason, priority, crc) = (1u32, 2u32, -3i32, 0x0506_0708u32);
    let name = Box::new(padded("name"));
    let bytes = BTreeMap::from([
        ("volume", volume.0.to_le_bytes().to_vec()),
        ("chunk", chunk.to_le_bytes().to_vec()),
        ("tag", tag.0.to_le_bytes().to_vec()),
        ("pred", pred.0.to_le_bytes().to_vec()),
        ("block", block.to_le_bytes().to_vec()),
        ("crcs", crc.to_le_bytes().to_vec()),
        ("flags", flags.to_le_bytes().to_vec()),
        ("reason", reason.to_le_bytes().to_vec()),
        ("priority", priority.to_le_bytes().to_vec()),
        ("name", name.to_vec()),
        ("snapshot", snapshot.as_bytes().to_vec()),
        ("record", record.as_bytes().to_vec()),
        ("zero", vec![0]),
    ]);
    let crcs = Crcs::new(&[crc]);
    let snapshot = Box::new(snapshot);
    let records = [
        Record::Exception {
            volume,
            chunk,
            tag,
            pred,
            block,
            crcs,
        },
        Record::TakePrepared {
            volume,
            tag,
            snapshot,
        },
        Record::TakeCommitted { tag },
        Record::TakeAborted { tag },
        Record::SnapshotDeleted { volume, tag },
        Record::SnapshotDropped {
            volume,
            tag,
            reason,
        },
        Record::Purged {
            volume,
            chunk,
            tag,
            block,
        },
        Record::SnapshotPurged { volume, tag },
        Record::SnapshotChanged {
            volume,
            tag,
            flags,
            priority,
            name,
        },
        Record::VolumeChanged {
            volume,
            record: Box::new(record),
        },
        Record::VolumeDeleted { volume },
        Record::VolumeGone { volume },
    ];
    records.map(|record| (record, bytes.clone())).into()
}

#[test]
fn journal_records_are_as_documented() {
    for (record, mut expected) in samples() {
        let mut bytes = Vec::new();
        record.encode(&mut bytes);
        let name = format!("{record:?}");
        let name = name.split([' ', '{']).next().unwrap_or_default();
        if matches!(
            record,
            Record::TakeCommitted { .. } | Record::TakeAborted { .. }
        ) {
            expected.insert("volume", vec![0; 4]);
        }
        expected.insert("type", vec![bytes[0]]);
        expected.insert("length", (bytes.len() as u16).to_le_bytes().to_vec());
        let mut end = 0;
        let own = fields(&format!("### `{name}` type {}", bytes[0]));
        for (offset, size, field) in fields("### Records").into_iter().chain(own) {
            assert_eq!(offset, end, "{name}.{field}");
            end = offset + size;
            assert_eq!(
                bytes[offset..end],
                expected[field.as_str()],
                "{name}.{field}"
            );
        }
        assert_eq!(bytes.len(), end.next_multiple_of(8), "{name}");
        assert!(bytes[end..].iter().all(|byte| *byte == 0), "{name}");
    }
}
