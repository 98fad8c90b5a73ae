//! A tree out of an image into a directory, never beside it: every object is made by its
//! name alone in a directory that is open, no symbolic link is followed, and nothing that
//! exists is written to. With force what is in the way goes once the object that takes its
//! place is whole, and not before.
//!
//! Owners, modes, times, attributes, hard links, devices and holes are restored. What this
//! user may not restore is said, and so is what is damaged; the rest is extracted.

mod dress;
mod modes;
mod object;
mod place;

use super::MOST_FINDINGS;
use super::read::{Device, Image, Inode, ReadError, Step, brief};
use crate::medium::Source;
use crate::tree::Progress;
use object::Maker;
use place::Place;
use serde::Serialize;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering;

/// What is wanted of an extraction.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// Into a directory that holds something; what is in the way is replaced, unless it is
    /// a directory.
    pub force: bool,
}

/// What an extraction did.
#[derive(Debug, Default, Serialize)]
pub struct Report {
    /// Objects made, hard links not counted.
    pub objects: u64,
    /// Bytes of contents written.
    pub data: u64,
    /// What is damaged and therefore missing, or missing in part; the first 10,000.
    pub damaged: Vec<Problem>,
    /// How many of these there were.
    pub damaged_found: u64,
    /// The same of what is missing for another reason: the image could not be read there, a
    /// newer program is needed, the target takes no more links.
    pub failed: Vec<Problem>,
    /// How many of these there were.
    pub failed_found: u64,
    /// What could not be restored, mostly for lack of privileges; the first 10,000.
    pub skipped: Vec<Problem>,
    /// How many of these there were.
    pub skipped_found: u64,
}

/// Something that is not as in the image.
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    /// The object's path, for people.
    pub path: String,
    /// What about it.
    pub text: String,
}

/// What ends an extraction.
#[derive(Debug, thiserror::Error)]
pub enum ExtractError {
    /// The target holds something.
    #[error("{}: the directory is not empty; use another, or --force", .0.display())]
    NotEmpty(PathBuf),
    /// Devices of the image's table were not given.
    #[error(
        "the image keeps data on {named} devices, of which {given} were given; give all of \
         them in the table's order (--device)"
    )]
    Devices {
        /// Given ones.
        given: usize,
        /// Those in the table.
        named: usize,
    },
    /// The target cannot be opened or made.
    #[error("{}: {cause}", path.display())]
    Target {
        /// Which.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// An object cannot be made.
    #[error("{path}: cannot {what}: {cause}")]
    Object {
        /// Its path, for people.
        path: String,
        /// What was tried.
        what: &'static str,
        /// Why not.
        cause: io::Error,
    },
}

/// Extracts `inode` of `image` to `target`: what is in it, if it is a directory, else the
/// object itself under `name`.
///
/// # Errors
/// If devices are missing, the target is not as wanted, or an object cannot be made for
/// another reason than damage of the image or lack of privileges.
pub fn extract<S: Source>(
    image: &Image<S>,
    inode: Inode,
    name: &[u8],
    target: &Path,
    options: Options,
    progress: &Progress,
) -> Result<Report, ExtractError> {
    let named = image.superblock().devices.len();
    let given = (1..=named).filter(|number| {
        let device = u16::try_from(*number).map(Device);
        device.is_ok_and(|device| image.device_size(device).is_some())
    });
    let given = given.count();
    if given < named {
        return Err(ExtractError::Devices { given, named });
    }
    let place = Place::open(target, options.force)?;
    let mut maker = Maker::new(image, place, progress);
    if !inode.is_directory() {
        maker.path = name.to_vec();
        maker.node(&inode)?;
        return Ok(maker.report);
    }
    let mut walk = image.walk(inode.clone());
    let mut below = 0u64;
    while let Some(step) = walk.next() {
        // What lies in a directory that could not be made is passed over with it.
        if below > 0 {
            match step {
                Step::Enter(_) => below += 1,
                Step::Leave => below -= 1,
                _ => {}
            }
            continue;
        }
        maker.path.clear();
        maker.path.extend_from_slice(walk.path());
        match step {
            Step::Enter(inode) => below = u64::from(!maker.enter(inode)?),
            Step::Node(inode) => maker.node(&inode)?,
            Step::Leave => maker.leave()?,
            Step::Broken(error) => maker.unread(&error),
        }
        progress.objects.fetch_add(1, Ordering::Relaxed);
    }
    while maker.depth() > 0 {
        maker.leave()?;
    }
    maker.restore_modes(inode)?;
    Ok(maker.report)
}

impl Problem {
    fn new(path: &[u8], text: impl ToString) -> Self {
        Self {
            path: brief(path),
            text: text.to_string(),
        }
    }
}

impl Report {
    /// Whether nothing is missing, what this user may not restore left aside.
    pub fn is_sound(&self) -> bool {
        self.damaged_found == 0 && self.failed_found == 0
    }

    /// What the reader refused: damaged, or not to be had.
    fn unread(&mut self, path: &[u8], error: &ReadError) {
        match error {
            ReadError::Damaged { .. } => self.damaged(path, error),
            _ => self.failed(path, error),
        }
    }

    fn damaged(&mut self, path: &[u8], text: impl ToString) {
        note(&mut self.damaged, &mut self.damaged_found, path, text);
    }

    fn failed(&mut self, path: &[u8], text: impl ToString) {
        note(&mut self.failed, &mut self.failed_found, path, text);
    }

    fn skipped(&mut self, path: &[u8], text: impl ToString) {
        note(&mut self.skipped, &mut self.skipped_found, path, text);
    }
}

fn note(list: &mut Vec<Problem>, found: &mut u64, path: &[u8], text: impl ToString) {
    *found += 1;
    if list.len() < MOST_FINDINGS {
        list.push(Problem::new(path, text));
    }
}
