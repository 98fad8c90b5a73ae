//! QCOW2, versions 2 and 3: the disk format, what writes it, and what reads it back.
//!
//! - [`mod@format`]: structures as bytes
//! - [`read`]: any image, trusting nothing
//! - [`mod@write`]: an image from any disk
//! - [`mod@open`]: an image with all that lies below it
//! - [`provenance`]: of what an image was made
//! - [`check`]: every structure against every other
//! - [`compare`]: whether two disks are the same
//!
//! The format is described by QEMU's `docs/interop/qcow2.rst` (here: the specification).

pub mod check;
pub mod compare;
pub mod format;
pub mod open;
pub mod provenance;
pub mod read;
pub mod write;
