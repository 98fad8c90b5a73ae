//! The geometry we choose: that of mkfs.xfs 7.2 (`mkfs`), what a kernel reserves in it
//! (`kernel`), and what is ours (`ours`).
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod kernel;
mod matrix;
mod mkfs;
mod ours;
#[path = "../tools/mod.rs"]
mod tools;

use imagegen::xfs::geometry::Options;
use uuid::Uuid;

pub(crate) const KIB: u64 = 1 << 10;
pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;
pub(crate) const TIB: u64 = 1 << 40;

pub(crate) const UUID: Uuid = Uuid::from_u128(0x5eed_0000_0000_4000_8000_0000_0000_0001);

/// A change of the default options.
pub(crate) type Change = fn(&mut Options);
