//! What driver and server agree on: names, versions, what csnap wants and needs.
//!
//! The driver clears bits it does not know and some it does, without a word: only
//! the flags read back from a device count. (The first releases of Linux 6.12 list
//! `zero-copy` among their features and clear it in every device.)

use std::fmt;

use super::UblkError;
use super::uapi::{DevInfo, feature as bit};

/// A set of features: the bits of [`super::uapi::feature`].
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Features(pub u64);

/// One feature of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    /// See [`super::uapi::feature`].
    pub bit: u64,
    /// As people read and type it.
    pub name: &'static str,
    /// The version of Linux that brought it.
    pub since: &'static str,
    /// Whether csnap asks for it, somewhere.
    pub use_of: Use,
}

/// What csnap does with a feature.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Use {
    /// It does not serve without.
    Required,
    /// It asks for it where it makes sense.
    Wanted,
    /// It does not use it.
    Unused,
    /// It refuses devices that have it.
    Refused,
}

/// How user data reaches the devices below, where the driver can do that; copied
/// otherwise. As people choose it: what stands here is in `--help`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum ZeroCopy {
    /// The kernel registers the pages of requests by itself
    #[default]
    Auto,
    /// csnapd registers them
    Register,
    /// Copied
    Off,
}

/// All features, in the order of their bits. Versions: `UBLK_F_ALL` in
/// `drivers/block/ublk_drv.c` of each release.
pub const ALL: [Known; 19] = {
    use Use::{Refused, Required, Unused, Wanted};
    [
        known(bit::SUPPORT_ZERO_COPY, "zero-copy", "6.15", Wanted),
        known(bit::NEED_GET_DATA, "need-get-data", "6.0", Wanted),
        known(bit::USER_RECOVERY, "user-recovery", "6.1", Required),
        known(
            bit::USER_RECOVERY_REISSUE,
            "user-recovery-reissue",
            "6.1",
            Required,
        ),
        known(bit::UNPRIVILEGED_DEV, "unprivileged-dev", "6.3", Refused),
        known(bit::CMD_IOCTL_ENCODE, "cmd-ioctl-encode", "6.4", Wanted),
        known(bit::USER_COPY, "user-copy", "6.5", Unused),
        known(bit::ZONED, "zoned", "6.6", Unused),
        known(
            bit::USER_RECOVERY_FAIL_IO,
            "user-recovery-fail-io",
            "6.13",
            Unused,
        ),
        known(bit::UPDATE_SIZE, "update-size", "6.16", Wanted),
        known(bit::AUTO_BUF_REG, "auto-buf-reg", "6.16", Wanted),
        known(bit::QUIESCE, "quiesce", "6.16", Wanted),
        known(bit::PER_IO_DAEMON, "per-io-daemon", "6.16", Wanted),
        known(
            bit::BUF_REG_OFF_DAEMON,
            "buf-reg-off-daemon",
            "6.17",
            Wanted,
        ),
        known(bit::BATCH_IO, "batch-io", "7.0", Unused),
        known(bit::INTEGRITY, "integrity", "7.0", Unused),
        known(bit::SAFE_STOP_DEV, "safe-stop-dev", "7.0", Wanted),
        known(bit::NO_AUTO_PART_SCAN, "no-auto-part-scan", "7.0", Wanted),
        known(bit::SHMEM_ZC, "shmem-zero-copy", "7.1", Unused),
    ]
};

/// What a driver too old to tell its features (before 6.5) may have.
pub(super) const BEFORE_GET_FEATURES: u64 =
    REQUIRED | bit::NEED_GET_DATA | bit::UNPRIVILEGED_DEV | bit::CMD_IOCTL_ENCODE;

/// Without these a killed daemon would lose requests.
const REQUIRED: u64 = bit::USER_RECOVERY | bit::USER_RECOVERY_REISSUE;

const fn known(bit: u64, name: &'static str, since: &'static str, use_of: Use) -> Known {
    Known {
        bit,
        name,
        since,
        use_of,
    }
}

impl Features {
    /// Whether all of `bits` are there.
    #[must_use]
    pub fn has(self, bits: u64) -> bool {
        self.0 & bits == bits
    }

    /// Those that have a name, in the order of their bits.
    pub fn iter(self) -> impl Iterator<Item = &'static Known> {
        ALL.iter().filter(move |known| self.has(known.bit))
    }

    /// Bits newer than this table.
    #[must_use]
    pub fn unknown(self) -> u64 {
        ALL.iter().fold(self.0, |bits, known| bits & !known.bit)
    }

    /// Whether request pages are handed to the devices below, however.
    #[must_use]
    pub fn is_zero_copy(self) -> bool {
        self.0 & (bit::SUPPORT_ZERO_COPY | bit::AUTO_BUF_REG) != 0
    }
}

/// Names with commas between; `bit N` for what has none.
impl fmt::Display for Features {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut first = true;
        let mut item = |f: &mut fmt::Formatter<'_>, text: fmt::Arguments<'_>| {
            let comma = if std::mem::take(&mut first) { "" } else { ", " };
            write!(f, "{comma}{text}")
        };
        for known in self.iter() {
            item(f, format_args!("{}", known.name))?;
        }
        let unknown = self.unknown();
        for index in (0..u64::BITS).filter(|index| unknown >> index & 1 == 1) {
            // Bit 1 is always set and means nothing any more.
            if index != 1 {
                item(f, format_args!("bit {index}"))?;
            }
        }
        Ok(())
    }
}

/// The flags to ask ADD for. A device of a snapshot (`live_origin` false) is
/// always copied, because what is read is verified first, and never searched for
/// partitions, because its contents are a copy of what is in use elsewhere.
#[must_use]
pub fn wanted(available: Features, zero_copy: ZeroCopy, live_origin: bool) -> u64 {
    let mut flags = REQUIRED
        | bit::CMD_IOCTL_ENCODE
        | bit::UPDATE_SIZE
        | bit::QUIESCE
        | bit::PER_IO_DAEMON
        | bit::BUF_REG_OFF_DAEMON
        | bit::SAFE_STOP_DEV;
    let auto = bit::AUTO_BUF_REG | bit::SUPPORT_ZERO_COPY;
    match zero_copy {
        // Data of writes to a snapshot (a device above may send some) must not come
        // into buffers that serve reads.
        _ if !live_origin => flags |= bit::NO_AUTO_PART_SCAN | bit::NEED_GET_DATA,
        // Registration by command stands in where the automatic one fails.
        ZeroCopy::Auto if available.has(auto) => flags |= auto,
        ZeroCopy::Register => flags |= bit::SUPPORT_ZERO_COPY,
        ZeroCopy::Auto | ZeroCopy::Off => {}
    }
    flags & available.0
}

/// Whether csnap can serve a device as agreed.
///
/// # Errors
/// [`UblkError::Unprivileged`], [`UblkError::Lacks`].
pub fn check(agreed: &DevInfo) -> Result<(), UblkError> {
    let flags = Features(agreed.flags);
    if flags.has(bit::UNPRIVILEGED_DEV) {
        return Err(UblkError::Unprivileged(agreed.dev_id));
    }
    let missing = Features(REQUIRED & !agreed.flags);
    if missing.0 == 0 {
        return Ok(());
    }
    Err(UblkError::Lacks {
        id: agreed.dev_id,
        missing: missing.to_string(),
    })
}

/// Whether a device that waits moves data as csnap serves such a device now: that
/// of a snapshot only where nothing comes into buffers that serve reads.
///
/// # Errors
/// [`UblkError::Lacks`].
pub fn check_mode(agreed: &DevInfo, live_origin: bool) -> Result<(), UblkError> {
    if live_origin || Features(agreed.flags).has(bit::NEED_GET_DATA) {
        return Ok(());
    }
    Err(UblkError::Lacks {
        id: agreed.dev_id,
        missing: Features(bit::NEED_GET_DATA).to_string(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn agreed(flags: u64) -> DevInfo {
        DevInfo {
            flags,
            dev_id: 5,
            ..DevInfo::default()
        }
    }

    /// What GET_FEATURES of Linux 6.12.0 and of 7.2 say.
    const V6_12: Features = Features(0x1ff);
    const V7_2: Features = Features(0xf_ffff);

    #[test]
    fn every_feature_has_a_bit_of_its_own_in_order() {
        for pair in ALL.windows(2) {
            assert!(pair[0].bit < pair[1].bit);
            assert_ne!(pair[0].name, pair[1].name);
        }
        assert!(ALL.iter().all(|known| known.bit.is_power_of_two()));
        assert_eq!(V7_2.iter().count(), ALL.len());
        assert_eq!(V7_2.unknown(), 1 << 1);
    }

    #[test]
    fn sets_print_as_names() {
        let set = Features(bit::SUPPORT_ZERO_COPY | bit::PER_IO_DAEMON | 1 << 1 | 1 << 40);
        assert_eq!(set.to_string(), "zero-copy, per-io-daemon, bit 40");
    }

    #[test]
    fn nothing_is_asked_for_that_the_driver_does_not_have() {
        for zero_copy in [ZeroCopy::Auto, ZeroCopy::Register, ZeroCopy::Off] {
            for live in [true, false] {
                for available in [V6_12, V7_2, Features(0)] {
                    assert_eq!(wanted(available, zero_copy, live) & !available.0, 0);
                }
            }
        }
    }

    #[test]
    fn origins_go_without_copies_and_snapshots_with() {
        let auto = wanted(V7_2, ZeroCopy::Auto, true);
        assert!(Features(auto).has(bit::AUTO_BUF_REG | bit::SUPPORT_ZERO_COPY));
        let register = wanted(V7_2, ZeroCopy::Register, true);
        assert!(Features(register).has(bit::SUPPORT_ZERO_COPY));
        assert!(!Features(register).has(bit::AUTO_BUF_REG));
        assert!(!Features(wanted(V7_2, ZeroCopy::Off, true)).is_zero_copy());
        assert!(!Features(wanted(V6_12, ZeroCopy::Auto, true)).is_zero_copy());
        for zero_copy in [ZeroCopy::Auto, ZeroCopy::Register, ZeroCopy::Off] {
            let snapshot = Features(wanted(V7_2, zero_copy, false));
            assert!(!snapshot.is_zero_copy());
            assert!(snapshot.has(bit::NO_AUTO_PART_SCAN));
        }
        assert!(!Features(auto).has(bit::NO_AUTO_PART_SCAN));
    }

    #[test]
    fn devices_without_recovery_are_refused_by_name() {
        assert!(check(&agreed(REQUIRED)).is_ok());
        let error = check(&agreed(bit::USER_RECOVERY)).unwrap_err().to_string();
        assert!(error.contains("device 5"), "{error}");
        assert!(error.contains("have: user-recovery-reissue;"), "{error}");
        let error = check(&agreed(REQUIRED | bit::UNPRIVILEGED_DEV)).unwrap_err();
        assert!(matches!(error, UblkError::Unprivileged(5)));
    }

    #[test]
    fn the_device_of_a_snapshot_is_taken_over_only_as_it_is_made_now() {
        assert!(check_mode(&agreed(REQUIRED), true).is_ok());
        assert!(check_mode(&agreed(REQUIRED | bit::NEED_GET_DATA), false).is_ok());
        let error = check_mode(&agreed(REQUIRED), false).unwrap_err();
        assert!(error.to_string().contains("need-get-data"), "{error}");
    }
}
