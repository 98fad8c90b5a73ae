//! csnapd: the daemon that serves origins and snapshots.

pub mod control;
