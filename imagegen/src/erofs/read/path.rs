//! Paths within an image.

use super::error::{ReadError, Result};
use super::{Image, Inode};
use crate::medium::Source;

impl<S: Source> Image<S> {
    /// The inode that `path` leads to from the root, whatever slashes it begins with.
    /// Symbolic links are not followed: they may lead out of the image.
    ///
    /// # Errors
    /// If it leads nowhere, upwards by `..`, or through something damaged.
    pub fn find(&self, path: &[u8]) -> Result<Inode> {
        let wrong = |why| ReadError::Path {
            path: show(path),
            why,
        };
        let mut inode = self.root()?;
        let names = path.split(|byte| *byte == b'/');
        for name in names.filter(|name| !matches!(*name, b"" | b".")) {
            if name == b".." {
                return Err(wrong("it leads upwards by `..`; write it without"));
            }
            if inode.is_symlink() {
                return Err(wrong("it leads through a symbolic link; give the target"));
            }
            if !inode.is_directory() {
                return Err(wrong("it leads through something that is no directory"));
            }
            let entry = self.lookup(&inode, name)?;
            let entry = entry.ok_or_else(|| wrong("there is nothing of that name"))?;
            inode = self.inode(entry.nid)?;
        }
        Ok(inode)
    }
}

/// A path for people: with the leading slash; what is not UTF-8, control characters and
/// backslashes escaped.
pub fn show(path: &[u8]) -> String {
    crate::shown::path(path)
}

/// The end of a path for people, if it is longer than the system takes paths: deep trees
/// have names by the thousand, and a list of findings as many paths.
pub(crate) fn brief(path: &[u8]) -> String {
    match path.len().checked_sub(PATH_MOST) {
        None | Some(0) => show(path),
        Some(over) => {
            let end = path.get(over..).unwrap_or_default();
            format!("...{}", crate::shown::name(end))
        }
    }
}

/// Bytes of a path that are shown.
const PATH_MOST: usize = 4095;
