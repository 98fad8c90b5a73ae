//! The native benchmark: csnap and qemu side by side, on the same kind of socket.
//!
//! `cargo run --release -p csnap-tests --bin bench` (or `make bench`) starts csnapd
//! with 0, 1, 8 and 64 snapshots, and `qemu-storage-daemon` with a raw file and
//! with a qcow2 overlay, all at once, and measures them in turn, round after round
//! (A B C A B C ...), so that a slow moment of the machine hits all alike. A row is
//! the median of the rounds. The load is fio's nbd engine, one connection.
//!
//! The main suite runs on files in memory (tmpfs, direct I/O), which shows what the
//! software costs; the `-disk` cases run on files of the disk below `target`, which
//! has a volatile cache; `amplification` counts bytes and flushes there.
//!
//! - [`plan`]: how large, how long, how often
//! - [`fio`]: one fio run
//! - [`server`]: csnapd or qemu, ready to be measured
//! - [`cases`]: what is measured on a server
//! - [`amplification`]: bytes and flushes per chunk copied, trees beyond the cache
//! - [`mod@engine`]: the engine alone, on a store in memory
//! - [`parts`]: checksum, bare copying and commit, each alone
//! - [`report`]: rows, medians, bars, tables
//! - [`guest`]: csnap on ublk beside dm-snapshot and dm-thin, in a virtual machine

pub mod amplification;
pub mod cases;
pub mod engine;
pub mod fio;
pub mod guest;
pub mod parts;
pub mod plan;
pub mod report;
pub mod server;
