//! EROFS: the disk format, what writes it, and what reads it back.
//!
//! - [`mod@format`]: structures as bytes
//! - [`composefs`]: images of metadata alone, byte for byte as composefs makes them

pub mod composefs;
pub mod format;
