//! Where an image goes: to a medium in large pieces, or only into its digest.

use super::ComposefsError;
use super::write::Image;
use crate::medium::Medium;
use crate::verity::{Algorithm, Hash, fs::Meter};
use std::io::{self, Write};

/// Bytes that are written at a time.
const PIECE: usize = 1 << 20;

impl Image<'_> {
    /// Its fs-verity digest.
    pub fn digest(&self) -> Hash {
        let mut meter = Meter::new(Algorithm::Sha256);
        // A meter takes everything.
        let _ = self.write(&mut meter);
        meter.finish()
    }

    /// Writes it, and returns its fs-verity digest.
    ///
    /// # Errors
    /// What the medium says.
    pub fn write_to(&self, medium: &dyn Medium) -> Result<Hash, ComposefsError> {
        let mut pieces = Pieces {
            medium,
            at: 0,
            piece: Vec::with_capacity(PIECE),
            meter: Meter::new(Algorithm::Sha256),
        };
        let written = self.write(&mut pieces).and_then(|()| pieces.flush());
        written.map_err(ComposefsError::Write)?;
        Ok(pieces.meter.finish())
    }
}

struct Pieces<'a> {
    medium: &'a dyn Medium,
    at: u64,
    piece: Vec<u8>,
    meter: Meter,
}

impl Write for Pieces<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.piece.len() >= PIECE {
            self.flush()?;
        }
        let (now, _) = bytes.split_at(bytes.len().min(PIECE - self.piece.len()));
        self.piece.extend_from_slice(now);
        Ok(now.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.medium.write(self.at, &self.piece)?;
        self.meter.update(&self.piece);
        self.at += self.piece.len() as u64;
        self.piece.clear();
        Ok(())
    }
}
