//! Which damage costs what.

use super::{judge, mend};
use crate::block::Block;
use crate::check::newest_store;
use crate::check::tests::world::{Disk, World, metadata, reseal, store};
use crate::device::{BlockDevice, IoError};
use crate::engine::{Command, TreeId};
use crate::format::superblock::COUNT_LIMIT;
use crate::format::{HEADER_LEN, Header, Kind, header};
use crate::ids::VolumeId;
use crate::recover::roots_of;
use crate::repair::{Loss, Repair, RepairOptions, repair};
use crate::tree::NODE_HEADER_LEN;

/// The blocks of one sort that the newest checkpoint uses.
fn of_kind(disk: &mut Disk, kind: Kind) -> Vec<usize> {
    let all = metadata(disk).into_iter().map(|at| at as usize);
    all.filter(|at| header(&disk.0[*at]).kind() == Some(kind))
        .collect()
}

/// Where the key of a leaf's first or last record lies.
fn key_at(leaf: &Block, first: bool) -> usize {
    let field = |at: usize| usize::from(u16::from_le_bytes([leaf.0[at], leaf.0[at + 1]]));
    let (count, value_len) = (field(HEADER_LEN + 2), field(HEADER_LEN + 4));
    let record = if first { 0 } else { count - 1 };
    NODE_HEADER_LEN + record * (16 + value_len)
}

fn damage(disk: &mut Disk, at: usize) {
    disk.0[at].0[300] ^= 1;
}

/// Damages one block and repairs; the store is as it was, but for what is told.
fn one(was: &World, at: usize) -> Repair {
    let mut disk = was.disk.clone();
    damage(&mut disk, at);
    let found = mend(&mut disk).unwrap();
    assert!(!found.problems.is_empty());
    assert_eq!(found.remaining, Vec::<String>::new());
    judge(was, disk, &found);
    found
}

/// Like [`store`], but the checkpoint before can no longer help.
fn settled() -> World {
    let mut world = store();
    for byte in 0..3 {
        world.write(VolumeId(1), 40, 3, byte);
        world.take(VolumeId(1), &format!("more{byte}"));
        world.checkpoint();
    }
    let newest = newest_store(&mut world.disk).unwrap();
    let older = newest.superblock.address(newest.generation + 1) as usize;
    damage(&mut world.disk, older);
    world
}

#[test]
fn a_sound_store_is_left_alone() {
    let mut disk = store().disk;
    let before = disk.clone();
    assert_eq!(mend(&mut disk).unwrap(), Repair::default());
    assert!(disk.0 == before.0);
}

#[test]
fn what_is_derived_costs_nothing() {
    let was = settled();
    let kinds = [
        Kind::BitmapPage,
        Kind::BitmapDirectory,
        Kind::SharingNode,
        Kind::EraNode,
    ];
    for kind in kinds {
        let blocks = of_kind(&mut was.disk.clone(), kind);
        assert!(!blocks.is_empty());
        for at in blocks {
            assert_eq!(one(&was, at).losses, vec![], "{kind:?}, block {at}");
        }
    }
}

#[test]
fn a_superblock_costs_nothing() {
    let was = store();
    for at in [0, was.disk.0.len() - 1] {
        assert_eq!(one(&was, at).losses, vec![], "block {at}");
    }
}

#[test]
fn an_exception_leaf_costs_its_chunks_only() {
    let was = settled();
    let root = roots_of(&newest_store(&mut was.disk.clone()).unwrap().superblock).exceptions;
    let mut leaves = 0;
    for at in of_kind(&mut was.disk.clone(), Kind::ExceptionNode) {
        let losses = one(&was, at).losses;
        let chunks = losses
            .iter()
            .all(|loss| matches!(loss, Loss::Chunks { .. }));
        assert!(chunks && !losses.is_empty(), "block {at}: {losses:#?}");
        let lost: u64 = losses
            .iter()
            .map(|loss| match loss {
                Loss::Chunks { count, .. } => *count,
                _ => 0,
            })
            .sum();
        leaves += u64::from(at as u64 != root.ptr.block);
        assert!(at as u64 == root.ptr.block || lost < root.records / 2);
    }
    assert_eq!(leaves, root.leaves, "{}", TreeId::Exceptions.name());
}

/// Good checksums do not help a leaf that says it is of a volume there cannot be.
#[test]
fn a_leaf_of_no_volume_is_a_damaged_leaf() {
    let was = settled();
    let mut leaves = 0;
    for kind in [Kind::ExceptionNode, Kind::EraNode, Kind::SnapshotNode] {
        for at in of_kind(&mut was.disk.clone(), kind) {
            // Behind the block's header: two bytes that say how high the node stands.
            if was.disk.0[at].0[HEADER_LEN..][..2] != [0, 0] {
                continue;
            }
            leaves += 1;
            let costs = one(&was, at).losses;
            for volume in [0, u32::MAX.into(), 1 << 32, u64::MAX] {
                let mut disk = was.disk.clone();
                disk.0[at].0[HEADER_LEN + 8..][..8].copy_from_slice(&u64::to_le_bytes(volume));
                reseal(&mut disk.0[at], &was.disk.0[at]);
                let found = mend(&mut disk).unwrap();
                let what = format!("{kind:?}, block {at}, volume {volume}");
                assert_eq!(found.remaining, Vec::<String>::new(), "{what}");
                assert_eq!(found.losses, costs, "{what}");
                judge(&was, disk, &found);
            }
        }
    }
    assert!(leaves > 3);
}

#[test]
fn both_trees_in_one_place_cost_the_snapshots() {
    let was = settled();
    let mut disk = was.disk.clone();
    for kind in [Kind::ExceptionNode, Kind::EraNode] {
        let at = of_kind(&mut was.disk.clone(), kind)[0];
        damage(&mut disk, at);
    }
    let found = mend(&mut disk).unwrap();
    assert_eq!(found.remaining, Vec::<String>::new());
    let dropped = found
        .losses
        .iter()
        .any(|loss| matches!(loss, Loss::Snapshot { .. }));
    assert!(dropped, "{:#?}", found.losses);
    judge(&was, disk, &found);
}

#[test]
fn a_table_costs_who_stands_in_it() {
    let was = settled();
    for kind in [Kind::VolumeNode, Kind::SnapshotNode] {
        for at in of_kind(&mut was.disk.clone(), kind) {
            let losses = one(&was, at).losses;
            assert!(!losses.is_empty());
        }
    }
}

/// No volume can be given a number that is the greatest there is.
#[test]
fn a_volume_of_an_impossible_number_is_lost() {
    let was = settled();
    for number in [0, u64::from(u32::MAX), 1 << 32, u64::MAX] {
        let mut disk = was.disk.clone();
        let at = of_kind(&mut disk, Kind::VolumeNode)[0];
        // Numbers stay in order.
        let key = key_at(&disk.0[at], number == 0);
        disk.0[at].0[key..][..8].copy_from_slice(&number.to_le_bytes());
        reseal(&mut disk.0[at], &was.disk.0[at]);
        let found = mend(&mut disk).unwrap();
        assert_eq!(found.remaining, Vec::<String>::new(), "volume {number}");
        assert_ne!(found.losses, vec![], "volume {number}");
        judge(&was, disk, &found);
    }
}

/// A tag that leaves no superblock a next one to tell.
#[test]
fn an_exception_of_an_impossible_tag_is_lost() {
    let was = settled();
    for kind in [Kind::ExceptionNode, Kind::EraNode] {
        for at in of_kind(&mut was.disk.clone(), kind) {
            if was.disk.0[at].0[HEADER_LEN..][..2] != [0, 0] {
                continue;
            }
            for tag in [COUNT_LIMIT - 2, COUNT_LIMIT - 1, COUNT_LIMIT, u64::MAX] {
                let mut disk = was.disk.clone();
                let field = if kind == Kind::EraNode { 0 } else { 8 };
                let key = key_at(&disk.0[at], false) + field;
                disk.0[at].0[key..][..8].copy_from_slice(&tag.to_le_bytes());
                reseal(&mut disk.0[at], &was.disk.0[at]);
                let found = mend(&mut disk).unwrap();
                assert_eq!(
                    found.remaining,
                    Vec::<String>::new(),
                    "block {at}, tag {tag}"
                );
                judge(&was, disk, &found);
            }
        }
    }
}

/// Right after a checkpoint the one before and the journal tell all of it.
#[test]
fn the_checkpoint_before_helps() {
    let mut was = store();
    was.checkpoint();
    let mut helped = 0;
    for at in of_kind(&mut was.disk.clone(), Kind::VolumeNode) {
        let found = one(&was, at);
        assert_eq!(found.losses, vec![], "block {at}");
        helped += u32::from(found.older_checkpoint.is_some());
    }
    assert!(helped > 0);
}

/// Sequence and place of the last journal block.
fn last_of_journal(disk: &mut Disk) -> (u64, usize) {
    let superblock = newest_store(disk).unwrap().superblock;
    let first = superblock.journal_first.get() as usize;
    let blocks = superblock.journal_blocks.get() as usize;
    let is_journal = |at: &usize| header(&disk.0[*at]).kind() == Some(Kind::Journal);
    // The sequence is the first field behind the header.
    let seq = |at: usize| {
        let field = &disk.0[at].0[size_of::<Header>()..][..8];
        u64::from_le_bytes(field.try_into().unwrap())
    };
    let all = (first..first + blocks).filter(is_journal);
    all.map(|at| (seq(at), at)).max().unwrap()
}

/// Under the checkpoint before, the end of the journal that the newest one needed no
/// more looks like a torn tail: what it told must not be forgotten.
#[test]
fn the_checkpoint_before_does_not_help_without_its_journal() {
    let mut was = store();
    was.checkpoint();
    was.write(VolumeId(1), 60, 20, 90);
    was.take(VolumeId(2), "between");
    was.write(VolumeId(2), 0, 9, 91);
    was.checkpoint();
    let (_, last) = last_of_journal(&mut was.disk);
    let mut nodes = 0;
    for kind in [Kind::VolumeNode, Kind::SnapshotNode, Kind::ExceptionNode] {
        for at in of_kind(&mut was.disk.clone(), kind) {
            let mut disk = was.disk.clone();
            damage(&mut disk, at);
            damage(&mut disk, last);
            let found = mend(&mut disk).unwrap();
            assert_ne!(found.losses, vec![], "block {at}");
            judge(&was, disk, &found);
            nodes += 1;
        }
    }
    assert!(nodes > 2);
}

/// A store that was closed in order and is open again: its checkpoint before says that
/// nothing followed, which was true then.
#[test]
fn an_orderly_stop_long_ago_does_not_end_the_journal() {
    let mut before = store();
    before.command(Command::Close);
    let mut was = World::open(before.disk.clone(), before.origins.clone());
    was.images.clone_from(&before.images);
    was.write(VolumeId(1), 60, 20, 90);
    was.write(VolumeId(2), 0, 9, 91);
    let (_, last) = last_of_journal(&mut was.disk);
    let mut disk = Unreadable(was.disk.clone(), last as u64);
    let found = mend(&mut disk).unwrap();
    assert_ne!(found.losses, vec![]);
    // The block is readable again, as it was.
    judge(&was, disk.0, &found);
}

/// A device of which one block cannot be read until it is written.
struct Unreadable(Disk, u64);

impl BlockDevice for Unreadable {
    fn blocks(&self) -> u64 {
        self.0.blocks()
    }

    fn read(&mut self, first: u64, out: &mut [Block]) -> Result<(), IoError> {
        if (first..first + out.len() as u64).contains(&self.1) {
            return Err(IoError::Errno(5));
        }
        self.0.read(first, out)
    }

    fn write(&mut self, first: u64, data: &[Block]) -> Result<(), IoError> {
        if (first..first + data.len() as u64).contains(&self.1) {
            self.1 = u64::MAX;
        }
        self.0.write(first, data)
    }

    fn flush(&mut self) -> Result<(), IoError> {
        Ok(())
    }
}

#[test]
fn a_journal_with_a_hole_costs_every_snapshot() {
    let was = store();
    let blocks = of_kind(&mut was.disk.clone(), Kind::Journal);
    let losses = one(&was, blocks[blocks.len() / 2]).losses;
    assert!(matches!(losses[0], Loss::Journal { .. }), "{losses:#?}");
}

#[test]
fn damaged_data_is_lost_when_asked() {
    let was = settled();
    let mut disk = was.disk.clone();
    let mut text = String::new();
    crate::check::dump(&mut disk, &mut text).unwrap();
    let line = text
        .lines()
        .find(|line| line.starts_with("exception "))
        .unwrap();
    let mut words = line.split(' ').skip_while(|word| *word != "block");
    let block: usize = words.nth(1).unwrap().parse().unwrap();
    disk.0[block].0[5] ^= 1;
    let options = RepairOptions {
        data: true,
        dry_run: false,
    };
    let dry = RepairOptions {
        dry_run: true,
        ..options
    };
    let before = disk.clone();
    let planned = repair(&mut disk, dry, &mut |_, _| ()).unwrap();
    assert!(disk.0 == before.0);
    let found = repair(&mut disk, options, &mut |_, _| ()).unwrap();
    assert_eq!((planned.losses.len(), &planned.losses), (1, &found.losses));
    assert_eq!(found.remaining, Vec::<String>::new());
    judge(&was, disk, &found);
}

#[test]
fn two_damaged_superblocks_are_refused() {
    let mut disk = store().disk;
    let last = disk.0.len() - 1;
    damage(&mut disk, 0);
    damage(&mut disk, last);
    let error = mend(&mut disk).unwrap_err().to_string();
    assert!(error.contains("both superblocks are damaged"), "{error}");
}
