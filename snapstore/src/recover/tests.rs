//! Recovery step by step: the order of what it does to the device, what each error
//! leaves, and what it makes of a tail that may not have landed.

use super::*;
use crate::check::tests::world::{BAD, Disk, Memory, World, report};
use crate::device::NoOrigins;
use crate::engine::{Command, TreeId};
use crate::format::journal::JournalBlock;

const VOLUME: VolumeId = VolumeId(1);
/// The chunk whose copyout is in the tail.
const CHUNK: u64 = 9;

/// A device that remembers what was done to it, and fails where told.
struct Tape {
    disk: Disk,
    log: Vec<Did>,
    /// Which write or flush fails.
    fail: Option<usize>,
    /// The block that cannot be read.
    bad: Option<u64>,
    /// The block whose first read fails.
    shy: Option<u64>,
    /// The block whose first read gives other bytes.
    lies: Option<u64>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Did {
    Read(u64),
    Write(u64),
    Flush,
}

impl Tape {
    fn new(disk: &Disk) -> Self {
        Self {
            disk: disk.clone(),
            log: Vec::new(),
            fail: None,
            bad: None,
            shy: None,
            lies: None,
        }
    }

    fn did(&mut self, what: Did) -> Result<(), IoError> {
        self.log.push(what);
        let read = |did: &&Did| matches!(did, Did::Read(_));
        let changes = self.log.len() - self.log.iter().filter(read).count();
        match what {
            Did::Read(block) if self.shy == Some(block) => {
                self.shy = None;
                Err(IoError::Errno(5))
            }
            Did::Read(block) if self.bad == Some(block) => Err(IoError::Errno(5)),
            Did::Write(_) | Did::Flush if self.fail == Some(changes - 1) => Err(IoError::Errno(5)),
            _ => Ok(()),
        }
    }
}

impl BlockDevice for Tape {
    fn blocks(&self) -> u64 {
        self.disk.blocks()
    }

    fn read(&mut self, first: u64, out: &mut [Block]) -> Result<(), IoError> {
        self.did(Did::Read(first))?;
        self.disk.read(first, out)?;
        if self.lies.take_if(|block| *block == first).is_some() {
            out[0].0[17] ^= 4;
        }
        Ok(())
    }

    fn write(&mut self, first: u64, data: &[Block]) -> Result<(), IoError> {
        self.did(Did::Write(first))?;
        self.disk.write(first, data)
    }

    fn flush(&mut self) -> Result<(), IoError> {
        self.did(Did::Flush)
    }
}

/// A store that crashed: a snapshot with a chunk in the journal's tail. Where its copy
/// is, and the origin.
fn crashed() -> (Disk, Memory, u64) {
    let mut world = World::new();
    assert_eq!(world.volume("v"), VOLUME);
    world.take(VOLUME, "s");
    world.write(VOLUME, 0, 2, 1);
    world.checkpoint();
    world.write(VOLUME, CHUNK, 1, 2);
    let loaded = load(&mut world.disk).unwrap();
    let [Record::Exception { block, .. }] = loaded.replay.unflushed[..] else {
        panic!("{:?}", loaded.replay.unflushed);
    };
    (world.disk, world.origins, block)
}

fn recover(tape: &mut Tape, origins: &mut impl Origins) -> Result<Recovered, OpenError> {
    let loaded = load(tape)?;
    let reads = |did: &Did| matches!(did, Did::Read(_));
    assert!(tape.log.iter().all(reads), "reading changed something");
    tape.log.clear();
    let (_, recovered) = loaded.recover(tape, origins, Config::default())?;
    Ok(recovered)
}

#[test]
fn it_begins_with_a_flush_and_ends_in_a_durable_checkpoint() {
    for clean in [false, true] {
        let (disk, origins, copy) = crashed();
        let mut world = World::open(disk.clone(), origins.clone());
        world.command(Command::Close);
        let disk = if clean { world.disk } else { disk };
        let mut tape = Tape::new(&disk);
        let before = newest_superblock(&mut tape).unwrap().generation;
        tape.log.clear();
        let recovered = recover(&mut tape, &mut origins.clone()).unwrap();
        assert_eq!(recovered.clean, clean);
        // What was read may have been in the device's cache only: first of all, a flush.
        assert_eq!(tape.log[0], Did::Flush);
        assert_eq!(
            tape.log.contains(&Did::Read(copy)),
            !clean,
            "the tail's data"
        );
        let log = std::mem::take(&mut tape.log);
        let newest = newest_superblock(&mut tape).unwrap();
        assert_eq!(newest.generation, before + 1);
        let at = newest.superblock.address(newest.generation);
        let end = [Did::Flush, Did::Write(at), Did::Flush];
        assert!(log.ends_with(&end), "{log:?}");
        let superblock = |did: &&Did| [Did::Write(0), Did::Write(at)].contains(did);
        assert_eq!(log.iter().filter(superblock).count(), 1, "{log:?}");
    }
}

/// No engine is handed out before all of it is durable, and doing it again does it.
#[test]
fn whatever_fails_it_serves_nothing_and_can_be_done_again() {
    let (disk, origins, _) = crashed();
    let mut failures = 0;
    loop {
        let mut tape = Tape::new(&disk);
        tape.fail = Some(failures);
        if recover(&mut tape, &mut origins.clone()).is_ok() {
            break;
        }
        failures += 1;
        let mut again = Tape::new(&tape.disk);
        let recovered = recover(&mut again, &mut origins.clone()).unwrap();
        assert_eq!((recovered.dropped, recovered.lost), (0, 0));
        let mut world = World::open(again.disk, origins.clone());
        let views = [0, 1, CHUNK].map(|chunk| world.view(VOLUME, Tag(1), chunk));
        assert_eq!(views, [Some(0); 3], "after failure {failures}");
    }
    assert!(failures > 8, "only {failures} places to fail");
}

/// What a tail whose data does not match becomes, by what the origin says.
#[test]
fn a_tail_that_did_not_land_is_dropped_only_where_the_origin_proves_it() {
    enum Origin {
        Unchanged,
        Changed,
        Unreadable,
        Absent,
    }
    // Dropped, lost; and what the snapshot then shows.
    let table = [
        (Origin::Unchanged, (1, 0), Some(0)),
        (Origin::Changed, (0, 1), None),
        (Origin::Unreadable, (0, 1), None),
        (Origin::Absent, (0, 0), None),
    ];
    for (row, (origin, counts, shows)) in table.into_iter().enumerate() {
        let (mut disk, mut origins, copy) = crashed();
        disk.0[copy as usize].0[17] ^= 4;
        let byte = match origin {
            Origin::Unreadable => BAD,
            Origin::Unchanged => 0,
            Origin::Changed | Origin::Absent => 2,
        };
        origins.0.get_mut(&VOLUME).unwrap()[CHUNK as usize] = byte;
        let mut tape = Tape::new(&disk);
        let recovered = match origin {
            Origin::Absent => recover(&mut tape, &mut NoOrigins),
            _ => recover(&mut tape, &mut origins),
        };
        let recovered = recovered.unwrap();
        assert_eq!((recovered.dropped, recovered.lost), counts, "row {row}");
        assert_eq!(report(&mut tape.disk, false).problems, Vec::<String>::new());
        let mut world = World::open(tape.disk, origins);
        assert_eq!(world.view(VOLUME, Tag(1), CHUNK), shows, "row {row}");
    }
}

#[test]
fn a_tail_that_cannot_be_read_is_kept() {
    let (disk, mut origins, copy) = crashed();
    origins.0.get_mut(&VOLUME).unwrap()[CHUNK as usize] = 0;
    let mut tape = Tape::new(&disk);
    tape.bad = Some(copy);
    let recovered = recover(&mut tape, &mut origins).unwrap();
    assert_eq!((recovered.dropped, recovered.lost), (0, 0));
    let mut world = World::open(tape.disk, origins);
    assert_eq!(
        world.view(VOLUME, Tag(1), CHUNK),
        Some(0),
        "it is readable again"
    );
    let exceptions = report(&mut world.disk, false).exceptions;
    assert_eq!(exceptions, 3);
}

/// Memory whose first read fails.
struct Shy(Memory, bool);

impl Origins for Shy {
    fn chunk_checksums(
        &mut self,
        checksum: Checksum,
        volume: VolumeId,
        chunk: u64,
        size: u64,
        out: &mut [u32],
    ) -> Result<(), IoError> {
        if std::mem::take(&mut self.1) {
            return Err(IoError::Errno(5));
        }
        self.0.chunk_checksums(checksum, volume, chunk, size, out)
    }
}

/// Kept unread, a copy that never landed would be the snapshot's for good; and so would
/// the loss, if the origin were taken for unreadable.
#[test]
fn a_read_of_the_tail_or_of_its_origin_that_fails_once_costs_nothing() {
    for shy_store in [true, false] {
        let (mut disk, mut origins, copy) = crashed();
        disk.0[copy as usize].0[17] ^= 4;
        origins.0.get_mut(&VOLUME).unwrap()[CHUNK as usize] = 0;
        let mut tape = Tape::new(&disk);
        tape.shy = shy_store.then_some(copy);
        let mut shy = Shy(origins, !shy_store);
        let recovered = recover(&mut tape, &mut shy).unwrap();
        assert_eq!((tape.shy, shy.1), (None, false), "it was not read");
        assert_eq!((recovered.dropped, recovered.lost), (1, 0), "{shy_store}");
        assert_eq!(report(&mut tape.disk, true).problems, Vec::<String>::new());
        let mut world = World::open(tape.disk, shy.0);
        assert_eq!(world.view(VOLUME, Tag(1), CHUNK), Some(0), "{shy_store}");
    }
}

/// The origin was written since: all there is are the bytes that came wrong once.
#[test]
fn a_read_of_the_tail_that_gives_other_bytes_once_costs_nothing() {
    let (disk, origins, copy) = crashed();
    let mut tape = Tape::new(&disk);
    tape.lies = Some(copy);
    let recovered = recover(&mut tape, &mut origins.clone()).unwrap();
    assert_eq!(tape.lies, None, "it was not read");
    assert_eq!((recovered.dropped, recovered.lost), (0, 0));
    let mut world = World::open(tape.disk, origins);
    assert_eq!(world.view(VOLUME, Tag(1), CHUNK), Some(0));
}

/// The counters would be counted anew, and the blocks of the old ones leak.
#[test]
fn a_read_of_a_table_that_fails_once_costs_nothing() {
    let (mut disk, ..) = crashed();
    let roots = load(&mut disk).unwrap().roots;
    for tree in [TreeId::Volumes, TreeId::Snapshots, TreeId::Sharing] {
        assert!(roots.get(tree).height > 0, "there is none");
        let mut tape = Tape::new(&disk);
        tape.shy = Some(roots.get(tree).ptr.block);
        let loaded = load(&mut tape);
        assert_eq!(tape.shy, None, "it was not read");
        let loaded = loaded.unwrap_or_else(|error| panic!("{}: {error}", tree.name()));
        assert_eq!(loaded.damage, []);
    }
}

/// A bad block in the journal is its end only if nothing says that more was flushed.
#[test]
fn a_hole_in_the_journal_is_damage_and_its_end_is_not() {
    let (disk, origins, _) = crashed();
    let mut world = World::open(disk, origins);
    (0..5).for_each(|n| world.write(VOLUME, 20 + n, 1, 7));
    let mut disk = world.disk;
    let superblock = newest_superblock(&mut disk).unwrap().superblock;
    let first = superblock.journal_first.get();
    let ring = first..first + superblock.journal_blocks.get();
    let (store, tail) = (store_id(&superblock.uuid), superblock.journal_tail.get());
    let mut chain: Vec<(u64, JournalBlock)> = ring
        .filter_map(|at| {
            Some((
                at,
                JournalBlock::decode(&disk.0[at as usize], at, store)
                    .ok()?
                    .0,
            ))
        })
        .filter(|(_, block)| block.seq >= tail)
        .collect();
    chain.sort_unstable_by_key(|(_, block)| block.seq);
    assert!(chain.len() >= 5, "{} blocks", chain.len());
    for (index, (at, block)) in chain.iter().enumerate() {
        let mut broken = disk.clone();
        broken.0[*at as usize] = Block::zeroed();
        let later = chain.get(index + 1..).unwrap_or_default();
        let known = later.iter().any(|(_, later)| later.flushed > block.seq);
        match load(&mut broken) {
            Err(OpenError::Damaged { what, block, .. }) => {
                assert_eq!((known, what, block), (true, "journal", *at));
            }
            other => assert!(!known && other.is_ok(), "block {at}: {other:?}"),
        }
    }
    let cut = chain.len() - 1;
    assert!(
        chain[cut].1.flushed > chain[cut - 1].1.seq,
        "each was flushed before the next"
    );
}
