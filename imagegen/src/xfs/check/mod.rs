//! Checking a file system: every structure against every other.
//!
//! What `xfs_repair -n` lets pass (an alien log, an alien backup superblock, a reverse
//! map that ends early) is found too. Nothing is changed. The steps:
//! 1. the log (`journal`), after whose end nothing was changed, and superblock copies
//!    (`supers`);
//! 2. per group the inode B-trees (`inode_trees`), whose chunks say which inodes are;
//! 3. every inode with its forks (`inodes`), attributes (`attrs`), symbolic links;
//! 4. every directory (`dirs`), and from all of them links and ways to the root
//!    (`links`);
//! 5. per group the other headers and B-trees (`groups`), and who uses each block
//!    (`space`): free or owned once, or shared as often as counted, and recorded so;
//! 6. the sums in the superblock.
//!
//! Memory: 16 bytes for 64 inodes and some 13 for each, 24 for each extent of the groups
//! at hand ([`check_within`]; more groups cost more passes over the inodes), 16 for
//! each entry of the directory at hand.

mod attrs;
mod dirs;
mod groups;
mod hashes;
mod inode_trees;
mod inodes;
mod journal;
mod links;
mod problem;
mod space;
mod supers;
mod table;

pub use problem::{Kind, Problem, Severity};

use super::read::{Place, ReadError, Reader, Source};
use problem::Problems;
use serde::Serialize;
use std::io::{self, Write};

/// What a check found.
#[derive(Debug, Serialize)]
pub struct Report {
    /// The problems, as they were found; the first `problem::MOST`.
    pub problems: Vec<Problem>,
    /// How many there were in all.
    pub found: u64,
    /// Inodes in use.
    pub inodes: u64,
    /// Why there could be no check, or none to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl Report {
    /// 0: clean; 1: problems; 2: could not be checked.
    pub fn exit_code(&self) -> u8 {
        match (&self.failure, self.found) {
            (Some(_), _) => 2,
            (None, 0) => 0,
            (None, _) => 1,
        }
    }
}

/// Extents that are held at a time, unless said otherwise: some 100 MB.
const BUDGET: usize = 4 << 20;

/// Checks the file system that `source` holds.
pub fn check<S: Source>(source: S) -> Report {
    check_within(source, BUDGET)
}

/// As [`check`], holding the extents of at most `budget` uses (24 bytes each) at a time,
/// or those of one group if it has more.
pub fn check_within<S: Source>(source: S, budget: usize) -> Report {
    let mut problems = Problems::default();
    let (inodes, failure) = match Reader::open(source) {
        Ok(mut reader) => check_all(&mut reader, budget, &mut problems),
        Err(error @ ReadError::Damaged { .. }) => {
            problems.read(Kind::Superblock, &error);
            (0, None)
        }
        Err(error) => (0, Some(error.to_string())),
    };
    Report {
        found: problems.found(),
        problems: problems.list(),
        inodes,
        failure,
    }
}

fn check_all<S: Source>(
    reader: &mut Reader<S>,
    budget: usize,
    problems: &mut Problems,
) -> (u64, Option<String>) {
    if let Some(unknown) = supers::unknown(reader) {
        return (0, Some(unknown));
    }
    let geometry = reader.geometry();
    let (size, needed) = (reader.device_size(), geometry.blocks << geometry.block_log);
    if size < needed {
        let text = format!("the device has {size} bytes, the file system {needed}");
        // It cannot be mounted, and what the superblock promises is not worth believing.
        problems.add(Kind::Device, Place::Everywhere, text);
        return (0, None);
    }
    let newest = journal::check(reader, problems);
    reader.set_newest(newest);
    let reader = &*reader;
    supers::check(reader, newest, problems);
    let trees = inode_trees::check(reader, problems);
    let mut scan = inodes::Scan::new(reader, &trees, budget);
    scan.first_pass(problems);
    dirs::check(reader, &mut scan, problems);
    links::check(reader, &trees, &scan, problems);
    let mut sums = groups::Sums::default();
    loop {
        let window = scan.window();
        for ag in window.clone() {
            groups::check(reader, ag, &trees, &mut scan, &mut sums, problems);
        }
        if !scan.next_pass() {
            break;
        }
    }
    supers::check_sums(reader, &trees, &sums, problems);
    (scan.used(), None)
}

/// Checks `source` and writes what was found to `out`, as lines of text or as JSON.
/// Returns the exit code of [`Report::exit_code`].
///
/// # Errors
/// If `out` takes no more.
pub fn run<S: Source>(source: S, json: bool, out: &mut dyn Write) -> io::Result<u8> {
    let report = check(source);
    if json {
        serde_json::to_writer_pretty(&mut *out, &report)?;
        writeln!(out)?;
        return Ok(report.exit_code());
    }
    for problem in &report.problems {
        writeln!(out, "{problem}")?;
    }
    let more = report.found - report.problems.len() as u64;
    if more > 0 {
        writeln!(out, "and {more} more problems")?;
    }
    match (&report.failure, report.found) {
        (Some(failure), _) => writeln!(out, "could not be checked: {failure}")?,
        (None, 0) => writeln!(out, "clean: {} inodes in use", report.inodes)?,
        (None, found) => writeln!(out, "problems: {found}; {} inodes in use", report.inodes)?,
    }
    Ok(report.exit_code())
}
