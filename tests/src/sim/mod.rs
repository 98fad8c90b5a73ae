//! The parts of the simulated world; see the crate for the map.

pub mod daemon;
pub mod defect;
pub mod dice;
pub mod disk;
pub mod exhaust;
pub mod found;
pub mod judge;
pub mod lanes;
pub mod oracle;
pub mod recovery;
pub mod runtime;
pub mod value;
pub mod world;

/// A promise was broken: what, and where it was seen.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Violation(pub String);

impl Violation {
    /// From anything that reads as a sentence.
    pub fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

/// What a step of the world answers.
pub type Outcome<T = ()> = Result<T, Violation>;
