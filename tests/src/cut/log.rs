//! The log of dm-log-writes and of qemu's blklogwrites, read.
//!
//! Source: `drivers/md/dm-log-writes.c` and
//! `Documentation/admin-guide/device-mapper/log-writes.rst` of the kernel;
//! `block/blklogwrites.c` of qemu writes the same. All fields are little-endian:
//!
//! | where | what |
//! |---|---|
//! | sector 0 | magic (8 bytes), version 1 (8), entries (8), bytes of a sector (4) |
//! | then, for each entry | a sector with: sector written (8), sectors (8), flags (8), bytes of a mark's text (8), the text |
//! | behind it | what was written; nothing for a discard |
//!
//! Writes stand in the order of completion. The kernel puts a plain write into the log
//! when a flush that was asked for after it completes, right before that flush; a forced
//! write and a mark at once. So neither is a barrier: plain writes before it in time may
//! stand behind it, even of the same place. And of two flushes under way at once the one
//! that began first takes the plain writes, and stands where it ended. Such a log is of no
//! use: what is logged must send one flush at a time, and none that is forced.
//!
//! The log may hold anything: whatever it says is checked against its length before it
//! is used, and an entry costs at least a sector of it.

use std::fs::File;
use std::os::unix::fs::FileExt;

const MAGIC: u64 = 0x006a_7366_7773_6872;
const HEADER: usize = 32;
const FLUSH: u64 = 1;
const FUA: u64 = 1 << 1;
const DISCARD: u64 = 1 << 2;
const MARK: u64 = 1 << 3;
const METADATA: u64 = 1 << 4;

/// Where a log's bytes are.
pub trait Bytes {
    /// How many.
    ///
    /// # Errors
    /// If that cannot be told.
    fn length(&self) -> std::io::Result<u64>;

    /// Fills `buffer` from byte `at` on.
    ///
    /// # Errors
    /// If they cannot all be read.
    fn read(&self, at: u64, buffer: &mut [u8]) -> std::io::Result<()>;
}

impl Bytes for File {
    fn length(&self) -> std::io::Result<u64> {
        self.metadata().map(|metadata| metadata.len())
    }

    fn read(&self, at: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        self.read_exact_at(buffer, at)
    }
}

impl Bytes for Vec<u8> {
    fn length(&self) -> std::io::Result<u64> {
        Ok(self.len() as u64)
    }

    fn read(&self, at: u64, buffer: &mut [u8]) -> std::io::Result<()> {
        let start = usize::try_from(at).ok();
        let end = start.and_then(|start| start.checked_add(buffer.len()));
        let found = start.zip(end).and_then(|(start, end)| self.get(start..end));
        let found = found.ok_or(std::io::ErrorKind::UnexpectedEof)?;
        buffer.copy_from_slice(found);
        Ok(())
    }
}

/// Why a log cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum LogError {
    /// It is none, or was never begun.
    #[error("this is no log of writes: its first bytes are {0:016x}")]
    NotALog(u64),
    /// Of another kind.
    #[error("the log has version {0}; this program reads version 1")]
    Version(u64),
    /// A size that makes no sense.
    #[error("the log has sectors of {0} bytes: neither 512 nor 4096 nor between")]
    SectorSize(u32),
    /// An entry makes no sense.
    #[error("entry {entry} of the log, at byte {at}: {problem}")]
    Entry {
        /// Its number, from 0.
        entry: u64,
        /// Where it lies.
        at: u64,
        /// What is wrong.
        problem: &'static str,
    },
    /// The bytes cannot be had.
    #[error("the log cannot be read: {0}")]
    Io(#[from] std::io::Error),
}

/// What an entry is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A write, forced or not.
    Write {
        /// Durable once it completed.
        forced: bool,
    },
    /// What the range holds now is anybody's guess.
    Discard,
    /// No data, or (`bytes` above 0) a write after a flush in one.
    Flush {
        /// The data with it is durable, too.
        forced: bool,
    },
    /// A word from outside.
    Mark(String),
}

/// An entry of the log.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// What it is.
    pub kind: Kind,
    /// First byte of the disk that it is about.
    pub start: u64,
    /// How many bytes.
    pub bytes: u64,
    /// Where its data begins in the log.
    data: u64,
}

impl Entry {
    /// Whether something was durable when it completed: a flush or a forced write. A mark
    /// counts, too: whoever sets one wants to look there.
    #[must_use]
    pub fn durable(&self) -> bool {
        !matches!(self.kind, Kind::Write { forced: false } | Kind::Discard)
    }
}

/// A log whose entries were all looked at.
#[derive(Debug)]
pub struct Log<B> {
    source: B,
    /// In the order of the log.
    pub entries: Vec<Entry>,
}

impl<B: Bytes> Log<B> {
    /// Reads all entries, not their data.
    ///
    /// # Errors
    /// If it is no log, or an entry makes no sense.
    pub fn open(source: B) -> Result<Self, LogError> {
        let length = source.length()?;
        let mut head = [0; HEADER];
        source.read(0, &mut head)?;
        let magic = field(&head, 0);
        if magic != MAGIC {
            return Err(LogError::NotALog(magic));
        }
        let version = field(&head, 1);
        if version != 1 {
            return Err(LogError::Version(version));
        }
        let (count, sector) = (field(&head, 2), field(&head, 3) as u32);
        if !(512..=4096).contains(&sector) || !sector.is_power_of_two() {
            return Err(LogError::SectorSize(sector));
        }
        let mut entries = Vec::new();
        let mut at = u64::from(sector);
        for entry in 0..count {
            let problem = |problem| LogError::Entry { entry, at, problem };
            let (found, next) = read_entry(&source, at, sector.into(), length).map_err(problem)?;
            entries.push(found);
            at = next;
        }
        Ok(Self { source, entries })
    }

    /// What an entry wrote; nothing for a discard or a mark.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn data(&self, entry: &Entry) -> Result<Vec<u8>, LogError> {
        if matches!(entry.kind, Kind::Discard | Kind::Mark(_)) {
            return Ok(Vec::new());
        }
        let mut bytes = vec![0; entry.bytes as usize];
        self.source.read(entry.data, &mut bytes)?;
        Ok(bytes)
    }
}

fn field(bytes: &[u8; HEADER], number: usize) -> u64 {
    let mut word = [0; 8];
    word.copy_from_slice(&bytes[number * 8..number * 8 + 8]);
    u64::from_le_bytes(word)
}

/// The entry at `at`, and where the next one begins.
fn read_entry(
    source: &impl Bytes,
    at: u64,
    sector: u64,
    length: u64,
) -> Result<(Entry, u64), &'static str> {
    let beyond = "it lies beyond the end of the log";
    let data = at.checked_add(sector).filter(|end| *end <= length);
    let data = data.ok_or(beyond)?;
    let mut head = [0; HEADER];
    source.read(at, &mut head).map_err(|_| beyond)?;
    let [first, count, flags, text] = [0, 1, 2, 3].map(|number| field(&head, number));
    let start = first.checked_mul(sector).ok_or("no disk is that large")?;
    let bytes = count.checked_mul(sector).ok_or("no disk is that large")?;
    start.checked_add(bytes).ok_or("no disk is that large")?;
    let kind = match flags & !METADATA {
        MARK => Kind::Mark(read_mark(source, at, sector, text)?),
        DISCARD => Kind::Discard,
        flags if flags & !(FLUSH | FUA) == 0 => {
            let forced = flags & FUA != 0;
            match flags & FLUSH {
                0 => Kind::Write { forced },
                _ => Kind::Flush { forced },
            }
        }
        _ => return Err("its flags make no sense"),
    };
    let next = match kind {
        Kind::Discard => Some(data),
        _ => data.checked_add(bytes).filter(|end| *end <= length),
    };
    let entry = Entry {
        kind,
        start,
        bytes,
        data,
    };
    Ok((
        entry,
        next.ok_or("its data lies beyond the end of the log")?,
    ))
}

fn read_mark(source: &impl Bytes, at: u64, sector: u64, text: u64) -> Result<String, &'static str> {
    if text > sector - HEADER as u64 {
        return Err("its mark is longer than a sector");
    }
    let mut bytes = vec![0; text as usize];
    let read = source.read(at + HEADER as u64, &mut bytes);
    read.map_err(|_| "its mark cannot be read")?;
    Ok(String::from_utf8_lossy(&bytes).into_owned())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECTOR: usize = 512;

    fn head(entries: u64) -> Vec<u8> {
        let mut bytes = [MAGIC, 1, entries, SECTOR as u64]
            .map(u64::to_le_bytes)
            .concat();
        bytes.resize(SECTOR, 0);
        bytes
    }

    fn entry(log: &mut Vec<u8>, fields: [u64; 4], text: &str, data: &[u8]) {
        let end = log.len() + SECTOR;
        log.extend(fields.map(u64::to_le_bytes).concat());
        log.extend(text.as_bytes());
        log.resize(end, 0);
        log.extend(data);
    }

    /// A write, a mark, a discard, a forced write, a flush.
    fn example() -> Vec<u8> {
        let mut log = head(5);
        entry(&mut log, [8, 2, METADATA, 0], "", &[7; 2 * SECTOR]);
        entry(&mut log, [0, 0, MARK, 5], "begin", &[]);
        entry(&mut log, [100, 50, DISCARD, 0], "", &[]);
        entry(&mut log, [3, 1, FUA, 0], "", &[9; SECTOR]);
        entry(&mut log, [0, 0, FLUSH, 0], "", &[]);
        log
    }

    #[test]
    fn every_kind_of_entry_is_read() {
        let log = Log::open(example()).unwrap();
        let kinds: Vec<Kind> = log.entries.iter().map(|entry| entry.kind.clone()).collect();
        let expected = [
            Kind::Write { forced: false },
            Kind::Mark("begin".into()),
            Kind::Discard,
            Kind::Write { forced: true },
            Kind::Flush { forced: false },
        ];
        assert_eq!(kinds, expected);
        let place = |number: usize| (log.entries[number].start, log.entries[number].bytes);
        assert_eq!(place(0), (8 * 512, 1024));
        assert_eq!(place(2), (100 * 512, 50 * 512));
        assert_eq!(log.data(&log.entries[0]).unwrap(), [7; 2 * SECTOR]);
        assert!(log.data(&log.entries[2]).unwrap().is_empty());
        assert_eq!(log.data(&log.entries[3]).unwrap(), [9; SECTOR]);
    }

    #[test]
    fn entries_beyond_the_count_are_not_there() {
        let mut log = example();
        log[16..24].copy_from_slice(&2u64.to_le_bytes());
        assert_eq!(Log::open(log).unwrap().entries.len(), 2);
    }

    /// The example with one field of the head or of the first entry changed.
    fn refused(at: usize, value: u64) -> String {
        let mut log = example();
        log[at..at + 8].copy_from_slice(&value.to_le_bytes());
        Log::open(log).unwrap_err().to_string()
    }

    #[test]
    fn nonsense_is_refused_with_its_place() {
        assert!(refused(0, 1).contains("no log"));
        assert!(refused(8, 2).contains("version 2"));
        for size in [0, 1, 511, 513, 1 << 20, u64::from(u32::MAX)] {
            assert!(refused(24, size).contains("sectors of"), "{size}");
        }
        assert!(
            refused(16, u64::MAX).contains("entry 5"),
            "more than there are"
        );
        let first = SECTOR;
        assert!(refused(first, u64::MAX).contains("that large"));
        assert!(refused(first + 8, u64::MAX / SECTOR as u64).contains("entry 0"));
        assert!(refused(first + 8, 1 << 30).contains("data lies beyond"));
        assert!(refused(first + 16, 1 << 9).contains("flags"));
        assert!(refused(first + 16, DISCARD | MARK).contains("flags"));
        let mark = SECTOR + 3 * SECTOR;
        assert!(refused(mark + 24, 481).contains("longer than a sector"));
    }

    #[test]
    fn a_log_cut_short_anywhere_is_refused() {
        let whole = example();
        for length in 0..whole.len() {
            assert!(Log::open(whole[..length].to_vec()).is_err(), "{length}");
        }
    }

    proptest! {
        /// No bytes make it panic, and what it tells lies within the log.
        #[test]
        fn any_bytes_are_survived(
            changes in prop::collection::vec((0..example().len(), any::<u8>()), 0..40)
        ) {
            let mut bytes = example();
            for (at, byte) in changes {
                bytes[at] = byte;
            }
            let length = bytes.len();
            if let Ok(log) = Log::open(bytes) {
                prop_assert!(log.entries.len() < length / SECTOR);
                for entry in &log.entries {
                    let data = log.data(entry).unwrap();
                    prop_assert!(data.len() < length);
                }
            }
        }
    }
}
