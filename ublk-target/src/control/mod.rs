//! The control socket: what `csnapctl` and other programs speak with `csnapd`.
//!
//! | module | what it holds |
//! |---|---|
//! | [`protocol`], [`views`] | requests, answers, error codes; how things look |
//! | [`frame`] | length-limited, time-limited messages on a socket |
//! | [`client`], [`server`] | the two sides |
//! | [`listener`] | a private socket with bounded connections (also for NBD) |
//! | [`accept`] | the thread that accepts them (also for NBD over TCP) |
//! | [`utc`] | times as people read them |

pub mod accept;
pub mod client;
pub mod frame;
pub mod listener;
pub mod protocol;
pub mod server;
pub mod utc;
pub mod views;
