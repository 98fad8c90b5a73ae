//! The bed of the tests that run inside the guest: block devices instead of files,
//! `/dev/ublkbN` instead of NBD.
//!
//! A test builds a [`Rig`] (an origin and a store in memory, a running `csnapd`
//! serving the origin as `vol`), does something to it, and ends with
//! [`Rig::finish`]: the daemon stops, the origin alone must hold what the device
//! showed last, `store check --data` must find nothing, no ublk device may be left
//! and the kernel must have nothing to complain of.
//!
//! Nothing of this may run on a machine with data: every entry asks
//! [`kernel::inside`] first.
//!
//! | module | what it holds |
//! |---|---|
//! | [`kernel`] | modules, the kernel's log, sysfs |
//! | [`disk`] | disks in memory that come and go: null_blk, scsi_debug, dm |
//! | [`device`] | a block device as a test sees it: direct I/O, images, attributes |
//! | [`rig`] | origin, store, daemon |
//! | [`fio`] | verified loads of fio, paused, looped, ended |
//! | [`cut`] | a load that keeps a diary, and csnapd judged by it after a power cut |
//! | [`load`] | our own load with a ledger of what was acknowledged |
//! | [`tree`] | a busy tree of files and its manifest |
//! | [`kinds`] | a tree with every kind of object |
//! | [`view`] | all that can be seen of a mounted tree |
//! | [`mixed`] | a heavy mixed load on a mounted tree |
//! | `image` | images of imagegen and who judges them |
//! | `erofs` | the same of EROFS |

pub mod cut;
pub mod device;
pub mod disk;
#[cfg(feature = "images")]
pub mod erofs;
pub mod fio;
#[cfg(feature = "images")]
pub mod image;
pub mod kernel;
pub mod kinds;
pub mod load;
pub mod mixed;
pub mod rig;
pub mod tree;
pub mod view;

pub use device::Device;
pub use disk::{Disk, RamOptions};
pub use rig::{Rig, Setup};

use std::io::Write;
use std::path::Path;

use crate::e2e::fault::Trying;
use crate::e2e::{Outcome, tools};

/// Notes a figure for the end of the run's output (`scripts/guest-runner` prints it
/// there: in between it would tear the test runner's lines).
///
/// # Errors
/// If it cannot be written.
pub fn note(text: &str) -> Outcome {
    let path = tools::target_dir()?.join("notes.txt");
    let story = || format!("note a figure in {}", path.display());
    let mut options = std::fs::OpenOptions::new();
    let mut file = options
        .create(true)
        .append(true)
        .open(&path)
        .trying(story)?;
    writeln!(file, "{text}").trying(story)
}

/// A small file as text without the end of the line, as sysfs has them.
///
/// # Errors
/// If it cannot be read.
pub fn text(path: impl AsRef<Path>) -> Outcome<String> {
    let path = path.as_ref();
    let text = std::fs::read_to_string(path).trying(|| format!("read {}", path.display()))?;
    Ok(text.trim().to_owned())
}

/// Writes a small file of sysfs or configfs.
///
/// # Errors
/// If the kernel refuses.
pub fn set(path: impl AsRef<Path>, value: &str) -> Outcome {
    let path = path.as_ref();
    std::fs::write(path, value).trying(|| format!("write {value:?} to {}", path.display()))
}
