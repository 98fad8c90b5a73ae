//! What a list says of snapshots and deletions, against what is there.

use super::*;

const CHUNKS: usize = 48;

/// Who holds what, the slow way: every write makes a new version of its chunks, and a
/// snapshot needs the old contents of those it has another version of.
#[derive(Default)]
struct Naive {
    now: Vec<u64>,
    snapshots: Vec<(Tag, Vec<u64>)>,
}

impl Naive {
    /// Own and shared bytes of every snapshot.
    fn count(&self) -> Vec<(Tag, u64, u64)> {
        let bytes = |chunks: usize| (chunks * BLOCK_SIZE) as u64;
        let each = self.snapshots.iter().map(|(tag, versions)| {
            let kept = (0..CHUNKS).filter(|chunk| versions[*chunk] != self.now[*chunk]);
            let shared = |chunk: &usize| {
                let mut others = self.snapshots.iter().filter(|(other, _)| other != tag);
                others.any(|(_, theirs)| theirs[*chunk] == versions[*chunk])
            };
            let (shared, own): (Vec<usize>, Vec<usize>) = kept.partition(shared);
            (*tag, bytes(own.len()), bytes(shared.len()))
        });
        each.collect()
    }
}

fn listed(rig: &Rig) -> Vec<(Tag, u64, u64)> {
    let all = rig.engine.snapshots(VOLUME).into_iter();
    all.map(|s| (s.tag, s.exclusive_bytes, s.shared_bytes))
        .collect()
}

fn take(rig: &mut Rig, name: String) -> Tag {
    let id = rig.command(Command::Take {
        targets: vec![(VOLUME, name)],
        priority: 0,
        created_ms: 1,
    });
    match rig.result(id) {
        Some(Ok(Reply::Taken(tag))) => tag,
        other => panic!("{other:?}"),
    }
}

fn delete(rig: &mut Rig, tag: Tag) {
    rig.command(Command::DeleteSnapshots {
        targets: vec![(VOLUME, tag)],
    });
}

#[test]
fn own_and_shared_bytes_are_those_of_a_naive_count() {
    for seed in 1..=6u64 {
        let mut rig = Rig::new(4096, Policy::OriginFirst);
        let mut naive = Naive {
            now: vec![0; CHUNKS],
            snapshots: vec![(Tag(1), vec![0; CHUNKS])],
        };
        let mut random = seed;
        let mut dice = |below: u64| {
            random = u64::wrapping_mul(random, 0x5851_f42d_4c95_7f2d).wrapping_add(1);
            (random >> 33) % below
        };
        for step in 1..=300u64 {
            match dice(8) {
                0 | 1 => {
                    let tag = take(&mut rig, format!("s{step}"));
                    naive.snapshots.push((tag, naive.now.clone()));
                }
                2 if naive.snapshots.len() > 1 => {
                    let which = dice(naive.snapshots.len() as u64) as usize;
                    let (tag, _) = naive.snapshots.remove(which);
                    delete(&mut rig, tag);
                }
                3 => {
                    rig.command(Command::Checkpoint);
                }
                _ => {
                    let count = 1 + dice(8);
                    let first = dice(CHUNKS as u64 - count);
                    rig.write(step, first, count as u32);
                    let chunks = first as usize..(first + count) as usize;
                    naive.now[chunks].fill(step);
                }
            }
            assert_eq!(listed(&rig), naive.count(), "seed {seed} step {step}");
        }
        assert_eq!(paged(&rig), rig.engine.snapshots(VOLUME), "seed {seed}");
        let (said, mut rig) = (listed(&rig), Rig::open(rig.disk));
        assert_eq!(listed(&rig), said, "after a crash");
        assert!(rig.failed.is_empty() && said.len() > 3, "{said:?}");
        rig.pump();
        assert_eq!(rig.engine.store_info().purging_bytes, 0);
    }
}

/// The list as a client gets it, three at a time.
fn paged(rig: &Rig) -> Vec<SnapshotInfo> {
    let mut all: Vec<SnapshotInfo> = Vec::new();
    loop {
        let after = all.last().map_or(Tag(0), |last| last.tag);
        let page = rig.engine.snapshots_after(VOLUME, after, 3);
        if page.is_empty() {
            return all;
        }
        assert!(page.len() <= 3);
        all.extend(page);
    }
}

/// Blocks that are free, and those that metadata takes.
fn blocks(rig: &mut Rig) -> (u64, u64) {
    rig.command(Command::Checkpoint);
    assert_eq!(rig.engine.alloc.releasing_blocks(), 0);
    let nodes: u64 = TREES.iter().map(|t| rig.engine.roots.get(*t).nodes).sum();
    let image = rig.engine.alloc.image_blocks().count() as u64;
    (rig.engine.alloc.free_blocks(), nodes + image)
}

/// A store with no room for another write, and three snapshots.
fn full() -> Rig {
    let mut rig = Rig::new(1024, Policy::SnapshotFirst);
    rig.write(1, 0, 200);
    take(&mut rig, "b".to_owned());
    rig.write(2, 100, 200);
    take(&mut rig, "c".to_owned());
    for first in (0..4096).step_by(16) {
        rig.write(first, first, 16);
        if !rig.failed.is_empty() {
            return rig;
        }
    }
    panic!("it never was full");
}

#[test]
fn a_deletion_in_a_full_store_frees_exactly_what_was_said() {
    for tag in [1, 2, 3].map(Tag) {
        let mut rig = full();
        let (free, metadata) = blocks(&mut rig);
        let listed = rig.engine.snapshots(VOLUME);
        let own = listed.iter().find(|s| s.tag == tag).unwrap();
        let said = own.exclusive_bytes / BLOCK_SIZE as u64;
        assert!(said > 50, "{tag} has {said} blocks of its own");
        delete(&mut rig, tag);
        let (free_now, metadata_now) = blocks(&mut rig);
        assert_eq!(
            free_now + metadata_now,
            free + metadata + said,
            "snapshot {tag}"
        );
        let info = rig.engine.store_info();
        assert_eq!((info.purging, info.purging_bytes), (0, 0));
        rig.write(9999, 4000, 16);
        assert_eq!(rig.granted.last(), Some(&Owner(9999)), "there is room");
    }
}

#[test]
fn what_is_on_its_way_back_is_told_until_it_is_back() {
    let mut rig = full();
    let own = rig.engine.snapshots(VOLUME)[1].exclusive_bytes;
    assert_eq!(rig.engine.store_info().purging_bytes, 0);
    rig.hold_flushes = true;
    delete(&mut rig, Tag(2));
    // The deletion is durable, what it frees is not recorded yet.
    let flush = rig.held.pop().unwrap();
    rig.answer(flush);
    let info = rig.engine.store_info();
    assert_eq!((info.purging, info.purging_bytes), (1, own));
    rig.release();
    let info = rig.engine.store_info();
    assert_eq!((info.purging, info.purging_bytes), (0, 0));
}
