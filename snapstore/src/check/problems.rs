//! What was found wrong, as lines for a person.

use std::fmt;

/// More lines than this help nobody; the rest is counted.
const MOST: usize = 1000;

/// The lines so far.
#[derive(Debug, Default)]
pub(super) struct Problems {
    lines: Vec<String>,
    more: u64,
}

impl Problems {
    /// Adds one problem.
    pub(super) fn add(&mut self, line: fmt::Arguments<'_>) {
        if self.lines.len() < MOST {
            self.lines.push(line.to_string());
        } else {
            self.more += 1;
        }
    }

    pub(super) fn into_lines(mut self) -> Vec<String> {
        if self.more > 0 {
            self.lines.push(format!("and {} more problems", self.more));
        }
        self.lines
    }
}
