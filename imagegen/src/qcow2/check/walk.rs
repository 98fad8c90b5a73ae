//! Everything that uses a cluster of the file.

use super::{Counts, Report, Stored, Use};
use crate::medium::Source;
use crate::qcow2::format::Subclusters;
use crate::qcow2::format::{BitmapTableEntry, Compressed, Incompatible, L1Entry, L2Entry};
use crate::qcow2::read::{Image, ReadError, Table, numbers};
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

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
            counts: Counts::default(),
            tables: HashMap::default(),
        }
    }

    pub(super) fn into_counts(self) -> Counts {
        self.counts
    }

    pub(super) fn all(&mut self) -> Result<(), ReadError> {
        let layout = self.image.layout().clone();
        self.metadata("header", 0, 1);
        let table = layout.refcount_table;
        self.metadata("refcount table", table.offset, table.bytes());
        for block in &self.stored.blocks {
            if *block != 0 {
                self.metadata("refcount block", *block, 1);
            }
        }
        self.level1(layout.l1, true)?;
        self.snapshots()?;
        self.level2()?;
        self.bitmaps()?;
        self.report.total_clusters = layout.size.div_ceil(layout.cluster());
        Ok(())
    }

    fn snapshots(&mut self) -> Result<(), ReadError> {
        let layout = self.image.layout();
        let snapshots = self.image.snapshots()?;
        let bytes: u64 = snapshots.iter().map(|snapshot| snapshot.entry.1).sum();
        let at = layout.snapshots_at;
        if bytes > 0 {
            self.metadata("snapshot table", at, bytes);
        }
        for snapshot in &snapshots {
            self.level1(snapshot.l1, false)?;
        }
        Ok(())
    }

    /// `bytes` of metadata at `at`.
    fn metadata(&mut self, what: &'static str, at: u64, bytes: u64) {
        self.range(what, at, bytes, 1, Use::Metadata);
    }

    fn range(&mut self, what: &'static str, at: u64, bytes: u64, times: u64, kind: Use) {
        let bits = self.image.layout().width.cluster_bits;
        let last = at.saturating_add(bytes.saturating_sub(1));
        // The last cluster may be cut off; what begins beyond is not there at all.
        let end = self
            .image
            .length()
            .next_multiple_of(self.image.layout().cluster());
        if last >= end {
            self.report.error(
                at,
                format!("{what}: it ends at byte {last}, the file at {end}"),
            );
            return;
        }
        for cluster in at >> bits..=last >> bits {
            if self.counts.add(cluster, times, kind) {
                let at = cluster << bits;
                self.report.error(
                    at,
                    format!("{what}: cluster {cluster} is used by something else too"),
                );
            }
        }
    }

    fn level1(&mut self, table: Table, active: bool) -> Result<(), ReadError> {
        if table.entries == 0 {
            return Ok(());
        }
        self.metadata("level 1 table", table.offset, table.bytes());
        let bytes = self.image.raw(table.offset, table.bytes())?;
        for (index, raw) in numbers(&bytes).enumerate() {
            let at = table.offset + index as u64 * 8;
            let Some(entry) = L1Entry::decode(raw) else {
                self.report
                    .error(at, format!("level 1 table: entry {index} is {raw:#x}"));
                continue;
            };
            if entry.offset == 0 {
                continue;
            }
            if entry.offset % self.image.layout().cluster() != 0
                || entry.offset >= self.image.length()
            {
                let what = format!(
                    "level 1 table: entry {index} leads to byte {}",
                    entry.offset
                );
                self.report.error(at, what);
                continue;
            }
            if active {
                self.mark("level 2 table", at, entry.offset, entry.copied)?;
            }
            let uses = self.tables.entry(entry.offset).or_default();
            uses.times += 1;
            uses.active |= active;
        }
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
            self.range("level 2 table", at, 1, uses.times, Use::Shared);
            self.entries(at, uses)?;
        }
        Ok(())
    }

    fn entries(&mut self, at: u64, uses: Uses) -> Result<(), ReadError> {
        let width = self.image.layout().width;
        let table = self.image.raw(at, self.image.layout().cluster())?;
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
                Some(L2Entry::Compressed(compressed)) => self.compressed(compressed, uses),
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

    fn compressed(&mut self, compressed: Compressed, uses: Uses) {
        let Compressed { offset, .. } = compressed;
        // Its last sector may be cut off.
        let length = compressed
            .length()
            .min(self.image.length().saturating_sub(offset))
            .max(1);
        self.range(
            "compressed cluster",
            offset,
            length,
            uses.times,
            Use::Shared,
        );
        if uses.active {
            self.report.allocated_clusters += 1;
            self.report.compressed_clusters += 1;
        }
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
            self.range("cluster", offset, 1, uses.times, Use::Shared);
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
        let layout = self.image.layout().clone();
        let Some((_, at, bytes)) = self.image.extensions().bitmaps else {
            return Ok(());
        };
        self.metadata("bitmap directory", at, bytes);
        for bitmap in self.image.bitmaps()? {
            let (at, entries) = bitmap.table;
            let table = Table {
                offset: at,
                entries: entries.into(),
            };
            self.metadata("bitmap table", at, table.bytes());
            let bytes = self.image.raw(at, table.bytes().min(self.image.length()))?;
            for (index, raw) in numbers(&bytes).enumerate() {
                match BitmapTableEntry::decode(raw) {
                    Some(BitmapTableEntry::At(offset)) if offset % layout.cluster() == 0 => {
                        self.metadata("bitmap", offset, 1);
                    }
                    Some(BitmapTableEntry::Zeroes | BitmapTableEntry::Ones) => {}
                    _ => {
                        let place = at + index as u64 * 8;
                        let what = format!("bitmap {:?}: entry {index} is {raw:#x}", bitmap.name);
                        self.report.error(place, what);
                    }
                }
            }
        }
        Ok(())
    }
}
