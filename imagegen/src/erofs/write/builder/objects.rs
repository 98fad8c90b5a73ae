//! Everything but directories: contents and inode are written when the object comes.

use super::super::super::compress::{Ahead, Packing};
use super::super::contents::{Body, Placing};
use super::super::fault::Fault;
use super::super::inode::{self, Status};
use super::{Builder, Result};
use crate::medium::Sink;
use crate::tree::{Content, Kind, Node};

/// Longest target of a symbolic link (`PATH_MAX` with its zero).
const LONGEST_TARGET: usize = 4095;
/// An object of which not all names have come.
pub(super) struct Linked {
    nid: u64,
    entry: u8,
    missing: u32,
}

impl Builder<'_, '_> {
    pub(super) fn node(
        &mut self,
        node: Node,
        packing: Option<Packing>,
        ahead: &mut Ahead<'_, '_>,
    ) -> Result<()> {
        let before = self.go_to(&node.name);
        let area = self.area(&node.kind);
        let xattrs = self.encode_xattrs(&node.xattrs, area)?;
        let (kind, entry) = inode::kinds(&node.kind);
        let size = match &node.kind {
            Kind::File(content) => content.size,
            Kind::Symlink(target) => target.len() as u64,
            _ => 0,
        };
        let status = Status {
            kind,
            meta: node.meta,
            links: self.links(node.links),
            size,
            block: self.far_from_here(size),
        };
        let form = self.form(&status)?;
        let beside = form.bytes() + xattrs.len();
        let body = match node.kind {
            Kind::File(content) => self.file(content, packing, beside, ahead)?,
            kind => self.body(kind, beside)?,
        };
        let slot = self.reserve(body.slot(beside), area)?;
        let number = self.next_number();
        self.fill(&slot, form, &status, &xattrs, &body, number)?;
        self.enter_name(&node.name, slot.nid(), entry)?;
        if let Some(links) = node.links
            && status.links > 1
        {
            let linked = Linked {
                nid: slot.nid(),
                entry,
                missing: status.links - 1,
            };
            self.linked.insert(links.id, linked);
        }
        self.path.truncate(before);
        Ok(())
    }

    /// What an object other than a directory or a file holds, whose inode has `beside` bytes
    /// with its attributes.
    fn body(&mut self, kind: Kind, beside: usize) -> Result<Body> {
        match kind {
            Kind::Symlink(target) => self.symlink(&target, self.room(beside)),
            Kind::CharDevice(device) | Kind::BlockDevice(device) => {
                let number = inode::device(device).ok_or_else(|| {
                    let (major, minor) = (device.major, device.minor);
                    format!("EROFS cannot hold the device number {major}:{minor}")
                })?;
                Ok(Body::without_blocks(number))
            }
            _ => Ok(Body::without_blocks(0)),
        }
    }

    /// Room for a tail beside an inode.
    fn room(&self, beside: usize) -> usize {
        self.space.block_size().saturating_sub(beside)
    }

    fn file(
        &mut self,
        content: Content,
        packing: Option<Packing>,
        beside: usize,
        ahead: &mut Ahead<'_, '_>,
    ) -> Result<Body> {
        if i64::try_from(content.size).is_err() {
            return Err(Fault::Invalid("it is larger than a file can be".into()));
        }
        self.counts.files += 1;
        let lengths = content.data.iter().map(|range| range.end - range.start);
        self.counts.data += lengths.sum::<u64>();
        let room = self.room(beside);
        let mut placing = Placing {
            space: &mut self.space,
            outlet: &mut self.outlet,
            inline: self.begin.options.inline_tails,
            room,
        };
        self.contents
            .place(content, packing, beside, ahead, &mut placing)
    }

    fn symlink(&mut self, target: &[u8], room: usize) -> Result<Body> {
        let length = target.len();
        if length == 0 || length > LONGEST_TARGET {
            let reason =
                format!("its target has {length} bytes; a kernel reads 1 to {LONGEST_TARGET}");
            return Err(reason.into());
        }
        if length <= room {
            return Ok(Body::flat(None, target.to_vec()));
        }
        let block = self.space.take(self.space.blocks_of(length as u64))?;
        self.outlet.data.put(self.space.byte_of(block), target)?;
        Ok(Body::flat(Some(block), Vec::new()))
    }

    pub(super) fn link(&mut self, name: &[u8], id: u64) -> Result<()> {
        let before = self.go_to(name);
        let Some(linked) = self.linked.get_mut(&id) else {
            return Err(Fault::Changed("a link was added"));
        };
        let (nid, entry) = (linked.nid, linked.entry);
        linked.missing -= 1;
        if linked.missing == 0 {
            self.linked.remove(&id);
        }
        self.enter_name(name, nid, entry)?;
        self.path.truncate(before);
        Ok(())
    }
}
