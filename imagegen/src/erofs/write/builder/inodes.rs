//! Inodes and where they lie: in the image, or in the metabox if there is one.
//!
//! In the image stay the metabox and the packed inode, as the format wants it, and files in
//! chunks, whose indexes erofs-utils 1.9 looks for there only. These have all attributes for
//! themselves: between an inode's own attributes and its shared ones erofs-utils takes a block
//! of the image for that of the same number in the metabox.

use super::super::super::compress::Ahead;
use super::super::contents::{Body, Placing};
use super::super::inode::{self, Form, Status};
use super::super::slots::{Area, Slot};
use super::{Builder, Result};
use crate::tree::{Kind, Meta, Xattr};
use rustix::fs::FileType;

impl Builder<'_, '_> {
    /// Where the inode of an object lies.
    pub(super) fn area(&self, kind: &Kind) -> Area {
        match kind {
            _ if self.metabox.is_none() => Area::Image,
            Kind::File(content) if self.contents.expects_chunks(content, &self.space) => {
                Area::Image
            }
            _ => Area::Metabox,
        }
    }

    /// Reserves `length` bytes for an inode.
    pub(super) fn reserve(&mut self, length: usize, area: Area) -> Result<Slot> {
        let (space, outlet) = (&mut self.space, &mut self.outlet);
        Ok(match (area, &mut self.metabox) {
            (Area::Metabox, Some(metabox)) => metabox.reserve(length)?,
            _ => self.slots.reserve(length, space, outlet)?,
        })
    }

    /// Fills an inode's place.
    pub(super) fn fill(
        &mut self,
        slot: &Slot,
        form: Form,
        status: &Status,
        xattrs: &[u8],
        body: &Body,
        number: u32,
    ) -> Result<()> {
        let mut bytes = inode::encode(form, status, body.lying, xattrs.len(), number);
        bytes.extend_from_slice(xattrs);
        if !body.map.is_empty() {
            bytes.resize(bytes.len().next_multiple_of(body.map_align.max(1)), 0);
            bytes.extend_from_slice(&body.map);
        }
        bytes.extend_from_slice(&body.tail);
        match (slot.area, &mut self.metabox) {
            (Area::Metabox, Some(metabox)) => metabox.fill(slot, &bytes)?,
            _ => self.slots.fill(slot, &bytes, &mut self.outlet)?,
        }
        Ok(())
    }

    /// The bytes behind an inode in `area` with these attributes.
    pub(super) fn encode_xattrs(&mut self, xattrs: &[Xattr], area: Area) -> Result<Vec<u8>> {
        let (slots, space, outlet) = (&mut self.slots, &mut self.space, &mut self.outlet);
        let metabox = &mut self.metabox;
        let sharing = metabox.is_none() || area == Area::Metabox;
        self.xattrs.encode(xattrs, sharing, |entry| {
            let slot = match metabox {
                Some(metabox) => {
                    let slot = metabox.reserve(entry.len())?;
                    metabox.fill(&slot, entry)?;
                    slot
                }
                // Beyond what the number can say, a place would only be lost.
                None if space.byte_of(space.blocks()) / 4 > u64::from(u32::MAX) => {
                    return Ok(None);
                }
                None => {
                    let slot = slots.reserve(entry.len(), space, outlet)?;
                    slots.fill(&slot, entry, outlet)?;
                    slot
                }
            };
            Ok(u32::try_from(slot.at / 4).ok())
        })
    }

    /// Gives to the threads, and to the image, what they can take of the metabox.
    pub(super) fn compress_inodes(&mut self, ahead: &Ahead<'_, '_>) -> Result<()> {
        let Some(metabox) = &mut self.metabox else {
            return Ok(());
        };
        let mut placing = Placing {
            space: &mut self.space,
            outlet: &mut self.outlet,
            inline: false,
            room: 0,
        };
        metabox.advance(ahead, &mut placing)
    }

    /// The packed inode, if there is one: its number, else 0.
    pub(super) fn packed(&mut self, ahead: &Ahead<'_, '_>) -> Result<u64> {
        let mut placing = Placing {
            space: &mut self.space,
            outlet: &mut self.outlet,
            inline: false,
            room: 0,
        };
        let beside = Form::Extended.bytes();
        match self.contents.finish(beside, ahead, &mut placing)? {
            Some((size, body)) => self.special(1, size, &body),
            None => Ok(0),
        }
    }

    /// The metabox, if there is one: its number, else 0.
    pub(super) fn boxed(&mut self, ahead: &Ahead<'_, '_>) -> Result<u64> {
        let Some(metabox) = self.metabox.take() else {
            return Ok(0);
        };
        let mut placing = Placing {
            space: &mut self.space,
            outlet: &mut self.outlet,
            inline: false,
            room: 0,
        };
        let beside = Form::Extended.bytes();
        let (size, body) = metabox.finish(&mut self.contents, beside, ahead, &mut placing)?;
        self.special(2, size, &body)
    }

    /// Writes the inode without a name that comes as `number` after those of the tree, among
    /// which it does not count; what its place is called.
    fn special(&mut self, number: u64, size: u64, body: &Body) -> Result<u64> {
        let form = Form::Extended;
        let status = Status {
            kind: inode::kind_of(FileType::RegularFile),
            meta: Meta {
                mode: 0,
                uid: 0,
                gid: 0,
                project: 0,
                mtime: self.begin.outline.usual,
                ctime: self.begin.outline.usual,
            },
            links: 1,
            size,
            block: 0,
        };
        let slot = self.reserve(body.slot(form.bytes()), Area::Image)?;
        let number = (self.counts.inodes + number) as u32;
        self.fill(&slot, form, &status, &[], body, number)?;
        Ok(slot.nid())
    }
}
