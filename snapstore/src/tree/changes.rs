//! A sorted batch of changes to a tree.

use super::key::Key;
use super::layout::Shape;

/// Puts and deletes in ascending key order; values lie in one flat arena.
#[derive(Clone, Debug, Default)]
pub struct Changes {
    keys: Vec<Key>,
    /// Which value of the arena, or [`DELETE`].
    slots: Vec<u32>,
    values: Vec<u8>,
    value_len: usize,
}

const DELETE: u32 = u32::MAX;

/// A change that cannot be part of a batch.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadChange {
    /// Not above the last one.
    #[error("change {0} is not above the one before it")]
    Order(Key),
    /// Not as long as the tree's values.
    #[error("value of {0} has another length than the tree's values")]
    Length(Key),
}

impl Changes {
    /// An empty batch for a tree of this shape.
    #[must_use]
    pub fn new(shape: &Shape) -> Self {
        Self::with_value_len(shape.value_len)
    }

    pub(super) fn with_value_len(value_len: usize) -> Self {
        Self {
            value_len,
            ..Self::default()
        }
    }

    /// Adds a put (`Some(value)`) or a delete (`None`).
    ///
    /// # Errors
    /// [`BadChange`] if it is not above the one before it, or of another length.
    pub fn push(&mut self, key: Key, value: Option<&[u8]>) -> Result<(), BadChange> {
        if self.keys.last().is_some_and(|last| *last >= key) {
            return Err(BadChange::Order(key));
        }
        let slot = match value {
            None => DELETE,
            Some(value) if value.len() == self.value_len => {
                let slot = self.values.len() / self.value_len.max(1);
                self.values.extend_from_slice(value);
                slot as u32
            }
            Some(_) => return Err(BadChange::Length(key)),
        };
        self.keys.push(key);
        self.slots.push(slot);
        Ok(())
    }

    /// These changes and, of the keys they leave alone, those of `base`.
    ///
    /// # Errors
    /// [`BadChange`] if they are of different trees.
    pub fn over(&self, base: &Self) -> Result<Self, BadChange> {
        let mut all = Self::with_value_len(self.value_len);
        let mut next = 0;
        for i in 0..self.len() {
            let key = self.key(i);
            let end = base.below(next, Some(key));
            (next..end).try_for_each(|b| all.push(base.key(b), base.value(b)))?;
            all.push(key, self.value(i))?;
            next = end + usize::from(end < base.len() && base.key(end) == key);
        }
        (next..base.len()).try_for_each(|b| all.push(base.key(b), base.value(b)))?;
        Ok(all)
    }

    /// Whether `other` changes all that this changes.
    #[must_use]
    pub fn is_within(&self, other: &Self) -> bool {
        let mut keys = self.keys.iter();
        keys.all(|key| other.keys.binary_search(key).is_ok())
    }

    /// Number of changes.
    #[must_use]
    pub fn len(&self) -> usize {
        self.keys.len()
    }

    /// Whether nothing changes.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    pub(super) fn value_len(&self) -> usize {
        self.value_len
    }

    pub(super) fn key(&self, i: usize) -> Key {
        self.keys[i]
    }

    /// The value put; `None` is a delete.
    pub(super) fn value(&self, i: usize) -> Option<&[u8]> {
        let slot = self.slots[i];
        let start = slot as usize * self.value_len;
        (slot != DELETE).then(|| &self.values[start..start + self.value_len])
    }

    /// Index, from `from` on, of the first change at or above `bound`.
    pub(super) fn below(&self, from: usize, bound: Option<Key>) -> usize {
        let Some(bound) = bound else {
            return self.len();
        };
        from + self.keys[from..].partition_point(|key| *key < bound)
    }
}
