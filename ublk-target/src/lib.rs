//! The csnap daemon: everything that touches the kernel lives in this crate.
//!
//! | module | what it holds |
//! |---|---|
//! | [`device`] | opening origins and stores, plain calls on them |
//! | [`lane`] | the data path as a pure state machine, one per I/O thread |
//! | [`core`](mod@core) | one engine under its combining lock, and the way of its effects |
//! | [`ring`] | the I/O thread: io_uring, buffers, NBD connections |
//! | [`reclaim`] | what a process must be that the kernel writes memory out through |
//! | [`freeze`] | holding a file system still |
//! | [`export`], [`runtime`] | what the daemon's control side calls |
//! | [`nbd`] | the NBD protocol, without system calls |
//! | [`tls`] | TLS for connections from other machines |
//! | [`ublk`] | the kernel's block devices in user space |
//! | [`size`] | numbers of bytes as people type them |
//! | [`bare`] | a ublk server without an engine, for benchmarks |
//! | [`control`] | the control socket: protocol, client, server |
//! | [`daemon`] | attaching, serving and stopping; what each verb does |

pub mod bare;
pub mod control;
pub mod core;
pub mod daemon;
pub mod device;
pub mod export;
pub mod freeze;
pub mod lane;
pub mod nbd;
pub mod reclaim;
pub mod ring;
pub mod runtime;
pub mod size;
pub mod tls;
pub mod ublk;
