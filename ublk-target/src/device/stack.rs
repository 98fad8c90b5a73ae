//! Whether one device lies on another: a store on its own origin would copy
//! its own copies for ever.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use super::{Device, DeviceError, Identity};

/// How many layers of devices are looked through.
pub(super) const DEPTH: u32 = 16;
/// Where the kernel shows them.
pub(super) const SYS: &str = "/sys";

impl Device {
    /// Refuses `self` when it is `other`, or one of them lies on the other
    /// (partition, device mapper, RAID, loop device over a file).
    ///
    /// # Errors
    /// [`DeviceError::Stacked`] naming both.
    pub fn must_not_share(&self, other: &Self) -> Result<(), DeviceError> {
        if self.identity().shares(other.identity()) {
            return Err(DeviceError::Stacked {
                path: self.path().to_owned(),
                other: other.path().to_owned(),
            });
        }
        Ok(())
    }
}

impl Identity {
    /// Whether the two are the same storage, or one lies on the other.
    #[must_use]
    pub fn shares(self, other: Self) -> bool {
        self.layers().contains(&other) || other.layers().contains(&self)
    }

    /// The storage itself and everything it lies on that sysfs tells of.
    #[must_use]
    pub fn layers(self) -> Vec<Self> {
        layers(self)
    }

    /// Whether this is `below`, or lies on it.
    #[must_use]
    pub fn lies_on(self, below: Self) -> bool {
        layers(self).contains(&below)
    }

    /// What is at `path`.
    ///
    /// # Errors
    /// When `path` cannot be looked at.
    pub fn of(path: &Path) -> std::io::Result<Self> {
        Ok(identity(&fs::metadata(path)?))
    }

    /// The block device of a ublk device, if the kernel has one of this number.
    #[must_use]
    pub fn of_ublk(id: u32) -> Option<Self> {
        number_in(Path::new(&format!("/sys/class/block/ublkb{id}/dev")))
    }

    /// The device that holds the file system `path` is in.
    ///
    /// # Errors
    /// When `path` cannot be looked at.
    pub fn holding(path: &Path) -> std::io::Result<Self> {
        Ok(Self::Block(fs::metadata(path)?.dev()))
    }
}

/// The identity itself and everything below it that sysfs tells of.
fn layers(top: Identity) -> Vec<Identity> {
    let mut found = vec![top];
    let mut from = 0;
    for _ in 0..DEPTH {
        let below: Vec<_> = found
            .get(from..)
            .unwrap_or(&[])
            .iter()
            .flat_map(|layer| beneath(Path::new(SYS), *layer))
            .collect();
        from = found.len();
        found.extend(below);
        if from == found.len() {
            break;
        }
    }
    found
}

/// The layer directly below, as the sysfs at `sys` tells.
pub(super) fn beneath(sys: &Path, identity: Identity) -> Vec<Identity> {
    let number = match identity {
        Identity::Block(number) => number,
        // The file system it is in. Several devices (btrfs) have a number that
        // sysfs does not know; nothing more can be told then.
        Identity::File { device, .. } => return vec![Identity::Block(device)],
    };
    let (major, minor) = (nix::sys::stat::major(number), nix::sys::stat::minor(number));
    let Ok(node) = fs::canonicalize(sys.join(format!("dev/block/{major}:{minor}"))) else {
        return Vec::new();
    };
    let mut below: Vec<Identity> = fs::read_dir(node.join("slaves"))
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|entry| number_in(&entry.path().join("dev")))
        .collect();
    if node.join("partition").exists() {
        below.extend(node.parent().and_then(|disk| number_in(&disk.join("dev"))));
    }
    if let Ok(backing) = fs::read_to_string(node.join("loop/backing_file")) {
        below.extend(identity_of(&PathBuf::from(backing.trim_end())));
    }
    below
}

fn number_in(file: &Path) -> Option<Identity> {
    let text = fs::read_to_string(file).ok()?;
    let (major, minor) = text.trim().split_once(':')?;
    let number = nix::sys::stat::makedev(major.parse().ok()?, minor.parse().ok()?);
    Some(Identity::Block(number))
}

fn identity_of(path: &Path) -> Option<Identity> {
    Identity::of(path).ok()
}

fn identity(meta: &fs::Metadata) -> Identity {
    match meta.rdev() {
        0 => Identity::File {
            device: meta.dev(),
            inode: meta.ino(),
        },
        number => Identity::Block(number),
    }
}
