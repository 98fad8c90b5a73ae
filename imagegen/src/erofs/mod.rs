//! EROFS: the disk format, what writes it, and what reads it back.
//!
//! - [`mod@format`]: structures as bytes
//! - [`read`]: any image, trusting nothing
//! - [`list`]: what directories hold
//! - [`check`]: every structure against every other
//! - [`dump`]: structures for people and programs
//! - [`extract`]: a tree out of an image

pub mod check;
pub mod dump;
pub mod extract;
pub mod format;
pub mod list;
pub mod read;
