//! Reads and block status of snapshots.

use super::*;

/// Answers a read of chunks 1 and 2 with a piece of the store and one of the origin.
fn pieces(owner: Owner) -> [Effect; 2] {
    let piece = |first, source, len, last| Effect::ReadFrom {
        owner,
        grant: GrantId(8),
        first,
        count: 1,
        source,
        crcs: CrcRange { start: 2, len },
        last,
    };
    [
        piece(1, Source::Store { block: 50 }, 4, false),
        piece(2, Source::Origin, 0, true),
    ]
}

#[test]
fn snapshot_reads_are_verified_and_give_their_grant_back_once() {
    Checksum::ALL.into_iter().for_each(reads_are_verified);
}

fn reads_are_verified(by: Checksum) {
    let good = by.of(&[0xcc; 4096]);
    // Bytes CHUNK+15872 .. 2*CHUNK+512: the last block of one chunk, the first of the next.
    for (damaged, reversed) in [(false, false), (false, true), (true, false), (true, true)] {
        let mut rig = Rig::shared_by(by);
        rig.submit(1, SNAPSHOT, Verb::Read, 2 * CHUNK - 512, 1024);
        let events = rig.events();
        let [
            Event::Read {
                owner,
                tag: Tag(3),
                first: 1,
                count: 2,
                ..
            },
        ] = events[..]
        else {
            panic!("{events:?}");
        };
        let crcs = [0, 0, 1, 1, 1, if damaged { good ^ 1 } else { good }];
        let mut effects = pieces(owner);
        if reversed {
            effects.reverse();
        }
        for effect in effects {
            rig.lane.effect(STORE, effect, &crcs);
        }
        let ops = std::mem::take(&mut rig.lane.out.ops);
        assert_eq!(ops.len(), 2);
        let mut told = Vec::new();
        for (n, op) in ops.iter().enumerate() {
            assert!(
                rig.events().is_empty(),
                "the grant went back before piece {n}"
            );
            let Action::Read {
                at, offset, len, ..
            } = op.action
            else {
                panic!("{op:?}")
            };
            let want = if op.device == DEPOT {
                (0, 53 * 4096)
            } else {
                (4096, 2 * CHUNK)
            };
            assert_eq!((at, offset, len), (want.0, want.1, 4096));
            rig.moved(op, Ok(4096));
            if damaged && op.device == DEPOT {
                let again = rig.op();
                assert_eq!(format!("{:?}", again.action), format!("{:?}", op.action));
                assert!(rig.events().is_empty(), "told before it was read once more");
                rig.moved(&again, Ok(4096));
                told = rig.events();
            }
        }
        if damaged {
            let event = told.remove(0);
            let right = matches!(
                event,
                Event::DataDamaged {
                    volume: VolumeId(1),
                    tag: Tag(3),
                    chunk: 1,
                    block: 53,
                }
            );
            assert!(right, "{event:?}");
        }
        told.extend(rig.events());
        assert!(
            matches!(told[..], [Event::ReadDone { grant: GrantId(8) }]),
            "{told:?}"
        );
        let want = if damaged { Err(libc::EIO) } else { Ok(()) };
        assert_eq!(rig.done(), [(1, want)]);
    }
}

#[test]
fn a_piece_without_its_checksums_is_an_error() {
    let mut rig = Rig::shared();
    rig.submit(1, SNAPSHOT, Verb::Read, CHUNK, CHUNK);
    let events = rig.events();
    let [Event::Read { owner, .. }] = events[..] else {
        panic!("{events:?}")
    };
    rig.lane.effect(STORE, pieces(owner)[0].clone(), &[0; 4]);
    assert_eq!(rig.done(), [(1, Err(libc::EIO))]);
    assert!(matches!(rig.events()[..], [Event::ReadDone { .. }]));
}

#[test]
fn block_status_of_a_snapshot_joins_store_and_origin() {
    let mut rig = Rig::shared();
    rig.submit(1, SNAPSHOT, Verb::Extents, CHUNK + 512, CHUNK);
    let events = rig.events();
    let [Event::Read { owner, .. }] = events[..] else {
        panic!("{events:?}")
    };
    for effect in pieces(owner) {
        rig.lane.effect(STORE, effect, &[]);
    }
    let op = rig.op();
    assert!(matches!(op.action, Action::Extents { offset, len: 512 } if offset == 2 * CHUNK));
    let hole = vec![Extent {
        len: 512,
        data: false,
    }];
    rig.lane
        .complete(op.token, Completion::Extents(hole), &mut rig.memory);
    let done = rig.lane.out.done.pop().unwrap();
    let want = [
        Extent {
            len: CHUNK - 512,
            data: true,
        },
        Extent {
            len: 512,
            data: false,
        },
    ];
    assert_eq!(done.extents, want);
    assert!(matches!(rig.events()[..], [Event::ReadDone { .. }]));
}

#[test]
fn a_fault_on_the_way_is_not_damage() {
    let mut rig = Rig::shared();
    let good = Checksum::default().of(&[0xcc; 4096]);
    rig.submit(1, SNAPSHOT, Verb::Read, CHUNK + 4096, 4096);
    let events = rig.events();
    let [Event::Read { owner, .. }] = events[..] else {
        panic!("{events:?}")
    };
    let piece = Effect::ReadFrom {
        owner,
        grant: GrantId(8),
        first: 1,
        count: 1,
        source: Source::Store { block: 50 },
        crcs: CrcRange { start: 0, len: 4 },
        last: true,
    };
    rig.lane.effect(STORE, piece, &[good; 4]);
    let op = rig.op();
    rig.memory.0.get_mut(&BufferId(1)).unwrap()[7] ^= 1;
    rig.moved(&op, Ok(4096));
    rig.memory.0.get_mut(&BufferId(1)).unwrap()[7] ^= 1;
    let again = rig.op();
    rig.moved(&again, Ok(4096));
    assert_eq!(rig.done(), [(1, Ok(()))]);
    assert!(matches!(rig.events()[..], [Event::ReadDone { .. }]));
}
