//! Bounds of memory: recent exceptions, the cache of tree nodes, what waiting requests
//! pin. Everything goes on within them.

use std::collections::BTreeSet;

use super::*;

#[test]
fn recent_exceptions_are_bounded_whatever_the_checkpoint_takes() {
    const RECORDS: usize = 32;
    let config = Config {
        memtable_records: RECORDS,
        ..Config::default()
    };
    let mut rig = Rig::with(4096, 512, Policy::OriginFirst, config);
    rig.hold = is_superblock;
    let mut writes = 0;
    while rig.granted.len() as u64 == writes {
        rig.write(writes, writes * 10, 10);
        writes += 1;
        let recent = rig.engine.state.recent.len();
        let frozen = rig.engine.checkpoint.frozen.as_ref().map_or(0, |f| f.len());
        assert!(
            recent <= 2 * RECORDS && frozen <= 2 * RECORDS,
            "{recent} {frozen}"
        );
        assert!(writes < 20, "nothing holds them up");
    }
    // The checkpoint was begun for their number alone: ring and store have room.
    assert!(rig.engine.journal.used() < 100);
    let mut crashed = rig.crashed();
    assert!(
        crashed.engine.state.recent.is_empty(),
        "replayed and written out"
    );
    crashed.is_sound();
    rig.release();
    assert_eq!(rig.granted.len() as u64, writes);
}

/// Forty reads and writes at once, each of several leaves, over a cache of eight nodes.
#[test]
fn requests_that_miss_together_all_get_on() {
    let mut rig = Rig::with(8192, 200, Policy::OriginFirst, Config::default());
    (0..4096)
        .step_by(64)
        .for_each(|first| rig.write(1, first, 64));
    rig.command(Command::Close);
    let config = Config {
        cache_blocks: 0,
        ..Config::default()
    };
    let mut rig = Rig::open_with(rig.disk, config);
    let leaves = rig.engine.roots.exceptions.leaves;
    assert!(leaves > 30, "{leaves} leaves");
    let (requests, count) = (40, 300);
    let firsts = (0..requests).map(|n| n * 94);
    for (owner, first) in (0..).map(Owner).zip(firsts) {
        let (volume, tag) = (VOLUME, Tag(1));
        let event = if owner.0 % 2 == 0 {
            Event::Write {
                owner,
                volume,
                first,
                count,
            }
        } else {
            Event::Read {
                owner,
                volume,
                tag,
                first,
                count,
            }
        };
        rig.batch.events.push(event);
    }
    rig.pump();
    let answered = rig.seen.iter().filter_map(|effect| match effect {
        Effect::WriteGranted { owner, .. }
        | Effect::ReadFrom {
            owner, last: true, ..
        } => Some(owner.0),
        _ => None,
    });
    assert_eq!(answered.collect::<BTreeSet<u64>>().len() as u64, requests);
    let reads = rig
        .seen
        .iter()
        .filter(|effect| matches!(effect, Effect::ReadBlock { .. }));
    // A request crosses three or four leaves; alone it would read each and its way there.
    let reads = reads.count() as u64;
    assert!(reads <= requests * 4 * 3, "{reads} blocks were read");
}
