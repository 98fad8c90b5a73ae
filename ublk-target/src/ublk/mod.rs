//! The kernel's block devices in user space: `/dev/ublkbN`, served over
//! `/dev/ublkcN`, made and removed over `/dev/ublk-control`.
//!
//! | module | what it holds |
//! |---|---|
//! | [`uapi`] | the kernel's numbers and records |
//! | [`features`] | what driver and server agree on: names, versions, what csnap wants |
//! | [`control`] | making, starting, stopping, recovering and removing devices |
//! | [`mod@char`] | the server's end of one device and its map of requests |
//! | [`limits`] | what the devices below can do |
//! | [`openers`] | who uses a block device |
//! | [`params`] | limits as parameters of a ublk device |
//!
//! Nothing here knows of volumes, snapshots or lanes.

pub mod char;
mod command;
pub mod control;
mod error;
pub mod features;
pub mod limits;
pub mod openers;
pub mod params;
pub mod uapi;

pub use self::char::{CharDevice, Descriptors};
pub use control::{Control, NewDevice};
pub use error::UblkError;
pub use features::{Features, ZeroCopy};
pub use limits::Limits;
pub use openers::Openers;
