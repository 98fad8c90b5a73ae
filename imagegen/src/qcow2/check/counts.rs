//! How often each cluster of the file is used, and by what.

use hashbrown::HashMap;
use rustc_hash::FxBuildHasher;

/// Clusters of a page.
const PAGE: u64 = 1 << 10;

/// What a use is for. A cluster of metadata has one use only.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Use {
    /// Tables and the header.
    Metadata,
    /// Contents of the disk, or tables of level 2, which snapshots share.
    Shared,
}

#[derive(Debug, Clone, Copy, Default)]
struct Count {
    uses: u64,
    metadata: bool,
}

/// Uses of clusters, kept where there are any.
#[derive(Debug, Default)]
pub(super) struct Counts {
    pages: HashMap<u64, Box<[Count]>, FxBuildHasher>,
}

impl Counts {
    /// So many more uses of `cluster`; whether that contradicts the others.
    pub(super) fn add(&mut self, cluster: u64, times: u64, what: Use) -> bool {
        let page = self.pages.entry(cluster / PAGE);
        let page = page.or_insert_with(|| vec![Count::default(); PAGE as usize].into());
        let Some(count) = page.get_mut((cluster % PAGE) as usize) else {
            return false;
        };
        let clashes = count.uses > 0 && (count.metadata || what == Use::Metadata);
        count.uses = count.uses.saturating_add(times);
        count.metadata |= what == Use::Metadata;
        clashes
    }

    /// Uses of `cluster`.
    pub(super) fn of(&self, cluster: u64) -> u64 {
        let page = self.pages.get(&(cluster / PAGE));
        let count = page.and_then(|page| page.get((cluster % PAGE) as usize));
        count.map_or(0, |count| count.uses)
    }

    /// Clusters that have uses, in order.
    pub(super) fn used(&self) -> Vec<u64> {
        let mut used = Vec::new();
        for (page, counts) in &self.pages {
            let clusters = (page * PAGE..).zip(counts.iter());
            used.extend(
                clusters
                    .filter(|(_, count)| count.uses > 0)
                    .map(|(at, _)| at),
            );
        }
        used.sort_unstable();
        used
    }
}
