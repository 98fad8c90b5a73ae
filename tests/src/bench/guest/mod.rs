//! The benchmark in the guest: csnap beside the kernel's own snapshots.
//!
//! `make bench GUEST=1` boots one guest with a kernel that has ublk and device mapper
//! and runs the same fio jobs there against a RAM disk, dm-snapshot, dm-thin, our own
//! loops without an engine, and csnapd, one after another, round after round. The host
//! runs no load: this very program runs again inside (`bench in-guest PLAN`) and tells
//! the host every sample as a line of its output.
//!
//! Everything in the guest is emulated and ten times slower than it would be: only the
//! ratios between targets of one run mean anything.
//!
//! - [`plan`]: how large, how long, which targets
//! - [`host`]: boots the guest and collects
//! - [`inside`]: the rounds, in the guest
//! - [`media`], [`dm`]: the devices below, and device mapper
//! - [`bed`]: the targets
//! - [`cases`]: what is measured on a target
//! - [`sample`]: what travels from guest to host, and rows
//! - [`table`]: ratios and bars

pub mod bed;
pub mod cases;
pub mod dm;
pub mod host;
pub mod inside;
pub mod media;
pub mod plan;
pub mod sample;
pub mod table;
