//! Blocks of inodes on their way out: each unit is written when all its inodes are known.
//!
//! Directories and files with several names are known late. Only so many units wait for
//! them; what comes later is gathered and written by itself, in order, over a draft.

use super::super::geometry::Geometry;
use super::inode;
use super::space::Unit;
use crate::medium::{Crew, Failure, Stream};
use std::collections::{BTreeMap, VecDeque};

/// Bytes of units that may wait.
const WAITING: usize = 16 << 20;
/// Bytes of late inodes that are gathered.
const LATE: usize = 4 << 20;

/// The blocks of inodes.
pub(crate) struct Inodes<'a> {
    geometry: &'a Geometry,
    waiting: VecDeque<Waiting>,
    /// First inode of each that waits, and how many units began before it.
    places: BTreeMap<u64, usize>,
    /// Units that wait no more.
    gone: usize,
    late: BTreeMap<u64, Vec<u8>>,
    whole: Stream,
    drafts: Stream,
}

struct Waiting {
    unit: Unit,
    bytes: Vec<u8>,
    /// Which of its inodes are there.
    there: Vec<bool>,
    /// Inodes whose contents are still to come, of those in use.
    missing: u32,
    /// Whether all its inodes were given out.
    complete: bool,
}

impl<'a> Inodes<'a> {
    /// Without any.
    pub(crate) fn new(geometry: &'a Geometry) -> Self {
        Self {
            geometry,
            waiting: VecDeque::new(),
            places: BTreeMap::new(),
            gone: 0,
            late: BTreeMap::new(),
            whole: Stream::new(),
            drafts: Stream::of_drafts(),
        }
    }

    /// A unit of inodes begins: all are free so far.
    pub(crate) fn begin(&mut self, unit: Unit, crew: &Crew<'_>) -> Result<(), Failure> {
        if let Some(last) = self.waiting.back_mut() {
            last.complete = true;
        }
        self.write_complete(crew)?;
        self.places
            .insert(unit.first, self.gone + self.waiting.len());
        self.waiting.push_back(Waiting {
            bytes: vec![0; unit.count as usize * self.geometry.inode_size()],
            unit,
            there: vec![false; unit.count as usize],
            missing: 0,
            complete: false,
        });
        Ok(())
    }

    /// Inode of the newest unit was given out; its contents come later.
    pub(crate) fn expect(&mut self) {
        if let Some(unit) = self.waiting.back_mut() {
            unit.missing += 1;
        }
    }

    /// The contents of an inode.
    pub(crate) fn put(&mut self, ino: u64, bytes: Vec<u8>, crew: &Crew<'_>) -> Result<(), Failure> {
        let place = self.places.range(..=ino).next_back();
        let unit = place.and_then(|(_, begun)| self.waiting.get_mut(begun - self.gone));
        if let Some(unit) = unit
            && ino - unit.unit.first < u64::from(unit.unit.count)
        {
            unit.put(ino, &bytes);
            unit.missing -= 1;
            return Ok(());
        }
        self.late.insert(ino, bytes);
        if self.late.len() * self.geometry.inode_size() > LATE {
            self.write_late(crew)?;
        }
        Ok(())
    }

    fn write_complete(&mut self, crew: &Crew<'_>) -> Result<(), Failure> {
        let unit = self.waiting.front().map_or(1, |unit| unit.bytes.len());
        while let Some(front) = self.waiting.front() {
            let crowded = self.waiting.len() * unit > WAITING;
            if !(front.complete && (front.missing == 0 || crowded)) {
                break;
            }
            self.write_first(crew)?;
        }
        Ok(())
    }

    /// Writes the unit that waits longest.
    fn write_first(&mut self, crew: &Crew<'_>) -> Result<(), Failure> {
        let Some(mut unit) = self.waiting.pop_front() else {
            return Ok(());
        };
        self.gone += 1;
        self.places.remove(&unit.unit.first);
        unit.fill_up(self.geometry);
        let stream = match unit.missing {
            0 => &mut self.whole,
            _ => &mut self.drafts,
        };
        let at = self.geometry.inode_byte(unit.unit.first);
        stream.write(crew, at, &unit.bytes, 1)
    }

    fn write_late(&mut self, crew: &Crew<'_>) -> Result<(), Failure> {
        // Their units must be there first.
        self.drafts.flush(crew)?;
        crew.settle()?;
        let late = std::mem::take(&mut self.late);
        let place = |(ino, bytes)| (self.geometry.inode_byte(ino), bytes);
        crew.pieces(late.into_iter().map(place).collect())
    }

    /// Writes what is left.
    pub(crate) fn finish(mut self, crew: &Crew<'_>) -> Result<(), Failure> {
        while !self.waiting.is_empty() {
            self.write_first(crew)?;
        }
        self.whole.flush(crew)?;
        self.write_late(crew)
    }
}

impl Waiting {
    /// Puts in an inode of the unit.
    fn put(&mut self, ino: u64, bytes: &[u8]) {
        let index = (ino - self.unit.first) as usize;
        self.bytes[index * bytes.len()..][..bytes.len()].copy_from_slice(bytes);
        self.there[index] = true;
    }

    /// What is not there is free, or will be written later.
    fn fill_up(&mut self, geometry: &Geometry) {
        for index in 0..self.there.len() {
            if !self.there[index] {
                let ino = self.unit.first + index as u64;
                self.put(ino, &inode::free(geometry, ino));
            }
        }
    }
}
