//! Problems: what kind, how bad, where, and in words.

use crate::xfs::read::{Place, ReadError};
use serde::{Serialize, Serializer};
use std::fmt;

/// What is wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Kind {
    /// The device is smaller than the file system.
    Device,
    /// The first superblock.
    Superblock,
    /// A copy of the superblock.
    BackupSuperblock,
    /// The log, or a change newer than it.
    Log,
    /// The log was not written out: the file system is in use, or crashed.
    DirtyLog,
    /// AGF, AGI or AGFL.
    GroupHeader,
    /// A free space B-tree.
    FreeSpace,
    /// The inode B-tree.
    InodeTree,
    /// The free inode B-tree.
    FreeInodeTree,
    /// The reverse mapping B-tree, or what it says.
    ReverseMap,
    /// The reference count B-tree, or what it says.
    Refcount,
    /// Space used twice, or not known to anybody.
    Space,
    /// A field of an inode.
    Inode,
    /// The extents of a fork.
    Extents,
    /// A directory.
    Directory,
    /// Leaves, nodes or free blocks of a directory.
    DirectoryIndex,
    /// Extended attributes.
    Attributes,
    /// Parent pointers and directory entries differ.
    ParentPointer,
    /// A symbolic link.
    Symlink,
    /// A count of links.
    Links,
    /// Something cannot be reached from the root.
    Connectivity,
    /// A sum in the superblock.
    Sums,
}

/// How bad it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// What was found may be explained by a log that was not written out.
    Warning,
    /// Something is wrong.
    Error,
}

/// A problem.
#[derive(Debug, Clone, Serialize)]
pub struct Problem {
    /// What is wrong.
    pub kind: Kind,
    /// How bad it is.
    pub severity: Severity,
    /// Where.
    #[serde(serialize_with = "as_text")]
    pub place: Place,
    /// In words.
    pub text: String,
}

fn as_text<S: Serializer>(place: &Place, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(place)
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let severity = match self.severity {
            Severity::Warning => "warning",
            Severity::Error => "error",
        };
        write!(f, "{severity}: {}: {}", self.place, self.text)
    }
}

/// Most problems that are kept; the others are counted.
pub(super) const MOST: usize = 10_000;

/// The problems found so far.
#[derive(Debug, Default)]
pub(super) struct Problems {
    list: Vec<Problem>,
    found: u64,
    dirty: bool,
}

impl Problems {
    /// After a dirty log all else may be stale: only warnings from here on.
    pub(super) fn dirty_log(&mut self, text: impl Into<String>) {
        self.dirty = true;
        self.add(Kind::DirtyLog, Place::Everywhere, text);
    }

    pub(super) fn add(&mut self, kind: Kind, place: Place, text: impl Into<String>) {
        self.found += 1;
        if self.list.len() < MOST {
            self.list.push(Problem {
                kind,
                severity: if self.dirty {
                    Severity::Warning
                } else {
                    Severity::Error
                },
                place,
                text: text.into(),
            });
        }
    }

    /// A problem of `kind` unless `holds`.
    pub(super) fn expect(
        &mut self,
        holds: bool,
        kind: Kind,
        place: Place,
        text: impl FnOnce() -> String,
    ) {
        if !holds {
            self.add(kind, place, text());
        }
    }

    /// What the reader refused.
    pub(super) fn read(&mut self, kind: Kind, error: &ReadError) {
        match error {
            ReadError::Damaged {
                structure,
                place,
                flaw,
            } => self.add(kind, *place, format!("{structure}: {flaw}")),
            other => self.add(kind, Place::Everywhere, other.to_string()),
        }
    }

    /// The value, or a problem of `kind`.
    pub(super) fn ok<T>(&mut self, kind: Kind, result: Result<T, ReadError>) -> Option<T> {
        result.map_err(|error| self.read(kind, &error)).ok()
    }

    pub(super) fn found(&self) -> u64 {
        self.found
    }

    pub(super) fn list(self) -> Vec<Problem> {
        self.list
    }
}
