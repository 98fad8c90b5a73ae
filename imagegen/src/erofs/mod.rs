//! EROFS: the disk format, what writes it, and what reads it back.
//!
//! - [`mod@format`]: structures as bytes
//! - [`make`]: an image, from a tree to the last byte
//! - [`write`]: the writer

pub mod format;
pub mod make;
pub mod write;
