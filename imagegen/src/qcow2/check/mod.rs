//! Checking an image: every cluster's refcount against the uses of it that can be found,
//! and the marks of being used once against both. Nothing is changed.
//!
//! 1. What is used (`walk`): header, tables, the disk's and each snapshot's clusters,
//!    bitmaps. Tables of level 2 that several use are looked at once.
//! 2. What is counted (here): refcount blocks, compared with that.
//!
//! What is damaged or cut off is reported, and the rest is checked all the same.
//!
//! Time: every table is walked once, however many lead to it or into it, and what lies in
//! holes not at all. Memory: 4 bytes for each cluster near one that is used, up to
//! [`COUNTS`], and the places of tables of level 2, up to [`TABLES`] of them.

mod counts;
mod report;
mod tables;
mod walk;

pub use report::{Finding, Report, Severity};

use super::format::{Incompatible, RefcountWidth};
use super::read::{Image, ReadError, Table, numbers};
use crate::medium::Source;
use counts::{Counts, Use};
use hashbrown::HashSet;
use rustc_hash::FxBuildHasher;
use walk::Walk;

/// Bytes of counts that are held.
pub const COUNTS: u64 = 1 << 30;
/// Tables of level 2 whose places are held.
pub const TABLES: usize = 4 << 20;

/// Checks the image that `source` holds; an external data file is not needed.
pub fn check<S: Source>(source: S) -> Report {
    let mut report = Report::default();
    let done = Image::header(source).and_then(|image| check_image(&image, &mut report));
    if let Err(error) = done {
        report.failure = Some(error.to_string());
        // Why there is no check may be damage as well.
        let _ = report.take(Err(error));
    }
    report
}

fn check_image<S: Source>(image: &Image<S>, report: &mut Report) -> Result<(), ReadError> {
    if image.layout().has(Incompatible::Corrupt) {
        report.error(0, "it is marked as corrupt");
    }
    report.take(image.verify_backing())?;
    let stored = Stored::read(image, report)?;
    let mut walk = Walk::new(image, &stored, report);
    walk.all()?;
    let counts = walk.into_counts();
    compare(image, &stored, &counts, report)
}

/// Refcount blocks by what they count.
struct Stored {
    width: RefcountWidth,
    cluster_bits: u32,
    /// Byte of each block; 0: there is none, and all it would count is free.
    blocks: Vec<u64>,
}

impl Stored {
    fn read<S: Source>(image: &Image<S>, report: &mut Report) -> Result<Self, ReadError> {
        let layout = image.layout();
        let Table { offset, .. } = layout.refcount_table;
        let bytes = image.padded(offset, layout.refcount_table.bytes())?;
        let mut blocks: Vec<u64> = numbers(&bytes).collect();
        let mut seen = HashSet::with_hasher(FxBuildHasher);
        for (index, block) in blocks.iter_mut().enumerate().filter(|(_, at)| **at != 0) {
            let is_outside = *block % layout.cluster() != 0 || *block >= image.length();
            if is_outside || !seen.insert(*block) {
                let again = if is_outside { "" } else { " again" };
                let what = format!("refcount table: entry {index} leads to byte {block}{again}");
                report.error(offset.saturating_add(index as u64 * 8), what);
                *block = 0;
            }
        }
        while blocks.last() == Some(&0) {
            blocks.pop();
        }
        Ok(Self {
            width: layout.refcounts,
            cluster_bits: layout.width.cluster_bits,
            blocks,
        })
    }

    /// log2 of the clusters a block counts.
    const fn per_block_bits(&self) -> u32 {
        self.width.per_cluster_bits(self.cluster_bits)
    }

    /// The count of one cluster.
    fn of<S: Source>(&self, image: &Image<S>, cluster: u64) -> Result<u64, ReadError> {
        let index = cluster >> self.per_block_bits();
        let Some(block) = self.blocks.get(index as usize).filter(|block| **block != 0) else {
            return Ok(0);
        };
        let within = cluster & ((1 << self.per_block_bits()) - 1);
        let byte = (within << self.width.order()) / 8;
        let bytes = image.padded(block + byte, u64::from(self.width.bits()).div_ceil(8))?;
        let at = match self.width.order() {
            order @ ..3 => within as usize & ((8 >> order) - 1),
            _ => 0,
        };
        Ok(self.width.get(&bytes, at).unwrap_or(0))
    }
}

fn compare<S: Source>(
    image: &Image<S>,
    stored: &Stored,
    counts: &Counts,
    report: &mut Report,
) -> Result<(), ReadError> {
    let mut next = counts.used().peekable();
    let clusters = image.length().div_ceil(image.layout().cluster());
    let mut judge = |cluster, count| judge(stored, cluster, count, counts.of(cluster), report);
    for (index, block) in stored.blocks.iter().enumerate() {
        let first = (index as u64) << stored.per_block_bits();
        // Beyond the file's end nothing is used, and no room is lost.
        if first >= clusters {
            break;
        }
        let end = (first + (1 << stored.per_block_bits())).min(clusters);
        let bytes = match block {
            at if *at == 0 || image.is_hole(*at)? => Vec::new(),
            at => image.padded(*at, image.layout().cluster())?,
        };
        if bytes.iter().any(|byte| *byte != 0) {
            for cluster in first..end {
                let count = stored.width.get(&bytes, (cluster - first) as usize);
                judge(cluster, count.unwrap_or(0));
            }
            while next.next_if(|cluster| *cluster < end).is_some() {}
        } else {
            while let Some(cluster) = next.next_if(|cluster| *cluster < end) {
                judge(cluster, 0);
            }
        }
    }
    for cluster in next {
        judge(cluster, 0);
    }
    Ok(())
}

/// Compares the count of a cluster that begins in the file with its uses.
fn judge(stored: &Stored, cluster: u64, count: u64, uses: u64, report: &mut Report) {
    let at = cluster << stored.cluster_bits;
    let what = || format!("cluster {cluster} is counted {count} times and used {uses} times");
    if count < uses {
        report.error(at, what());
    }
    if count > uses {
        report.leak(at, what());
    }
    if count > 0 || uses > 0 {
        report.image_end = at + (1 << stored.cluster_bits);
    }
}
