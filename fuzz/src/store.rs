//! A golden store with some bytes changed, put through everything that is done with
//! stores: checked, dumped, opened, recovered, read, written, its snapshots deleted,
//! closed.
//!
//! Nothing may panic, and all of it ends. What the checker finds nothing wrong with
//! opens, and is still sound after it has lived.

use std::collections::BTreeSet;
use std::sync::Arc;

use csnap_tests::golden::rig::{MemoryOrigins, Rig, RigError};
use csnap_tests::memory::MemoryStore;
use snapstore::check::{CheckOptions, check, dump};
use snapstore::engine::Command;
use snapstore::format::journal::JournalHead;
use snapstore::format::{HEADER_LEN, Kind, header};
use snapstore::recover::load;
use snapstore::{BLOCK_SIZE, Block, Tag, VolumeId};
use zerocopy::{FromBytes, IntoBytes};

use crate::blocks::repair;

/// Volumes, snapshots of each, and chunks of each that are looked at.
const MOST: usize = 4;
const MOST_CHUNKS: u64 = 8;

/// Blocks of data that may be changed: more say nothing new.
const MOST_DATA: usize = 8;

/// Changes of a store, each a place and bytes: which of the metadata blocks and some
/// of data (16 bits), which byte (16 bits, little-endian both), how many bytes (8 bits).
pub struct Patches<'a>(pub &'a [u8]);

impl Patches<'_> {
    /// Changes the store; with `seal` changed metadata blocks get the checksum that
    /// is right for them.
    pub fn apply(self, store: &mut MemoryStore, seal: bool) {
        let written = store.written();
        let is_metadata = |at: &u64| header(&store.get(*at)).kind().is_some();
        let (mut places, data): (Vec<u64>, Vec<u64>) =
            written.iter().partition(|at| is_metadata(at));
        places.extend(data.iter().take(MOST_DATA));
        let mut changed = BTreeSet::new();
        let mut rest = self.0;
        while let [a, b, c, d, len, tail @ ..] = rest {
            let index = usize::from(u16::from_le_bytes([*a, *b])) % places.len();
            let start = usize::from(u16::from_le_bytes([*c, *d])) % BLOCK_SIZE;
            let len = usize::from(*len).min(tail.len()).min(BLOCK_SIZE - start);
            let (bytes, tail) = tail.split_at(len);
            let at = places[index];
            change(store, at, |block| {
                block.0[start..start + len].copy_from_slice(bytes);
            });
            changed.insert(at);
            rest = tail;
        }
        for at in changed.into_iter().filter(|_| seal) {
            change(store, at, |block| {
                if header(block).kind().is_some() {
                    repair(block);
                }
            });
        }
    }
}

fn change(store: &mut MemoryStore, at: u64, change: impl FnOnce(&mut Block)) {
    let mut block = Block::clone(&store.get(at));
    change(&mut block);
    store.put(at, Arc::new(block));
}

/// Makes every journal block name the checksum of the one before it, in the order of
/// their sequences, so that one that was changed does not end the journal.
pub fn chain(store: &mut MemoryStore) {
    let mut ring = Vec::new();
    for at in store.written() {
        let block = store.get(at);
        let head = JournalHead::read_from_prefix(&block.0[HEADER_LEN..]);
        if let (Some(Kind::Journal), Ok((head, _))) = (header(&block).kind(), head) {
            ring.push((head.seq.get(), at));
        }
    }
    ring.sort_unstable();
    let mut before: Option<u32> = None;
    for (_, at) in ring {
        change(store, at, |block| {
            let bytes = &mut block.0[HEADER_LEN..];
            if let (Ok((mut head, _)), Some(crc)) = (JournalHead::read_from_prefix(bytes), before) {
                head.chain = crc.into();
                bytes[..size_of::<JournalHead>()].copy_from_slice(head.as_bytes());
                repair(block);
            }
            before = Some(header(block).crc.get());
        });
    }
}

/// See the module.
pub fn live(mut store: MemoryStore, origins: MemoryOrigins) {
    let sound = is_sound(&mut store);
    // It says what is wrong; the end of it is all that counts.
    let _ = dump(&mut store, &mut String::new());
    let opened = load(&mut store)
        .map_err(RigError::from)
        .and_then(|loaded| Rig::open(loaded, store, origins));
    let mut rig = match opened {
        Ok((rig, _)) => rig,
        Err(error) => {
            assert!(
                !sound,
                "the checker finds nothing, opening it fails: {error}"
            );
            return;
        }
    };
    still_sound(&mut rig, sound, "opened");
    use_it(&mut rig);
    ended(rig.command(Command::Close));
    still_sound(&mut rig, sound, "used and closed");
}

fn is_sound(store: &mut MemoryStore) -> bool {
    let report = check(store, CheckOptions { data: false }, &mut |done, of| {
        assert!(done <= of);
    });
    report.is_ok_and(|report| report.problems.is_empty())
}

fn still_sound(rig: &mut Rig, sound: bool, when: &str) {
    if sound {
        let report = check(&mut rig.store, CheckOptions { data: false }, &mut |_, _| {});
        let problems = report.map(|report| report.problems);
        assert_eq!(
            problems,
            Ok(Vec::new()),
            "sound before, but not when {when}"
        );
    }
}

/// Reads and writes a bit of everything, takes a snapshot, deletes one of each volume.
fn use_it(rig: &mut Rig) {
    let volumes = rig.engine().volumes();
    for volume in volumes.iter().take(MOST) {
        let chunk = u64::from(rig.engine().chunk_size());
        let count = volume.size.div_ceil(chunk).min(MOST_CHUNKS);
        let snapshots = rig.engine().snapshots(volume.id);
        for snapshot in snapshots.iter().take(MOST) {
            ended(rig.read(volume.id, snapshot.tag, 0, count as u32));
        }
        ended(rig.write(volume.id, 0, &[1; 512]));
        ended(rig.write(volume.id, chunk * (count / 2), &[2; 512]));
        ended(rig.command(take(volume.id)));
        ended(rig.write(volume.id, 0, &[3; 512]));
        for snapshot in snapshots.iter().take(MOST) {
            ended(rig.command(delete(volume.id, snapshot.tag)));
        }
        ended(rig.command(Command::Checkpoint));
        if let Some(last) = snapshots.last() {
            ended(rig.read(volume.id, last.tag, 0, count as u32));
        }
    }
    if let Some(volume) = volumes.last() {
        let volume = volume.id;
        ended(rig.command(Command::DeleteVolume { volume }));
    }
}

fn take(volume: VolumeId) -> Command {
    Command::Take {
        targets: vec![(volume, "fuzz".to_owned())],
        priority: 0,
        created_ms: 1,
    }
}

fn delete(volume: VolumeId, tag: Tag) -> Command {
    let targets = vec![(volume, tag)];
    Command::DeleteSnapshots { targets }
}

/// Any answer is one.
fn ended<T>(result: Result<T, RigError>) {
    if let Err(error @ (RigError::Restless | RigError::Silent)) = result {
        panic!("{error}");
    }
}
