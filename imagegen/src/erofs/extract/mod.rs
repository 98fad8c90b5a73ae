//! A tree out of an image into a directory, never beside it: every object is made by its
//! name alone in a directory that is open, no symbolic link is followed, and nothing that
//! exists is written to.
//!
//! Owners, modes, times, attributes, hard links, devices and holes are restored. What this
//! user may not restore is said, and so is what is damaged; the rest is extracted.

mod object;
mod place;

use super::read::{Image, Inode, ReadError, Step, show};
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
    /// What is damaged and therefore missing, or missing in part.
    pub damaged: Vec<Problem>,
    /// What could not be restored, mostly for lack of privileges.
    pub skipped: Vec<Problem>,
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
/// If the target is not as wanted, or an object cannot be made for another reason than
/// damage of the image or lack of privileges.
pub fn extract<S: Source>(
    image: &Image<S>,
    inode: Inode,
    name: &[u8],
    target: &Path,
    options: Options,
    progress: &Progress,
) -> Result<Report, ExtractError> {
    let place = Place::open(target, options.force)?;
    let mut maker = Maker::new(image, place, progress);
    if !inode.is_directory() {
        maker.path = name.to_vec();
        maker.node(&inode)?;
        return Ok(maker.report);
    }
    let mut walk = image.walk(inode);
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
            Step::Broken(error) => maker.damaged(&error),
        }
        progress.objects.fetch_add(1, Ordering::Relaxed);
    }
    while maker.depth() > 0 {
        maker.leave()?;
    }
    Ok(maker.report)
}

impl Problem {
    fn new(path: &[u8], text: impl ToString) -> Self {
        Self {
            path: show(path),
            text: text.to_string(),
        }
    }
}

impl Report {
    /// Whether all of the image could be read.
    pub fn is_sound(&self) -> bool {
        self.damaged.is_empty()
    }

    fn damaged(&mut self, path: &[u8], error: &ReadError) {
        self.damaged.push(Problem::new(path, error));
    }
}
