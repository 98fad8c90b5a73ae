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
    }
}
