//! What each sector of an origin may hold: a register per sector, with writes
//! that overlap in time and a medium that forgets what was not flushed.
//!
//! Write `w` is superseded when a write acknowledged by now was issued after `w`
//! ended. It is superseded for good when that later write is durable.

use crate::sim::value::Value;
use crate::sim::{Outcome, Violation};

/// One write to one sector.
#[derive(Clone, Copy, Debug)]
pub(super) struct Version {
    pub(super) value: Value,
    pub(super) write: u64,
    pub(super) issued: u64,
    pub(super) ended: Option<u64>,
    /// It was acknowledged, so it supersedes what ended before it.
    pub(super) ok: bool,
    durable: bool,
}

/// A sector: the writes it may still hold, in order of issue.
#[derive(Clone, Debug, Default)]
struct Cell {
    versions: Vec<Version>,
    /// Nothing was written since a power cut: what it holds now, it keeps.
    still: bool,
}

impl Cell {
    fn newest(&self, counts: impl Fn(&Version) -> bool) -> u64 {
        self.versions
            .iter()
            .filter(|v| counts(v))
            .map(|v| v.issued)
            .max()
            .unwrap_or(0)
    }

    fn possible(&self) -> impl Iterator<Item = &Version> + '_ {
        let newest = self.newest(|v| v.ok);
        let live = move |v: &&Version| v.ended.is_none_or(|ended| ended >= newest);
        self.versions.iter().filter(live)
    }

    fn prune(&mut self) {
        if self.versions.len() > 1 {
            let newest = self.newest(|v| v.durable);
            self.versions
                .retain(|v| v.ended.is_none_or(|ended| ended >= newest));
        }
    }
}

/// All sectors of one origin.
#[derive(Clone, Debug)]
pub struct OriginModel {
    cells: Vec<Cell>,
}

impl OriginModel {
    /// An origin whose contents are known and durable.
    #[must_use]
    pub fn new(values: Vec<Value>) -> Self {
        let cell = |value| Cell {
            versions: vec![Version {
                value,
                write: 0,
                issued: 0,
                ended: Some(0),
                ok: true,
                durable: true,
            }],
            still: true,
        };
        Self {
            cells: values.into_iter().map(cell).collect(),
        }
    }

    /// Sectors.
    #[must_use]
    pub fn len(&self) -> u64 {
        self.cells.len() as u64
    }

    /// Whether it has no sector.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.cells.is_empty()
    }

    /// What a read of the sector may return now; at least one value.
    #[must_use]
    pub fn possible(&self, sector: u64) -> Vec<Value> {
        let Some(cell) = self.cells.get(sector as usize) else {
            return Vec::new();
        };
        let mut values: Vec<Value> = cell.possible().map(|v| v.value).collect();
        values.sort_unstable();
        values.dedup();
        values
    }

    /// The writes a read of the sector may return now.
    pub(super) fn versions(&self, sector: u64) -> Vec<Version> {
        let cell = self.cells.get(sector as usize);
        cell.map(|cell| cell.possible().copied().collect())
            .unwrap_or_default()
    }

    /// Whether there is only one such write.
    pub(super) fn is_certain(&self, sector: u64) -> bool {
        let cell = self.cells.get(sector as usize);
        cell.is_none_or(|cell| cell.versions.len() < 2)
    }

    /// A write is issued.
    pub fn issue(&mut self, write: u64, first: u64, values: &[Value], now: u64) {
        for (cell, value) in self
            .range(first, values.len() as u64)
            .iter_mut()
            .zip(values)
        {
            let version = Version {
                value: *value,
                write,
                issued: now,
                ended: None,
                ok: false,
                durable: false,
            };
            cell.versions.push(version);
            cell.still = false;
        }
    }

    /// A write ended. `ok`: acknowledged; otherwise its sectors may hold it or not.
    pub fn end(&mut self, write: u64, first: u64, count: u64, ok: bool, durable: bool, now: u64) {
        for cell in self.range(first, count) {
            for version in cell.versions.iter_mut().filter(|v| v.write == write) {
                (version.ended, version.ok, version.durable) = (Some(now), ok, ok && durable);
            }
            cell.prune();
        }
    }

    /// A write was refused before it reached the origin.
    pub fn never(&mut self, write: u64, first: u64, count: u64) {
        for cell in self.range(first, count) {
            cell.versions.retain(|v| v.write != write);
        }
    }

    /// A flush issued at `issued` was acknowledged.
    pub fn flushed(&mut self, issued: u64) {
        for cell in &mut self.cells {
            let covered = |v: &Version| v.ok && v.ended.is_some_and(|ended| ended <= issued);
            cell.versions
                .iter_mut()
                .filter(|v| covered(v))
                .for_each(|v| v.durable = true);
            cell.prune();
        }
    }

    /// See [`super::Oracle::power_cut`].
    pub fn power_cut(&mut self, now: u64) {
        for cell in &mut self.cells {
            cell.prune();
            for version in &mut cell.versions {
                (version.ended, version.ok, version.durable) = (Some(now), false, false);
            }
            cell.still = true;
        }
    }

    /// See [`super::Oracle::killed`].
    pub fn killed(&mut self, now: u64) {
        let versions = self.cells.iter_mut().flat_map(|cell| &mut cell.versions);
        versions
            .filter(|v| v.ended.is_none())
            .for_each(|v| v.ended = Some(now));
    }

    /// The whole origin was read with nothing in flight.
    ///
    /// # Errors
    /// When a sector may not hold what was read.
    pub fn settle(&mut self, origin: usize, values: &[Value], now: u64) -> Outcome {
        for (sector, value) in values.iter().enumerate() {
            let legal = self.possible(sector as u64);
            if !legal.contains(value) {
                return Err(Violation(format!(
                    "origin {origin} sector {sector} holds {value:#x}, legal: {legal:#x?}"
                )));
            }
            let Some(cell) = self.cells.get_mut(sector) else {
                continue;
            };
            if legal.len() > 1 || (cell.still && cell.versions.len() > 1) {
                let durable = cell.still;
                if durable {
                    cell.versions.clear();
                }
                cell.versions.push(Version {
                    value: *value,
                    write: 0,
                    issued: now,
                    ended: Some(now),
                    ok: true,
                    durable,
                });
            }
        }
        Ok(())
    }

    fn range(&mut self, first: u64, count: u64) -> &mut [Cell] {
        let end = ((first + count) as usize).min(self.cells.len());
        let first = (first as usize).min(end);
        &mut self.cells[first..end]
    }
}
