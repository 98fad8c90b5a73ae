//! From the events of a walk to the inodes of the image.
//!
//! An inode gets its place when its object comes, after the blocks of its contents; a
//! directory's is filled when all is known of what is in it.

use super::super::compress::{Ahead, Packing};
use super::super::format::inode::layout;
use super::super::format::superblock::{compat, incompat};
use super::contents::{Body, Contents, Placing};
use super::directory::Entries;
use super::error::WriteError;
use super::fault::Fault;
use super::head::Totals;
use super::inode::{self, Clock, Form, Lying, Status};
use super::options::Options;
use super::outlet::Outlet;
use super::outline::{Listing, Outline};
use super::slots::{Slot, Slots};
use super::space::Space;
use super::xattrs::{Prefixes, Xattrs};
use crate::medium::{Crew, Sink};
use crate::tree::{Content, Event, Kind, Links, Meta, Node, Xattr};
use rustc_hash::FxHashMap;
use rustix::fs::FileType;
use uuid::Uuid;

/// Longest target of a symbolic link (`PATH_MAX` with its zero).
const LONGEST_TARGET: usize = 4095;
/// Bytes of a directory's blocks that are held, to be written together.
const TOGETHER: usize = 256 << 10;

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

/// A directory whose children are coming.
struct Open {
    slot: Slot,
    form: Form,
    status: Status,
    xattrs: Vec<u8>,
    number: u32,
    entries: Entries,
    /// How many of its bytes lie in blocks.
    in_blocks: u64,
    /// Of these, how many were sent.
    sent: u64,
    /// Bytes of the path before it.
    path: usize,
}

/// An object of which not all names have come.
struct Linked {
    nid: u64,
    entry: u8,
    missing: u32,
}

impl<'a, 'scope> Builder<'a, 'scope> {
    /// Nothing made yet but the room for the `head` bytes the image begins with.
    pub(crate) fn new(
        begin: Begin<'a>,
        head: usize,
        crew: &'a Crew<'scope>,
    ) -> std::result::Result<Self, WriteError> {
        let options = begin.options;
        let block = options.block_size as usize;
        let mut space = Space::new(options.block_bits());
        let mut slots = Slots::new(block, begin.outline.metadata + head as u64);
        let mut outlet = Outlet::new(crew, block);
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

    fn enter(&mut self, node: Node) -> Result<()> {
        let before = self.go_to(&node.name);
        let entered = self.counts.directories as usize;
        let Some(listing) = self.begin.outline.directories.get(entered).copied() else {
            return Err(Fault::Changed("directories were added"));
        };
        self.counts.directories += 1;
        let xattrs = self.encode_xattrs(&node.xattrs)?;
        let (kind, entry) = inode::kinds(&node.kind);
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
        status.block = if count > 0 { self.space.take(count) } else { 0 };
        let length = if inline { slot + tail } else { slot };
        let slot = self
            .slots
            .reserve(length, &mut self.space, &mut self.outlet)?;
        Ok((in_blocks, slot))
    }

    fn leave(&mut self) -> Result<()> {
        let Some(mut open) = self.open.pop() else {
            return Err(Fault::Invalid("more directories left than entered".into()));
        };
        let entries = std::mem::replace(&mut open.entries, Entries::new(0, 0, 0));
        let rest = entries.finish();
        if open.sent + rest.len() as u64 != open.status.size {
            return Err(Fault::Changed("names were added, removed or changed"));
        }
        let here = (open.in_blocks - open.sent) as usize;
        let (in_blocks, tail) = rest.split_at(here.min(rest.len()));
        if !in_blocks.is_empty() {
            let at = self.space.byte_of(open.status.block) + open.sent;
            self.outlet.put(at, in_blocks)?;
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

    fn node(
        &mut self,
        node: Node,
        packing: Option<Packing>,
        ahead: &mut Ahead<'_, '_>,
    ) -> Result<()> {
        let before = self.go_to(&node.name);
        let xattrs = self.encode_xattrs(&node.xattrs)?;
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
        let slot = self
            .slots
            .reserve(body.slot(beside), &mut self.space, &mut self.outlet)?;
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
        let number = self.next_number();
        self.fill(&slot, form, &status, &[], &body, number)?;
        Ok(slot.nid())
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
        let block = self.space.take(self.space.blocks_of(length as u64));
        self.outlet.put(self.space.byte_of(block), target)?;
        Ok(Body::flat(Some(block), Vec::new()))
    }

    fn link(&mut self, name: &[u8], id: u64) -> Result<()> {
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

    /// All events have come: writes what is left, but the image's first blocks, which it
    /// returns with what the superblock says.
    pub(crate) fn finish(
        mut self,
        ahead: &Ahead<'_, '_>,
    ) -> std::result::Result<(Counts, Vec<u8>, Totals), WriteError> {
        if !self.linked.is_empty() {
            return Err(Fault::Changed("links were removed").at(b""));
        }
        let counts = self.counts;
        let packed_nid = self.packed(ahead).map_err(|fault| fault.at(b""))?;
        self.counts.inodes = counts.inodes;
        let head = self
            .slots
            .finish(&self.head, &mut self.space, &mut self.outlet)?;
        self.outlet.flush()?;
        self.counts.shared_blocks = self.contents.shared();
        let blocks = self.space.blocks();
        let mut totals = Totals {
            uuid: self.begin.uuid,
            clock: self.begin.clock,
            devices: Vec::new(),
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
        if self.begin.options.bit48 || blocks > u64::from(u32::MAX) {
            totals.incompat |= incompat::BIT48;
        }
        Ok((self.counts, head, totals))
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
        let mut lying = body.lying;
        if self.begin.options.bit48 && lying == Body::flat(None, Vec::new()).lying {
            lying = Lying {
                high: u16::MAX,
                ..lying
            };
        }
        if matches!(form, Form::Compact { .. }) && body.block == 0 && lying.layout != layout::CHUNKS
        {
            lying.high = 0;
        }
        let mut bytes = inode::encode(form, status, lying, xattrs.len(), number);
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
            let slot = slots.reserve(entry.len(), space, outlet)?;
            slots.fill(&slot, entry, outlet)?;
            Ok(u32::try_from(slot.at / 4).ok())
        })
    }

    fn enter_name(&mut self, name: &[u8], nid: u64, entry: u8) -> Result<()> {
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
        Ok(self.outlet.put(at, &blocks)?)
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
