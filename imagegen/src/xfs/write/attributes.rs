//! Extended attributes: from a list to the attribute fork (`xfs_attr.c`,
//! `xfs_attr_leaf.c`, `xfs_attr_remote.c`).
//!
//! [`Attributes`] holds each attribute as a leaf would, in the order they came: some 50
//! bytes for a parent pointer. [`Attributes::finish`] takes the smallest form that holds
//! them: short form in the inode, one leaf, or a tree of leaves; values too large for a
//! leaf lie in the fork's blocks after the tree.

mod acl;
mod leaf;
mod record;
mod remote;

use super::ForkError;
use super::hash_tree::HashTree;
use super::output::{Output, Place, Sink};
use crate::tree::Xattr;
use crate::xfs::format::attr::{ParentRecord, flags};
use crate::xfs::format::hash;
use crate::xfs::geometry::Geometry;
use record::Records;
use remote::Values;
use zerocopy::IntoBytes;

/// Longest value, in bytes (`XFS_XATTR_SIZE_MAX`).
pub const MAX_VALUE: usize = 64 * 1024;

/// The attributes of an inode, being gathered.
#[derive(Debug)]
pub struct Attributes<'a> {
    geometry: &'a Geometry,
    records: Records,
    values: Values,
    /// Which ACLs came: access, default.
    acls: [bool; 2],
}

impl<'a> Attributes<'a> {
    /// No attributes.
    pub fn new(geometry: &'a Geometry) -> Self {
        Self {
            geometry,
            records: Records::default(),
            values: Values::default(),
            acls: [false; 2],
        }
    }

    /// Whether there are none, so that the inode has no attribute fork.
    pub fn is_empty(&self) -> bool {
        self.records.index().is_empty()
    }

    /// Adds an attribute by its full name, as `user.mime_type`. POSIX ACLs are converted
    /// to the form XFS keeps them in; one without entries says nothing and is left out.
    ///
    /// # Errors
    /// If the name is in a namespace XFS does not have, name or value are too long, or an
    /// ACL is not valid.
    pub fn push_xattr(&mut self, xattr: &Xattr) -> Result<(), ForkError> {
        let (namespace, name) = acl::split(&xattr.name)?;
        let Some(which) = acl::which(namespace, name) else {
            return self.push(namespace.flags(), name, &xattr.value);
        };
        let value = acl::on_disk(namespace, &xattr.value)?;
        // The kernel shows an ACL of XFS twice to root: as itself, and as `trusted.`.
        if value.is_empty() || std::mem::replace(&mut self.acls[which], true) {
            return Ok(());
        }
        self.push(flags::ROOT, acl::DISK_NAMES[which], &value)
    }

    /// Adds what says that entry `name` of directory `parent`, whose generation is
    /// `generation`, is this inode.
    ///
    /// # Errors
    /// As [`push`](Self::push).
    pub fn push_parent(
        &mut self,
        name: &[u8],
        parent: u64,
        generation: u32,
    ) -> Result<(), ForkError> {
        let value = ParentRecord {
            ino: parent.into(),
            generation: generation.into(),
        };
        let hash = hash::parent(name, parent, self.geometry.features.ascii_ci);
        self.add(hash, flags::PARENT, name, value.as_bytes())
    }

    /// Adds an attribute by the bits of its namespace (`format::attr::flags`: 0, ROOT or
    /// SECURE) and the name in there.
    ///
    /// # Errors
    /// If name or value are too long or the name is empty, or if all attributes take more
    /// than 16 GiB.
    pub fn push(&mut self, namespace: u8, name: &[u8], value: &[u8]) -> Result<(), ForkError> {
        debug_assert!(matches!(namespace, 0 | flags::ROOT | flags::SECURE));
        self.add(hash::name(name), namespace, name, value)
    }

    fn add(
        &mut self,
        hash: u32,
        namespace: u8,
        name: &[u8],
        value: &[u8],
    ) -> Result<(), ForkError> {
        let Ok(length @ 1..) = u8::try_from(name.len()) else {
            return Err(ForkError::NameLength { bytes: name.len() });
        };
        if value.len() > MAX_VALUE {
            return Err(ForkError::ValueLength { bytes: value.len() });
        }
        if record::is_local(self.geometry.block_size(), name, value) {
            return self.records.add_local(hash, namespace, length, name, value);
        }
        let at = self
            .records
            .add_remote(hash, namespace, length, name, value)?;
        self.values.add(at, value);
        Ok(())
    }

    /// How many bytes of the inode the short form takes; none if there is no short form
    /// of these attributes.
    pub fn short_size(&self) -> Option<usize> {
        self.records.short_size()
    }

    /// The attribute fork of inode `ino`, which has `space` bytes for it.
    ///
    /// # Errors
    /// If the attributes need more blocks than an attribute fork has.
    pub fn finish(mut self, ino: u64, space: usize) -> Result<AttributeFork<'a>, ForkError> {
        let fits = self.short_size().filter(|size| *size <= space);
        let (short, tree) = match fits {
            _ if self.is_empty() => (Some(Vec::new()), None),
            Some(size) => (Some(self.records.short_form(size)), None),
            None => (None, Some(leaf::plan(self.geometry, &mut self.records))),
        };
        let first = tree.as_ref().map_or(0, |(_, tree)| tree.blocks());
        let end = self.values.place(self.geometry, first, &mut self.records)?;
        Ok(AttributeFork {
            geometry: self.geometry,
            ino,
            records: self.records,
            values: self.values,
            short,
            tree,
            blocks: end,
        })
    }
}

/// An attribute fork, ready to be placed.
#[derive(Debug)]
pub struct AttributeFork<'a> {
    geometry: &'a Geometry,
    ino: u64,
    records: Records,
    values: Values,
    short: Option<Vec<u8>>,
    tree: Option<(leaf::Starts, HashTree)>,
    blocks: u64,
}

impl AttributeFork<'_> {
    /// The fork itself if it is in short form; then it needs no blocks. Empty if there are
    /// no attributes.
    pub fn short_form(&self) -> Option<&[u8]> {
        self.short.as_deref()
    }

    /// Which blocks of the fork must exist: offset and count, both in blocks of the file
    /// system. Any number of extents may hold them.
    pub fn ranges(&self) -> Vec<(u64, u64)> {
        match self.blocks {
            0 => Vec::new(),
            blocks => vec![(0, blocks)],
        }
    }

    /// Hands out every block of [`ranges`](Self::ranges), placed as `place` says.
    pub fn encode(&self, place: Place<'_>, sink: Sink<'_>) {
        let output = &mut Output {
            geometry: self.geometry,
            owner: self.ino,
            place,
            sink,
        };
        if let Some((starts, tree)) = &self.tree {
            leaf::encode(&self.records, starts, tree, output);
        }
        self.values.encode(output);
    }
}
