//! A snapshot as the oracle knows it: per sector the values it may show.

use snapstore::engine::SnapshotState;

use crate::sim::value::Value;
use crate::sim::{Outcome, Violation};

/// The values one sector may show.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Choice {
    /// Exactly this: certain from the start, or seen.
    One(Value),
    /// One of these; the first read decides.
    Many(Vec<Value>),
}

impl Choice {
    /// From all values that are possible.
    #[must_use]
    pub fn of(mut values: Vec<Value>) -> Self {
        match values.as_slice() {
            [one] => Self::One(*one),
            _ => {
                values.dedup();
                Self::Many(values)
            }
        }
    }

    /// One more value is possible.
    pub fn add(&mut self, value: Value) {
        match self {
            Self::One(one) if *one == value => {}
            Self::One(one) => *self = Self::Many(vec![*one, value]),
            Self::Many(values) if values.contains(&value) => {}
            Self::Many(values) => values.push(value),
        }
    }

    /// Whether it may show `value`.
    #[must_use]
    pub fn allows(&self, value: Value) -> bool {
        match self {
            Self::One(one) => *one == value,
            Self::Many(values) => values.contains(&value),
        }
    }
}

/// A snapshot.
#[derive(Clone, Debug)]
pub struct Snapshot {
    /// Its name.
    pub name: String,
    /// Drop priority.
    pub priority: i32,
    /// Mapped.
    pub mapped: bool,
    /// Kept by a person.
    pub held: bool,
    /// When it was taken.
    pub created_ms: u64,
    /// Live, or dropped and why.
    pub state: SnapshotState,
    /// Sectors; the fewest it may have until it was listed.
    pub size: u64,
    /// Per sector what it may show; the most it may have.
    pub image: Vec<Choice>,
    /// A command on it is not yet answered: delete, rename, and so on.
    pub busy: bool,
    /// Its deletion was asked for: reads may fail.
    pub deleting: bool,
}

impl Snapshot {
    /// A new one.
    #[must_use]
    pub fn new(name: String, priority: i32, created_ms: u64, image: Vec<Choice>) -> Self {
        Self {
            name,
            priority,
            mapped: false,
            held: false,
            created_ms,
            state: SnapshotState::Live,
            size: image.len() as u64,
            image,
            busy: false,
            deleting: false,
        }
    }

    /// It is listed with so many sectors; from now on it has them. False if it may
    /// not.
    pub fn listed(&mut self, size: u64) -> bool {
        let fits = (self.size..=self.image.len() as u64).contains(&size);
        if fits {
            self.size = size;
            self.image.truncate(size as usize);
        }
        fits
    }

    /// Sectors `first..` read as `values`; from now on they are that.
    ///
    /// # Errors
    /// When a sector may not show what was read.
    pub fn seen(&mut self, first: u64, values: &[Value]) -> Outcome {
        for (index, value) in values.iter().enumerate() {
            let sector = first as usize + index;
            let Some(choice) = self.image.get_mut(sector) else {
                continue;
            };
            if !choice.allows(*value) {
                return Err(Violation(format!(
                    "snapshot {:?} sector {sector} reads {value:#x}, legal: {choice:x?}",
                    self.name
                )));
            }
            *choice = Choice::One(*value);
        }
        Ok(())
    }
}
