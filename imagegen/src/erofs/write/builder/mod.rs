//! From the events of a walk to the inodes of the image.
//!
//! An inode gets its place when its object comes, after the blocks of its contents; a
//! directory's is filled when all is known of what is in it.

mod directories;
mod objects;

use super::super::compress::{Ahead, Packing};
use super::super::format::superblock::{compat, incompat};
use super::contents::{Body, Contents, Placing};
use super::error::WriteError;
use super::fault::Fault;
use super::head::Totals;
use super::inode::{self, Clock, Form, Status};
use super::options::Options;
use super::outlet::Outlet;
use super::outline::Outline;
use super::slots::{Slot, Slots};
use super::space::Space;
use super::xattrs::{Prefixes, Xattrs};
use crate::medium::Crew;
use crate::tree::{Event, Links, Meta, Xattr};
use directories::Open;
use objects::Linked;
use rustc_hash::FxHashMap;
use rustix::fs::FileType;
use uuid::Uuid;

type Result<T> = std::result::Result<T, Fault>;

/// What was made.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Inodes, each once however many names it has.
    pub inodes: u64,
    /// Of these, directories.
    pub directories: u64,
    /// Of these, regular files.
    pub files: u64,
    /// Bytes of files' data; holes are not counted.
    pub data: u64,
    /// Blocks that were not needed, because they are shared.
    pub shared_blocks: u64,
}

/// What is known from the beginning on.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Begin<'a> {
    pub(crate) options: &'a Options,
    pub(crate) outline: &'a Outline,
    pub(crate) uuid: Uuid,
    /// Of short inodes.
    pub(crate) clock: Clock,
    pub(crate) prefixes: &'a Prefixes,
}

/// Who writes.
#[derive(Clone, Copy)]
pub(crate) struct Crews<'a, 'scope> {
    pub(crate) image: &'a Crew<'scope>,
    pub(crate) blob: Option<&'a Crew<'scope>>,
}

/// What is being made.
pub(crate) struct Builder<'a, 'scope> {
    begin: Begin<'a>,
    space: Space,
    slots: Slots,
    outlet: Outlet<'a, 'scope>,
    xattrs: Xattrs,
    contents: Contents,
    head: Slot,
    open: Vec<Open>,
    linked: FxHashMap<u64, Linked>,
    root_nid: u64,
    /// Of what is dealt with now, for errors.
    path: Vec<u8>,
    counts: Counts,
}

impl<'a, 'scope> Builder<'a, 'scope> {
    /// Nothing made yet but the room for the `head` bytes the image begins with.
    pub(crate) fn new(
        begin: Begin<'a>,
        head: usize,
        crews: Crews<'a, 'scope>,
    ) -> std::result::Result<Self, WriteError> {
        let options = begin.options;
        let block = options.block_size as usize;
        let mut space = Space::new(options.block_bits());
        let mut slots = Slots::new(block, begin.outline.metadata + head as u64);
        let mut outlet = Outlet::new(crews.image, crews.blob, block);
        let head = slots.reserve(head, &mut space, &mut outlet)?;
        Ok(Self {
            space,
            slots,
            outlet,
            xattrs: Xattrs::new(begin.prefixes.clone(), options.xattr_filter),
            contents: Contents::new(options),
            head,
            open: Vec::new(),
            linked: FxHashMap::default(),
            root_nid: 0,
            path: Vec::new(),
            counts: Counts::default(),
            begin,
        })
    }

    /// Deals with one event, and what is compressed of it `ahead`.
    pub(crate) fn event(
        &mut self,
        event: Event,
        packing: Option<Packing>,
        ahead: &mut Ahead<'_, '_>,
    ) -> std::result::Result<(), WriteError> {
        let done = match event {
            Event::Enter(node) => self.enter(node),
            Event::Node(node) => self.node(node, packing, ahead),
            Event::Link { name, id } => self.link(&name, id),
            Event::Leave => self.leave(),
        };
        done.map_err(|fault| fault.at(&self.path))
    }

    /// All events have come: writes what is left, but the image's first blocks, which it
    /// returns with what the superblock says.
    pub(crate) fn finish(
        mut self,
        ahead: &Ahead<'_, '_>,
    ) -> std::result::Result<(Counts, Vec<u8>, Totals), WriteError> {
        if !self.linked.is_empty() {
            return Err(Fault::Changed("links were removed").at(b""));
        }
        let packed_nid = self.packed(ahead).map_err(|fault| fault.at(b""))?;
        let head = self
            .slots
            .finish(&self.head, &mut self.space, &mut self.outlet)?;
        self.outlet.flush()?;
        self.counts.shared_blocks = self.contents.shared();
        let blocks = self.space.blocks();
        let mut totals = Totals {
            uuid: self.begin.uuid,
            clock: self.begin.clock,
            devices: Vec::from_iter(self.contents.device(self.begin.options)),
            blocks,
            inodes: self.counts.inodes,
            root_nid: self.root_nid,
            packed_nid,
            compat: 0,
            incompat: self.contents.incompat(),
            build_time: build_time(&self.begin),
        };
        if self.xattrs.any() && self.begin.options.xattr_filter {
            totals.compat |= compat::XATTR_FILTER;
        }
        if self.begin.options.bit48 || totals.needs_bit48() {
            totals.incompat |= incompat::BIT48;
        }
        Ok((self.counts, head, totals))
    }

    /// The packed inode, if there is one: its number, else 0.
    fn packed(&mut self, ahead: &Ahead<'_, '_>) -> Result<u64> {
        let form = Form::Extended;
        let mut placing = Placing {
            space: &mut self.space,
            outlet: &mut self.outlet,
            inline: false,
            room: 0,
        };
        let packed = self.contents.finish(form.bytes(), ahead, &mut placing)?;
        let Some((size, body)) = packed else {
            return Ok(0);
        };
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
        let (space, outlet) = (&mut self.space, &mut self.outlet);
        let slot = self.slots.reserve(body.slot(form.bytes()), space, outlet)?;
        // It has a number, but is not counted: it is none of the tree.
        let number = (self.counts.inodes + 1) as u32;
        self.fill(&slot, form, &status, &[], &body, number)?;
        Ok(slot.nid())
    }

    /// Fills an inode's place.
    fn fill(
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
        Ok(self.slots.fill(slot, &bytes, &mut self.outlet)?)
    }

    fn encode_xattrs(&mut self, xattrs: &[Xattr]) -> Result<Vec<u8>> {
        let (slots, space, outlet) = (&mut self.slots, &mut self.space, &mut self.outlet);
        self.xattrs.encode(xattrs, |entry| -> Result<Option<u32>> {
            // Beyond what the number can say, a place would only be lost.
            if space.byte_of(space.blocks()) / 4 > u64::from(u32::MAX) {
                return Ok(None);
            }
            let slot = slots.reserve(entry.len(), space, outlet)?;
            slots.fill(&slot, entry, outlet)?;
            Ok(u32::try_from(slot.at / 4).ok())
        })
    }

    fn form(&self, status: &Status) -> Result<Form> {
        let nobody = [status.meta.uid, status.meta.gid].contains(&u32::MAX);
        if nobody {
            let reason = format!("its owner or group is {}, which is nobody's", u32::MAX);
            return Err(reason.into());
        }
        Ok(Form::of(
            status,
            self.begin.options.inodes,
            &self.begin.clock,
        )?)
    }

    /// Names of an object in this tree.
    fn links(&self, links: Option<Links>) -> u32 {
        let counted = links.and_then(|links| self.begin.outline.links.get(&links.id));
        counted.copied().unwrap_or(1)
    }

    /// A block number as large as any of contents of `size` bytes that come now: as far as
    /// it matters.
    fn far_from_here(&self, size: u64) -> u64 {
        self.space
            .blocks()
            .saturating_add(self.space.blocks_of(size))
    }

    fn next_number(&mut self) -> u32 {
        self.counts.inodes += 1;
        self.counts.inodes as u32
    }

    /// Notes the path of what comes now; returns the length of the one before. The root has
    /// no name.
    fn go_to(&mut self, name: &[u8]) -> usize {
        let before = self.path.len();
        if !name.is_empty() {
            self.path.push(b'/');
            self.path.extend_from_slice(name);
        }
        before
    }
}

/// When the image was made, after the epoch; 0 if it cannot be said.
fn build_time(begin: &Begin<'_>) -> u32 {
    let newest = begin.outline.times.map(|(_, last)| last);
    let time = begin.options.build_time.or(newest).unwrap_or(0);
    let since = time.checked_sub(begin.clock.epoch);
    let since = since.and_then(|since| u32::try_from(since).ok());
    since.unwrap_or(0)
}
