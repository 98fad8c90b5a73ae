//! Why something about a ublk device failed: the object, the cause, what to do.

use std::io;
use std::path::PathBuf;
use std::time::Duration;

/// Why something about a ublk device failed.
#[derive(Debug, thiserror::Error)]
pub enum UblkError {
    /// The kernel has no ublk, or its module is not loaded.
    #[error(
        "ublk is not available: {why}; load it with `modprobe ublk_drv` (the kernel needs \
         CONFIG_BLK_DEV_UBLK), or serve over NBD"
    )]
    Absent {
        /// What was tried and what the system said.
        why: String,
    },
    /// The driver is there and may not be used.
    #[error(
        "may not open {path}: {source}; csnapd makes block devices with CAP_SYS_ADMIN, and under \
         systemd where DeviceAllow= lists the driver"
    )]
    Barred {
        /// Its node.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// There is no device of that number.
    #[error("there is no ublk device {0} (any more)")]
    NoDevice(u32),
    /// Somebody has the block device open.
    #[error("/dev/ublkb{0} is open: unmount it or stop what uses it, then try again")]
    Open(u32),
    /// The driver does not know the command or cannot do it for this device.
    #[error("this kernel's ublk driver cannot {command}; a newer kernel can")]
    Unsupported {
        /// What was asked for.
        command: &'static str,
    },
    /// A privilege is missing.
    #[error("may not {command} ublk device {}: it takes CAP_SYS_ADMIN", number(*.id))]
    Denied {
        /// What was asked for.
        command: &'static str,
        /// Which device; `None`: a new one, or the driver itself.
        id: Option<u32>,
    },
    /// No answer came. The command was given up and may still take effect.
    #[error(
        "the ublk driver did not {command} device {} within {after:?}; it was given up but may \
         still happen: see the kernel's log, and `csnapctl features`",
        number(*.id)
    )]
    TimedOut {
        /// What was asked for.
        command: &'static str,
        /// Which device; `None`: a new one, or the driver itself.
        id: Option<u32>,
        /// How long an answer was waited for.
        after: Duration,
    },
    /// The driver refused.
    #[error("the ublk driver cannot {command} device {}: {source}", number(*.id))]
    Command {
        /// What was asked for.
        command: &'static str,
        /// Which device; `None`: a new one, or the driver itself.
        id: Option<u32>,
        /// What it said.
        source: io::Error,
    },
    /// The ring that carries commands cannot be made or used.
    #[error(
        "cannot use io_uring for ublk commands: {0}; check the sysctl kernel.io_uring_disabled \
         and the limits of locked memory"
    )]
    Ring(io::Error),
    /// The driver did not agree to what csnap cannot do without.
    #[error(
        "ublk device {id} would not have: {missing}; csnap does not serve without (Linux 6.1 and \
         CAP_SYS_ADMIN give them)"
    )]
    Lacks {
        /// Which device.
        id: u32,
        /// Names of the features, separated by commas.
        missing: String,
    },
    /// The driver keeps other parameters than it was told.
    #[error(
        "the ublk driver ignored of device {id}: {what}; csnap does not serve without (Linux 6.1 \
         and newer take them)"
    )]
    Ignored {
        /// Which device.
        id: u32,
        /// Names, separated by commas.
        what: String,
    },
    /// The driver made a device of an unprivileged user.
    #[error(
        "ublk device {0} was made unprivileged, which silently loses recovery: run csnapd with \
         CAP_SYS_ADMIN"
    )]
    Unprivileged(u32),
    /// The character device cannot be used.
    #[error("cannot {what} {path}: {source}")]
    Node {
        /// What was tried.
        what: &'static str,
        /// The node.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The driver has the device, but `/dev` has no node of it.
    #[error(
        "the kernel has ublk device {id}, but {path} does not appear: is /dev a devtmpfs, and may \
         this service see it?"
    )]
    NoNode {
        /// Which device.
        id: u32,
        /// The node that is missing.
        path: PathBuf,
    },
    /// A file of `/sys`, or the device it tells of, cannot be read.
    #[error("cannot learn what {path} says: {source}; is /sys mounted?")]
    Sysfs {
        /// Where it was looked for.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
    /// The device below has blocks that the driver cannot have.
    #[error(
        "{path} has logical blocks of {block} bytes, and a ublk device has blocks of at most \
         {limit}; it takes a device with smaller blocks"
    )]
    BlockSize {
        /// The device below.
        path: PathBuf,
        /// Bytes in a block of it.
        block: u32,
        /// Most bytes in a block of a ublk device.
        limit: u32,
    },
    /// Who uses a device cannot be learned.
    #[error("cannot learn who uses /dev/ublkb{id}: {source}; is /proc mounted?")]
    Openers {
        /// Which device.
        id: u32,
        /// What the system said.
        source: io::Error,
    },
}

fn number(id: Option<u32>) -> String {
    id.map_or_else(|| "(new)".to_owned(), |id| id.to_string())
}
