//! EROFS: the disk format, what writes it, and what reads it back.
//!
//! - [`mod@compress`]: clusters and their indexes
//! - [`mod@format`]: structures as bytes

pub mod compress;
pub mod format;
