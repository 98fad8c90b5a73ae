//! How block devices look over the control socket: what was agreed with the
//! kernel, what it offers, which devices wait.

use serde::{Deserialize, Serialize};

use super::Problem;

/// How clients reach what is served.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum FrontendName {
    /// Block devices of the kernel.
    Ublk,
    /// NBD on a Unix socket.
    #[default]
    Nbd,
    /// Both.
    Both,
}

/// How the data of requests reaches the daemon.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ZeroCopyName {
    /// Not copied: the kernel registers the pages by itself.
    Auto,
    /// Not copied: the daemon registers the pages.
    Register,
    /// Copied once.
    Off,
}

/// What daemon and kernel agreed on for a block device.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct AgreedView {
    /// How data moves.
    pub zero_copy: ZeroCopyName,
    /// Hardware queues.
    pub queues: u16,
    /// Requests each queue can hold.
    pub depth: u16,
    /// Most bytes in one request.
    pub max_io_bytes: u32,
    /// The requests of one queue are spread over the I/O threads.
    pub per_io_daemons: bool,
    /// Names of the driver's features that are in force.
    pub features: Vec<String>,
}

/// A block device of an earlier csnapd whose I/O waits, and what to do about it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct WaitingView {
    /// Its path; absent if csnapd was killed before it knew the number.
    pub device: Option<String>,
    /// `vol` or `vol@snap`.
    pub name: String,
    /// Path of the store, or its UUID if it is not listed.
    pub store: String,
    /// Why it waits, and what to do.
    pub problem: Problem,
}

/// A feature of the kernel's driver.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeatureView {
    /// Name.
    pub name: String,
    /// Linux version that brought it.
    pub since: String,
    /// This kernel has it.
    pub offered: bool,
    /// csnap uses it for some device.
    pub used: bool,
    /// What it means that it is missing, if csnap would use it.
    pub consequence: Option<String>,
}

/// What the kernel offers to serve block devices with.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct FeaturesView {
    /// Release of the running kernel.
    pub kernel: String,
    /// Who was asked: `csnapd`, or `kernel` if no daemon answered.
    pub asked: String,
    /// The front end in use, or the one that csnapd would choose by itself.
    pub frontend: FrontendName,
    /// Why this one.
    pub frontend_why: String,
    /// Whether the kernel's driver can be used.
    pub driver: bool,
    /// Why it cannot, and what to do.
    pub problem: Option<Problem>,
    /// Every feature csnap knows of.
    pub features: Vec<FeatureView>,
}
