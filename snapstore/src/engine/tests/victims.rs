//! Who goes when the store is full: the lowest priority, then the oldest, and the next
//! only when the room of the last is used up.

use super::*;
use crate::format::tables::SnapshotPhase;

/// Chunks that each snapshot alone needs, and gives back.
const OWN: u64 = 200;
/// In which order they go: of priority -1, then of 0, each time the older one first.
const ORDER: [u64; 4] = [2, 3, 1, 4];

/// A volume with four snapshots, and the priorities that make [`ORDER`].
fn crowded() -> Rig {
    let mut rig = Rig::new(2048, Policy::OriginFirst);
    overwrite(&mut rig);
    for (tag, priority) in [(2, -1), (3, -1), (4, 0)] {
        rig.command(Command::Take {
            targets: vec![(VOLUME, format!("s{tag}"))],
            priority,
            created_ms: tag,
        });
        overwrite(&mut rig);
    }
    assert_eq!(rig.live(), [1, 2, 3, 4].map(Tag));
    rig
}

/// Writes the same chunks again, so that the newest snapshot alone needs the old ones.
fn overwrite(rig: &mut Rig) {
    for first in (0..OWN).step_by(10) {
        rig.write(first, first, 10);
    }
}

/// Tags of dropped snapshots.
fn gone(rig: &Rig) -> Vec<u64> {
    let phase = |tag: &u64| rig.engine.state.volumes[&VOLUME].phase(Tag(*tag));
    let gone = |tag: &u64| phase(tag) == Some(SnapshotPhase::Dropped);
    (1..=4).filter(gone).collect()
}

/// Chunks copied so far.
fn copied(rig: &Rig) -> u64 {
    let bytes = rig.copies.iter().map(|(_, bytes)| u64::from(*bytes));
    bytes.sum::<u64>() / BLOCK_SIZE as u64
}

/// Watches who goes, and what was copied since the last one did.
struct Watch {
    order: Vec<u64>,
    copied: u64,
}

impl Watch {
    fn look(&mut self, rig: &Rig, story: &str) {
        let new: Vec<u64> = gone(rig)
            .into_iter()
            .filter(|tag| !self.order.contains(tag))
            .collect();
        let [victim] = new[..] else {
            assert!(new.is_empty(), "{story}: {new:?} at once");
            return;
        };
        let since = copied(rig) - self.copied;
        let enough = self.order.is_empty() || since > OWN / 2;
        assert!(
            enough,
            "{story}: {victim} goes after {:?}, and {since} of {OWN} chunks were used",
            self.order
        );
        self.order.push(victim);
        self.copied = copied(rig);
    }
}

#[test]
fn lowest_priority_then_oldest_and_one_at_a_time() {
    let mut rig = crowded();
    let mut watch = Watch {
        order: Vec::new(),
        copied: 0,
    };
    for chunk in OWN..4096 {
        rig.write(chunk, chunk, 1);
        watch.look(&rig, "one by one");
    }
    assert_eq!(watch.order, ORDER);
    assert_eq!(rig.failed, []);
}

/// Many writes wait for room at once, while the record of the drop, the purge and the
/// checkpoint that give room take their time, in whatever order.
#[test]
fn whoever_waits_and_whatever_is_late_one_goes_at_a_time() {
    for seed in 1..=20u64 {
        let mut random = seed;
        let mut dice = |below: u64| {
            random = u64::wrapping_mul(random, 0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (random >> 33) % below
        };
        let mut rig = crowded();
        rig.hold = is_change;
        let mut watch = Watch {
            order: Vec::new(),
            copied: 0,
        };
        let mut next = OWN;
        while watch.order.len() < ORDER.len() {
            if next < 4080 && (rig.held.is_empty() || dice(3) == 0) {
                let count = 1 + dice(8);
                rig.write(next, next, count as u32);
                next += count;
            } else {
                assert!(!rig.held.is_empty(), "seed {seed}: only {:?}", watch.order);
                let which = dice(rig.held.len() as u64) as usize;
                let effect = rig.held.swap_remove(which);
                rig.answer(effect);
            }
            watch.look(&rig, &format!("seed {seed}"));
        }
        rig.release();
        assert_eq!(watch.order, ORDER, "seed {seed}");
        assert_eq!(rig.failed, [], "seed {seed}");
    }
}
