//! Images of file systems, made from trees of files without mounting anything and
//! without root.
//!
//! - [`tree`] reads what goes in: a directory, a tar stream, an OCI image layout, a
//!   composefs dump, or several of them one over the other.
//! - [`medium`] carries finished bytes to their places, in large pieces and by several
//!   threads.
//! - [`locks`] tells whether a machine is using an image.
//! - [`target`] is where an image goes: a file or a device.
//! - [`xfs`] writes XFS version 5, reads it back, and checks it.
//! - [`erofs`] does the same for EROFS.
//! - [`qcow2`] reads QCOW2, and checks it.
//! - [`verity`] hashes images and files as Linux verifies them.
//!
//! Data flows one way: a source yields its objects in order, a writer places them, the
//! output takes large writes. Nothing here speaks to the kernel but through safe
//! wrappers.
#![forbid(unsafe_code)]

mod digest;
pub mod erofs;
pub mod locks;
pub mod medium;
mod on_disk;
pub mod qcow2;
mod shown;
pub mod target;
pub mod tree;
pub mod verity;
pub mod xfs;
