//! EROFS: the disk format, what writes it, and what reads it back.
//!
//! - [`mod@compress`]: clusters and their indexes
//! - [`mod@format`]: structures as bytes
//! - [`make`]: an image, from a tree to the last byte
//! - [`write`]: the writer

pub mod compress;
pub mod format;
pub mod make;
pub mod write;
