//! XFS, version 5: written, read back, checked.
pub mod check;
pub mod format;
pub mod fsmap;
pub mod geometry;
pub mod make;
pub mod read;
mod sizing;
pub mod write;
