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

/// The keys a node is responsible for: from `low` on, up to but not including `up`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Span {
    /// The first.
    pub low: Key,
    /// The first behind them; `None`: there is none.
    pub up: Option<Key>,
}

impl Span {
    /// Every key.
    pub const ALL: Self = Self {
        low: Key::MIN,
        up: None,
    };

    /// The last of them.
    #[must_use]
    pub fn last(&self) -> Key {
        let Some(up) = self.up else {
            return Key::MAX;
        };
        if up.c > 0 {
            Key { c: up.c - 1, ..up }
        } else if up.b > 0 {
            Key::new(up.a, up.b - 1, u64::MAX)
        } else {
            Key::new(up.a.saturating_sub(1), u64::MAX, u64::MAX)
        }
    }

    /// Whether `key` is one of them.
    #[must_use]
    pub fn covers(&self, key: Key) -> bool {
        self.low <= key && self.up.is_none_or(|up| key < up)
    }
}
