//! Checking an image: every structure against every other.
//!
//! 1. the superblock with its checksum, devices and prefixes (`supers`);
//! 2. from the root every name (`tree`): order, kinds, `.` and `..`, links, circles;
//! 3. every inode once (`inodes`): fields, attributes, symbolic links, the map of its
//!    contents; the packed inode and the metabox with them;
//! 4. who uses which bytes (`space`): nothing twice that may not be, and every compressed
//!    cluster decodes to what its extents say, each cluster once;
//! 5. counts.
//!
//! Time and memory are bounded by the image's size: names as [`read::Walk`] bounds them,
//! clusters because those that overlap others are reported and not decoded, extents because
//! there may be no more than the image has bytes for (`inodes`). Memory: some 20 bytes for
//! each inode and 72 for each extent.
//!
//! [`read::Walk`]: super::read::Walk

mod inodes;
mod problem;
mod space;
mod supers;
mod tree;

pub use problem::{Kind, Problem};

use super::read::{Image, ReadError};
use crate::medium::Source;
use crate::tree::Progress;
use problem::Problems;
use serde::Serialize;
use std::io::{self, Write};

/// What a check found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The findings, in the order of the check; the first 10,000.
    pub problems: Vec<Problem>,
    /// How many there were in all.
    pub found: u64,
    /// Inodes that the root leads to.
    pub inodes: u64,
    /// Bytes of compressed clusters that were decoded.
    pub decoded: u64,
    /// Extents on devices that were not given, which were not looked at.
    pub unseen: u64,
    /// Why there could be no check.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

/// Checks the image that `source` holds, with the devices of its table that are given.
/// `progress` counts inodes, and bytes that were decoded.
pub fn check<S: Source>(source: S, devices: Vec<S>, progress: &Progress) -> Report {
    let mut report = Report {
        problems: Vec::new(),
        found: 0,
        inodes: 0,
        decoded: 0,
        unseen: 0,
        failure: None,
    };
    let mut problems = Problems::default();
    match Image::with_devices(source, devices) {
        Ok(image) => whole(&image, &mut problems, &mut report, progress),
        Err(error @ ReadError::Damaged { .. }) => {
            problems.add(Kind::Superblock, error.to_string());
        }
        Err(error) => report.failure = Some(error.to_string()),
    }
    report.found = problems.found();
    report.problems = problems.list();
    report
}

fn whole<S: Source>(
    image: &Image<S>,
    problems: &mut Problems,
    report: &mut Report,
    progress: &Progress,
) {
    supers::check(image, problems);
    let mut space = space::Space::default();
    let root = image.root();
    let mut inodes = inodes::Inodes::new(image, &mut space, progress);
    for special in [image.metabox(), image.packed()].into_iter().flatten() {
        inodes.check(special, problems);
    }
    match &root {
        Ok(root) => {
            report.inodes = tree::check(image, root.clone(), &mut inodes, problems);
            supers::check_sums(image, report.inodes, problems);
        }
        Err(error) => problems.read(Kind::Superblock, image.superblock().root, error),
    }
    report.unseen = space.unseen;
    report.decoded = space.check(image, problems, progress);
    if let Ok(root) = root {
        tree::name(image, root, problems);
    }
}

impl Report {
    /// 0: clean; 1: findings; 2: could not be checked.
    pub fn exit_code(&self) -> u8 {
        match (&self.failure, self.found) {
            (Some(_), _) => 2,
            (None, 0) => 0,
            (None, _) => 1,
        }
    }

    /// Writes what was found to `out`, as lines of text or as JSON.
    ///
    /// # Errors
    /// If `out` takes no more.
    pub fn write(&self, json: bool, out: &mut dyn Write) -> io::Result<()> {
        if json {
            serde_json::to_writer_pretty(&mut *out, self)?;
            return writeln!(out);
        }
        for problem in &self.problems {
            writeln!(out, "{problem}")?;
        }
        let more = self.found - self.problems.len() as u64;
        if more > 0 {
            writeln!(out, "and {more} more problems")?;
        }
        if self.unseen > 0 {
            let unseen = self.unseen;
            writeln!(
                out,
                "{unseen} extents lie on devices that were not given (--device)"
            )?;
        }
        let inodes = self.inodes;
        match (&self.failure, self.found) {
            (Some(failure), _) => writeln!(out, "could not be checked: {failure}"),
            (None, 0) => writeln!(out, "clean: {inodes} inodes"),
            (None, found) => writeln!(out, "problems: {found}; {inodes} inodes"),
        }
    }
}
