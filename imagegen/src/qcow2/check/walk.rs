//! Everything that uses a cluster of the file.

use super::tables::{Entry, bytes, entries, parts};
use super::{COUNTS, Counts, Report, Stored, TABLES, Use};
use crate::medium::Source;
use crate::qcow2::format::Subclusters;
use crate::qcow2::format::{BitmapTableEntry, Compressed, Incompatible, L1Entry, L2Entry};
use crate::qcow2::read::{Image, ReadError, numbers};
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;
use std::ops::Range;

/// Bytes that the place of a table of level 2 takes, and its uses.
const TABLE_BYTES: usize = size_of::<(u64, Uses)>();

/// How a table of level 2 is used.
#[derive(Debug, Clone, Copy, Default)]
struct Uses {
    times: u64,
    /// By the disk as it is now, whose marks must be right.
    active: bool,
}

pub(super) struct Walk<'a, S> {
    image: &'a Image<S>,
    stored: &'a Stored,
    report: &'a mut Report,
    counts: Counts,
    tables: HashMap<u64, Uses, FxBuildHasher>,
}

impl<'a, S: Source> Walk<'a, S> {
    pub(super) fn new(image: &'a Image<S>, stored: &'a Stored, report: &'a mut Report) -> Self {
        Self {
            image,
            stored,
            report,
            counts: Counts::new(COUNTS),
            tables: HashMap::default(),
        }
    }

    pub(super) fn into_counts(self) -> Counts {
        self.counts
    }

    pub(super) fn all(&mut self) -> Result<(), ReadError> {
        let layout = self.image.layout().clone();
        self.metadata("header", 0..1)?;
        let table = layout.refcount_table;
        self.metadata("refcount table", bytes(table.offset, table.bytes()))?;
        for block in &self.stored.blocks {
            if *block != 0 {
                self.metadata("refcount block", bytes(*block, 1))?;
            }
        }
        self.level1()?;
        self.level2()?;
        self.bitmaps()?;
        self.report.total_clusters = layout.size.div_ceil(layout.cluster());
        Ok(())
    }

    /// Metadata that one thing uses.
    fn metadata(&mut self, what: &'static str, range: Range<u64>) -> Result<(), ReadError> {
        self.range(what, range, 1, Use::Metadata)
    }

    fn range(
        &mut self,
        what: &'static str,
        range: Range<u64>,
        times: u64,
        kind: Use,
    ) -> Result<(), ReadError> {
        let bits = self.image.layout().width.cluster_bits;
        let at = range.start;
        let last = range.end.max(at.saturating_add(1)) - 1;
        // The last cluster may be cut off; what begins beyond is not there at all.
        let end = self.image.length();
        let end = end.next_multiple_of(self.image.layout().cluster());
        if last >= end {
            let what = format!("{what}: it ends at byte {last}, the file at {end}");
            self.report.error(at, what);
            return Ok(());
        }
        for cluster in at >> bits..=last >> bits {
            if self.counts.add(cluster, times, kind)? {
                let what = format!("{what}: cluster {cluster} is used by something else too");
                self.report.error(cluster << bits, what);
            }
        }
        Ok(())
    }

    /// Tables of which several may be one or overlap: each cluster that they lie in is
    /// counted as often as they use it, and each entry given to `take` once, with its
    /// byte, its value and how often it is meant.
    fn tables(
        &mut self,
        what: &'static str,
        tables: &[Range<u64>],
        take: &mut dyn FnMut(&mut Self, Entry) -> Result<(), ReadError>,
    ) -> Result<(), ReadError> {
        let (image, cluster) = (self.image, self.image.layout().cluster());
        let whole = |range: &Range<u64>| {
            let end = range.end.checked_next_multiple_of(cluster);
            range.start..end.unwrap_or(u64::MAX)
        };
        let clusters: Vec<_> = tables.iter().map(whole).collect();
        for (range, times) in parts(&clusters) {
            self.range(what, range, times, Use::Metadata)?;
        }
        for table in tables {
            // What is cut off in the last cluster is there for `range`.
            if table.end > image.length() && table.start < image.length() {
                self.report
                    .error(table.start, format!("{what}: it is cut off"));
            }
        }
        for (range, times) in parts(tables) {
            entries(image, range, &mut |at, raw| {
                take(self, Entry { at, raw, times })
            })?;
        }
        Ok(())
    }

    /// The tables of the disk and of all snapshots.
    fn level1(&mut self) -> Result<(), ReadError> {
        let layout = self.image.layout();
        let active = bytes(layout.l1.offset, layout.l1.bytes());
        let mut tables = vec![active.clone()];
        let mut length = 0;
        let found = self.image.each_snapshot(&mut |snapshot| {
            length += snapshot.entry.1;
            tables.push(bytes(snapshot.l1.offset, snapshot.l1.bytes()));
        });
        self.report.take(found)?;
        if length > 0 {
            self.metadata("snapshot table", bytes(layout.snapshots_at, length))?;
        }
        self.tables("level 1 table", &tables, &mut |walk, entry| {
            walk.level1_entry(entry, active.contains(&entry.at))
        })
    }

    fn level1_entry(&mut self, entry: Entry, active: bool) -> Result<(), ReadError> {
        let Entry { at, raw, times } = entry;
        let Some(entry) = L1Entry::decode(raw) else {
            let what = format!("level 1 table: an entry is {raw:#x}");
            self.report.error(at, what);
            return Ok(());
        };
        if entry.offset == 0 {
            return Ok(());
        }
        if entry.offset % self.image.layout().cluster() != 0 || entry.offset >= self.image.length()
        {
            let what = format!("level 1 table: an entry leads to byte {}", entry.offset);
            self.report.error(at, what);
            return Ok(());
        }
        if active {
            self.mark("level 2 table", at, entry.offset, entry.copied)?;
        }
        if self.tables.len() == TABLES && !self.tables.contains_key(&entry.offset) {
            return Err(ReadError::TooLarge {
                what: "the places of its tables of level 2",
                bytes: ((TABLES + 1) * TABLE_BYTES) as u64,
                most: (TABLES * TABLE_BYTES) as u64,
            });
        }
        let uses = self.tables.entry(entry.offset).or_default();
        uses.times = uses.times.saturating_add(times);
        uses.active |= active;
        Ok(())
    }

    /// The mark of a cluster that is counted once.
    fn mark(&mut self, what: &str, at: u64, offset: u64, copied: bool) -> Result<(), ReadError> {
        let cluster = offset >> self.image.layout().width.cluster_bits;
        let count = self.stored.of(self.image, cluster)?;
        if copied != (count == 1) {
            let mark = if copied { "marked" } else { "not marked" };
            let what =
                format!("{what} at byte {offset}: {mark} as used once, and counted {count} times");
            self.report.error(at, what);
        }
        Ok(())
    }

    fn level2(&mut self) -> Result<(), ReadError> {
        let mut tables: Vec<_> = self.tables.drain().collect();
        tables.sort_unstable_by_key(|(at, _)| *at);
        for (at, uses) in tables {
            self.range("level 2 table", bytes(at, 1), uses.times, Use::Shared)?;
            self.entries(at, uses)?;
        }
        Ok(())
    }

    fn entries(&mut self, at: u64, uses: Uses) -> Result<(), ReadError> {
        let width = self.image.layout().width;
        let cluster = self.image.layout().cluster();
        if self.image.is_hole(at)? {
            return Ok(());
        }
        if at.saturating_add(cluster) > self.image.length() {
            self.report.error(at, "level 2 table: it is cut off");
        }
        let table = self.image.padded(at, cluster)?;
        let words: Vec<u64> = numbers(&table).collect();
        for (index, words) in words.chunks(width.entry() as usize / 8).enumerate() {
            let place = at + index as u64 * width.entry();
            let raw = words.first().copied().unwrap_or(0);
            let subclusters = words.get(1).map(|raw| Subclusters::decode(*raw));
            match L2Entry::decode(raw, width) {
                None => {
                    let what = format!("level 2 table: entry {index} is {raw:#x}");
                    self.report.error(place, what);
                }
                Some(L2Entry::Compressed(compressed)) => self.compressed(compressed, uses)?,
                Some(L2Entry::Standard {
                    offset,
                    copied,
                    zero,
                }) => {
                    self.standard(place, offset, copied, uses)?;
                    self.verify(place, zero, offset, copied, subclusters);
                }
            }
        }
        Ok(())
    }

    fn compressed(&mut self, compressed: Compressed, uses: Uses) -> Result<(), ReadError> {
        let Compressed { offset, .. } = compressed;
        // Its last sector may be cut off.
        let length = compressed
            .length()
            .min(self.image.length().saturating_sub(offset))
            .max(1);
        let range = bytes(offset, length);
        self.range("compressed cluster", range, uses.times, Use::Shared)?;
        if uses.active {
            self.report.allocated_clusters += 1;
            self.report.compressed_clusters += 1;
        }
        Ok(())
    }

    fn standard(
        &mut self,
        place: u64,
        offset: u64,
        copied: bool,
        uses: Uses,
    ) -> Result<(), ReadError> {
        let external = self.image.layout().has(Incompatible::ExternalData);
        if offset == 0 && !(external && copied) {
            return Ok(());
        }
        if uses.active {
            self.report.allocated_clusters += 1;
        }
        if !offset.is_multiple_of(self.image.layout().cluster()) {
            self.report.error(
                place,
                format!("cluster at byte {offset}: no cluster begins there"),
            );
        } else if !external {
            self.range("cluster", bytes(offset, 1), uses.times, Use::Shared)?;
            if uses.active {
                self.mark("cluster", place, offset, copied)?;
            }
        }
        Ok(())
    }

    fn verify(
        &mut self,
        place: u64,
        zero: bool,
        offset: u64,
        copied: bool,
        subclusters: Option<Subclusters>,
    ) {
        if zero && self.image.layout().version < 3 {
            self.report.error(
                place,
                "zeroes are said of a cluster, which version 2 cannot",
            );
        }
        let Some(subclusters) = subclusters else {
            return;
        };
        let is_there = offset != 0 || copied && self.image.layout().has(Incompatible::ExternalData);
        if !subclusters.is_sound() || subclusters.allocated != 0 && !is_there {
            self.report
                .error(place, format!("its subclusters are {subclusters:?}"));
        }
    }

    fn bitmaps(&mut self) -> Result<(), ReadError> {
        let Some((_, at, length)) = self.image.extensions().bitmaps else {
            return Ok(());
        };
        // What lies there may be something else by now, and is counted as nothing's.
        if self.image.has_stale_bitmaps() {
            return Ok(());
        }
        self.metadata("bitmap directory", bytes(at, length))?;
        let mut tables = Vec::new();
        let found = self.image.each_bitmap(&mut |bitmap| {
            let (at, entries) = bitmap.table;
            tables.push(bytes(at, u64::from(entries) * 8));
        });
        self.report.take(found)?;
        let cluster = self.image.layout().cluster();
        tables.retain(|table| {
            let is_sound = table.start % cluster == 0;
            if !is_sound {
                let what = "bitmap table: no cluster begins there";
                self.report.error(table.start, what);
            }
            is_sound
        });
        self.tables("bitmap table", &tables, &mut |walk, entry| {
            match BitmapTableEntry::decode(entry.raw) {
                Some(BitmapTableEntry::At(offset)) if offset % cluster == 0 => {
                    walk.range("bitmap", bytes(offset, 1), entry.times, Use::Metadata)?;
                }
                Some(BitmapTableEntry::Zeroes | BitmapTableEntry::Ones) => {}
                _ => {
                    let what = format!("bitmap table: an entry is {:#x}", entry.raw);
                    walk.report.error(entry.at, what);
                }
            }
            Ok(())
        })
    }
}
