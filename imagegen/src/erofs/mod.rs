//! EROFS: the disk format, what writes it, and what reads it back.
//!
//! - [`mod@format`]: structures as bytes
//! - [`read`]: any image, trusting nothing

pub mod format;
pub mod read;
