//! Compression: codecs that fill clusters of a fixed size, files as lists of extents, and
//! the indexes that say where those lie.
//!
//! Data flows one way: a file's bytes are cut in segments, each becomes extents with their
//! physical bytes, all on any thread; then, in the files' order, extents get their places
//! in the image and are encoded behind the inode. So an image does not depend on the
//! number of threads.

mod ahead;
pub mod algorithm;
pub mod choice;
pub mod codec;
pub mod config;
mod dedupe;
pub mod extent;
pub mod index;
mod parts;
mod pool;
pub mod segment;
mod selection;

pub(crate) use ahead::{Ahead, Packed, Packing, Promised, SegmentError};
pub(crate) use choice::Choice;
pub(crate) use dedupe::{Shared, SurveyError, survey};
pub(crate) use pool::Pool;
pub(crate) use selection::{Plan, Selection};
