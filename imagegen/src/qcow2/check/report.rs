//! What a check found.

use crate::qcow2::read::ReadError;
use serde::Serialize;
use std::io::ErrorKind;

/// Most findings that are kept; the others are counted.
const MOST: usize = 10_000;

/// How bad something is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Severity {
    /// Data are or may be lost.
    Error,
    /// Room is lost.
    Leak,
}

/// Something that is not as it should be.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// How bad.
    pub severity: Severity,
    /// Byte of the image it is about.
    pub at: u64,
    /// What it is.
    pub what: String,
}

/// All that was found. Numbers of clusters are those of `qemu-img check`.
#[derive(Debug, Clone, Default, Serialize)]
pub struct Report {
    /// What is wrong, as it was found; the first 10,000.
    pub findings: Vec<Finding>,
    /// Errors in all.
    pub errors: u64,
    /// Leaked clusters in all.
    pub leaks: u64,
    /// Clusters the disk has.
    pub total_clusters: u64,
    /// Those that are allocated.
    pub allocated_clusters: u64,
    /// Those of them that are compressed.
    pub compressed_clusters: u64,
    /// First byte after the last cluster of the file that is used or counted.
    pub image_end: u64,
    /// Why there could be no check, or none to its end.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub failure: Option<String>,
}

impl Report {
    /// 0: sound; 1: it could not be checked; 2: errors; 3: leaks only; as `qemu-img check`
    /// exits.
    #[must_use]
    pub const fn exit_code(&self) -> u8 {
        match (self.failure.is_some(), self.errors, self.leaks) {
            (true, ..) => 1,
            (_, 1.., _) => 2,
            (_, _, 1..) => 3,
            _ => 0,
        }
    }

    pub(super) fn error(&mut self, at: u64, what: impl Into<String>) {
        self.errors += 1;
        self.find(Severity::Error, at, what.into());
    }

    pub(super) fn leak(&mut self, at: u64, what: impl Into<String>) {
        self.leaks += 1;
        self.find(Severity::Leak, at, what.into());
    }

    /// What is damaged or cut off is an error that ends nothing but the reading of that one
    /// structure.
    ///
    /// # Errors
    /// What is no damage: a medium that cannot be read, or too much to be held.
    pub(super) fn take(&mut self, found: Result<(), ReadError>) -> Result<(), ReadError> {
        match found {
            Err(ReadError::Damaged {
                structure,
                at,
                flaw,
            }) => self.error(at, format!("{structure}: {flaw}")),
            Err(ReadError::Io { offset, cause, .. })
                if cause.kind() == ErrorKind::UnexpectedEof =>
            {
                self.error(offset, format!("it is cut off: {cause}"));
            }
            other => return other,
        }
        Ok(())
    }

    fn find(&mut self, severity: Severity, at: u64, what: String) {
        if self.findings.len() < MOST {
            self.findings.push(Finding { severity, at, what });
        }
    }
}
