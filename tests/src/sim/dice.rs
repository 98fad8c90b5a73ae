//! Every random choice of a world, from one seed.
//!
//! Only whole numbers and only one stream: the order of the calls is the world.
//! Nothing that iterates a hash map may roll these dice.
//!
//! Dice may also be [`fixed`](Dice::fixed): then nothing is random, and what is in
//! flight completes in one of two orders.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// In which order fixed dice let operations complete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// The oldest first, the store's before the origins'.
    Forward,
    /// The newest first, the origins' before the store's.
    Reverse,
}

impl std::fmt::Display for Order {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(match self {
            Self::Forward => "forward",
            Self::Reverse => "reverse",
        })
    }
}

/// A stream of random choices.
#[derive(Clone, Debug)]
pub struct Dice(Source);

#[derive(Clone, Debug)]
enum Source {
    Rolled(Box<ChaCha8Rng>),
    Fixed(Order),
}

impl Dice {
    /// The stream of `seed`.
    #[must_use]
    pub fn new(seed: u64) -> Self {
        Self(Source::Rolled(Box::new(ChaCha8Rng::seed_from_u64(seed))))
    }

    /// No choice at all: the first or the last of several, the likelier of two, the
    /// most that is possible.
    #[must_use]
    pub const fn fixed(order: Order) -> Self {
        Self(Source::Fixed(order))
    }

    /// Whether nothing is left to chance.
    #[must_use]
    pub const fn are_fixed(&self) -> bool {
        matches!(self.0, Source::Fixed(_))
    }

    /// An independent stream, so that one part's rolls do not shift another's.
    #[must_use]
    pub fn fork(&mut self) -> Self {
        match self.0 {
            Source::Rolled(_) => Self::new(self.word()),
            Source::Fixed(order) => Self::fixed(order),
        }
    }

    /// Any 64-bit number.
    pub fn word(&mut self) -> u64 {
        match &mut self.0 {
            Source::Rolled(rng) => rng.random(),
            Source::Fixed(_) => 0,
        }
    }

    /// A number below `n`; 0 if `n` is 0.
    pub fn below(&mut self, n: u64) -> u64 {
        match &mut self.0 {
            _ if n == 0 => 0,
            Source::Rolled(rng) => rng.random_range(0..n),
            Source::Fixed(Order::Forward) => 0,
            Source::Fixed(Order::Reverse) => n - 1,
        }
    }

    /// An index into something of `len` entries; 0 if it is empty.
    pub fn index(&mut self, len: usize) -> usize {
        self.below(len as u64) as usize
    }

    /// A number in `low..=high`.
    pub fn between(&mut self, low: u64, high: u64) -> u64 {
        if self.are_fixed() {
            return high.max(low);
        }
        low + self.below(high.saturating_sub(low) + 1)
    }

    /// True `n` times in `of`.
    pub fn chance(&mut self, n: u64, of: u64) -> bool {
        if self.are_fixed() {
            return 2 * n >= of;
        }
        self.below(of.max(1)) < n
    }

    /// One of `choices`, which must not be empty.
    pub fn pick<T: Copy>(&mut self, choices: &[T]) -> T {
        choices[self.index(choices.len())]
    }

    /// An index weighted by `weights`; the last one if all are zero.
    pub fn weighted(&mut self, weights: &[u64]) -> usize {
        let mut roll = self.below(weights.iter().sum());
        for (index, weight) in weights.iter().enumerate() {
            if roll < *weight {
                return index;
            }
            roll -= weight;
        }
        weights.len().saturating_sub(1)
    }
}
