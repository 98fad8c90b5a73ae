//! The csnap store: its on-disk format and its engine.
//!
//! A *store* holds the metadata and the copied-out chunks of every *volume* it
//! serves. This crate says **where** data lives; it never sees a user's bytes.
//!
//! It is pure: no threads, no clock, no randomness, no system calls, no
//! `unsafe`. Time arrives in [`Event::Tick`], identifiers and names arrive in
//! commands, and every I/O leaves as an [`Effect`]. The same code runs under
//! `csnapd` and under the simulated world of `tests/`.
//!
//! | module | what it holds |
//! |---|---|
//! | [`block`], [`ids`], [`device`] | the unit of metadata I/O, identifiers, the synchronous device trait |
//! | [`checksum`] | what covers copied-out data |
//! | [`mod@format`] | every on-disk structure, declared once; byte tables in `docs/format.md` |
//! | [`tree`] | the shadow-paged B-tree: probe and batch merge |
//! | [`alloc`] | the bitmap allocator and its on-disk image |
//! | [`state`] | volumes, snapshots, counters and recent exceptions: what records amount to |
//! | [`unique`] | the in-memory bitmap behind the write fast path |
//! | [`engine`] | the state machine: events in, effects out |
//! | [`mod@create`], [`recover`] | making a store, opening one again |
//! | [`check`] | the whole-store checker and the dump |
//! | [`repair`] | making a damaged store sound again |
//! | [`scrub`] | verifying copied chunks while the store is served |
//! | [`signature`] | what else a device may hold |
#![forbid(unsafe_code)]

pub mod alloc;
pub mod block;
pub mod check;
pub mod checksum;
pub mod create;
pub mod device;
mod drive;
pub mod engine;
pub mod format;
pub mod ids;
pub mod recover;
pub mod repair;
mod replay;
pub mod scrub;
pub mod signature;
pub mod state;
pub mod tree;
pub mod unique;

pub use block::{BLOCK_SIZE, Block};
pub use checksum::Checksum;
pub use device::{BlockDevice, IoError, NoOrigins, Origins};
pub use engine::{Effect, Effects, Engine, Event, EventBatch};
pub use ids::{Owner, Tag, VolumeId};
pub use unique::UniqueMap;
