//! The device itself: what nothing above it can beat.

use std::path::{Path, PathBuf};

use super::Bed;
use crate::bench::guest::media::Media;
use crate::e2e::Outcome;

/// The origin without anything above it.
#[derive(Debug)]
pub struct Raw(PathBuf);

impl Raw {
    /// The origin.
    #[must_use]
    pub fn new(media: &Media) -> Self {
        Self(media.origin.clone())
    }
}

impl Bed for Raw {
    fn device(&self) -> &Path {
        &self.0
    }

    fn fresh(&mut self) -> Outcome {
        Ok(())
    }

    fn stale(&mut self) -> Outcome {
        Ok(())
    }

    fn take(&mut self) -> Outcome {
        Ok(())
    }

    fn newest(&mut self) -> Outcome<Option<PathBuf>> {
        Ok(None)
    }

    fn end(self: Box<Self>) -> Outcome {
        Ok(())
    }
}
