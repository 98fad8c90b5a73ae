//! A tar archive as a source: pax, GNU and older dialects, sparse files of all formats,
//! compressed by gzip or zstd, from a file or a pipe.
//!
//! Headers are read once into a tree in memory; contents stay in the archive, or in an
//! unlinked temporary file (in `TMPDIR`) if it is compressed or a pipe.
//!
//! - Leading slashes are dropped; a path with `..` is refused, as is one that leads through
//!   something that is no directory in the archive.
//! - A later entry takes the place of an earlier one of the same path; a directory keeps
//!   what is in it. Directories nobody described are `root:root`, 0755, of 1970.
//! - A hard link needs its target before it.
//! - Attributes come from `SCHILY.xattr.*`, `LIBARCHIVE.xattr.*`, `SCHILY.acl.*` and
//!   `RHT.security.selinux`; times, sizes and ids of any length from pax records.
//!
//! The parser is our own: contents must be found again by their place, all sparse formats
//! read, and every error must say where in the archive it is.

mod acl;
mod header;
mod pax;
mod reader;
mod sparse;

#[cfg(test)]
mod tests;

use std::fs::File;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::sync::Arc;

use super::arena::{Arena, Body, OnTheWay, Sparse, Tree};
use super::spool::Archive;
use super::{Detail, Source, TreeError, Walk};
use reader::{Item, What};

pub(super) use reader::Reader;

/// An archive, to be walked.
#[derive(Debug)]
pub struct Tar {
    tree: Tree,
}

impl Tar {
    /// The archive at `path`.
    ///
    /// # Errors
    /// If it cannot be read, or is none: with the place in it.
    pub fn open(path: &Path) -> Result<Self, TreeError> {
        let name = path.as_os_str().as_bytes();
        let file = File::open(path).map_err(|cause| TreeError::io(name, "open", cause))?;
        Self::from_file(file, name)
    }

    /// The archive in an open file, which may be a pipe; `name` is what errors call it.
    ///
    /// # Errors
    /// As [`Tar::open`].
    pub fn from_file(file: File, name: &[u8]) -> Result<Self, TreeError> {
        let mut arena = Arena::new();
        let archive = Archive::open(file, name)?;
        let length = archive.file.metadata();
        if length.is_ok_and(|at| at.len() == 0) {
            let reason = "it is empty, and even an archive of nothing has an end; did what should have written it fail?";
            return Err(TreeError::invalid(name, reason));
        }
        let number = arena.archive(Arc::clone(&archive.file), &archive.path);
        let mut reader = Reader::new(&archive);
        while let Some(item) = reader.next() {
            let item = item?;
            let (at, path) = (item.at, item.path.clone());
            put(&mut arena, number, item, OnTheWay::Refuse)
                .map_err(|reason| reader.invalid(at, &path, &reason))?;
        }
        let tree = arena.finish();
        Ok(Self { tree })
    }
}

impl Source for Tar {
    fn walk(&self, detail: Detail) -> Result<Walk<'_>, TreeError> {
        self.tree.walk(detail)
    }
}

/// Puts what an archive holds into a tree.
pub(super) fn put(
    arena: &mut Arena,
    archive: u32,
    item: Item,
    on_the_way: OnTheWay,
) -> Result<(), String> {
    let body = match item.what {
        What::Directory => Body::Directory,
        What::File(0, _) => Body::Inline(arena.text(b"")?),
        What::File(size, at) => Body::File { archive, size, at },
        What::Sparse(size, pieces) => arena.sparse(Sparse {
            archive,
            size,
            pieces,
        })?,
        What::HardLink(target) => return arena.link(&item.path, &target, on_the_way),
        What::Symlink(target) => Body::Symlink(arena.text(&target)?),
        What::CharDevice(device) => Body::CharDevice(device),
        What::BlockDevice(device) => Body::BlockDevice(device),
        What::Fifo => Body::Fifo,
    };
    arena.put(&item.path, item.meta, item.xattrs, body, on_the_way)
}
