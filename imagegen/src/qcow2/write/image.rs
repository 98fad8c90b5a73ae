//! Clusters get their places, in order, and tables lead to them.

use super::header::{self, Places};
use super::piece::{Piece, State};
use super::pipeline::{From as Bytes, Part, Placed};
use super::space::Space;
use super::tables::Tables;
use super::views::{Stretch, Views};
use super::{Contents, Options, Targets, WriteError, Written, bitmaps, snapshots, whole_sectors};
use crate::medium::{Medium, Source};
use crate::qcow2::format::{self, Compressed, L2Entry, Subclusters};
use std::ops::Range;

pub(super) struct Writer<'a> {
    options: &'a Options,
    space: Space<'a>,
    tables: Tables<'a>,
    medium: &'a dyn Medium,
    /// The external data file, and how long it gets.
    data_file: Option<(&'a dyn Medium, u64)>,
    data: u64,
    compressed: u64,
}

impl<'a> Writer<'a> {
    /// The first cluster is for the header.
    pub(super) fn new<S: Source>(
        contents: &Contents<'_, S>,
        targets: Targets<'a>,
        options: &'a Options,
    ) -> Result<Self, WriteError> {
        let medium = targets.image;
        let views = Views::new(contents, options);
        let uses = contents.most_uses();
        let mut space = Space::new(medium, options.cluster_bits, options.refcounts, uses);
        // It is written last.
        space.clusters(1)?;
        Ok(Self {
            options,
            space,
            tables: Tables::new(medium, options.width(), views.sizes()),
            medium,
            data_file: targets
                .data
                .map(|data| (data, whole_sectors(contents.disk.size()))),
            data: 0,
            compressed: 0,
        })
    }

    /// Gives clusters their places.
    pub(super) fn place(&mut self, placed: Placed<'_>) -> Result<Vec<Part>, WriteError> {
        match placed {
            Placed::Piece(view, piece) => return self.piece(view, piece),
            Placed::Unread(Stretch::Same(view, clusters, state)) => {
                self.all_empty(view, clusters, &state)?;
            }
            Placed::Unread(Stretch::Shared(view, clusters, with)) => {
                for cluster in clusters {
                    self.tables.share(&mut self.space, (view, cluster), with)?;
                }
            }
            Placed::Unread(Stretch::Data(..)) => {}
        }
        Ok(Vec::new())
    }

    fn piece(&mut self, view: usize, piece: &Piece) -> Result<Vec<Part>, WriteError> {
        let mut parts = Vec::new();
        let mut number = 0;
        while let Some(state) = piece.states.get(number) {
            let cluster = piece.first + number as u64;
            match state {
                State::Plain(_) => {
                    let rest = piece.states.get(number..).unwrap_or_default();
                    let plain = |state: &&State| matches!(state, State::Plain(_));
                    let count = rest.iter().take_while(plain).count();
                    parts.push(self.plain(
                        (view, cluster),
                        number,
                        rest.get(..count).unwrap_or_default(),
                    )?);
                    number += count;
                    continue;
                }
                State::Packed(range) => parts.push(self.packed((view, cluster), range.clone())?),
                state => self.all_empty(view, cluster..cluster + 1, state)?,
            }
            number += 1;
        }
        Ok(parts)
    }

    /// Clusters in a row that stay as they are.
    fn plain(
        &mut self,
        (view, first): (usize, u64),
        number: usize,
        states: &[State],
    ) -> Result<Part, WriteError> {
        let bits = self.options.cluster_bits;
        let count = states.len() as u64;
        self.tables.turn_to(&mut self.space, first)?;
        let (at, length) = match self.data_file {
            Some((_, end)) => (first << bits, (count << bits).min(end - (first << bits))),
            None => (self.space.clusters(count)?, count << bits),
        };
        for (index, state) in (0..).zip(states) {
            let State::Plain(subclusters) = state else {
                continue;
            };
            let entry = L2Entry::Standard {
                offset: at + (index << bits),
                copied: true,
                zero: false,
            };
            self.tables
                .set(&mut self.space, (view, first + index), entry, *subclusters)?;
        }
        self.data += count;
        let begin = number << bits;
        let from = Bytes::Plain(begin..begin + length as usize);
        Ok(Part { at, from })
    }

    fn packed(&mut self, place: (usize, u64), range: Range<usize>) -> Result<Part, WriteError> {
        let length = range.len() as u64;
        self.tables.turn_to(&mut self.space, place.1)?;
        let at = self.space.bytes(length)?;
        let entry = L2Entry::Compressed(Compressed::of(at, length));
        self.tables
            .set(&mut self.space, place, entry, Subclusters::default())?;
        self.data += 1;
        self.compressed += 1;
        let from = Bytes::Packed(range);
        Ok(Part { at, from })
    }

    fn all_empty(
        &mut self,
        view: usize,
        clusters: Range<u64>,
        state: &State,
    ) -> Result<(), WriteError> {
        if let Some((data, end)) = self.data_file {
            let byte = |cluster: u64| (cluster << self.options.cluster_bits).min(end);
            let from = byte(clusters.start);
            data.zero(from, byte(clusters.end) - from)?;
        }
        for cluster in clusters {
            self.empty((view, cluster), state)?;
        }
        Ok(())
    }

    /// A cluster without contents. Above nothing, what says nothing reads as zeroes.
    fn empty(&mut self, place: (usize, u64), state: &State) -> Result<(), WriteError> {
        let zero = match state {
            State::Zero(zero) if self.options.backing.is_some() => *zero,
            _ => return Ok(()),
        };
        self.tables.turn_to(&mut self.space, place.1)?;
        let entry = match self.options.version {
            2 => self.zeroes()?,
            _ => L2Entry::Standard {
                offset: 0,
                copied: false,
                zero: !self.options.extended,
            },
        };
        let subclusters = Subclusters { allocated: 0, zero };
        self.tables.set(&mut self.space, place, entry, subclusters)
    }

    /// Version 2 says zeroes by writing them.
    fn zeroes(&mut self) -> Result<L2Entry, WriteError> {
        let offset = self.space.clusters(1)?;
        self.medium.zero(offset, 1 << self.options.cluster_bits)?;
        Ok(L2Entry::Standard {
            offset,
            copied: true,
            zero: false,
        })
    }

    /// Writes what is left, and the header last of all.
    pub(super) fn finish<S: Source>(
        mut self,
        contents: &Contents<'_, S>,
    ) -> Result<Written, WriteError> {
        let levels = self.tables.finish(&mut self.space)?;
        // View 0 is the disk; the oldest is the last.
        let (l1, older) = levels.split_first().ok_or(WriteError::Option("no disk"))?;
        let older = older.iter().rev().copied();
        let versions = contents.versions.iter().zip(older);
        let snapshots = snapshots::write(versions, &mut self.space)?;
        let bitmaps = bitmaps::write(contents.bitmaps, self.options.cluster_bits, &mut self.space)?;
        let (table, length) = self.space.finish()?;
        let bytes = table.clusters << self.options.cluster_bits;
        let clusters = u32::try_from(table.clusters).ok();
        let clusters = clusters.filter(|_| bytes <= format::MOST_REFTABLE_BYTES);
        let clusters = clusters.ok_or(WriteError::Option(
            "the image is too large for clusters so small",
        ))?;
        let places = Places {
            l1: *l1,
            refcounts: (table.offset, clusters),
            snapshots,
            bitmaps,
        };
        let first = header::first(self.options, whole_sectors(contents.disk.size()), &places)?;
        self.medium.barrier()?;
        self.medium.write(0, &first)?;
        Ok(Written {
            length,
            data_clusters: self.data,
            compressed_clusters: self.compressed,
        })
    }
}
