//! The encoders of forks (`imagegen::xfs::write`): what they write is read back by a
//! decoder of its own that checks every rule of the format, and put into real file
//! systems that xfs_repair and the kernel judge.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // all of it is a test

mod attributes;
mod directory;
mod fork_map;
mod naive;
mod placed;
mod real;
mod symlink;
