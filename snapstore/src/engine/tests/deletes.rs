//! Deletions: from when on they count, what they give back, and when that may be used
//! again.

use std::collections::{BTreeMap, BTreeSet};

use super::*;

const FIRST: Tag = Tag(1);

impl Rig {
    /// Store block of every chunk copied so far; a chunk is one block.
    fn places(&self) -> BTreeMap<u64, u64> {
        let copies = self.seen.iter().filter_map(|effect| match effect {
            Effect::Copy {
                first,
                count,
                block,
                ..
            } => Some((0..u64::from(*count)).map(move |n| (first + n, block + n))),
            _ => None,
        });
        copies.flatten().collect()
    }

    /// Snapshots that are gone and have not been purged yet.
    fn unpurged(&self) -> usize {
        self.engine.state.volumes[&VOLUME].unpurged().count()
    }

    /// Chunk and block of every purge in the journal on the disk.
    fn purges_logged(&mut self) -> Vec<(u64, u64)> {
        let structures = [crate::check::Structure::Journal];
        let mut found = Vec::new();
        crate::check::items(&mut self.disk, &structures, &mut |item| {
            if let crate::check::DumpItem::Journal {
                record: Record::Purged { chunk, block, .. },
                ..
            } = item
            {
                found.push((chunk, block));
            }
        })
        .unwrap();
        found
    }
}

#[test]
fn a_delete_counts_only_when_durable() {
    let mut rig = Rig::new(2048, Policy::OriginFirst);
    rig.write(1, 0, 8);
    rig.command(Command::Checkpoint);
    let map = rig.engine.unique_map(VOLUME).unwrap();
    let free = rig.engine.alloc.free_blocks();
    let before = Disk(rig.disk.0.clone(), None);
    rig.hold_flushes = true;
    let delete = rig.delete(FIRST);
    assert_eq!(rig.result(delete), None, "answered before the flush");
    assert_eq!(rig.live(), [FIRST]);
    assert_eq!((rig.kept(), rig.engine.alloc.free_blocks()), (8, free));
    // A write meanwhile keeps what the snapshot shows; the fast path is closed.
    rig.write(2, 8, 1);
    assert_eq!(rig.copies.last(), Some(&(8, BLOCK_SIZE as u32)));
    assert!(map.has_snapshots() && !map.all_unique(8, 1));
    assert_eq!(rig.granted, [Owner(1)]);
    // A power cut brings it back with all it keeps.
    let back = Rig::open(before);
    assert_eq!((back.live(), back.kept()), (vec![FIRST], 8));

    rig.release();
    assert_eq!(rig.result(delete), Some(Ok(Reply::Done)));
    assert_eq!((rig.live(), rig.kept()), (vec![], 0));
    assert!(!map.has_snapshots());
    assert_eq!(rig.granted, [1, 2].map(Owner));
    rig.is_sound();
}

#[test]
fn a_read_keeps_what_a_delete_gives_back() {
    let mut rig = Rig::new(2048, Policy::OriginFirst);
    rig.write(1, 0, 4);
    let (stored, source) = rig.read(FIRST, 0, 4).unwrap();
    let Source::Store { block } = source else {
        panic!("{source:?}");
    };
    let (shared, source) = rig.read(FIRST, 9, 1).unwrap();
    assert_eq!(source, Source::Origin);
    let delete = rig.delete(FIRST);
    assert_eq!(rig.result(delete), Some(Ok(Reply::Done)));
    rig.command(Command::Checkpoint);
    rig.command(Command::Checkpoint);
    assert_eq!(rig.kept(), 4, "purged under a reader");
    assert!((block..block + 4).all(|block| rig.engine.alloc.is_used(block)));
    // Nobody needs chunk 9 any more but the read that is under way.
    let map = rig.engine.unique_map(VOLUME).unwrap();
    assert!(map.has_snapshots(), "writes would pass without asking");
    rig.write(2, 9, 1);
    assert_eq!(rig.granted, [Owner(1)]);
    rig.read_done(shared);
    assert_eq!(rig.granted, [1, 2].map(Owner));
    assert_eq!(rig.kept(), 4);
    rig.read_done(stored);
    rig.command(Command::Checkpoint);
    assert_eq!((rig.kept(), map.has_snapshots()), (0, false));
    rig.is_sound();
}

/// Its exception appears when nothing needs it any more: behind the purge's back, if
/// that did not wait.
#[test]
fn a_copyout_that_ends_after_its_snapshot_is_purged_too() {
    let mut rig = Rig::new(2048, Policy::OriginFirst);
    rig.write(1, 20, 2);
    rig.hold = |effect| matches!(effect, Effect::Copy { .. });
    rig.write(2, 0, 4);
    let delete = rig.delete(FIRST);
    assert_eq!(rig.result(delete), Some(Ok(Reply::Done)));
    rig.command(Command::Checkpoint);
    assert_eq!((rig.unpurged(), rig.kept()), (1, 2), "it did not wait");
    rig.release();
    assert_eq!((rig.unpurged(), rig.kept()), (0, 0));
    assert_eq!(rig.granted, [1, 2].map(Owner));
    rig.command(Command::Checkpoint);
    rig.is_sound();
}

#[test]
fn a_purge_logs_each_chunk_and_goes_on_after_a_crash() {
    let mut rig = Rig::with(2048, 64, Policy::OriginFirst, Config::default());
    (0..40).for_each(|chunk| rig.write(chunk, chunk, 1));
    rig.command(Command::Checkpoint);
    let places = rig.places();
    rig.hold_flushes = true;
    rig.delete(FIRST);
    let mut middle = 0;
    while !rig.held.is_empty() {
        rig.answer_next();
        let (logged, kept) = (rig.purges_logged(), rig.kept());
        let known: Vec<u64> = logged.iter().map(|(chunk, _)| places[chunk]).collect();
        let blocks: Vec<u64> = logged.iter().map(|(_, block)| *block).collect();
        assert_eq!(blocks, known, "another chunk's place");
        let distinct: BTreeSet<u64> = blocks.iter().copied().collect();
        assert_eq!(distinct.len(), blocks.len(), "given back twice");
        if kept == 0 {
            break;
        }
        // Logged is what is gone, and the batch that is on its way.
        assert!(40 - kept <= blocks.len() as u64, "gone without a record");
        middle += u32::from(kept < 40);
        let mut crashed = rig.crashed();
        assert_eq!((crashed.kept(), crashed.unpurged()), (0, 0));
        crashed.command(Command::Checkpoint);
        crashed.is_sound();
    }
    assert!(middle >= 3, "it was seen in its middle {middle} times");
    rig.release();
    assert_eq!(rig.unpurged(), 0);
    rig.is_sound();
}

#[test]
fn freed_chunks_are_not_used_before_the_checkpoint_without_them() {
    let mut rig = Rig::with(1024, 200, Policy::OriginFirst, Config::default());
    rig.write(0, 0, 64);
    let freed: BTreeSet<u64> = rig.places().into_values().collect();
    rig.take("t");
    rig.command(Command::Checkpoint);
    rig.hold = is_superblock;
    rig.delete(FIRST);
    assert_eq!((rig.kept(), rig.unpurged()), (0, 0), "all is given back");
    assert_eq!(rig.held.len(), 1, "but not by a durable checkpoint");
    let mut writes = 1;
    while rig.granted.len() as u64 == writes {
        rig.write(writes, 100 + writes * 16, 16);
        writes += 1;
    }
    let others = rig.places().into_iter().filter(|(chunk, _)| *chunk >= 64);
    let used: BTreeSet<u64> = others.map(|(_, block)| block).collect();
    assert!(used.len() > 100 && used.is_disjoint(&freed));
    let taken = |rig: &Rig, block: &u64| rig.engine.alloc.is_used(*block);
    assert!(freed.iter().all(|block| taken(&rig, block)));
    // What waits needs what the checkpoint gives.
    rig.release();
    assert_eq!(rig.granted.len() as u64, writes);
    assert_eq!(rig.live(), [Tag(2)], "no victim was needed");
    assert!(!freed.iter().all(|block| taken(&rig, block)));
    rig.is_sound();
}
