//! The journal: a ring of blocks of logical records.
//!
//! Block with sequence `s` lies at ring slot `s % journal_blocks`. A block is
//! sealed once and never rewritten within a lap; it names the CRC of the block
//! before it, so blocks of another past do not chain. `flushed` says that the
//! store was flushed through every block with a lower sequence than it: recovery
//! trusts those, verifies the data of the rest, and takes a gap before such a
//! watermark for damage, never for the end.
//!
//! A record is `u8 type, u8 zero, u16 length` (of the whole record, a multiple
//! of 8), then its fields in the order of [`Record`]. Records never cross a
//! block. Replaying them over the checkpoint in order gives the store's state.

use zerocopy::little_endian::{U16, U32, U64};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::exception::Crcs;
use super::header::{Damage, Header, Kind, seal, verify};
use super::superblock::COUNT_LIMIT;
use super::tables::{Name, SNAPSHOT_LEN, SnapshotRecord, VOLUME_LEN, VolumeRecord};
use crate::block::{BLOCK_SIZE, Block};
use crate::ids::{Tag, VolumeId};

/// What follows the header in a journal block.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned,
)]
#[repr(C)]
pub struct JournalHead {
    /// Sequence of this block, 1 and up, never reused.
    pub seq: U64,
    /// Every block with a sequence below this was flushed when this was sealed.
    pub flushed: U64,
    /// Header CRC of block `seq - 1`; what the superblock says for the first.
    pub chain: U32,
    /// Records in the block.
    pub count: U16,
    /// Bytes of records.
    pub used: U16,
    /// Zero.
    pub reserved: [u8; 8],
}

const _: () = assert!(size_of::<JournalHead>() == 32);

const RECORDS: usize = size_of::<Header>() + size_of::<JournalHead>();
/// Bytes of records a journal block holds.
pub const JOURNAL_ROOM: usize = BLOCK_SIZE - RECORDS;

/// One logical change.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Record {
    /// An exception was added; `block` 0: LOST.
    Exception {
        /// Whose.
        volume: VolumeId,
        /// Which chunk.
        chunk: u64,
        /// Upper end of the interval.
        tag: Tag,
        /// Lower end, exclusive.
        pred: Tag,
        /// First store block of the data.
        block: u64,
        /// One per 4 KiB.
        crcs: Crcs,
    },
    /// A take began: exceptions with this tag may follow.
    TakePrepared {
        /// Whose.
        volume: VolumeId,
        /// The tag.
        tag: Tag,
        /// Everything else (phase `Prepared`).
        snapshot: Box<SnapshotRecord>,
    },
    /// The snapshots of all volumes prepared under this tag exist.
    TakeCommitted {
        /// The tag.
        tag: Tag,
    },
    /// They never will.
    TakeAborted {
        /// The tag.
        tag: Tag,
    },
    /// A snapshot was deleted.
    SnapshotDeleted {
        /// Whose.
        volume: VolumeId,
        /// Which.
        tag: Tag,
    },
    /// A snapshot was dropped.
    SnapshotDropped {
        /// Whose.
        volume: VolumeId,
        /// Which.
        tag: Tag,
        /// A `DropReason`.
        reason: u32,
    },
    /// An exception was removed and its chunk freed.
    Purged {
        /// Whose.
        volume: VolumeId,
        /// Key: the chunk.
        chunk: u64,
        /// Key: the tag.
        tag: Tag,
        /// The store block that is free once a checkpoint holds this.
        block: u64,
    },
    /// Nothing of a deleted (or dropped) snapshot is left to purge.
    SnapshotPurged {
        /// Whose.
        volume: VolumeId,
        /// Which.
        tag: Tag,
    },
    /// Name, flags or priority of a snapshot changed.
    SnapshotChanged {
        /// Whose.
        volume: VolumeId,
        /// Which.
        tag: Tag,
        /// [`super::tables::MAPPED`], [`super::tables::HELD`]; others mean nothing here.
        flags: u32,
        /// Drop priority.
        priority: i32,
        /// Name.
        name: Box<Name>,
    },
    /// A volume was added or changed; for a new one the number is new.
    VolumeChanged {
        /// Which.
        volume: VolumeId,
        /// All of it (`held` is ignored for a known volume).
        record: Box<VolumeRecord>,
    },
    /// A volume was deleted with all its snapshots; purging follows.
    VolumeDeleted {
        /// Which.
        volume: VolumeId,
    },
    /// Nothing of a deleted volume is left.
    VolumeGone {
        /// Which.
        volume: VolumeId,
    },
}

mod code {
    pub(super) const EXCEPTION: u8 = 1;
    pub(super) const TAKE_PREPARED: u8 = 2;
    pub(super) const TAKE_COMMITTED: u8 = 3;
    pub(super) const TAKE_ABORTED: u8 = 4;
    pub(super) const SNAPSHOT_DELETED: u8 = 5;
    pub(super) const SNAPSHOT_DROPPED: u8 = 6;
    pub(super) const PURGED: u8 = 7;
    pub(super) const SNAPSHOT_PURGED: u8 = 8;
    pub(super) const SNAPSHOT_CHANGED: u8 = 9;
    pub(super) const VOLUME_CHANGED: u8 = 10;
    pub(super) const VOLUME_DELETED: u8 = 11;
    pub(super) const VOLUME_GONE: u8 = 12;
}

const PREFIX: usize = 4;

impl Record {
    /// Appends the record to `out`, padded to a multiple of 8 bytes.
    pub fn encode(&self, out: &mut Vec<u8>) {
        let start = out.len();
        out.extend_from_slice(&[self.code(), 0, 0, 0]);
        let u32s = |out: &mut Vec<u8>, v: u32| out.extend_from_slice(&v.to_le_bytes());
        let u64s = |out: &mut Vec<u8>, v: u64| out.extend_from_slice(&v.to_le_bytes());
        match self {
            Self::Exception {
                volume,
                chunk,
                tag,
                pred,
                block,
                crcs,
            } => {
                u32s(out, volume.0);
                u64s(out, *chunk);
                u64s(out, tag.0);
                u64s(out, pred.0);
                u64s(out, *block);
                crcs.as_slice().iter().for_each(|c| u32s(out, *c));
            }
            Self::TakePrepared {
                volume,
                tag,
                snapshot,
            } => {
                u32s(out, volume.0);
                u64s(out, tag.0);
                out.extend_from_slice(snapshot.as_bytes());
            }
            Self::TakeCommitted { tag } | Self::TakeAborted { tag } => {
                u32s(out, 0);
                u64s(out, tag.0);
            }
            Self::SnapshotDeleted { volume, tag } | Self::SnapshotPurged { volume, tag } => {
                u32s(out, volume.0);
                u64s(out, tag.0);
            }
            Self::SnapshotDropped {
                volume,
                tag,
                reason,
            } => {
                u32s(out, volume.0);
                u64s(out, tag.0);
                u32s(out, *reason);
            }
            Self::Purged {
                volume,
                chunk,
                tag,
                block,
            } => {
                u32s(out, volume.0);
                u64s(out, *chunk);
                u64s(out, tag.0);
                u64s(out, *block);
            }
            Self::SnapshotChanged {
                volume,
                tag,
                flags,
                priority,
                name,
            } => {
                u32s(out, volume.0);
                u64s(out, tag.0);
                u32s(out, *flags);
                out.extend_from_slice(&priority.to_le_bytes());
                out.extend_from_slice(name.as_slice());
            }
            Self::VolumeChanged { volume, record } => {
                u32s(out, volume.0);
                out.extend_from_slice(record.as_bytes());
            }
            Self::VolumeDeleted { volume } | Self::VolumeGone { volume } => u32s(out, volume.0),
        }
        out.resize(start + (out.len() - start).next_multiple_of(8), 0);
        let length = ((out.len() - start) as u16).to_le_bytes();
        if let Some(field) = out.get_mut(start + 2..start + PREFIX) {
            field.copy_from_slice(&length);
        }
    }

    fn code(&self) -> u8 {
        match self {
            Self::Exception { .. } => code::EXCEPTION,
            Self::TakePrepared { .. } => code::TAKE_PREPARED,
            Self::TakeCommitted { .. } => code::TAKE_COMMITTED,
            Self::TakeAborted { .. } => code::TAKE_ABORTED,
            Self::SnapshotDeleted { .. } => code::SNAPSHOT_DELETED,
            Self::SnapshotDropped { .. } => code::SNAPSHOT_DROPPED,
            Self::Purged { .. } => code::PURGED,
            Self::SnapshotPurged { .. } => code::SNAPSHOT_PURGED,
            Self::SnapshotChanged { .. } => code::SNAPSHOT_CHANGED,
            Self::VolumeChanged { .. } => code::VOLUME_CHANGED,
            Self::VolumeDeleted { .. } => code::VOLUME_DELETED,
            Self::VolumeGone { .. } => code::VOLUME_GONE,
        }
    }

    /// Decodes the record at the start of `bytes`; returns it and its length.
    /// `crcs` is the number of 4 KiB pieces in a chunk.
    ///
    /// # Errors
    /// When the bytes are not a record of this format version.
    pub fn decode(bytes: &[u8], crcs: usize) -> Result<(Self, usize), Damage> {
        let short = Damage::Field("a journal record is cut short");
        let [kind, _, low, high, ..] = *bytes else {
            return Err(short);
        };
        let length = usize::from(u16::from_le_bytes([low, high]));
        if length < 8 || !length.is_multiple_of(8) {
            return Err(Damage::Field("a journal record has an impossible length"));
        }
        let mut r = Reader(bytes.get(PREFIX..length).ok_or(short)?);
        let volume = VolumeId(r.u32()?);
        let record = match kind {
            code::EXCEPTION => Self::Exception {
                volume,
                chunk: r.u64()?,
                tag: r.tag()?,
                pred: r.tag()?,
                block: r.u64()?,
                crcs: r.crcs(crcs)?,
            },
            code::TAKE_PREPARED => Self::TakePrepared {
                volume,
                tag: r.tag()?,
                snapshot: Box::new(r.object()?),
            },
            code::TAKE_COMMITTED => Self::TakeCommitted { tag: r.tag()? },
            code::TAKE_ABORTED => Self::TakeAborted { tag: r.tag()? },
            code::SNAPSHOT_DELETED => Self::SnapshotDeleted {
                volume,
                tag: r.tag()?,
            },
            code::SNAPSHOT_DROPPED => Self::SnapshotDropped {
                volume,
                tag: r.tag()?,
                reason: r.u32()?,
            },
            code::PURGED => Self::Purged {
                volume,
                chunk: r.u64()?,
                tag: r.tag()?,
                block: r.u64()?,
            },
            code::SNAPSHOT_PURGED => Self::SnapshotPurged {
                volume,
                tag: r.tag()?,
            },
            code::SNAPSHOT_CHANGED => Self::SnapshotChanged {
                volume,
                tag: r.tag()?,
                flags: r.u32()?,
                priority: r.u32()?.cast_signed(),
                name: Box::new(r.object()?),
            },
            code::VOLUME_CHANGED => Self::VolumeChanged {
                volume,
                record: Box::new(r.object()?),
            },
            code::VOLUME_DELETED => Self::VolumeDeleted { volume },
            code::VOLUME_GONE => Self::VolumeGone { volume },
            _ => return Err(Damage::Field("unknown journal record type")),
        };
        Ok((record, length))
    }
}

struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn object<T: FromBytes>(&mut self) -> Result<T, Damage> {
        let (value, rest) = T::read_from_prefix(self.0)
            .map_err(|_| Damage::Field("a journal record is cut short"))?;
        // `read_from_prefix` gives back a suffix of the same bytes.
        self.0 = self.0.get(self.0.len() - rest.len()..).unwrap_or(&[]);
        Ok(value)
    }

    fn u32(&mut self) -> Result<u32, Damage> {
        self.object::<U32>().map(U32::get)
    }

    fn u64(&mut self) -> Result<u64, Damage> {
        self.object::<U64>().map(U64::get)
    }

    fn tag(&mut self) -> Result<Tag, Damage> {
        self.u64().map(Tag)
    }

    fn crcs(&mut self, count: usize) -> Result<Crcs, Damage> {
        let crcs: Result<Vec<u32>, Damage> = (0..count).map(|_| self.u32()).collect();
        Ok(Crcs::new(&crcs?))
    }
}

/// A journal block before and after it is on disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JournalBlock {
    /// See [`JournalHead`].
    pub seq: u64,
    /// See [`JournalHead`].
    pub flushed: u64,
    /// See [`JournalHead`].
    pub chain: u32,
    /// Generation of the newest durable checkpoint when it was sealed.
    pub generation: u64,
    /// Number of records.
    pub count: u16,
    /// The encoded records, at most [`JOURNAL_ROOM`] bytes.
    pub records: Vec<u8>,
}

impl JournalBlock {
    /// As a block for address `at`; returns its CRC too, for the next one's chain.
    #[must_use]
    pub fn encode(&self, at: u64, store: u64) -> (Block, u32) {
        let mut block = Block::zeroed();
        let head = JournalHead {
            seq: self.seq.into(),
            flushed: self.flushed.into(),
            chain: self.chain.into(),
            count: self.count.into(),
            used: (self.records.len() as u16).into(),
            reserved: [0; 8],
        };
        block.0[size_of::<Header>()..RECORDS].copy_from_slice(head.as_bytes());
        block.0[RECORDS..RECORDS + self.records.len()].copy_from_slice(&self.records);
        seal(&mut block, Kind::Journal, at, store, self.generation);
        let crc = super::header::header(&block).crc.get();
        (block, crc)
    }

    /// Reads and verifies the block found at `at`; returns its CRC too.
    ///
    /// # Errors
    /// The first thing that is wrong.
    pub fn decode(block: &Block, at: u64, store: u64) -> Result<(Self, u32), Damage> {
        let header = verify(block, Kind::Journal, at, store)?;
        let (head, rest) = JournalHead::read_from_prefix(&block.0[size_of::<Header>()..])
            .map_err(|_| Damage::Field("the journal block is too short"))?;
        let records = rest
            .get(..usize::from(head.used.get()))
            .ok_or(Damage::Field(
                "the journal block claims more bytes than it has",
            ))?;
        if head.seq.get() >= COUNT_LIMIT {
            return Err(Damage::Field("journal sequence out of range"));
        }
        let this = Self {
            seq: head.seq.get(),
            flushed: head.flushed.get(),
            chain: head.chain.get(),
            generation: header.generation.get(),
            count: head.count.get(),
            records: records.to_vec(),
        };
        Ok((this, header.crc.get()))
    }

    /// Decodes all records.
    ///
    /// # Errors
    /// When one of them is not a record of this format version.
    pub fn decode_records(&self, crcs: usize) -> Result<Vec<Record>, Damage> {
        let mut records = Vec::with_capacity(usize::from(self.count));
        let mut rest = self.records.as_slice();
        while !rest.is_empty() {
            let (record, length) = Record::decode(rest, crcs)?;
            records.push(record);
            rest = rest.get(length..).unwrap_or(&[]);
        }
        if records.len() != usize::from(self.count) {
            return Err(Damage::Field(
                "the journal block holds another number of records",
            ));
        }
        Ok(records)
    }
}

const _: () = assert!(PREFIX + 4 + 8 + VOLUME_LEN + SNAPSHOT_LEN < JOURNAL_ROOM);

#[cfg(test)]
mod tests {
    use super::*;

    fn samples() -> Vec<Record> {
        let (volume, tag) = (VolumeId(7), Tag(9));
        let crcs = Crcs::new(&[1, 2, 3, 4]);
        vec![
            Record::Exception {
                volume,
                chunk: 5,
                tag,
                pred: Tag(3),
                block: 800,
                crcs,
            },
            Record::TakeCommitted { tag },
            Record::TakeAborted { tag },
            Record::SnapshotDeleted { volume, tag },
            Record::SnapshotDropped {
                volume,
                tag,
                reason: 2,
            },
            Record::Purged {
                volume,
                chunk: 1,
                tag,
                block: 2,
            },
            Record::SnapshotPurged { volume, tag },
            Record::SnapshotChanged {
                volume,
                tag,
                flags: 1,
                priority: -4,
                name: Box::new([7; 64]),
            },
            Record::VolumeDeleted { volume },
            Record::VolumeGone { volume },
        ]
    }

    #[test]
    fn records_come_back_and_cut_ones_are_errors() {
        let mut bytes = Vec::new();
        samples().iter().for_each(|r| r.encode(&mut bytes));
        let block = JournalBlock {
            seq: 3,
            flushed: 2,
            chain: 77,
            generation: 1,
            count: samples().len() as u16,
            records: bytes.clone(),
        };
        let (raw, crc) = block.encode(9, 4);
        let (back, back_crc) = JournalBlock::decode(&raw, 9, 4).unwrap();
        assert_eq!((&back, back_crc), (&block, crc));
        assert_eq!(back.decode_records(4).unwrap(), samples());
        for cut in 0..bytes.len() {
            let (prefix, _) = bytes.split_at(cut);
            let cut = JournalBlock {
                records: prefix.to_vec(),
                ..block.clone()
            };
            assert!(cut.decode_records(4).is_err());
        }
    }
}
