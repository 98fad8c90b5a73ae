//! Random scripts against rules that hold whatever happens.

use std::collections::BTreeSet;

use super::*;

/// A small generator; the seed is printed with every failure.
struct Chance(u64);

impl Chance {
    fn below(&mut self, n: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % n
    }

    fn pick<T>(&mut self, from: &mut Vec<T>) -> Option<T> {
        let n = from.len() as u64;
        (n > 0).then(|| from.swap_remove(self.below(n) as usize))
    }
}

/// A world that answers in any order: operations, engine questions, one pause.
struct World {
    rig: Rig,
    chance: Chance,
    ops: Vec<Op>,
    asked: Vec<Event>,
    /// Epoch at the answer, not at its arrival: grants travel.
    granted: Vec<(Owner, u32)>,
    open: BTreeSet<u64>,
    next: u64,
    pause: Option<(IoId, bool)>,
    pauses: u64,
}

impl World {
    fn step(&mut self) {
        match self.chance.below(10) {
            0..=3 => self.request(),
            4 | 5 => self.complete(),
            6 => self.answer(),
            7 => self.deliver(),
            _ => self.pause_or_resume(),
        }
        self.gather();
    }

    fn request(&mut self) {
        let offset = self.chance.below(CHUNKS * CHUNK / 512 - 8) * 512;
        let len = ((1 + self.chance.below(200)) * 512).min(CHUNKS * CHUNK - 1024 - offset);
        let (target, verb) = match self.chance.below(6) {
            0 => (Target::Origin, Verb::Read),
            1 => (SNAPSHOT, Verb::Read),
            2 => (Target::Origin, Verb::Trim),
            3 => (Target::Origin, Verb::WriteZeroes { punch: true }),
            _ => (Target::Origin, Verb::Write),
        };
        self.next += 1;
        self.open.insert(self.next);
        self.rig.submit(self.next, target, verb, offset, len);
    }

    fn complete(&mut self) {
        let Some(op) = self.chance.pick(&mut self.ops) else {
            return;
        };
        let result = match (&op.action, self.chance.below(8)) {
            (_, 0) => Err(libc::EIO),
            (Action::Punch { .. } | Action::Trim { .. }, 1) => Err(libc::EOPNOTSUPP),
            (Action::Read { len, .. } | Action::Write { len, .. }, 1) if *len > 512 => Ok(512),
            (Action::Read { len, .. } | Action::Write { len, .. }, _) => Ok(*len),
            _ => Ok(0),
        };
        self.rig.moved(&op, result);
    }

    fn answer(&mut self) {
        match self.chance.pick(&mut self.asked) {
            Some(Event::Write {
                owner,
                first,
                count,
                ..
            }) => {
                // The engine publishes before it grants.
                if self.pause.is_none() {
                    (first..first + u64::from(count)).for_each(|chunk| self.rig.unique.set(chunk));
                }
                self.granted.push((owner, self.rig.unique.epoch()));
            }
            Some(Event::Read {
                owner,
                first,
                count,
                ..
            }) => {
                let effect = Effect::ReadFrom {
                    owner,
                    grant: GrantId(owner.0),
                    first,
                    count,
                    source: Source::Origin,
                    crcs: CrcRange::default(),
                    last: true,
                };
                self.rig.lane.effect(STORE, effect, &[]);
            }
            _ => {}
        }
    }

    fn deliver(&mut self) {
        if let Some((owner, epoch)) = self.chance.pick(&mut self.granted) {
            self.rig.grant(owner, epoch);
        }
    }

    fn pause_or_resume(&mut self) {
        match self.pause {
            None => {
                self.pauses += 1;
                let io = IoId(self.pauses);
                self.pause = Some((io, false));
                self.rig.lane.pause(STORE, io, vec![VolumeId(1)]);
            }
            Some((io, true)) => {
                self.rig.unique.advance();
                self.pause = None;
                self.rig.lane.resume(STORE, io);
            }
            Some(_) => {}
        }
    }

    /// Takes what the lane puts out and holds it against the rules.
    fn gather(&mut self) {
        for op in std::mem::take(&mut self.rig.lane.out.ops) {
            if let Action::Write { offset, len, .. } = op.action {
                let short = self.pause.is_some_and(|(_, drained)| drained);
                assert!(
                    !short,
                    "a write at {offset}+{len} between acknowledgement and resume"
                );
                let (first, last) = (offset / CHUNK, (offset + u64::from(len) - 1) / CHUNK);
                let unique = self.rig.unique.all_unique(first, last - first + 1);
                assert!(unique, "a write to shared chunks {first}..={last}");
            }
            self.ops.push(op);
        }
        for (store, io) in std::mem::take(&mut self.rig.lane.out.paused) {
            let changes = |op: &Op| !matches!(op.action, Action::Read { .. });
            assert!(
                !self.ops.iter().any(changes),
                "acknowledged with changes in flight"
            );
            assert_eq!(
                (store, self.pause),
                (STORE, Some((io, false))),
                "acknowledged twice"
            );
            self.pause = Some((io, true));
        }
        self.asked.extend(self.rig.events());
        for (tag, _) in self.rig.done() {
            assert!(self.open.remove(&tag), "request {tag} was answered twice");
        }
    }

    fn run_dry(&mut self) {
        for _ in 0..100_000 {
            if self.open.is_empty() {
                return;
            }
            self.complete();
            self.answer();
            self.deliver();
            if self.pause.is_some_and(|(_, drained)| drained) {
                self.pause_or_resume();
            }
            self.gather();
        }
        panic!("requests {:?} are never answered", self.open);
    }
}

#[test]
fn whatever_happens_every_request_is_answered_once_and_no_pause_is_broken() {
    for seed in 1..=400u64 {
        println!("seed {seed}");
        let mut world = World {
            rig: Rig::shared(),
            chance: Chance(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15)),
            ops: Vec::new(),
            asked: Vec::new(),
            granted: Vec::new(),
            open: BTreeSet::new(),
            next: 0,
            pause: None,
            pauses: 0,
        };
        (0..500).for_each(|_| world.step());
        world.run_dry();
        assert_eq!(world.rig.lane.requests_in_flight(), 0);
        assert!(world.pauses > 3, "the script never paused");
    }
}
