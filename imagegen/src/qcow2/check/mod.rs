//! Checking an image: every cluster's refcount against the uses of it that can be found,
//! and the marks of being used once against both. Nothing is changed.
//!
//! 1. What is used (`walk`): header, tables, the disk's and each snapshot's clusters,
//!    bitmaps. Tables of level 2 that several use are looked at once.
//! 2. What is counted (here): refcount blocks, compared with that.
//!
//! Memory: 16 bytes for each cluster near one that is used.

mod counts;
mod report;
mod walk;

pub use report::{Finding, Report, Severity};

use super::format::{Incompatible, RefcountWidth};
use super::read::{Image, ReadError, Table, numbers};
use crate::medium::Source;
use counts::{Counts, Use};
use walk::Walk;

/// Checks the image that `source` holds; an external data file is not needed.
pub fn check<S: Source>(source: S) -> Report {
    let mut report = Report::default();
    let done = Image::open(source).and_then(|image| check_image(&image, &mut report));
    match done {
        Ok(()) => {}
        Err(ReadError::Damaged {
            structure,
            at,
            flaw,
        }) => {
            report.error(at, format!("{structure}: {flaw}"));
            report.failure = Some(format!("{structure} at byte {at}: {flaw}"));
        }
        Err(error) => report.failure = Some(error.to_string()),
    }
    report
}

fn check_image<S: Source>(image: &Image<S>, report: &mut Report) -> Result<(), ReadError> {
    if image.layout().has(Incompatible::Corrupt) {
        report.error(0, "it is marked as corrupt");
    }
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
        let bytes = image.raw(offset, layout.refcount_table.bytes())?;
        let mut blocks: Vec<u64> = numbers(&bytes).collect();
        for (index, block) in blocks.iter_mut().enumerate() {
            if *block % layout.cluster() != 0 || *block >= image.length() && *block != 0 {
                let what = format!("refcount table: entry {index} leads to byte {block}");
                report.error(offset + index as u64 * 8, what);
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
        let bytes = image.raw(block + byte, u64::from(self.width.bits()).div_ceil(8))?;
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
    let used = counts.used();
    let mut next = used.iter().copied().peekable();
    let mut judge = |cluster, count| {
        judge(
            stored,
            image.length(),
            cluster,
            count,
            counts.of(cluster),
            report,
        );
    };
    for (index, block) in stored.blocks.iter().enumerate() {
        let first = (index as u64) << stored.per_block_bits();
        let end = first + (1 << stored.per_block_bits());
        let bytes = match block {
            0 => Vec::new(),
            at => image.raw(*at, image.layout().cluster())?,
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

/// Compares one cluster's count with its uses; those come in order of the clusters.
fn judge(stored: &Stored, end: u64, cluster: u64, count: u64, uses: u64, report: &mut Report) {
    let at = cluster << stored.cluster_bits;
    let what = || format!("cluster {cluster} is counted {count} times and used {uses} times");
    if count < uses {
        report.error(at, what());
    }
    // Beyond the file's end no room is lost.
    if at >= end {
        return;
    }
    if count > uses {
        report.leak(at, what());
    }
    if count > 0 || uses > 0 {
        report.image_end = at + (1 << stored.cluster_bits);
    }
}
