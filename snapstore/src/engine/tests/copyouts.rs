//! Copyouts: what they wait for and what waits for them, and origins that cannot be
//! read.

use super::*;

const SNAPSHOT: Tag = Tag(1);
const CHUNK: u32 = BLOCK_SIZE as u32;

#[test]
fn a_unique_bit_waits_for_the_exception_and_for_readers() {
    let mut rig = Rig::new(2048, Policy::OriginFirst);
    let map = rig.engine.unique_map(VOLUME).unwrap();
    let (grant, source) = rig.read(SNAPSHOT, 5, 1).unwrap();
    assert_eq!(source, Source::Origin);
    rig.hold_flushes = true;
    rig.write(1, 5, 1);
    rig.write(2, 5, 1);
    assert_eq!(rig.copies, [(5, CHUNK)], "one copyout for both");
    assert!(rig.granted.is_empty() && !map.all_unique(5, 1));
    rig.release();
    assert_eq!(rig.kept(), 1, "published");
    assert!(rig.granted.is_empty(), "a reader still needs the origin");
    assert!(!map.all_unique(5, 1), "the fast path would overtake it");
    // The slow path knows that the chunk is unique, and waits too.
    rig.write(3, 5, 1);
    assert!(rig.granted.is_empty());
    rig.read_done(grant);
    assert_eq!(rig.granted, [1, 2, 3].map(Owner));
    // Whoever asks next opens the fast path.
    rig.write(4, 5, 1);
    assert!(map.all_unique(5, 1));
    assert_eq!(rig.copies.len(), 1);
}

#[test]
fn a_run_with_a_bad_sector_loses_that_chunk_and_no_write() {
    let mut rig = Rig::new(2048, Policy::OriginFirst);
    rig.bad = Some(3);
    rig.write(1, 0, 8);
    let singles = (0..8).map(|chunk| (chunk, CHUNK));
    let tried: Vec<(u64, u32)> = std::iter::once((0, 8 * CHUNK)).chain(singles).collect();
    assert_eq!(rig.copies, tried);
    assert_eq!(
        (&rig.granted[..], &rig.failed[..]),
        (&[Owner(1)][..], &[][..])
    );
    let lost =
        |effect: &&Effect| matches!(effect, Effect::Notice(Notice::ChunkLost { chunk: 3, .. }));
    assert_eq!(rig.seen.iter().filter(lost).count(), 1);
    // Lost to the snapshot for good, in the journal too; its neighbours are kept.
    rig.bad = None;
    for mut rig in [rig.crashed(), rig] {
        assert_eq!(rig.kept(), 7);
        assert!(rig.read(SNAPSHOT, 3, 1).is_none());
        let failed = rig.seen.iter().filter_map(|effect| match effect {
            Effect::ReadFailed { error, .. } => Some(error.clone()),
            _ => None,
        });
        assert_eq!(failed.collect::<Vec<_>>(), [RequestError::Lost(VOLUME, 3)]);
        for chunk in [2, 4] {
            let (_, source) = rig.read(SNAPSHOT, chunk, 1).unwrap();
            assert!(matches!(source, Source::Store { .. }), "{source:?}");
        }
        // The write that healed the sector was the last to ask.
        let copies = rig.copies.len();
        rig.write(2, 3, 1);
        assert_eq!(rig.copies.len(), copies);
        assert_eq!(rig.granted.last(), Some(&Owner(2)));
    }
}
