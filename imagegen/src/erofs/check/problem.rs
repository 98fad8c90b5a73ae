//! Findings: what kind, where, and in words.

use crate::erofs::MOST_FINDINGS;
use crate::erofs::read::{Nid, Place, ReadError};
use serde::{Serialize, Serializer};
use std::fmt;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// A device is shorter than the image says.
    Device,
    /// The superblock, its table of devices or its list of prefixes.
    Superblock,
    /// The superblock's checksum.
    Checksum,
    /// A field of an inode.
    Inode,
    /// A directory's blocks, order, kinds, `.` and `..`.
    Directory,
    /// A count of links.
    Links,
    /// A directory that has two names.
    Connectivity,
    /// Extended attributes or their name filter.
    Attributes,
    /// A symbolic link.
    Symlink,
    /// Where contents lie.
    Map,
    /// Places used twice that may not be.
    Space,
    /// Compressed data that does not give what it should.
    Contents,
    /// A sum in the superblock.
    Sums,
}

/// A finding.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Problem {
    /// What is wrong.
    pub kind: Kind,
    /// Path of the object, for people; none for what no path leads to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<String>,
    /// Its inode.
    #[serde(skip_serializing_if = "Option::is_none", serialize_with = "as_text")]
    pub inode: Option<u64>,
    /// In words.
    pub text: String,
}

fn as_text<S: Serializer>(nid: &Option<u64>, serializer: S) -> Result<S::Ok, S::Error> {
    match nid {
        Some(nid) => serializer.collect_str(&Nid(*nid)),
        None => serializer.serialize_none(),
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if let Some(path) = &self.path {
            write!(f, "{path}: ")?;
        }
        write!(f, "{}", self.text)
    }
}

/// The findings so far.
#[derive(Debug, Default)]
pub(super) struct Problems {
    list: Vec<Problem>,
    found: u64,
}

impl Problems {
    fn push(&mut self, problem: Problem) {
        self.found += 1;
        if self.list.len() < MOST_FINDINGS {
            self.list.push(problem);
        }
    }

    /// One that belongs to no inode.
    pub(super) fn add(&mut self, kind: Kind, text: impl Into<String>) {
        self.push(Problem {
            kind,
            path: None,
            inode: None,
            text: text.into(),
        });
    }

    /// One of inode `nid`, whose path is found later.
    pub(super) fn inode(&mut self, kind: Kind, nid: u64, text: impl fmt::Display) {
        self.push(Problem {
            kind,
            path: None,
            inode: Some(nid),
            text: format!("inode {}: {text}", Nid(nid)),
        });
    }

    /// What the reader refused of inode `nid`.
    pub(super) fn read(&mut self, kind: Kind, nid: u64, error: &ReadError) {
        self.push(Problem {
            kind,
            path: None,
            inode: Some(nid),
            text: error.to_string(),
        });
    }

    /// What the reader refused under this path.
    pub(super) fn at(&mut self, kind: Kind, path: String, error: &ReadError) {
        let inode = match error {
            ReadError::Damaged { place, .. } | ReadError::Unknown { place, .. } => match place {
                Place::Inode(nid) | Place::Contents(nid, _) => Some(*nid),
                _ => None,
            },
            _ => None,
        };
        self.push(Problem {
            kind,
            path: Some(path),
            inode,
            text: error.to_string(),
        });
    }

    /// The inodes whose paths are wanted.
    pub(super) fn without_path(&self) -> impl Iterator<Item = u64> + '_ {
        let list = self.list.iter().filter(|problem| problem.path.is_none());
        list.filter_map(|problem| problem.inode)
    }

    /// Gives the findings of inode `nid` their path, if they have none.
    pub(super) fn name(&mut self, nid: u64, path: &str) {
        for problem in &mut self.list {
            if problem.inode == Some(nid) && problem.path.is_none() {
                problem.path = Some(path.to_owned());
            }
        }
    }

    pub(super) fn found(&self) -> u64 {
        self.found
    }

    pub(super) fn list(self) -> Vec<Problem> {
        self.list
    }
}
