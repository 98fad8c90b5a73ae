//! What records are ordered by.

use std::fmt;

/// Three numbers compared in order. `a` is shared by all records of a leaf, so it
/// should be what changes rarely: a volume, or a volume and high chunk bits.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key {
    /// Most significant; one value per leaf.
    pub a: u64,
    /// Compared next.
    pub b: u64,
    /// Compared last.
    pub c: u64,
}

impl Key {
    /// Below or equal to every key.
    pub const MIN: Self = Self { a: 0, b: 0, c: 0 };
    /// Above or equal to every key.
    pub const MAX: Self = Self {
        a: u64::MAX,
        b: u64::MAX,
        c: u64::MAX,
    };

    /// A key from its parts.
    #[must_use]
    pub const fn new(a: u64, b: u64, c: u64) -> Self {
        Self { a, b, c }
    }

    /// Whether both differ in `c` at most.
    #[must_use]
    pub const fn same_list(&self, other: &Self) -> bool {
        self.a == other.a && self.b == other.b
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "({}, {}, {})", self.a, self.b, self.c)
    }
}
