//! Which blocks of a group have several owners, from its reverse mappings.

use super::super::format::btree::{RefcountRecord, RmapRecord, owner, rmap_offset};

/// The records of extents of files with two owners or more; neighbours with as many owners
/// are one record.
pub(crate) fn of(rmaps: &[RmapRecord]) -> Vec<RefcountRecord> {
    let mut edges: Vec<(u32, i32)> = rmaps
        .iter()
        .filter(|rmap| is_data(rmap))
        .flat_map(|rmap| {
            let start = rmap.start.get();
            [(start, 1), (start + rmap.count.get(), -1)]
        })
        .collect();
    edges.sort_unstable();
    let mut records: Vec<RefcountRecord> = Vec::new();
    let (mut owners, mut from) = (0, 0);
    for (block, change) in edges {
        if owners >= 2 && block > from {
            push(&mut records, from, block - from, owners as u32);
        }
        owners += change;
        from = block;
    }
    records
}

/// Whether it is a file's contents, which alone can be shared.
fn is_data(rmap: &RmapRecord) -> bool {
    let flags = rmap_offset::ATTR_FORK | rmap_offset::BMBT_BLOCK;
    !owner::is_special(rmap.owner.get()) && rmap.offset.get() & flags == 0
}

fn push(records: &mut Vec<RefcountRecord>, start: u32, count: u32, references: u32) {
    match records.last_mut() {
        Some(last)
            if last.start.get() + last.count.get() == start
                && last.references.get() == references =>
        {
            last.count += count;
        }
        _ => records.push(RefcountRecord {
            start: start.into(),
            count: count.into(),
            references: references.into(),
        }),
    }
}

/// The inodes that own some block together with another.
pub(crate) fn sharers(rmaps: &[RmapRecord], shared: &[RefcountRecord]) -> Vec<u64> {
    let overlaps = |rmap: &&RmapRecord| {
        let (start, end) = (rmap.start.get(), rmap.start.get() + rmap.count.get());
        let first =
            shared.partition_point(|record| record.start.get() + record.count.get() <= start);
        is_data(rmap)
            && shared
                .get(first)
                .is_some_and(|record| record.start.get() < end)
    };
    rmaps
        .iter()
        .filter(overlaps)
        .map(|rmap| rmap.owner.get())
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rmap(start: u32, count: u32, owner: u64, offset: u64) -> RmapRecord {
        RmapRecord {
            start: start.into(),
            count: count.into(),
            owner: owner.into(),
            offset: offset.into(),
        }
    }

    /// Owners counted block by block agree with the records.
    #[test]
    fn records_say_what_counting_says() {
        let rmaps = [
            rmap(0, 4, owner::FS, 0),
            rmap(10, 10, 128, 0),
            rmap(12, 3, 129, 7),
            rmap(14, 6, 130, 0),
            rmap(20, 5, 131, 0),
            rmap(22, 2, 131, 50),
            rmap(30, 5, 132, rmap_offset::ATTR_FORK),
            rmap(40, 2, 133, 0),
            rmap(40, 2, 134, 0),
        ];
        let records = of(&rmaps);
        for block in 0..60 {
            let holds = |start: u32, count: u32| (start..start + count).contains(&block);
            let owners = rmaps
                .iter()
                .filter(|rmap| is_data(rmap) && holds(rmap.start.get(), rmap.count.get()))
                .count() as u32;
            let record = records
                .iter()
                .find(|record| holds(record.start.get(), record.count.get()));
            let said = record.map_or(0, |record| record.references.get());
            assert_eq!(said, if owners >= 2 { owners } else { 0 }, "block {block}");
        }
        assert_eq!(
            sharers(&rmaps, &records),
            [128, 129, 130, 131, 131, 133, 134]
        );
    }
}
