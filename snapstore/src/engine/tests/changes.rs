//! Changes between snapshots, beside a list of every write.

use std::collections::{BTreeMap, BTreeSet};

use rand::{RngExt, SeedableRng};

use super::*;

impl Rig {
    /// All chunks that differ, asked for part after part.
    fn changes(&mut self, from: Tag, to: Option<Tag>) -> Result<BTreeSet<u64>, CommandError> {
        let (mut all, mut after) = (BTreeSet::new(), None);
        loop {
            let id = self.command(Command::Changes {
                volume: VOLUME,
                from,
                to,
                after,
            });
            let Reply::Changes(part) = self.result(id).unwrap()? else {
                panic!("not the answer to this");
            };
            for chunk in part.chunks {
                assert!(all.insert(chunk), "{chunk} is named twice");
            }
            after = part.next;
            if after.is_none() {
                return Ok(all);
            }
        }
    }
}

impl Rig {
    /// A range compared: how far the answer goes, and what differs.
    fn compare(
        &mut self,
        (from, to): (Tag, Option<Tag>),
        first: u64,
        count: u64,
    ) -> Result<(u64, BTreeSet<u64>), RequestError> {
        self.batch.events.push(Event::Compare(Compare {
            owner: Owner(7),
            volume: VOLUME,
            from,
            to,
            first,
            count,
        }));
        let before = self.seen.len();
        self.pump();
        let (mut at, mut all, mut complete) = (first, BTreeSet::new(), false);
        for effect in &self.seen[before..] {
            match effect {
                Effect::Compared {
                    first,
                    count,
                    differs,
                    last,
                    ..
                } => {
                    assert_eq!(*first, at, "a gap");
                    assert!(*count > 0 && !complete);
                    at += count;
                    complete = *last;
                    all.extend((*first..at).filter(|_| *differs));
                }
                Effect::ReadFailed { error, .. } => return Err(error.clone()),
                _ => {}
            }
        }
        assert!(complete && at <= first + count);
        Ok((at, all))
    }
}

/// Takes, writes, deletes and checkpoints in any order; a version for every chunk and
/// snapshot says what differs.
#[test]
fn what_differs_is_what_was_written_between() {
    for seed in 0..4 {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(seed);
        let config = Config {
            cache_blocks: MIN_CACHE,
            ..Config::default()
        };
        let mut rig = Rig::with(8192, 64, Policy::OriginFirst, config);
        let mut now: BTreeMap<u64, u64> = BTreeMap::new();
        let mut then = BTreeMap::from([(Tag(1), now.clone())]);
        for step in 1..400 {
            match random.random_range(0..40) {
                0..30 => {
                    let first = random.random_range(0..1500);
                    let count = random.random_range(1..8);
                    rig.write(step, first, count);
                    now.extend((first..first + u64::from(count)).map(|chunk| (chunk, step)));
                }
                30..34 => {
                    let id = rig.take(&format!("s{step}"));
                    let Some(Ok(Reply::Taken(tag))) = rig.result(id) else {
                        panic!("{:?}", rig.result(id));
                    };
                    then.insert(tag, now.clone());
                }
                34..37 if then.len() > 2 => {
                    let which = random.random_range(0..then.len());
                    let tag = *then.keys().nth(which).unwrap();
                    rig.delete(tag);
                    then.remove(&tag);
                }
                37 => {
                    rig.command(Command::Checkpoint);
                }
                38 => rig = rig.crashed(),
                _ => {}
            }
            if step % 7 > 0 {
                continue;
            }
            let tags: Vec<Tag> = then.keys().copied().collect();
            let from = random.random_range(0..tags.len());
            let to = tags
                .get(random.random_range(from + 1..=tags.len()))
                .copied();
            let old = &then[&tags[from]];
            let new = to.map_or(&now, |to| &then[&to]);
            let differ = new
                .iter()
                .filter(|(chunk, version)| old.get(chunk) != Some(version));
            let expected: BTreeSet<u64> = differ.map(|(chunk, _)| *chunk).collect();
            let found = rig.changes(tags[from], to).unwrap();
            assert_eq!(found, expected, "seed {seed}, step {step}");
            let first = random.random_range(0..1500);
            let count = random.random_range(1..2000);
            let (end, found) = rig.compare((tags[from], to), first, count).unwrap();
            let expected: BTreeSet<u64> = expected.range(first..end).copied().collect();
            assert_eq!(found, expected, "seed {seed}, step {step}, {first}+{count}");
            assert!(
                end == first + count || end > first + 100,
                "seed {seed}: {end}"
            );
        }
        rig.is_sound();
    }
}

#[test]
fn what_is_asked_for_must_make_sense() {
    let mut rig = Rig::new(2048, Policy::OriginFirst);
    rig.take("t");
    let none = Err(CommandError::NoSnapshot(VOLUME, Tag(7)));
    assert_eq!(rig.changes(Tag(7), None), none);
    assert_eq!(rig.changes(Tag(1), Some(Tag(7))), none);
    for to in [1, 2] {
        let found = rig.changes(Tag(2), Some(Tag(to)));
        assert!(matches!(found, Err(CommandError::Invalid(_))), "{found:?}");
    }
    let at = ChangesAt {
        tag: Tag(9),
        chunk: 0,
    };
    let id = rig.command(Command::Changes {
        volume: VOLUME,
        from: Tag(1),
        to: Some(Tag(2)),
        after: Some(at),
    });
    assert!(matches!(
        rig.result(id),
        Some(Err(CommandError::Invalid(_)))
    ));
}

#[test]
fn what_is_compared_must_be_there() {
    let mut rig = Rig::new(2048, Policy::OriginFirst);
    rig.take("t");
    let both = (Tag(1), Some(Tag(2)));
    let none = Err(RequestError::NoSnapshot(VOLUME, Tag(7)));
    assert_eq!(rig.compare((Tag(7), None), 0, 1), none);
    assert_eq!(rig.compare((Tag(1), Some(Tag(7))), 0, 1), none);
    for (first, count) in [(0, 4097), (4096, 1), (5, u64::MAX), (u64::MAX, 1), (0, 0)] {
        let found = rig.compare(both, first, count);
        let beyond = matches!(found, Err(RequestError::OutOfRange { .. }));
        assert!(beyond, "{first}+{count}: {found:?}");
    }
    assert_eq!(rig.compare(both, 0, 4096), Ok((4096, BTreeSet::new())));
    rig.delete(Tag(1));
    let gone = Err(RequestError::NoSnapshot(VOLUME, Tag(1)));
    assert_eq!(rig.compare(both, 0, 4096), gone);
}

/// An answer ends after so many chunks that changed, and between two of them.
#[test]
fn a_long_comparison_is_answered_in_parts() {
    let mut rig = Rig::with(16384, 64, Policy::OriginFirst, Config::default());
    for chunk in 0..2000 {
        rig.write(1, chunk * 2, 1);
    }
    for (tag, name) in [(2, "t"), (3, "u"), (4, "w")] {
        rig.take(name);
        rig.write(tag, 0, 4096);
    }
    rig.command(Command::Checkpoint);
    let (mut at, mut parts, mut all) = (0, 0, BTreeSet::new());
    while at < 4096 {
        let (end, found) = rig.compare((Tag(1), Some(Tag(2))), at, 4096 - at).unwrap();
        assert!(end > at);
        (at, parts) = (end, parts + 1);
        all.extend(found);
    }
    assert!(parts > 1, "{parts}");
    assert_eq!(all, (0..2000).map(|chunk| chunk * 2).collect());
}

/// A snapshot that is deleted meanwhile keeps what is looked for until the answer.
#[test]
fn a_query_under_way_outlives_its_snapshot() {
    let config = Config {
        cache_blocks: MIN_CACHE,
        ..Config::default()
    };
    let mut rig = Rig::with(8192, 64, Policy::OriginFirst, config);
    for chunk in 0..1500 {
        rig.write(1, chunk * 2, 1);
    }
    rig.take("t");
    rig.command(Command::Close);
    let mut rig = Rig::open_with(rig.disk, config);
    rig.pump();
    rig.hold_reads = true;
    let query = rig.command(Command::Changes {
        volume: VOLUME,
        from: Tag(1),
        to: None,
        after: None,
    });
    assert_eq!(rig.result(query), None, "it waits for a node");
    rig.delete(Tag(1));
    rig.release();
    let Some(Ok(Reply::Changes(found))) = rig.result(query) else {
        panic!("{:?}", rig.result(query));
    };
    assert_eq!((found.chunks.len(), found.next), (1500, None));
    rig.pump();
    rig.is_sound();
}

/// Both trees damaged: an error and no silence; one of them alone is made anew.
#[test]
fn damage_is_an_answer() {
    for both in [true, false] {
        let mut rig = Rig::new(2048, Policy::OriginFirst);
        rig.write(1, 0, 32);
        rig.command(Command::Close);
        let roots = rig.engine.roots;
        rig.disk.0[roots.eras.ptr.block as usize].0[100] ^= 1;
        if both {
            rig.disk.0[roots.exceptions.ptr.block as usize].0[100] ^= 1;
        }
        let mut rig = Rig::open(rig.disk);
        let found = rig.changes(Tag(1), None);
        match both {
            true => assert!(
                matches!(found, Err(CommandError::Damaged { .. })),
                "{found:?}"
            ),
            false => assert_eq!(found.unwrap().len(), 32),
        }
        let found = rig.compare((Tag(1), None), 0, 4096);
        match both {
            true => assert!(
                matches!(
                    found,
                    Err(RequestError::Damaged { .. } | RequestError::NoSnapshot(..))
                ),
                "{found:?}"
            ),
            false => assert_eq!(found, Ok((4096, (0..32).collect()))),
        }
    }
}
