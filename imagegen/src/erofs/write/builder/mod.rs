//! From the events of a walk to the inodes of the image.
//!
//! An inode gets its place when its object comes, after the blocks of its contents; a
//! directory's is filled when all is known of what is in it.

mod directories;
mod inodes;
mod objects;

use super::super::compress::{Ahead, Packing};
use super::super::format::superblock::{compat, incompat};
use super::contents::Contents;
use super::error::WriteError;
use super::fault::Fault;
use super::head::Totals;
use super::inode::{Clock, Form, Status};
use super::metabox::Metabox;
use super::options::Options;
use super::outlet::Outlet;
use super::outline::Outline;
use super::slots::{Area, Slot, Slots};
use super::space::Space;
use super::xattrs::{Prefixes, Xattrs};
use crate::medium::Crew;
use crate::tree::{Event, Links};
use directories::Open;
use objects::Linked;
use rustc_hash::FxHashMap;
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
    metabox: Option<Metabox>,
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
        let inodes = begin.outline.metadata;
        let metabox = Metabox::new(options, inodes);
        let here = metabox.as_ref().map_or(inodes, |_| 0);
        let mut slots = Slots::new(Area::Image, block, here + head as u64);
        let mut outlet = Outlet::new(crews.image, crews.blob, block);
        let head = slots.reserve(head, &mut space, &mut outlet)?;
        Ok(Self {
            space,
            slots,
            metabox,
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
        let done = done.and_then(|()| self.compress_inodes(ahead));
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
        let metabox_nid = self.boxed(ahead).map_err(|fault| fault.at(b""))?;
        let last = Some(&self.head);
        let head = self.slots.finish(last, &mut self.space, &mut self.outlet)?;
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
            metabox_nid,
            compat: 0,
            incompat: self.contents.incompat(),
            build_time: build_time(&self.begin),
        };
        if self.xattrs.any() && self.begin.options.xattr_filter {
            totals.compat |= compat::XATTR_FILTER;
        }
        if self.begin.options.has_bit48() || totals.needs_bit48() {
            totals.incompat |= incompat::BIT48;
        }
        if self.begin.options.metadata.is_some() {
            totals.incompat |= incompat::METABOX;
            totals.compat |= compat::SHARED_XATTRS_IN_METABOX;
        }
        Ok((self.counts, head, totals))
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
