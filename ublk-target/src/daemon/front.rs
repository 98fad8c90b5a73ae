//! The front end: how clients reach what is served, and what the kernel offers
//! for it.
//!
//! Block devices (ublk) are what csnap is for; NBD on a Unix socket works
//! everywhere. By itself csnapd takes ublk where the kernel's driver can do what
//! csnap needs, and NBD otherwise; when it is told what to take and cannot, it
//! does not start, because nobody would look for the data elsewhere.

use std::fs;

use crate::control::views::{FeatureView, FeaturesView, FrontendName, Problem, ZeroCopyName};
use crate::ublk::features::{ALL, Known, Use};
use crate::ublk::uapi::feature as bit;
use crate::ublk::{Control, Features, UblkError, ZeroCopy, features};

/// What a person asks for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Wish {
    /// Block devices where the kernel has ublk, NBD otherwise.
    #[default]
    Auto,
    /// Block devices.
    Ublk,
    /// NBD on a Unix socket.
    Nbd,
    /// Block devices, and NBD as well.
    Both,
}

/// Which front end serves, and why.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Choice {
    /// Which.
    pub name: FrontendName,
    /// For people.
    pub why: String,
}

impl Choice {
    /// Whether NBD is served.
    #[must_use]
    pub fn nbd(&self) -> bool {
        self.name != FrontendName::Ublk
    }

    /// Whether block devices are served.
    #[must_use]
    pub fn ublk(&self) -> bool {
        self.name != FrontendName::Nbd
    }
}

/// Block devices are wanted, and there can be none.
#[derive(Debug, thiserror::Error)]
pub enum NoUblk {
    /// A person asked for them.
    #[error(
        "block devices were asked for (--frontend {wish}), but {why}. ublk comes with Linux 6.1 \
         and newer, as the module ublk_drv; without it, start with --frontend nbd"
    )]
    Asked {
        /// In which words.
        wish: &'static str,
        /// What the system said.
        why: String,
    },
    /// An earlier csnapd left devices whose users wait for this one.
    #[error(
        "{devices} of an earlier csnapd wait with the I/O of their users, but {why}. Mend that and \
         start again; --frontend nbd starts all the same and lets them wait"
    )]
    Wait {
        /// Their nodes, separated by commas.
        devices: String,
        /// What the system said.
        why: String,
    },
}

/// The kernel's driver, if it can do what csnap needs.
///
/// # Errors
/// Why it cannot be used.
pub fn driver() -> Result<Control, UblkError> {
    let control = Control::open()?;
    suffices(control.features())?;
    Ok(control)
}

fn suffices(offered: Features) -> Result<(), UblkError> {
    let required = ALL.iter().filter(|known| known.use_of == Use::Required);
    let missing = required.filter(|known| !offered.has(known.bit));
    let missing: Vec<&str> = missing.map(|known| known.name).collect();
    if missing.is_empty() {
        return Ok(());
    }
    Err(UblkError::Absent {
        why: format!("its driver lacks {}", missing.join(" and ")),
    })
}

/// Which front end it is to be, `driver` being what the kernel has and `left` the
/// devices in it of an earlier csnapd.
///
/// # Errors
/// [`NoUblk`].
pub fn choose(
    wish: Wish,
    driver: Result<(), &UblkError>,
    left: &[String],
) -> Result<Choice, NoUblk> {
    let choice = |name, why: String| Ok(Choice { name, why });
    match (wish, driver) {
        (Wish::Nbd, _) => choice(FrontendName::Nbd, told("nbd")),
        (Wish::Ublk, Ok(())) => choice(FrontendName::Ublk, told("ublk")),
        (Wish::Both, Ok(())) => choice(FrontendName::Both, told("both")),
        (Wish::Auto, Ok(())) => choice(FrontendName::Ublk, "the kernel has ublk".to_owned()),
        (Wish::Auto, Err(error)) if left.is_empty() => choice(FrontendName::Nbd, error.to_string()),
        (Wish::Auto, Err(error)) => Err(NoUblk::Wait {
            devices: left.join(", "),
            why: error.to_string(),
        }),
        (Wish::Ublk | Wish::Both, Err(error)) => Err(NoUblk::Asked {
            wish: if wish == Wish::Both { "both" } else { "ublk" },
            why: error.to_string(),
        }),
    }
}

fn told(name: &str) -> String {
    format!("csnapd was told so (--frontend {name})")
}

impl From<ZeroCopy> for ZeroCopyName {
    fn from(zero_copy: ZeroCopy) -> Self {
        match zero_copy {
            ZeroCopy::Auto => Self::Auto,
            ZeroCopy::Register => Self::Register,
            ZeroCopy::Off => Self::Off,
        }
    }
}

/// The names of features.
#[must_use]
pub fn names(features: Features) -> Vec<String> {
    features.iter().map(|known| known.name.to_owned()).collect()
}

/// What the kernel offers, as this process sees it without a daemon.
#[must_use]
pub fn features_of_kernel() -> FeaturesView {
    let driver = driver();
    // Only a front end that was asked for can be refused.
    let choice = choose(Wish::Auto, driver.as_ref().map(drop), &[]).unwrap_or(Choice {
        name: FrontendName::Nbd,
        why: String::new(),
    });
    let (offered, problem) = match driver {
        Ok(control) => (Some(control.features()), None),
        Err(error) => (None, Some(error)),
    };
    features_view("kernel", choice, ZeroCopy::Auto, offered, problem.as_ref())
}

/// What the kernel offers, what is used of it, and what is missing.
#[must_use]
pub fn features_view(
    asked: &str,
    choice: Choice,
    zero_copy: ZeroCopy,
    offered: Option<Features>,
    problem: Option<&UblkError>,
) -> FeaturesView {
    let has = offered.unwrap_or_default();
    let used = if choice.ublk() {
        features::wanted(has, zero_copy, true) | features::wanted(has, zero_copy, false)
    } else {
        0
    };
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    FeaturesView {
        kernel: kernel.trim().to_owned(),
        asked: asked.to_owned(),
        frontend: choice.name,
        frontend_why: choice.why,
        driver: offered.is_some(),
        problem: problem.map(|error| Problem {
            message: error.to_string(),
            next: match error {
                UblkError::Barred { .. } => "run csnapd as the unit that comes with it does",
                _ => "load the driver (modprobe ublk_drv), then restart csnapd; NBD works without",
            }
            .into(),
        }),
        features: ALL.iter().map(|known| feature(known, has, used)).collect(),
    }
}

fn feature(known: &Known, offered: Features, used: u64) -> FeatureView {
    let missing = !offered.has(known.bit);
    FeatureView {
        name: known.name.to_owned(),
        since: known.since.to_owned(),
        offered: !missing,
        used: used & known.bit != 0,
        consequence: missing
            .then(|| consequence(known.bit))
            .flatten()
            .map(str::to_owned),
    }
}

/// What it means that a feature csnap would use is missing.
fn consequence(missing: u64) -> Option<&'static str> {
    Some(match missing {
        bit::USER_RECOVERY | bit::USER_RECOVERY_REISSUE => {
            "no block devices: a killed csnapd would lose requests"
        }
        bit::SUPPORT_ZERO_COPY => "the data of every request is copied once more",
        bit::AUTO_BUF_REG => "zero copy only by command (--zero-copy register), which is slower",
        bit::UPDATE_SIZE => "a volume that grows must be detached and attached again",
        bit::QUIESCE => {
            "at an upgrade with devices open, requests in flight are issued again by the kernel"
        }
        bit::PER_IO_DAEMON => "one program on one processor is served by one I/O thread",
        bit::BUF_REG_OFF_DAEMON => "pages are registered only by the thread that serves their tag",
        bit::SAFE_STOP_DEV => {
            "whether a device is open is looked up before it is removed, not with it"
        }
        bit::NO_AUTO_PART_SCAN => "the kernel looks for partitions on snapshots",
        bit::NEED_GET_DATA => {
            "data written to a device above a snapshot is copied before it is refused"
        }
        _ => return None,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const REQUIRED: u64 = bit::USER_RECOVERY | bit::USER_RECOVERY_REISSUE;

    #[test]
    fn ublk_is_taken_where_it_is_and_nbd_where_it_is_not() {
        let absent = UblkError::Absent {
            why: "no such file".into(),
        };
        let choice = |wish, driver| choose(wish, driver, &[]).map(|c| c.name).ok();
        use FrontendName as F;
        for (wish, with, without) in [
            (Wish::Auto, Some(F::Ublk), Some(F::Nbd)),
            (Wish::Ublk, Some(F::Ublk), None),
            (Wish::Nbd, Some(F::Nbd), Some(F::Nbd)),
            (Wish::Both, Some(F::Both), None),
        ] {
            assert_eq!(choice(wish, Ok(())), with, "{wish:?}");
            assert_eq!(choice(wish, Err(&absent)), without, "{wish:?}");
        }
        let why = choose(Wish::Auto, Err(&absent), &[]).unwrap().why;
        assert!(why.contains("no such file"), "{why}");
        let refused = choose(Wish::Both, Err(&absent), &[])
            .unwrap_err()
            .to_string();
        assert!(refused.contains("--frontend both"), "{refused}");
        assert!(refused.contains("modprobe ublk_drv"), "{refused}");
    }

    #[test]
    fn devices_that_wait_are_not_left_for_nbd_unasked() {
        let barred = UblkError::Barred {
            path: "/dev/ublk-control".into(),
            source: std::io::ErrorKind::PermissionDenied.into(),
        };
        let left = ["/dev/ublkb3".to_owned()];
        let refused = choose(Wish::Auto, Err(&barred), &left).unwrap_err();
        let text = refused.to_string();
        assert!(text.contains("/dev/ublkb3") && text.contains("CAP_SYS_ADMIN"));
        assert!(!text.contains("modprobe"), "{text}");
        assert!(choose(Wish::Nbd, Err(&barred), &left).is_ok());
    }

    #[test]
    fn a_driver_without_recovery_does_not_do() {
        assert!(suffices(Features(REQUIRED)).is_ok());
        let error = suffices(Features(bit::USER_RECOVERY)).unwrap_err();
        let text = error.to_string();
        assert!(text.contains("lacks user-recovery-reissue"), "{text}");
    }

    #[test]
    fn what_csnap_would_use_and_lacks_has_a_consequence() {
        let choice = choose(Wish::Auto, Ok(()), &[]).unwrap();
        let view = |bits| {
            let offered = Some(Features(bits));
            features_view("csnapd", choice.clone(), ZeroCopy::Auto, offered, None)
        };
        // Everything csnap uses of a kernel that has everything.
        let all = view(u64::MAX);
        assert!(
            all.features
                .iter()
                .all(|f| f.offered && f.consequence.is_none())
        );
        let old = view(REQUIRED | bit::CMD_IOCTL_ENCODE);
        for (new, old) in all.features.iter().zip(&old.features) {
            let lost = new.used && !old.offered;
            assert_eq!(old.consequence.is_some(), lost, "{}", new.name);
            assert!(!lost || !old.used, "{}", new.name);
        }
        let nbd = choose(Wish::Nbd, Ok(()), &[]).unwrap();
        let view = features_view(
            "csnapd",
            nbd,
            ZeroCopy::Auto,
            Some(Features(u64::MAX)),
            None,
        );
        assert!(view.features.iter().all(|f| !f.used));
    }
}
