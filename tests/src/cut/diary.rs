//! The diary: what csnapd acknowledged, written to the logged disk itself.
//!
//! A record is written when the answer has come. So a state of the disk that has the
//! record has, whatever else it lacks, all that the answer promised: the record was
//! issued later than everything the promise needs was made durable. A record that is
//! missing or torn takes nothing away from the others.
//!
//! Records are slots of two blocks: a head (magic, CRC32C of the rest, number, kind,
//! snapshot, limit) and for each block of the origin the number of a write.

use std::collections::BTreeMap;

use super::disk::{DIARY, ORIGIN};
use crate::e2e::ledger::{BLOCK, stamp_in};
use crate::e2e::{Fault, Outcome};
use crate::ensure;
use crate::memory::MemoryStore;

/// Blocks of the origin.
pub const BLOCKS: usize = ORIGIN as usize / BLOCK;
/// Bytes of a record.
pub const SLOT: usize = BLOCK + BLOCKS * 4;
/// Records there may be.
pub const SLOTS: usize = DIARY as usize / SLOT;
const MAGIC: [u8; 8] = *b"csdiary1";
const HEAD: usize = 28;

/// For each block of the origin the number of a write.
pub type Numbers = Vec<u32>;

/// What a record says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// A flush was answered (or a forced write): these writes, or later ones, are there.
    Durable(Numbers),
    /// A take was answered: each block shows this write or a later one below the limit.
    Taken(u32, Numbers, u32),
    /// The snapshot was read: exactly these.
    Seen(u32, Numbers),
    /// From now on the snapshot may be gone. Written, and flushed, before it is asked.
    Deleting(u32),
    /// The delete was answered: it is gone.
    Deleted(u32),
}

impl Event {
    /// The bytes of record `number`.
    #[must_use]
    pub fn encode(&self, number: u32) -> Vec<u8> {
        let none = Numbers::new();
        let (kind, snapshot, limit, numbers) = match self {
            Self::Durable(numbers) => (1, 0, 0, numbers),
            Self::Taken(snapshot, numbers, limit) => (2, *snapshot, *limit, numbers),
            Self::Seen(snapshot, numbers) => (3, *snapshot, 0, numbers),
            Self::Deleting(snapshot) => (4, *snapshot, 0, &none),
            Self::Deleted(snapshot) => (5, *snapshot, 0, &none),
        };
        let mut bytes = MAGIC.to_vec();
        let head = [0, number, kind, snapshot, limit];
        bytes.extend(head.iter().flat_map(|word: &u32| word.to_le_bytes()));
        bytes.resize(BLOCK, 0);
        bytes.extend(numbers.iter().flat_map(|word| word.to_le_bytes()));
        bytes.resize(SLOT, 0);
        let sum = crc32c::crc32c(&bytes[12..]);
        bytes[8..12].copy_from_slice(&sum.to_le_bytes());
        bytes
    }

    /// The record in slot `number`, if it is whole.
    #[must_use]
    pub fn decode(number: u32, bytes: &[u8]) -> Option<Self> {
        let head = bytes.get(..HEAD)?;
        let whole = bytes.len() == SLOT && head.starts_with(&MAGIC);
        let sum = crc32c::crc32c(&bytes[12..]);
        if !whole || word(head, 8) != sum || word(head, 12) != number {
            return None;
        }
        let [kind, snapshot, limit] = [16, 20, 24].map(|at| word(head, at));
        let numbers = || (BLOCK..SLOT).step_by(4).map(|at| word(bytes, at)).collect();
        match kind {
            1 => Some(Self::Durable(numbers())),
            2 => Some(Self::Taken(snapshot, numbers(), limit)),
            3 => Some(Self::Seen(snapshot, numbers())),
            4 => Some(Self::Deleting(snapshot)),
            5 => Some(Self::Deleted(snapshot)),
            _ => None,
        }
    }
}

fn word(bytes: &[u8], at: usize) -> u32 {
    let mut word = [0; 4];
    word.copy_from_slice(&bytes[at..at + 4]);
    u32::from_le_bytes(word)
}

/// The records of a diary in memory.
pub fn events(diary: &MemoryStore) -> impl Iterator<Item = Event> {
    let blocks = SLOT / BLOCK;
    let mut heads = diary.written();
    heads.retain(|block| block.is_multiple_of(blocks as u64));
    heads.into_iter().filter_map(move |first| {
        let mut bytes = Vec::with_capacity(SLOT);
        for block in first..first + blocks as u64 {
            bytes.extend_from_slice(&diary.get(block).0);
        }
        Event::decode((first as usize / blocks) as u32, &bytes)
    })
}

/// What is promised of a snapshot.
#[derive(Clone, Debug, Default)]
pub struct Kept {
    /// Between which writes each block is, since the take was answered.
    pub taken: Option<(Numbers, u32)>,
    /// What it showed.
    pub seen: Option<Numbers>,
    /// It may be gone.
    pub deleting: bool,
    /// It is gone.
    pub deleted: bool,
}

/// What follows from a diary.
#[derive(Clone, Debug)]
pub struct Promises {
    /// For each block of the origin the oldest write it may show; 0 before the first record.
    pub floor: Numbers,
    /// Snapshots by number.
    pub snapshots: BTreeMap<u32, Kept>,
    /// How many records there were.
    pub records: usize,
}

impl Default for Promises {
    fn default() -> Self {
        Self {
            floor: vec![0; BLOCKS],
            snapshots: BTreeMap::new(),
            records: 0,
        }
    }
}

impl Promises {
    /// Of these records.
    #[must_use]
    pub fn of(events: impl IntoIterator<Item = Event>) -> Self {
        let mut this = Self::default();
        events.into_iter().for_each(|event| this.add(event));
        this
    }

    /// One more.
    pub fn add(&mut self, event: Event) {
        self.records += 1;
        match event {
            Event::Durable(numbers) => {
                for (floor, number) in self.floor.iter_mut().zip(numbers) {
                    *floor = number.max(*floor);
                }
            }
            Event::Taken(snapshot, numbers, limit) => {
                self.kept(snapshot).taken = Some((numbers, limit));
            }
            Event::Seen(snapshot, numbers) => self.kept(snapshot).seen = Some(numbers),
            Event::Deleting(snapshot) => self.kept(snapshot).deleting = true,
            Event::Deleted(snapshot) => self.kept(snapshot).deleted = true,
        }
    }

    fn kept(&mut self, snapshot: u32) -> &mut Kept {
        self.snapshots.entry(snapshot).or_default()
    }

    /// The live origin: each sector shows a promised write or a later one. Hands back
    /// the oldest of each block.
    ///
    /// # Errors
    /// Names the first block that does not.
    pub fn check_origin(&self, bytes: &[u8]) -> Outcome<Numbers> {
        let oldest = oldest(bytes)?;
        for (block, (number, floor)) in oldest.iter().zip(&self.floor).enumerate() {
            ensure!(
                number >= floor,
                "block {block} of the origin shows write {number}; write {floor} was flushed"
            );
        }
        Ok(oldest)
    }

    /// The snapshots that are there, by number: none acknowledged is missing, none that
    /// was deleted is back.
    ///
    /// # Errors
    /// Names the one.
    pub fn check_list(&self, live: &[u32]) -> Outcome {
        for (number, kept) in &self.snapshots {
            let there = live.contains(number);
            ensure!(
                there || kept.deleting || kept.deleted || kept.taken.is_none(),
                "snapshot {number} was acknowledged and is gone; there are {live:?}"
            );
            ensure!(
                !(there && kept.deleted),
                "snapshot {number} was deleted and is back"
            );
        }
        Ok(())
    }

    /// The contents of a snapshot, which are those of its take; hands back its writes.
    ///
    /// # Errors
    /// Names the first block that shows something else.
    pub fn check_snapshot(&self, number: u32, bytes: &[u8]) -> Outcome<Numbers> {
        let seen =
            whole(bytes).map_err(|fault| Fault::wrong(format!("snapshot {number}: {fault}")))?;
        let Some(kept) = self.snapshots.get(&number) else {
            return Ok(seen); // its take was not answered: nothing is promised yet
        };
        if let Some(first) = &kept.seen {
            same(number, first, &seen)?;
        }
        if let Some((oldest, limit)) = &kept.taken {
            for (block, (write, oldest)) in seen.iter().zip(oldest).enumerate() {
                ensure!(
                    (oldest..limit).contains(&write),
                    "snapshot {number} shows write {write} in block {block}; \
                     it was taken between {oldest} and {limit}"
                );
            }
        }
        Ok(seen)
    }
}

/// Demands that a snapshot shows what it showed.
///
/// # Errors
/// Names the first block that does not.
pub fn same(number: u32, before: &Numbers, now: &Numbers) -> Outcome {
    let differs = before.iter().zip(now).position(|(a, b)| a != b);
    match differs {
        None => Ok(()),
        Some(block) => Err(Fault::wrong(format!(
            "snapshot {number} showed write {} in block {block} and now shows write {}",
            before[block], now[block]
        ))),
    }
}

/// The write that each block shows.
fn whole(bytes: &[u8]) -> Outcome<Numbers> {
    let read = |(block, bytes)| stamp_in(block, bytes).ok_or_else(|| odd(block, bytes));
    let numbers = bytes.chunks(BLOCK).enumerate().map(read);
    numbers
        .map(|number| number.map(|number| number as u32))
        .collect()
}

/// The oldest write that each block shows in one of its sectors: at a power cut a block
/// under way may be torn.
fn oldest(bytes: &[u8]) -> Outcome<Numbers> {
    let read = |(block, bytes): (usize, &[u8])| {
        let mut numbers = Vec::new();
        for sector in bytes.chunks(super::disk::SECTOR) {
            numbers.push(stamp_in(block, sector).ok_or_else(|| odd(block, bytes))?);
        }
        Ok(numbers.into_iter().min().unwrap_or(0) as u32)
    };
    bytes.chunks(BLOCK).enumerate().map(read).collect()
}

fn odd(block: usize, bytes: &[u8]) -> Fault {
    Fault::wrong(format!(
        "block {block} shows no write of its own: {:02x?} ... {:02x?}",
        &bytes[..bytes.len().min(16)],
        &bytes[bytes.len().saturating_sub(16)..]
    ))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::e2e::ledger::stamped;

    fn numbers(first: u32) -> Numbers {
        let mut numbers = vec![1; BLOCKS];
        numbers[0] = first;
        numbers
    }

    /// An origin of these writes.
    fn image(numbers: &Numbers) -> Vec<u8> {
        let pairs = numbers.iter().enumerate();
        pairs
            .flat_map(|(block, number)| stamped(block, (*number).into()))
            .collect()
    }

    #[test]
    fn records_come_back_and_torn_ones_do_not() {
        let all = [
            Event::Durable(numbers(3)),
            Event::Taken(7, numbers(4), 9),
            Event::Seen(7, numbers(5)),
            Event::Deleting(7),
            Event::Deleted(7),
        ];
        for (number, event) in (0..).zip(&all) {
            let mut bytes = event.encode(number);
            assert_eq!(bytes.len(), SLOT);
            assert_eq!(Event::decode(number, &bytes).as_ref(), Some(event));
            assert_eq!(Event::decode(number + 1, &bytes), None, "another slot's");
            assert_eq!(Event::decode(number, &bytes[..SLOT - 1]), None);
            bytes[SLOT - 1] ^= 1;
            assert_eq!(Event::decode(number, &bytes), None);
        }
        let bytes: Vec<u8> = (0..)
            .zip(&all)
            .flat_map(|(n, event)| event.encode(n))
            .collect();
        let mut diary = MemoryStore::of_bytes(&bytes);
        assert_eq!(events(&diary).collect::<Vec<_>>(), all);
        diary.put(3, MemoryStore::new(1).get(0));
        assert_eq!(events(&diary).count(), 4, "the second has no head");
    }

    #[test]
    fn a_lost_flushed_write_is_seen() {
        let promises = Promises::of([Event::Durable(numbers(5)), Event::Durable(numbers(3))]);
        assert!(promises.check_origin(&image(&numbers(5))).is_ok());
        assert!(promises.check_origin(&image(&numbers(6))).is_ok());
        assert!(promises.check_origin(&image(&numbers(4))).is_err());
        let mut torn = image(&numbers(6));
        torn[..512].copy_from_slice(&stamped(0, 5)[..512]);
        assert_eq!(promises.check_origin(&torn).unwrap()[0], 5);
        torn[..512].copy_from_slice(&stamped(0, 4)[..512]);
        assert!(promises.check_origin(&torn).is_err());
        torn[..512].fill(0);
        assert!(promises.check_origin(&torn).is_err());
    }

    #[test]
    fn snapshots_missing_back_or_changed_are_seen() {
        let taken = Event::Taken(1, numbers(3), 6);
        let mut promises = Promises::of([taken]);
        assert!(promises.check_list(&[1]).is_ok());
        assert!(promises.check_list(&[]).is_err(), "acknowledged and gone");
        let check =
            |promises: &Promises, first| promises.check_snapshot(1, &image(&numbers(first)));
        assert!(check(&promises, 3).is_ok() && check(&promises, 5).is_ok());
        assert!(check(&promises, 2).is_err() && check(&promises, 6).is_err());
        promises.add(Event::Seen(1, numbers(4)));
        assert!(check(&promises, 4).is_ok());
        assert!(check(&promises, 5).is_err(), "it showed another");
        promises.add(Event::Deleting(1));
        assert!(promises.check_list(&[1]).is_ok() && promises.check_list(&[]).is_ok());
        promises.add(Event::Deleted(1));
        assert!(promises.check_list(&[1]).is_err(), "it is back");
        let mut torn = image(&numbers(4));
        torn[..512].copy_from_slice(&stamped(0, 3)[..512]);
        assert!(promises.check_snapshot(1, &torn).is_err());
    }
}
