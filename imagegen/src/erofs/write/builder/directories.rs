//! Directories: a place when they are entered, their entries when they are left.

use super::super::contents::Body;
use super::super::directory::Entries;
use super::super::fault::Fault;
use super::super::inode::{self, Form, Status};
use super::super::outline::Listing;
use super::super::slots::Slot;
use super::{Builder, Result};
use crate::medium::Sink;
use crate::tree::{Kind, Node};

/// Bytes of a directory's blocks that are held, to be written together.
const TOGETHER: usize = 256 << 10;

/// What changed if a directory has not as many of them as it had.
const OTHER_DIRECTORIES: &str = "directories were added or removed";

/// A directory whose children are coming.
pub(super) struct Open {
    pub(super) slot: Slot,
    form: Form,
    status: Status,
    xattrs: Vec<u8>,
    number: u32,
    entries: Entries,
    /// Directories in it that did not come yet.
    missing: u32,
    /// How many of its bytes lie in blocks.
    in_blocks: u64,
    /// Of these, how many were sent.
    sent: u64,
    /// Bytes of the path before it.
    path: usize,
}

impl Builder<'_, '_> {
    pub(super) fn enter(&mut self, node: Node) -> Result<()> {
        let before = self.go_to(&node.name);
        let entered = self.counts.directories as usize;
        let Some(listing) = self.begin.outline.directories.get(entered).copied() else {
            return Err(Fault::Changed("directories were added"));
        };
        self.counts.directories += 1;
        let area = self.area(&node.kind);
        let xattrs = self.encode_xattrs(&node.xattrs, area)?;
        let (kind, entry) = inode::kinds(&node.kind);
        if let Some(parent) = self.open.last_mut() {
            let missing = parent.missing.checked_sub(1);
            parent.missing = missing.ok_or(Fault::Changed(OTHER_DIRECTORIES))?;
        }
        let mut status = Status {
            kind,
            meta: node.meta,
            links: 2 + listing.subdirectories,
            size: listing.bytes,
            block: self.far_from_here(listing.bytes),
        };
        let form = self.form(&status)?;
        let (in_blocks, slot) = self.place_directory(&listing, form, &xattrs, &mut status)?;
        let nid = slot.nid();
        let parent = match self.open.last() {
            Some(parent) => parent.slot.nid(),
            None => {
                self.root_nid = nid;
                nid
            }
        };
        self.enter_name(&node.name, nid, entry)?;
        let number = self.next_number();
        self.open.push(Open {
            slot,
            form,
            status,
            xattrs,
            number,
            entries: Entries::new(self.space.block_size(), nid, parent),
            missing: listing.subdirectories,
            in_blocks,
            sent: 0,
            path: before,
        });
        Ok(())
    }

    /// Gives a directory its blocks and its inode's place; how many of its bytes lie in
    /// blocks.
    fn place_directory(
        &mut self,
        listing: &Listing,
        form: Form,
        xattrs: &[u8],
        status: &mut Status,
    ) -> Result<(u64, Slot)> {
        let block = self.space.block_size();
        let tail = (listing.bytes % block as u64) as usize;
        let slot = form.bytes() + xattrs.len();
        let inline = tail > 0 && slot + tail <= block;
        let in_blocks = if inline {
            listing.bytes - tail as u64
        } else {
            listing.bytes
        };
        let count = self.space.blocks_of(in_blocks);
        let length = if inline { slot + tail } else { slot };
        let area = self.area(&Kind::Directory);
        // The superblock may have 16 bits for the root's place, which comes first therefore.
        let first = match self.open.is_empty() {
            true => Some(self.reserve(length, area)?),
            false => None,
        };
        status.block = if count > 0 {
            self.space.take(count)?
        } else {
            0
        };
        let slot = match first {
            Some(slot) => slot,
            None => self.reserve(length, area)?,
        };
        Ok((in_blocks, slot))
    }

    pub(super) fn leave(&mut self) -> Result<()> {
        let Some(mut open) = self.open.pop() else {
            return Err(Fault::Invalid("more directories left than entered".into()));
        };
        if open.missing > 0 {
            return Err(Fault::Changed(OTHER_DIRECTORIES));
        }
        let entries = std::mem::replace(&mut open.entries, Entries::new(0, 0, 0));
        let rest = entries.finish();
        if open.sent + rest.len() as u64 != open.status.size {
            return Err(Fault::Changed("names were added, removed or changed"));
        }
        let here = (open.in_blocks - open.sent) as usize;
        let (in_blocks, tail) = rest.split_at(here.min(rest.len()));
        if !in_blocks.is_empty() {
            let at = self.space.byte_of(open.status.block) + open.sent;
            self.outlet.data.put(at, in_blocks)?;
        }
        let block = (open.in_blocks > 0).then_some(open.status.block);
        let body = Body::flat(block, tail.to_vec());
        self.fill(
            &open.slot,
            open.form,
            &open.status,
            &open.xattrs,
            &body,
            open.number,
        )?;
        self.path.truncate(open.path);
        Ok(())
    }

    /// A name more in the directory entered last.
    pub(super) fn enter_name(&mut self, name: &[u8], nid: u64, entry: u8) -> Result<()> {
        if name.is_empty() {
            return Ok(()); // the root
        }
        let Some(parent) = self.open.last_mut() else {
            return Err(Fault::Invalid(
                "the tree does not begin with a directory".into(),
            ));
        };
        parent.entries.add(name, nid, entry);
        if parent.entries.waiting() < TOGETHER {
            return Ok(());
        }
        let blocks = parent.entries.take_blocks();
        if parent.sent + blocks.len() as u64 > parent.in_blocks {
            return Err(Fault::Changed("names were added or changed"));
        }
        let at = self.space.byte_of(parent.status.block) + parent.sent;
        parent.sent += blocks.len() as u64;
        Ok(self.outlet.data.put(at, &blocks)?)
    }
}
