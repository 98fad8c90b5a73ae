//! EROFS: the disk format, what writes it, and what reads it back.
//!
//! - [`mod@format`]: structures as bytes
//! - [`make`]: an image, from a tree to the last byte
//! - [`mod@write`]: the writer; [`mod@compress`]: clusters and their indexes for it
//! - [`composefs`]: images of metadata alone, byte for byte as composefs makes them
//! - [`read`]: any image, trusting nothing
//! - [`list`]: what directories hold
//! - [`check`]: every structure against every other
//! - [`dump`]: structures for people and programs
//! - [`extract`]: a tree out of an image

pub mod check;
pub mod composefs;
pub mod compress;
pub mod dump;
pub mod extract;
pub mod format;
pub mod list;
pub mod make;
pub mod read;
pub mod write;

/// Most findings of one kind that are kept; the others are counted.
pub(crate) const MOST_FINDINGS: usize = 10_000;
