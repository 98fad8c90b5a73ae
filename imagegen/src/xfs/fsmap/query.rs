//! A query: group after group, the records that touch the range, and what lies between.

use super::{Flags, Mapping, Owner};
use crate::xfs::format::btree::{
    FreeRecord, REFCOUNT_COW, RefcountRecord, RmapRecord, rmap_offset,
};
use crate::xfs::format::group::Agf;
use crate::xfs::read::{Reader, Result, Source};
use std::collections::VecDeque;
use std::ops::Range;

type Records<'r, R> = Box<dyn Iterator<Item = Result<R>> + 'r>;

enum Trees<'r> {
    Owners(Records<'r, RmapRecord>),
    Free(Records<'r, FreeRecord>),
}

/// A group being queried.
struct Group<'r> {
    ag: u32,
    agf: Agf,
    trees: Trees<'r>,
    shared: Option<Shared<'r>>,
}

/// The shared extents of a group from some block on, taken one after the other: the
/// records asked about rise.
struct Shared<'r> {
    records: Records<'r, RefcountRecord>,
    current: Option<(u64, u64)>,
}

impl<'r> Shared<'r> {
    fn from<S: Source>(reader: &'r Reader<S>, ag: u32, agf: &Agf, start: u64) -> Result<Self> {
        let range = start..REFCOUNT_COW.into();
        let mut shared = Self {
            records: Box::new(reader.refcount(ag, agf, range).records()),
            current: None,
        };
        shared.advance()?;
        Ok(shared)
    }

    fn advance(&mut self) -> Result<()> {
        let next = self.records.next().transpose()?;
        self.current = next.map(|record| {
            let start = u64::from(record.start.get());
            (start, start + u64::from(record.count.get()))
        });
        Ok(())
    }

    /// Whether any block of `start..end` is shared; `start` rises from call to call.
    fn any(&mut self, start: u64, end: u64) -> Result<bool> {
        while self.current.is_some_and(|(_, to)| to <= start) {
            self.advance()?;
        }
        Ok(self.current.is_some_and(|(from, _)| from < end))
    }
}

/// The mappings of a range, in order; see [`super::Fsmap::query`].
pub struct Query<'r, S> {
    reader: &'r Reader<S>,
    /// Bytes.
    range: Range<u64>,
    next_ag: u64,
    group: Option<Group<'r>>,
    /// The byte after all that came; what begins later leaves a gap.
    reached: u64,
    ready: VecDeque<Mapping>,
    ended: bool,
}

impl<'r, S: Source> Query<'r, S> {
    pub(super) fn new(reader: &'r Reader<S>, range: Range<u64>) -> Self {
        let geometry = reader.geometry();
        let end = range.end.min(geometry.blocks << geometry.block_log);
        let bytes_of_group = u64::from(geometry.ag_blocks) << geometry.block_log;
        Self {
            reader,
            next_ag: range.start / bytes_of_group,
            reached: range.start,
            ended: range.start >= end,
            range: range.start..end,
            group: None,
            ready: VecDeque::new(),
        }
    }

    /// Opens the next group that the range touches.
    fn open_group(&mut self) -> Result<bool> {
        let geometry = self.reader.geometry();
        let Some(ag) = u32::try_from(self.next_ag)
            .ok()
            .filter(|ag| *ag < geometry.ag_count)
        else {
            return Ok(false);
        };
        let begin = geometry.byte(ag, 0);
        if begin >= self.range.end {
            return Ok(false);
        }
        self.next_ag += 1;
        let agf = self.reader.agf(ag)?;
        let from = self.range.start.saturating_sub(begin) >> geometry.block_log;
        let to = geometry.blocks_of(self.range.end - begin);
        let blocks = from..to.min(geometry.group_blocks(ag).into());
        let trees = if geometry.features.rmapbt {
            Trees::Owners(Box::new(self.reader.rmap(ag, &agf, blocks).records()))
        } else {
            Trees::Free(Box::new(self.reader.bno(ag, &agf, blocks).records()))
        };
        self.group = Some(Group {
            ag,
            agf,
            trees,
            shared: None,
        });
        Ok(true)
    }

    /// Takes the next record of the open group, with what lies before it.
    fn step(&mut self) -> Result<bool> {
        let reader = self.reader;
        let Some(group) = &mut self.group else {
            return Ok(false);
        };
        let mapping = match &mut group.trees {
            Trees::Free(records) => match records.next().transpose()? {
                Some(record) => free(reader, group.ag, &record),
                None => return Ok(false),
            },
            Trees::Owners(records) => match records.next().transpose()? {
                Some(record) => owned(reader, group, &record)?,
                None => return Ok(false),
            },
        };
        self.gap(mapping.start);
        self.reached = self.reached.max(mapping.end());
        self.ready.push_back(mapping);
        Ok(true)
    }

    /// What nobody spoke of between the end of all that came and byte `to`.
    fn gap(&mut self, to: u64) {
        if to > self.reached {
            let owner = if self.reader.geometry().features.rmapbt {
                Owner::Free
            } else {
                Owner::Unknown
            };
            self.ready.push_back(Mapping {
                start: self.reached,
                length: to - self.reached,
                owner,
                offset: 0,
                flags: Flags::default(),
            });
            self.reached = to;
        }
    }

    fn fill(&mut self) -> Result<()> {
        while self.ready.is_empty() && !self.ended {
            if self.step()? || self.open_group()? {
                continue;
            }
            self.gap(self.range.end);
            self.ended = true;
        }
        Ok(())
    }
}

fn free<S: Source>(reader: &Reader<S>, ag: u32, record: &FreeRecord) -> Mapping {
    let geometry = reader.geometry();
    Mapping {
        start: geometry.byte(ag, record.start.get()),
        length: u64::from(record.count.get()) << geometry.block_log,
        owner: Owner::Free,
        offset: 0,
        flags: Flags::default(),
    }
}

fn owned<'r, S: Source>(
    reader: &'r Reader<S>,
    group: &mut Group<'r>,
    record: &RmapRecord,
) -> Result<Mapping> {
    let geometry = reader.geometry();
    let raw = record.offset.get();
    let owner = Owner::of_rmap(record.owner.get());
    let mut flags = Flags {
        attribute_fork: raw & rmap_offset::ATTR_FORK != 0,
        extent_map: raw & rmap_offset::BMBT_BLOCK != 0,
        unwritten: raw & rmap_offset::UNWRITTEN != 0,
        shared: false,
    };
    let plain = matches!(owner, Owner::Inode(_)) && flags == Flags::default();
    if plain && geometry.features.reflink {
        let start = u64::from(record.start.get());
        let end = start + u64::from(record.count.get());
        let shared = match &mut group.shared {
            Some(shared) => shared,
            none => none.insert(Shared::from(reader, group.ag, &group.agf, start)?),
        };
        flags.shared = shared.any(start, end)?;
    }
    let offset = (raw & rmap_offset::MASK).checked_mul(1 << geometry.block_log);
    Ok(Mapping {
        start: geometry.byte(group.ag, record.start.get()),
        length: u64::from(record.count.get()) << geometry.block_log,
        owner,
        offset: offset.unwrap_or(u64::MAX),
        flags,
    })
}

impl<S: Source> Iterator for Query<'_, S> {
    type Item = Result<Mapping>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Err(error) = self.fill() {
            self.ended = true;
            self.group = None;
            return Some(Err(error));
        }
        self.ready.pop_front().map(Ok)
    }
}
