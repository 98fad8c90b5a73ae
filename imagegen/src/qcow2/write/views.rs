//! What is to be read: the disk and its snapshots, each a *view*, cut into stretches that
//! are read, need not be read, or were read already for another view.
//!
//! View 0 is the disk as it is; the newest snapshot follows, and the oldest is the last.
//! With snapshots, what one table of level 2 maps is dealt with in every view before what
//! comes next.

use super::piece::State;
use super::{Contents, Options, WriteError, whole_sectors};
use crate::medium::Source;
use crate::qcow2::read::{Disk, What};
use crate::tree::Progress;
use std::ops::Range;
use std::sync::atomic::Ordering;

/// Clusters of a view that follow each other.
pub(super) enum Stretch {
    /// They are to be read.
    Data(usize, Range<u64>),
    /// All of them are like that.
    Same(usize, Range<u64>, State),
    /// They are those of another view.
    Shared(usize, Range<u64>, usize),
}

/// All views.
pub(super) struct Views<'a, S> {
    disks: Vec<&'a Disk<S>>,
    /// What the backing file holds.
    pub(super) below: Option<&'a Disk<S>>,
    options: &'a Options,
}

impl<'a, S: Source> Views<'a, S> {
    pub(super) fn new(contents: &Contents<'a, S>, options: &'a Options) -> Self {
        let older = contents.versions.iter().rev().map(|version| &version.disk);
        Self {
            disks: std::iter::once(contents.disk).chain(older).collect(),
            below: contents.below,
            options,
        }
    }

    /// Of each the bytes that the image says, view 0 first.
    pub(super) fn sizes(&self) -> impl Iterator<Item = u64> + '_ {
        self.disks.iter().map(|disk| whole_sectors(disk.size()))
    }

    pub(super) fn disk(&self, view: usize) -> Option<&'a Disk<S>> {
        self.disks.get(view).copied()
    }

    /// All that is to be done, in order. `progress` is told of what need not be read.
    pub(super) fn stretches<'b>(&'b self, progress: &'b Progress) -> Stretches<'b, S> {
        // One view alone is not cut where tables end.
        let bits = match self.disks.len() {
            1 => u64::BITS - 1,
            _ => self.options.width().entries_bits(),
        };
        let clusters = |size: u64| size.div_ceil(1 << self.options.cluster_bits);
        Stretches {
            views: self,
            progress,
            bits,
            all: self.sizes().map(clusters).max().unwrap_or(0),
            begin: 0,
            view: 0,
            next: 0,
        }
    }
}

/// Goes through all views.
pub(super) struct Stretches<'a, S> {
    views: &'a Views<'a, S>,
    progress: &'a Progress,
    /// log2 of the clusters that are dealt with in every view before the next.
    bits: u32,
    /// Clusters of the largest view.
    all: u64,
    /// The first of those clusters.
    begin: u64,
    view: usize,
    next: u64,
}

impl<S: Source> Iterator for Stretches<'_, S> {
    type Item = Result<Stretch, WriteError>;

    fn next(&mut self) -> Option<Self::Item> {
        let (disk, end) = self.turn()?;
        let found = self.stretch(disk, end);
        if found.is_err() {
            self.next = self.all;
            self.view = self.views.disks.len();
        }
        Some(found)
    }
}

impl<'a, S: Source> Stretches<'a, S> {
    /// The view whose turn it is, and up to which cluster.
    fn turn(&mut self) -> Option<(&'a Disk<S>, u64)> {
        loop {
            let disk = self.views.disk(self.view)?;
            let clusters = disk.size().div_ceil(1 << self.views.options.cluster_bits);
            let end = (self.begin + (1 << self.bits)).min(self.all);
            if self.next < end.min(clusters) {
                return Some((disk, end.min(clusters)));
            }
            self.view += 1;
            if self.view == self.views.disks.len() && end < self.all {
                (self.begin, self.view) = (end, 0);
            }
            self.next = self.begin;
        }
    }

    /// Clusters from the next on, up to `end` at most.
    fn stretch(&mut self, disk: &Disk<S>, end: u64) -> Result<Stretch, WriteError> {
        let (view, first) = (self.view, self.next);
        let shared = self.shared(disk, first, end)?;
        if let Some((with, next)) = shared {
            self.pass(disk, next);
            return Ok(Stretch::Shared(view, first..next, with));
        }
        if let Some((state, next)) = self.same(disk, first, end)? {
            let next = self.unshared(disk, first, next)?;
            self.pass(disk, next);
            return Ok(Stretch::Same(view, first..next, state));
        }
        let end = (first + self.views.options.piece()).min(end);
        self.next = self.unshared(disk, first, end)?;
        Ok(Stretch::Data(view, first..self.next))
    }

    /// Goes on at cluster `next`; nobody reads what is before it.
    fn pass(&mut self, disk: &Disk<S>, next: u64) {
        let byte = |cluster: u64| (cluster << self.views.options.cluster_bits).min(disk.size());
        let passed = byte(next) - byte(self.next);
        self.progress.data.fetch_add(passed, Ordering::Relaxed);
        self.next = next;
    }

    /// The view before this one that has the same clusters, and up to which.
    fn shared(
        &self,
        disk: &Disk<S>,
        first: u64,
        end: u64,
    ) -> Result<Option<(usize, u64)>, WriteError> {
        for with in (0..self.view).rev() {
            let Some(other) = self.views.disk(with) else {
                continue;
            };
            let next = self.common(disk, other, first, end)?;
            if next > first {
                return Ok(Some((with, next)));
            }
        }
        Ok(None)
    }

    /// Up to which cluster none is another view's; `first` is known to be none.
    fn unshared(&self, disk: &Disk<S>, first: u64, end: u64) -> Result<u64, WriteError> {
        let mut end = end;
        for with in (0..self.view).rev() {
            if let Some(other) = self.views.disk(with) {
                end = self.apart(disk, other, first + 1, end)?;
            }
        }
        Ok(end)
    }

    /// Up to which cluster two disks have none in the same place: goes from run to run.
    fn apart(&self, one: &Disk<S>, two: &Disk<S>, first: u64, end: u64) -> Result<u64, WriteError> {
        let bits = self.views.options.cluster_bits;
        let to = (end << bits).min(one.size().min(two.size()));
        let mut at = first << bits;
        while at < to {
            let found = one.differing(two, at, to - at).map_err(WriteError::Read)?;
            // A cluster that differs in part is each view's own.
            let next = (at + found).div_ceil(1 << bits);
            if next >= end || self.common(one, two, next, next + 1)? > next {
                return Ok(next.min(end));
            }
            at = (next + 1) << bits;
        }
        Ok(end)
    }

    /// Up to which cluster two disks have the same bytes in the same places.
    fn common(
        &self,
        one: &Disk<S>,
        two: &Disk<S>,
        first: u64,
        end: u64,
    ) -> Result<u64, WriteError> {
        let bits = self.views.options.cluster_bits;
        let at = first << bits;
        let to = (end << bits).min(one.size().min(two.size()));
        if at >= to {
            return Ok(first);
        }
        let same = at
            + one
                .same_places(two, at, to - at)
                .map_err(WriteError::Read)?;
        // The last cluster may be cut off, in both.
        Ok(match same == one.size() && same == two.size() {
            true => same.div_ceil(1 << bits),
            false => same >> bits,
        })
    }

    /// What clusters are if none of them need be read, and up to which.
    fn same(
        &self,
        disk: &Disk<S>,
        first: u64,
        end: u64,
    ) -> Result<Option<(State, u64)>, WriteError> {
        let bits = self.views.options.cluster_bits;
        let at = first << bits;
        let to = (end << bits).min(disk.size());
        let run = disk.run(at, to - at).map_err(WriteError::Read)?;
        let mut found = at + run.length;
        let mut state = match run.what {
            What::Nothing => State::Nothing,
            What::Zero(_) => State::Zero(u32::MAX),
            What::Data(_) | What::Compressed(_) => return Ok(None),
        };
        if let Some(below) = self.views.below {
            let (same, length) = below_is_zero(below, at, run.length)?;
            found = at + length;
            state = if same {
                State::Nothing
            } else {
                State::Zero(u32::MAX)
            };
        }
        let next = match found == disk.size() {
            true => found.div_ceil(1 << bits),
            false => found >> bits,
        };
        Ok((next > first).then_some((state, next)))
    }
}

/// Whether what lies below is zeroes without being read, and for how many bytes.
fn below_is_zero<S: Source>(
    below: &Disk<S>,
    at: u64,
    most: u64,
) -> Result<(bool, u64), WriteError> {
    if at >= below.size() {
        return Ok((true, most));
    }
    let run = below.run(at, most).map_err(WriteError::Read)?;
    Ok((
        matches!(run.what, What::Nothing | What::Zero(_)),
        run.length,
    ))
}
