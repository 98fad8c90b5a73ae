//! Journal and checkpoints: what a flush covers, and what is written over when.

use super::*;
use crate::format::journal::JournalBlock;

impl Rig {
    fn flushes(&self) -> usize {
        let flush = |effect: &&Effect| matches!(effect, Effect::FlushStore { .. });
        self.seen.iter().filter(flush).count()
    }

    /// Blocks of the ring written since `from`, in order.
    fn ring_writes(&self, from: usize) -> Vec<u64> {
        let journal = &self.engine.journal;
        let ring = journal.first..journal.first + journal.blocks;
        let written = self.seen[from..].iter().filter_map(|effect| match effect {
            Effect::WriteBlock { block, .. } => Some(*block),
            _ => None,
        });
        written.filter(|block| ring.contains(block)).collect()
    }
}

#[test]
fn a_flush_follows_everything_it_covers() {
    let mut rig = Rig::new(2048, Policy::OriginFirst);
    let flushes = rig.flushes();
    rig.hold_data = true;
    rig.write(1, 0, 1);
    let policy = rig.command(Command::SetPolicy {
        volume: VOLUME,
        policy: Some(Policy::SnapshotFirst),
        full_wait_s: None,
    });
    // The journal block is written, its data is not; what came later waits behind it.
    assert_eq!((rig.late.len(), rig.flushes()), (1, flushes));
    assert_eq!(rig.result(policy), None);
    rig.release();
    assert_eq!(rig.granted, [Owner(1)]);
    assert_eq!(rig.result(policy), Some(Ok(Reply::Done)));
    assert_eq!(rig.flushes(), flushes + 2, "one for each commit");
}

#[test]
fn never_two_flushes_are_in_flight() {
    let mut rig = Rig::new(2048, Policy::OriginFirst);
    rig.hold_flushes = true;
    rig.write(1, 0, 1);
    rig.write(2, 1, 1);
    let checkpoint = rig.command(Command::Checkpoint);
    assert_eq!(rig.held.len(), 1, "of the first commit");
    rig.answer_next();
    assert_eq!(rig.granted, [Owner(1)], "in the order of the journal");
    while rig.result(checkpoint).is_none() {
        assert_eq!(rig.held.len(), 1, "of a commit or of the checkpoint");
        // Commits go on beside a checkpoint, their flushes after its own.
        rig.write(3, 2, 1);
        assert_eq!(rig.held.len(), 1);
        rig.answer_next();
    }
    rig.release();
    assert_eq!(rig.granted.iter().filter(|owner| owner.0 < 3).count(), 2);
    rig.is_sound();
}

/// The ring is full and its checkpoint not durable: nothing of it is written over, and
/// the end of that checkpoint needs no room in it.
#[test]
fn ring_space_is_used_again_only_after_the_superblock() {
    let mut rig = Rig::new(2048, Policy::OriginFirst);
    rig.command(Command::Checkpoint);
    rig.hold = is_superblock;
    let (from, tail) = (rig.seen.len(), rig.engine.journal.tail);
    let mut writes = 0;
    while rig.granted.len() as u64 == writes {
        rig.write(writes, writes, 1);
        writes += 1;
    }
    let delete = rig.delete(Tag(1));
    let (first, blocks) = (rig.engine.journal.first, rig.engine.journal.blocks);
    assert_eq!((rig.engine.journal.used(), writes), (blocks, blocks + 1));
    let lap: Vec<u64> = (tail..tail + blocks)
        .map(|sequence| first + sequence % blocks)
        .collect();
    assert_eq!(rig.ring_writes(from), lap, "each block once, in order");
    for sequence in tail..tail + blocks {
        let at = first + sequence % blocks;
        let mut block = [Block::zeroed()];
        rig.disk.read(at, &mut block).unwrap();
        let store = rig.engine.geometry.store;
        let (found, _) = JournalBlock::decode(&block[0], at, store).unwrap();
        assert_eq!(found.seq, sequence);
    }
    assert_eq!(rig.result(delete), None);
    assert_eq!(rig.held.len(), 1, "the superblock");
    // All that was granted is in the journal, whatever the checkpoint has come to.
    let mut crashed = rig.crashed();
    assert_eq!((crashed.kept(), crashed.live()), (blocks, vec![Tag(1)]));
    crashed.is_sound();

    rig.release();
    assert_eq!(rig.granted.len() as u64, writes);
    assert_eq!(rig.result(delete), Some(Ok(Reply::Done)));
    rig.is_sound();
}

#[test]
fn a_checkpoint_holds_what_was_published_when_it_began_and_no_more() {
    let mut rig = Rig::with(2048, 64, Policy::OriginFirst, Config::default());
    rig.write(1, 0, 100);
    rig.hold_flushes = true;
    let checkpoint = rig.command(Command::Checkpoint);
    assert_eq!(
        rig.held.len(),
        1,
        "everything but the superblock is written"
    );
    // Published while the trees are under way: in the journal behind it.
    rig.hold_flushes = false;
    rig.hold = is_superblock;
    rig.answer_next();
    rig.write(2, 200, 3);
    rig.write(3, 50, 4);
    assert_eq!((rig.kept(), rig.granted.len()), (103, 3));
    assert_eq!(rig.result(checkpoint), None);
    let before = rig.crashed();
    let superblock = rig.held.remove(0);
    rig.carry_out(superblock);
    // Durable, but the engine does not know it yet.
    let after = rig.crashed();
    for mut crashed in [before, after] {
        assert_eq!(crashed.kept(), 103);
        crashed.is_sound();
    }
    rig.is_sound();
    rig.pump();
    assert_eq!(rig.result(checkpoint), Some(Ok(Reply::Done)));
    rig.write(4, 200, 4);
    assert_eq!(rig.kept(), 104, "what was copied meanwhile is known");
    rig.is_sound();
}

/// Nothing is checkpointed before the store is full, and then all of it at once.
#[test]
fn a_full_store_has_room_for_a_checkpoint_of_all_it_holds() {
    let mut rig = Rig::with(4096, 256, Policy::OriginFirst, Config::default());
    let checkpoints = rig.engine.store_info().counters.checkpoints;
    for first in (0..3200).step_by(64) {
        rig.write(first, first, 64);
    }
    let now = rig.engine.store_info().counters.checkpoints;
    assert_eq!(now, checkpoints, "one was made before");
    (3200..4096)
        .step_by(64)
        .for_each(|first| rig.write(first, first, 64));
    assert_eq!((&rig.engine.failed, rig.granted.len()), (&None, 64));
    rig.command(Command::Checkpoint);
    rig.is_sound();
}
