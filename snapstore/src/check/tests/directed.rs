//! One thing wrong under good checksums, and the line that says so.

use zerocopy::{FromBytes, IntoBytes};

use super::super::{dump, newest_store};
use super::world::{Disk, edit, report, reseal, store};
use crate::engine::{Command, Policy, TreeId};
use crate::format::Ptr;
use crate::format::bitmap::BitmapDirectory;
use crate::format::superblock::Superblock;
use crate::format::tables::{SnapshotRecord, VolumeRecord};
use crate::recover::load;

/// The problems after `change`, which must hold a line with each of `expected`.
fn expect(change: impl FnOnce(&mut Disk), expected: &[&str]) {
    let mut disk = store().disk;
    change(&mut disk);
    let problems = report(&mut disk, false).problems;
    for text in expected {
        let said = problems.iter().any(|line| line.contains(text));
        assert!(said, "{text:?} is not in {problems:#?}");
    }
}

/// The first exception whose line in the dump is wanted.
fn exception(wanted: impl Fn(&str) -> bool) -> usize {
    let mut text = String::new();
    dump(&mut store().disk, &mut text).unwrap();
    let mut lines = text.lines().filter(|line| line.starts_with("exception "));
    lines.position(wanted).unwrap()
}

fn u64_at(value: &mut [u8], at: usize) -> &mut zerocopy::little_endian::U64 {
    zerocopy::little_endian::U64::mut_from_prefix(&mut value[at..])
        .unwrap()
        .0
}

/// Changes the newest superblock.
fn superblock(disk: &mut Disk, change: impl FnOnce(&mut Superblock)) {
    let newest = newest_store(disk).unwrap();
    let mut superblock = newest.superblock;
    let at = superblock.address(newest.generation);
    change(&mut superblock);
    disk.0[at as usize] = superblock.encode(at, newest.generation);
}

#[test]
fn a_store_of_every_sort_is_sound() {
    let mut disk = store().disk;
    let report = report(&mut disk, true);
    assert_eq!(report.problems, Vec::<String>::new());
    assert_eq!(report.volumes, 2);
    assert!(report.snapshots >= 5, "{report:?}");
    assert!(report.exceptions > 200, "{report:?}");
    assert!(report.chunks_verified > report.exceptions, "{report:?}");
    assert!(report.journal_records > 50, "{report:?}");
}

#[test]
fn the_dump_names_everything() {
    let mut disk = store().disk;
    let mut text = String::new();
    dump(&mut disk, &mut text).unwrap();
    let exceptions = report(&mut disk, false).exceptions;
    let lines = |start: &str| text.lines().filter(|line| line.starts_with(start)).count();
    assert_eq!(lines("exception ") as u64, exceptions);
    assert_eq!(
        (lines("superblock "), lines("volume "), lines("!")),
        (2, 2, 0)
    );
    assert!(lines("snapshot ") >= 5 && lines("sharing ") > 0);
    assert!(lines("journal flushed exception") > 10 && lines("journal tail ") > 0);
    assert!(text.contains(" lost\n") && text.contains("\"kept\" live"));
}

#[test]
fn the_dump_tells_how_long_a_full_store_is_waited_for() {
    let mut world = super::world::World::new();
    let volume = world.volume("alpha");
    world.command(Command::SetPolicy {
        volume,
        policy: Some(Policy::SnapshotFirst),
        full_wait_s: Some(30),
    });
    let says = |disk: &mut Disk, line: &str| {
        let mut text = String::new();
        dump(disk, &mut text).unwrap();
        assert!(text.contains(line), "{line:?} is not in {text}");
    };
    let uuid = "07".repeat(16);
    let volume = format!("volume 1 \"alpha\" live uuid {uuid} kind 1 policy 1 wait 30 flags 0x0 ");
    says(&mut world.disk, &format!("changed {volume}"));
    world.checkpoint();
    says(&mut world.disk, &format!("\n{volume}"));
}

#[test]
fn one_damaged_superblock_is_a_problem() {
    for at in [0, super::world::BLOCKS as usize - 1] {
        let change = |disk: &mut Disk| disk.0[at].0[200] ^= 1;
        expect(
            change,
            &[&format!("superblock, block {at}: checksum mismatch")],
        );
    }
}

#[test]
fn superblocks_bound_the_tables() {
    expect(
        |disk| superblock(disk, |s| s.next_tag = 2.into()),
        &["snapshot 3", "its tag is not below"],
    );
    expect(
        |disk| superblock(disk, |s| s.next_volume = 2.into()),
        &["volume 2 (beta): its number is not below"],
    );
    expect(
        |disk| superblock(disk, |s| s.exceptions.records += 1),
        &["exception tree, block", "the root counts"],
    );
    expect(
        |disk| superblock(disk, |s| s.eras.height = 13.into()),
        &["the root claims 13 levels"],
    );
    expect(
        |disk| superblock(disk, |s| s.created_ms = 99.into()),
        &["it is of another store"],
    );
    let last = u64::MAX;
    expect(
        |disk| superblock(disk, |s| s.journal_tail = last.into()),
        &["next tag or journal tail out of range"],
    );
    expect(
        |disk| superblock(disk, |s| s.journal_tail += 1),
        &["is missing, although sequence"],
    );
}

#[test]
fn tables_are_consistent() {
    let volume = |change: fn(&mut VolumeRecord)| {
        move |disk: &mut Disk| {
            edit(disk, TreeId::Volumes, 0, |value| {
                change(VolumeRecord::mut_from_bytes(value).unwrap());
            });
        }
    };
    let snapshot = |change: fn(&mut SnapshotRecord)| {
        move |disk: &mut Disk| {
            edit(disk, TreeId::Snapshots, 0, |value| {
                change(SnapshotRecord::mut_from_bytes(value).unwrap());
            });
        }
    };
    expect(volume(|v| v.held += 1), &["chunks held, but there are"]);
    expect(volume(|v| v.kind = 2.into()), &["the volume is a clone"]);
    expect(volume(|v| v.policy = 2.into()), &["a field makes no sense"]);
    expect(
        volume(|v| v.name = crate::format::tables::padded("beta")),
        &["another volume has the same name"],
    );
    expect(
        volume(|v| v.size = 8192.into()),
        &["it lies beyond the end of the volume"],
    );
    expect(
        snapshot(|s| s.name = crate::format::tables::padded("s2")),
        &["another snapshot of the volume has the same name"],
    );
    expect(snapshot(|s| s.phase = 9.into()), &["phase is unknown"]);
    expect(
        snapshot(|s| s.flags = 2.into()),
        &["a field makes no sense"],
    );
    expect(
        |disk| edit(disk, TreeId::Sharing, 0, |value| *u64_at(value, 0) += 1),
        &["its counter for snapshots"],
    );
}

#[test]
fn exceptions_are_consistent() {
    let change = |index: usize, at: usize, value: u64| {
        move |disk: &mut Disk| {
            edit(disk, TreeId::Exceptions, index, |v| {
                *u64_at(v, at) = value.into()
            });
        }
    };
    // The interval: empty, or with live snapshots before it.
    expect(change(0, 0, 99), &["its interval is empty"]);
    expect(
        change(0, 8, 3),
        &[
            "its chunk is not aligned",
            "in use, but nothing refers to it",
        ],
    );
    expect(change(0, 8, 2), &["block 2 has another owner already"]);
    expect(change(0, 8, 1 << 40), &["lies beyond the end of the store"]);
    expect(
        change(0, 8, 0),
        &["tell different places", "chunks held, but there are"],
    );
    // An exception that does not begin at 0 has one of its chunk before it.
    let second = exception(|line| !line.contains(" 0<"));
    expect(
        change(second, 0, 0),
        &["its interval overlaps the one before"],
    );
    expect(
        |disk| edit(disk, TreeId::Eras, 0, |v| *u64_at(v, 0) += 7),
        &["tell different places"],
    );
}

/// A snapshot that an interval no longer reaches has its old contents nowhere.
#[test]
fn gaps_and_widows_are_seen() {
    // An interval of several tags whose lower end is moved up: a live one is left out.
    let wide = exception(|line| line.contains("tags 0<..=3"));
    expect(
        |disk| {
            edit(disk, TreeId::Exceptions, wide, |v| {
                *u64_at(v, 0) = 2.into();
            });
        },
        &["covers live snapshot"],
    );
    // A half-purged snapshot that the table says is purged explains nothing.
    expect(
        |disk| {
            edit_snapshot(disk, "held", |s| {
                s.phase = 4.into();
                s.reason = 5.into();
                s.flags = 2.into();
            });
        },
        &["no snapshot, live or to be purged, needs it"],
    );
}

fn edit_snapshot(disk: &mut Disk, name: &str, change: impl Fn(&mut SnapshotRecord)) {
    let padded = crate::format::tables::padded(name);
    for block in &mut disk.0 {
        let was = Box::new(block.clone());
        let snapshots = crate::format::Kind::SnapshotNode as u32;
        if crate::format::header(block).kind.get() != snapshots {
            continue;
        }
        let records = block.0[64..].chunks_exact_mut(16 + size_of::<SnapshotRecord>());
        for record in records {
            let record = SnapshotRecord::mut_from_bytes(&mut record[16..]).unwrap();
            if record.name == padded {
                change(record);
            }
        }
        reseal(block, &was);
    }
}

/// Turns the bit of a block over.
fn page(disk: &mut Disk, block: u64) {
    let directory: Ptr = newest_store(disk).unwrap().superblock.bitmap.into();
    let bytes = disk.0[directory.block as usize].0;
    let at = BitmapDirectory::read_from_bytes(&bytes).unwrap().entries[0];
    let at = at.block.get() as usize;
    let was = Box::new(disk.0[at].clone());
    disk.0[at].0[64 + block as usize / 8] ^= 1 << (block % 8);
    reseal(&mut disk.0[at], &was);
}

/// Recovery would write its checkpoint over them.
#[test]
fn a_bitmap_that_calls_superblock_or_journal_free_is_not_opened() {
    for block in [0, 1, 64, super::world::BLOCKS - 1] {
        let mut disk = store().disk;
        page(&mut disk, block);
        let error = load(&mut disk).unwrap_err().to_string();
        assert!(
            error.contains(&format!("block {block}: a superblock or")),
            "{error}"
        );
    }
    assert!(load(&mut store().disk).is_ok());
}

#[test]
fn the_bitmap_is_exact() {
    let free = super::world::BLOCKS - 2;
    expect(
        |disk| page(disk, free),
        &[&format!("block {free}: in use, but nothing refers to it")],
    );
    expect(
        |disk| page(disk, 5),
        &["block 5: referred to, but free according to the bitmap"],
    );
}

#[test]
fn data_is_verified_when_asked() {
    let mut disk = store().disk;
    let mut text = String::new();
    dump(&mut disk, &mut text).unwrap();
    let line = text.lines().find(|line| line.starts_with("exception "));
    let mut words = line.unwrap().split(' ').skip_while(|word| *word != "block");
    let block: usize = words.nth(1).unwrap().parse().unwrap();
    disk.0[block + 1].0[17] ^= 4;
    assert_eq!(report(&mut disk, false).problems, Vec::<String>::new());
    let problems = report(&mut disk, true).problems;
    let said = format!("data block {}: checksum mismatch", block + 1);
    assert_eq!(problems.len(), 1);
    assert!(problems[0].ends_with(&said), "{problems:?}");
}

#[test]
fn an_older_superblock_is_refused_by_the_journal() {
    let mut world = store();
    let newest = newest_store(&mut world.disk).unwrap();
    let old = newest.superblock.address(newest.generation) as usize;
    let kept = Box::new(world.disk.0[old].clone());
    world.checkpoint();
    let volume = crate::ids::VolumeId(1);
    world.write(volume, 0, 1, 3);
    world.take(volume, "after");
    // Only the checkpoint before is left, with blocks of the newer one in the ring.
    let newest = newest_store(&mut world.disk).unwrap();
    let at = newest.superblock.address(newest.generation) as usize;
    world.disk.0[at].0.as_mut_bytes()[100] ^= 1;
    assert_ne!(at, old);
    assert_eq!(*kept, world.disk.0[old]);
    let problems = report(&mut world.disk, false).problems;
    let said = problems
        .iter()
        .any(|line| line.contains("was written under checkpoint"));
    assert!(said, "{problems:?}");
}
