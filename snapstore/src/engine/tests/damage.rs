//! Copied-out data that readers find damaged: told of once.

use super::*;

/// A reader found this block damaged; what a person is told.
fn found(rig: &mut Rig, tag: Tag, chunk: u64, block: u64) -> Vec<Notice> {
    let before = rig.seen.len();
    rig.batch.events.push(Event::DataDamaged {
        volume: VOLUME,
        tag,
        chunk,
        block,
    });
    rig.pump();
    let notices = rig.seen[before..].iter().filter_map(|effect| match effect {
        Effect::Notice(notice) => Some(notice.clone()),
        _ => None,
    });
    notices.collect()
}

#[test]
fn damaged_data_is_told_of_once_until_its_block_holds_something_else() {
    let mut rig = Rig::new(2048, Policy::OriginFirst);
    rig.write(1, 5, 1);
    let (grant, source) = rig.read(Tag(1), 5, 1).unwrap();
    let Source::Store { block } = source else {
        panic!("{source:?}")
    };
    let told = |name: &str, tag, chunk| Notice::DataDamaged {
        volume: VOLUME,
        tag,
        name: name.to_owned(),
        chunk,
        block,
    };
    assert_eq!(found(&mut rig, Tag(1), 5, block), [told("s", Tag(1), 5)]);
    assert_eq!(found(&mut rig, Tag(1), 5, block), []);
    rig.read_done(grant);
    rig.take("t");
    assert_eq!(
        found(&mut rig, Tag(2), 5, block),
        [],
        "another snapshot, the same block"
    );
    // The chunk goes; another takes its place.
    rig.delete(Tag(1));
    rig.command(Command::Checkpoint);
    assert_eq!(rig.kept(), 0);
    assert_eq!(found(&mut rig, Tag(2), 9, block), [told("t", Tag(2), 9)]);
}

#[test]
fn a_large_chunk_is_told_of_once_however_many_of_its_blocks_are_damaged() {
    let mut disk = Disk(vec![Block::zeroed(); 2048], None);
    let options = CreateOptions {
        uuid: [9; 16],
        chunk_size: 4 * BLOCK_SIZE as u32,
        checksum: Checksum::default(),
        created_ms: 1,
        journal_blocks: Some(16),
    };
    create(&mut disk, &options).unwrap();
    let mut rig = Rig::open(disk);
    rig.volume("v", Policy::OriginFirst);
    rig.take("s");
    let mut told = |block| found(&mut rig, Tag(1), 5, block).len();
    assert_eq!([403, 400, 401, 402].map(&mut told), [1, 0, 0, 0]);
    assert_eq!([404, 399].map(&mut told), [1, 1], "its neighbours");
}
