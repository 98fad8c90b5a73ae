//! What a deletion under way costs the writes beside it: counted in steps of the engine,
//! each of which is answered all it asked for before the next.

use super::*;

const CHUNKS: u64 = 4096;

/// What writes, one after another, met.
#[derive(Debug, Default)]
struct Met {
    writes: u64,
    /// Steps until the slowest was granted.
    slowest: usize,
    /// Most chunks given back in one step.
    freed: u64,
    /// Most effects of one step.
    effects: usize,
}

impl Met {
    /// One chunk is overwritten for the first time.
    fn overwrite(&mut self, rig: &mut Rig, chunk: u64) {
        let owner = Owner(1 << 32 | self.writes);
        rig.batch.events.push(Event::Write {
            owner,
            volume: VOLUME,
            first: chunk,
            count: 1,
        });
        let mut steps = 0;
        while rig.granted.last() != Some(&owner) {
            steps += 1;
            assert!(steps < 1000, "{self:?}: it waits for ever");
            let freed = rig.engine.counters.chunks_freed;
            self.effects = self.effects.max(step(rig));
            self.freed = self.freed.max(rig.engine.counters.chunks_freed - freed);
        }
        self.slowest = self.slowest.max(steps);
        self.writes += 1;
    }
}

/// One step, and the answers to all it asked for; how much that was.
fn step(rig: &mut Rig) -> usize {
    let mut effects = Effects::default();
    rig.engine.step(&mut rig.batch, &mut effects);
    let asked = effects.list.len();
    effects
        .list
        .drain(..)
        .for_each(|effect| rig.carry_out(effect));
    asked
}

/// Deletes so many snapshots, each with every chunk of its own; what the first
/// overwrites before that met, and those while it was under way.
fn deletion(snapshots: u64) -> (Met, Met) {
    let mut rig = Rig::with(24_000, 512, Policy::OriginFirst, Config::default());
    for n in 0..snapshots {
        for first in (0..CHUNKS).step_by(64) {
            rig.write(0, first, 64);
        }
        rig.take(&format!("t{n}"));
    }
    rig.command(Command::Checkpoint);
    assert_eq!(rig.kept(), snapshots * CHUNKS);
    let mut chunks = 0..CHUNKS;
    let (mut alone, mut beside) = (Met::default(), Met::default());
    for chunk in chunks.by_ref().take(16) {
        alone.overwrite(&mut rig, chunk);
    }
    rig.pump();
    let targets = (1..=snapshots).map(|tag| (VOLUME, Tag(tag))).collect();
    let (id, command) = (CommandId(u64::MAX), Command::DeleteSnapshots { targets });
    rig.batch.events.push(Event::Command { id, command });
    while rig.result(id).is_none() {
        step(&mut rig);
    }
    while rig.engine.purge_pending() {
        let chunk = chunks.next().expect("the deletion never ends");
        beside.overwrite(&mut rig, chunk);
    }
    assert_eq!(rig.engine.counters.chunks_freed, snapshots * CHUNKS);
    let batch = rig.engine.purge_batch() as u64;
    assert!(
        beside.freed > 0 && beside.freed <= batch,
        "{beside:?}, {batch}"
    );
    (alone, beside)
}

#[test]
fn a_deletion_holds_a_write_up_by_a_few_steps_however_much_it_deletes() {
    let (alone, little) = deletion(1);
    let (_, much) = deletion(4);
    let told = format!("{alone:?} {little:?} {much:?}");
    assert!(
        much.writes > 2 * little.writes,
        "it was not under way: {told}"
    );
    // A purge's commit or flush in flight, and one of a checkpoint.
    let most = alone.slowest + 8;
    assert!(little.slowest <= most && much.slowest <= most, "{told}");
    assert!(much.effects <= 256, "{told}");
}
