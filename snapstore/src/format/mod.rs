//! The on-disk format: every structure declared once.
//!
//! All integers are little-endian. Sizes are asserted at compile time, and
//! `docs/format.md` holds the same tables for people; a test compares them.

pub mod bitmap;
pub mod exception;
pub mod header;
pub mod journal;
pub mod ptr;
pub mod superblock;
pub mod tables;
#[cfg(test)]
mod tests;

pub use header::{Damage, HEADER_LEN, Header, Kind, header, seal, verify};
pub use ptr::{DiskPtr, Ptr};
