//! The daemon.

pub mod nbd;
