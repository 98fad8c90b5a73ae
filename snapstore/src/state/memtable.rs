//! Exceptions newer than the tree, in memory, in key order.
//!
//! The table answers lookups above the tree and becomes the sorted batch of a
//! checkpoint's merge. A removal stays as an entry, because it hides what lies
//! below and names the chunk to free.

use std::collections::BTreeMap;

use crate::format::exception::{Crcs, ERA_LEN, LOST, Place};
use crate::ids::{Tag, VolumeId};
use crate::tree::{BadChange, Changes, Key};

/// What the table says of one key.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Entry {
    /// The exception exists.
    Put {
        /// Interval and store block.
        place: Place,
        /// Checksums of its data.
        crcs: Crcs,
    },
    /// The exception was purged.
    Gone {
        /// Its store block, to be freed.
        block: u64,
        /// It was added in this same table, so no checkpoint has claimed its block.
        fresh: bool,
    },
}

/// Recent exceptions and the eras they belong to.
#[derive(Clone, Debug, Default)]
pub struct MemTable {
    exceptions: BTreeMap<Key, Entry>,
    /// The same keys by (volume, tag, chunk).
    eras: BTreeMap<Key, Option<Place>>,
}

fn exception_key(volume: VolumeId, chunk: u64, tag: Tag) -> Key {
    Key {
        a: volume.0.into(),
        b: chunk,
        c: tag.0,
    }
}

fn era_key(volume: VolumeId, chunk: u64, tag: Tag) -> Key {
    Key {
        a: volume.0.into(),
        b: tag.0,
        c: chunk,
    }
}

impl MemTable {
    /// Entries.
    #[must_use]
    pub fn len(&self) -> usize {
        self.exceptions.len()
    }

    /// Drops up to `limit` entries of each kind; whether any are left. All of a large
    /// table at once takes milliseconds, which whoever drops it may not have.
    pub(crate) fn drop_some(&mut self, limit: usize) -> bool {
        for _ in 0..limit {
            let entry = self.exceptions.pop_first().is_some();
            if !(self.eras.pop_first().is_some() || entry) {
                return false;
            }
        }
        true
    }

    /// Whether there is none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.exceptions.is_empty()
    }

    /// Every entry in key order.
    pub(crate) fn entries(&self) -> impl Iterator<Item = (&Key, &Entry)> + '_ {
        self.exceptions.iter()
    }

    /// What was removed holds no chunk any more: for a repair, which finds out itself
    /// what is free.
    pub(crate) fn release_nothing(&mut self) {
        for entry in self.exceptions.values_mut() {
            if let Entry::Gone { block, .. } = entry {
                *block = LOST;
            }
        }
    }

    /// Adds an exception.
    pub fn put(&mut self, volume: VolumeId, chunk: u64, tag: Tag, place: Place, crcs: Crcs) {
        let key = exception_key(volume, chunk, tag);
        self.exceptions.insert(key, Entry::Put { place, crcs });
        self.eras.insert(era_key(volume, chunk, tag), Some(place));
    }

    /// Removes an exception, here or below.
    pub fn remove(&mut self, volume: VolumeId, chunk: u64, tag: Tag, block: u64) {
        let key = exception_key(volume, chunk, tag);
        let fresh = match self.exceptions.get(&key) {
            Some(Entry::Put { .. }) => true,
            Some(Entry::Gone { fresh, .. }) => *fresh,
            None => false,
        };
        self.exceptions.insert(key, Entry::Gone { block, fresh });
        self.eras.insert(era_key(volume, chunk, tag), None);
    }

    /// Whether the table says anything of an exception.
    pub(crate) fn knows(&self, volume: VolumeId, chunk: u64, tag: Tag) -> bool {
        let key = exception_key(volume, chunk, tag);
        self.exceptions.contains_key(&key)
    }

    /// Whether an exception of this key and block is here.
    #[must_use]
    pub fn holds(&self, volume: VolumeId, chunk: u64, tag: Tag, block: u64) -> bool {
        let entry = self.exceptions.get(&exception_key(volume, chunk, tag));
        matches!(entry, Some(Entry::Put { place, .. }) if place.block == block)
    }

    /// Undoes a put: the exception never was. Returns what it said.
    pub fn forget(&mut self, volume: VolumeId, chunk: u64, tag: Tag) -> Option<Place> {
        self.eras.remove(&era_key(volume, chunk, tag));
        match self.exceptions.remove(&exception_key(volume, chunk, tag)) {
            Some(Entry::Put { place, .. }) => Some(place),
            _ => None,
        }
    }

    /// Makes an exception LOST. Returns what it said before.
    pub fn lose(&mut self, volume: VolumeId, chunk: u64, tag: Tag) -> Option<Place> {
        let entry = self.exceptions.get_mut(&exception_key(volume, chunk, tag));
        let Some(Entry::Put { place, .. }) = entry else {
            return None;
        };
        let before = *place;
        place.block = LOST;
        self.eras.insert(era_key(volume, chunk, tag), Some(*place));
        Some(before)
    }

    /// The entry with the smallest tag at or above `tag`.
    #[must_use]
    pub fn ceil(&self, volume: VolumeId, chunk: u64, tag: Tag) -> Option<(Tag, &Entry)> {
        let from = exception_key(volume, chunk, tag);
        let (key, entry) = self.exceptions.range(from..).next()?;
        from.same_list(key).then_some((Tag(key.c), entry))
    }

    /// The greatest tag below `tag`, purged or not.
    #[must_use]
    pub fn floor(&self, volume: VolumeId, chunk: u64, tag: Tag) -> Option<Tag> {
        let to = exception_key(volume, chunk, tag);
        let (key, _) = self.exceptions.range(..to).next_back()?;
        to.same_list(key).then_some(Tag(key.c))
    }

    /// Exceptions in `from..to` as (key, place or purged).
    pub fn places(&self, from: Key, to: Key) -> impl Iterator<Item = (Key, Option<Place>)> + '_ {
        let range = (from < to).then(|| self.exceptions.range(from..to));
        range.into_iter().flatten().map(|(key, entry)| match entry {
            Entry::Put { place, .. } => (*key, Some(*place)),
            Entry::Gone { .. } => (*key, None),
        })
    }

    /// Era entries in `from..to` as (key, place or purged).
    pub fn eras(&self, from: Key, to: Key) -> impl Iterator<Item = (Key, Option<Place>)> + '_ {
        (from < to)
            .then(|| self.eras.range(from..to))
            .into_iter()
            .flatten()
            .map(|(key, place)| (*key, *place))
    }

    /// Adds the next `limit` exceptions, from `from` on, to the batch for the
    /// exception tree, and tells what they do to the allocator. Returns where to
    /// go on, `None` at the end.
    pub fn collect_exceptions(
        &self,
        from: Key,
        limit: usize,
        changes: &mut Changes,
        mut blocks: impl FnMut(BlockChange),
    ) -> Result<Option<Key>, BadChange> {
        let mut value = Vec::new();
        let mut entries = self.exceptions.range(from..);
        for (key, entry) in entries.by_ref().take(limit) {
            value.clear();
            match entry {
                Entry::Put { place, crcs } => {
                    place.encode(&mut value);
                    crcs.as_slice()
                        .iter()
                        .for_each(|c| value.extend_from_slice(&c.to_le_bytes()));
                    changes.push(*key, Some(&value))?;
                    if place.block != LOST {
                        blocks(BlockChange::Claim(place.block));
                    }
                }
                Entry::Gone { block, fresh } => {
                    changes.push(*key, None)?;
                    if *block != LOST {
                        blocks(if *fresh {
                            BlockChange::Pass(*block)
                        } else {
                            BlockChange::Release(*block)
                        });
                    }
                }
            }
        }
        Ok(entries.next().map(|(key, _)| *key))
    }

    /// Adds the next `limit` eras to the batch for the era tree, likewise.
    ///
    /// # Errors
    /// When `changes` was made for another shape of tree.
    pub fn collect_eras(
        &self,
        from: Key,
        limit: usize,
        changes: &mut Changes,
    ) -> Result<Option<Key>, BadChange> {
        let mut value = Vec::with_capacity(ERA_LEN);
        let mut entries = self.eras.range(from..);
        for (key, place) in entries.by_ref().take(limit) {
            value.clear();
            if let Some(place) = place {
                place.encode(&mut value);
            }
            changes.push(*key, place.map(|_| value.as_slice()))?;
        }
        Ok(entries.next().map(|(key, _)| *key))
    }
}

/// What an exception does to the allocator at a checkpoint. Each names the first
/// block of one chunk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockChange {
    /// The chunk becomes part of the store.
    Claim(u64),
    /// The chunk leaves the store.
    Release(u64),
    /// It came and went since the last checkpoint.
    Pass(u64),
}
