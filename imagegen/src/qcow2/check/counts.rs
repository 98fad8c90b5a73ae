//! How often each cluster of the file is used, and by what.

use crate::qcow2::read::ReadError;
use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

/// Clusters of a page.
const PAGE: u64 = 1 << 10;

/// Bytes of a page.
const PAGE_BYTES: u64 = PAGE * size_of::<Count>() as u64;

/// What a use is for. A cluster of metadata has one use only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Tables and the header.
    Metadata,
    /// Contents of the disk, or tables of level 2, which snapshots share.
    Shared,
}

/// Uses of a cluster: as many as fit, and in the highest bit whether for metadata.
#[derive(Debug, Clone, Copy, Default)]
struct Count(u32);

impl Count {
    const METADATA: u32 = 1 << 31;

    const fn uses(self) -> u64 {
        (self.0 & !Self::METADATA) as u64
    }

    const fn is_metadata(self) -> bool {
        self.0 & Self::METADATA != 0
    }

    fn add(&mut self, times: u64, what: Use) {
        let most = u64::from(!Self::METADATA);
        let uses = self.uses().saturating_add(times).min(most) as u32;
        let metadata = self.is_metadata() || what == Use::Metadata;
        self.0 = uses | if metadata { Self::METADATA } else { 0 };
    }
}

/// Uses of clusters, kept where there are any.
#[derive(Debug)]
pub(super) struct Counts {
    pages: HashMap<u64, Box<[Count]>, FxBuildHasher>,
    /// Bytes that pages may have.
    most: u64,
}

impl Counts {
    pub(super) fn new(most: u64) -> Self {
        Self {
            pages: HashMap::default(),
            most,
        }
    }

    /// So many more uses of `cluster`; whether that contradicts the others, or itself.
    pub(super) fn add(&mut self, cluster: u64, times: u64, what: Use) -> Result<bool, ReadError> {
        let bytes = (self.pages.len() as u64 + 1) * PAGE_BYTES;
        let number = cluster / PAGE;
        if bytes > self.most && !self.pages.contains_key(&number) {
            return Err(ReadError::TooLarge {
                what: "the counts of the clusters it uses",
                bytes,
                most: self.most,
            });
        }
        let page = self.pages.entry(number);
        let page = page.or_insert_with(|| vec![Count::default(); PAGE as usize].into());
        let Some(count) = page.get_mut((cluster % PAGE) as usize) else {
            return Ok(false);
        };
        let is_metadata = count.is_metadata() || what == Use::Metadata;
        let clashes = is_metadata && count.uses().saturating_add(times) > 1;
        count.add(times, what);
        Ok(clashes)
    }

    /// Uses of `cluster`.
    pub(super) fn of(&self, cluster: u64) -> u64 {
        let page = self.pages.get(&(cluster / PAGE));
        let count = page.and_then(|page| page.get((cluster % PAGE) as usize));
        count.map_or(0, |count| count.uses())
    }

    /// Clusters that have uses, in order.
    pub(super) fn used(&self) -> impl Iterator<Item = u64> + '_ {
        let mut pages: Vec<_> = self.pages.iter().collect();
        pages.sort_unstable_by_key(|(page, _)| **page);
        pages.into_iter().flat_map(|(page, counts)| {
            let clusters = (page * PAGE..).zip(counts.iter());
            clusters
                .filter(|(_, count)| count.uses() > 0)
                .map(|(cluster, _)| cluster)
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn uses_are_counted_and_metadata_has_one() {
        let mut counts = Counts::new(1 << 20);
        for (cluster, times, what, clashes) in [
            (5_000, 2, Use::Shared, false),
            (5_000, 1, Use::Shared, false),
            (5_000, 1, Use::Metadata, true),
            (7, 1, Use::Metadata, false),
            (7, 1, Use::Shared, true),
            (8, 2, Use::Metadata, true),
            (9, u64::MAX, Use::Shared, false),
            (9, u64::MAX, Use::Shared, false),
        ] {
            let found = counts.add(cluster, times, what).unwrap();
            assert_eq!(found, clashes, "{cluster} {what:?}");
        }
        assert_eq!(counts.used().collect::<Vec<_>>(), [7, 8, 9, 5_000]);
        let uses = [7, 8, 9, 10, 5_000].map(|cluster| counts.of(cluster));
        assert_eq!(uses, [2, 2, (1 << 31) - 1, 0, 4]);
    }

    #[test]
    fn clusters_far_apart_take_no_more_than_they_may() {
        let mut counts = Counts::new(2 * PAGE_BYTES);
        for cluster in [0, 1 << 40, 5, (1 << 40) + 5] {
            assert!(counts.add(cluster, 1, Use::Shared).is_ok(), "{cluster}");
        }
        let refused = counts.add(1 << 50, 1, Use::Shared);
        assert!(matches!(refused, Err(ReadError::TooLarge { .. })));
    }
}
