//! Which features which kernel mounts, and which mkfs.xfs gave file systems when that
//! kernel was new (`mkfs/lts_*.conf` of xfsprogs).

use super::Features;
use super::options::OptionError;

/// A kernel that shall mount the file system.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Kernel {
    /// Linux 6.1 and later.
    Linux6_1,
    /// Linux 6.12 and later.
    Linux6_12,
    /// Linux 7.2 and later: all that mkfs.xfs 7.2 switches on.
    #[default]
    Linux7_2,
}

impl Kernel {
    /// Its name on the command line.
    pub fn name(self) -> &'static str {
        match self {
            Self::Linux6_1 => "linux-6.1",
            Self::Linux6_12 => "linux-6.12",
            Self::Linux7_2 => "linux-7.2",
        }
    }

    /// The newest of them that is not newer than a release as `uname -r` says it
    /// (`6.18.3-1-amd64`); the oldest for what is older, or says nothing.
    pub fn not_after(release: &str) -> Self {
        let mut numbers = release
            .split(|c: char| !c.is_ascii_digit())
            .map(|number| number.parse().unwrap_or(0));
        let next = |numbers: &mut dyn Iterator<Item = u32>| numbers.next().unwrap_or(0);
        let version = (next(&mut numbers), next(&mut numbers));
        match version {
            version if version >= (7, 2) => Self::Linux7_2,
            version if version >= (6, 12) => Self::Linux6_12,
            _ => Self::Linux6_1,
        }
    }

    /// What is switched on for it.
    pub fn features(self) -> Features {
        let newest = Features::default();
        let old = Features {
            exchange: false,
            parent: false,
            ..newest
        };
        match self {
            Self::Linux6_1 => Features {
                rmapbt: false,
                nrext64: false,
                ..old
            },
            Self::Linux6_12 => old,
            Self::Linux7_2 => newest,
        }
    }

    /// Whether it mounts a file system with `features`.
    ///
    /// # Errors
    /// Names the first feature it does not know.
    pub fn mounts(self, features: &Features) -> Result<(), OptionError> {
        // Both since Linux 6.10; all others are in 6.1 already.
        let newer = [("exchange", features.exchange), ("parent", features.parent)];
        match newer.iter().find(|(_, on)| *on) {
            Some((name, _)) if self == Self::Linux6_1 => Err(OptionError::new(
                "--feature",
                format!("{name}=on"),
                format!("{} does not mount it", self.name()),
                "leave it off, or choose a newer kernel",
            )),
            _ => Ok(()),
        }
    }
}

impl Features {
    /// Whether mkfs.xfs gives the root directory the attribute `trusted.xfs:autofsck` with
    /// the value `repair`, by which it asks the system's service for its care: where that
    /// service has what it repairs from.
    pub fn autofsck(&self) -> bool {
        self.rmapbt && self.parent
    }
}

impl Default for Features {
    /// What mkfs.xfs 7.2 switches on.
    fn default() -> Self {
        Self {
            finobt: true,
            inobtcount: true,
            sparse: true,
            rmapbt: true,
            reflink: true,
            bigtime: true,
            nrext64: true,
            exchange: true,
            parent: true,
            ascii_ci: false,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_release_is_mapped_to_what_it_mounts() {
        for (release, kernel) in [
            ("7.2.0", Kernel::Linux7_2),
            ("8.0-rc1", Kernel::Linux7_2),
            ("7.10.1-amd64", Kernel::Linux7_2),
            ("7.1.9", Kernel::Linux6_12),
            ("6.18.3-1-amd64", Kernel::Linux6_12),
            ("6.12", Kernel::Linux6_12),
            ("6.11.99", Kernel::Linux6_1),
            ("6.1.0-33-amd64\n", Kernel::Linux6_1),
            ("5.15", Kernel::Linux6_1),
            ("", Kernel::Linux6_1),
            ("99999999999999.1", Kernel::Linux6_1),
        ] {
            assert_eq!(Kernel::not_after(release), kernel, "{release}");
        }
    }
}
