//! What a disk may hold after a power cut, from a log of its writes, and whether csnap
//! keeps its promises on each of these states.
//!
//! Device mapper's log-writes target and qemu's blklogwrites driver write the same kind
//! of log: every write of one disk in the order of completion, with the flushes. In the
//! guest ([`crate::guest_bed::cut`]) the origin, the store and a **diary** of what was
//! acknowledged are three parts of that one disk. So there is one log with one order,
//! and every point of it gives the three as one moment left them: what its diary tells
//! was acknowledged before. (Two logs would have no common order, and nothing could be
//! claimed of a pair.)
//!
//! What may be claimed, and what not:
//! * a prefix of the log is a state the disk may have been in, and so is one where
//!   writes since the last flush are missing or torn, other than forced ones;
//! * a flush counts for the whole disk, that is for origin and store at once. That a
//!   flush of the one is no flush of the other is for the simulated world to prove.
//!
//! | module | what it holds |
//! |---|---|
//! | [`log`] | reading the log |
//! | [`disk`] | the disk with its three parts |
//! | [`states`] | the states a log allows, one after the other |
//! | [`diary`] | what was acknowledged, and what follows from it |
//! | [`judge`] | one state recovered by the engine and compared with the diary |

pub mod diary;
pub mod disk;
pub mod judge;
pub mod log;
pub mod states;
