//! EROFS: the disk format, what writes it, and what reads it back.
//!
//! - [`mod@format`]: structures as bytes

pub mod format;
