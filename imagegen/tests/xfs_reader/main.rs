//! The reader of XFS, fsmap and the checker against file systems that mkfs.xfs made and
//! the kernel filled through loop devices, and against damage.
//!
//! Needs root, loop devices, mkfs.xfs, xfs_io and python3; a test that lacks them counts
//! as skipped. `XFSPROGS` may hold the beginning of a command line for other xfsprogs.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    clippy::print_stdout
)] // all of it is a test

mod check;
mod damage;
mod damages;
mod fsmap;
mod images;
mod read;
