//! From the events of a walk to the inodes of the image.
//!
//! Every object gets its inode when it comes, and so do the blocks of its contents; the
//! inode is written when all is known of it: at once for most files, for a directory when
//! it is complete, for a file with several names when the last has come.

use super::super::format::dir::file_type;
use super::super::format::extent::Extent;
use super::super::format::inode::{device, kind};
use super::super::format::symlink;
use super::super::geometry::Geometry;
use super::WriteOptions;
use super::attributes::Attributes;
use super::close::Totals;
use super::contents;
use super::dedupe::Index;
use super::directory::Directory;
use super::error::WriteError;
use super::forks::{Data, PlaceError, place};
use super::inode::{self, Parts};
use super::inodes::Inodes;
use super::outlet::Outlet;
use super::space::{Space, SpaceError};
use crate::medium::Crew;
use crate::medium::Medium;
use crate::tree::{Event, Kind, Links, Meta, Node, Xattr, show};
use rustc_hash::FxHashMap;

/// What is being made.
pub(crate) struct Builder<'a, 'scope> {
    geometry: &'a Geometry,
    space: Space<'a>,
    inodes: Inodes<'a>,
    crew: &'a Crew<'scope>,
    outlet: Outlet<'a, 'scope>,
    open: Vec<Open<'a>>,
    linked: FxHashMap<u64, Box<Linked>>,
    /// Which contents are there already, if blocks are to be shared.
    index: Option<Index>,
    /// Attributes the root gets besides its own.
    root_xattrs: Vec<Xattr>,
    /// Of what is dealt with now, for errors.
    path: Vec<u8>,
    counts: Counts,
}

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

/// A directory whose children are coming.
struct Open<'a> {
    ino: u64,
    parent: u64,
    meta: Meta,
    xattrs: Vec<Xattr>,
    name: Box<[u8]>,
    entries: Directory<'a>,
    subdirectories: u32,
    /// Bytes of the path before it.
    path: usize,
}

/// A file of which not all names have come.
struct Linked {
    object: Object,
    missing: u32,
    /// Where it was found first, for errors.
    path: Box<[u8]>,
}

/// Everything of an object but where its attributes lie.
struct Object {
    ino: u64,
    kind: u16,
    file_type: u8,
    meta: Meta,
    xattrs: Vec<Xattr>,
    contents: Contents,
    /// Directory and name of every link.
    names: Vec<(u64, Box<[u8]>)>,
}

enum Contents {
    Device(u32),
    File { size: u64, extents: Vec<Extent> },
    Symlink(Box<[u8]>),
}

type Result<T> = std::result::Result<T, WriteError>;

impl<'a, 'scope> Builder<'a, 'scope> {
    /// Nothing made yet.
    pub(crate) fn new(
        geometry: &'a Geometry,
        space: Space<'a>,
        crew: &'a Crew<'scope>,
        options: &WriteOptions,
    ) -> Self {
        Self {
            geometry,
            space,
            inodes: Inodes::new(geometry),
            crew,
            outlet: Outlet::new(geometry, crew),
            open: Vec::new(),
            linked: FxHashMap::default(),
            index: options.dedupe.then(Index::new),
            root_xattrs: options.root_xattrs.clone(),
            path: Vec::new(),
            counts: Counts::default(),
        }
    }

    /// Deals with one event.
    pub(crate) fn event(&mut self, event: Event) -> Result<()> {
        match event {
            Event::Enter(node) => self.enter(node),
            Event::Node(node) => self.node(node),
            Event::Link { name, id } => self.link(name, id),
            Event::Leave => self.leave(),
        }
    }

    /// All ones is nobody's number: the kernel takes it for "none".
    fn check_owner(&self, meta: &Meta) -> Result<()> {
        let numbers = [
            ("owner", meta.uid),
            ("group", meta.gid),
            ("project id", meta.project),
        ];
        match numbers.iter().find(|(_, number)| *number == u32::MAX) {
            Some((what, number)) => {
                Err(self.invalid(format!("its {what} is {number}, which is nobody's")))
            }
            None => Ok(()),
        }
    }

    fn enter(&mut self, node: Node) -> Result<()> {
        let before = self.go_to(&node.name);
        self.check_owner(&node.meta)?;
        let ino = self.new_inode()?;
        self.counts.directories += 1;
        let parent = self.open.last().map_or(ino, |parent| parent.ino);
        let mut xattrs = node.xattrs;
        if self.open.is_empty() {
            self.reserve_realtime_inodes()?;
            let own = std::mem::take(&mut self.root_xattrs);
            let new = own
                .into_iter()
                .filter(|own| xattrs.iter().all(|xattr| xattr.name != own.name));
            let new: Vec<Xattr> = new.collect();
            xattrs.extend(new);
        } else {
            self.enter_name(&node.name, ino, file_type::DIRECTORY)?;
            if let Some(parent) = self.open.last_mut() {
                parent.subdirectories += 1;
            }
        }
        self.open.push(Open {
            ino,
            parent,
            meta: node.meta,
            xattrs,
            name: node.name,
            entries: Directory::new(self.geometry, ino, parent),
            subdirectories: 0,
            path: before,
        });
        Ok(())
    }

    fn node(&mut self, node: Node) -> Result<()> {
        let before = self.go_to(&node.name);
        self.check_owner(&node.meta)?;
        let ino = self.new_inode()?;
        let (kind, file_type) = kinds(&node.kind);
        self.enter_name(&node.name, ino, file_type)?;
        let contents = self.contents(ino, node.kind)?;
        let parent = self.open.last().map_or(ino, |parent| parent.ino);
        let object = Object {
            ino,
            kind,
            file_type,
            meta: node.meta,
            xattrs: node.xattrs,
            contents,
            names: vec![(parent, node.name)],
        };
        match node.links {
            Some(Links { id, at_most }) if at_most > 1 => {
                self.linked.insert(
                    id,
                    Box::new(Linked {
                        object,
                        missing: at_most - 1,
                        path: self.path.as_slice().into(),
                    }),
                );
            }
            _ => self.finish_object(object)?,
        }
        self.path.truncate(before);
        Ok(())
    }

    fn contents(&mut self, ino: u64, kind: Kind) -> Result<Contents> {
        Ok(match kind {
            Kind::File(content) => {
                self.counts.files += 1;
                self.counts.data += content
                    .data
                    .iter()
                    .map(|range| range.end - range.start)
                    .sum::<u64>();
                let size = content.size;
                let index = self.index.as_mut();
                let placed =
                    contents::allocate(self.geometry, &mut self.space, index, ino, &content)
                        .map_err(|error| self.full(error.into()))?;
                contents::send(self.geometry, content, &placed.new, &mut self.outlet)
                    .map_err(WriteError::failed)?;
                self.outlet.check().map_err(WriteError::failed)?;
                self.counts.shared_blocks += blocks(&placed.extents) - blocks(&placed.new);
                Contents::File {
                    size,
                    extents: placed.extents,
                }
            }
            Kind::Symlink(target) => {
                if target.len() >= symlink::MAX_LENGTH {
                    return Err(self.invalid(format!(
                        "its target has {} bytes; XFS allows {}",
                        target.len(),
                        symlink::MAX_LENGTH - 1
                    )));
                }
                Contents::Symlink(target)
            }
            Kind::CharDevice(number) | Kind::BlockDevice(number) => {
                let Some(number) = device(number.major, number.minor) else {
                    return Err(self.invalid(format!(
                        "XFS cannot hold the device number {}:{}",
                        number.major, number.minor
                    )));
                };
                Contents::Device(number.get())
            }
            Kind::Fifo | Kind::Socket | Kind::Directory => Contents::Device(0),
        })
    }

    fn link(&mut self, name: Box<[u8]>, id: u64) -> Result<()> {
        let parent = self.open.last().map_or(0, |parent| parent.ino);
        let Some(linked) = self.linked.get_mut(&id) else {
            return Err(self.invalid("a link to an object that did not come before".into()));
        };
        let (ino, file_type) = (linked.object.ino, linked.object.file_type);
        linked.object.names.push((parent, name.clone()));
        linked.missing = linked.missing.saturating_sub(1);
        let complete = linked.missing == 0;
        self.enter_name(&name, ino, file_type)?;
        if complete && let Some(linked) = self.linked.remove(&id) {
            self.finish_object(linked.object)?;
        }
        Ok(())
    }

    fn leave(&mut self) -> Result<()> {
        let Some(directory) = self.open.pop() else {
            return Err(self.invalid("more directories left than entered".into()));
        };
        let mut attributes = self.attributes(directory.xattrs)?;
        if self.geometry.features.parent && !self.open.is_empty() {
            let generation = inode::generation(self.geometry, directory.parent);
            let done = attributes.push_parent(&directory.name, directory.parent, generation);
            done.map_err(|error| self.full(error.into()))?;
        }
        let what = What {
            ino: directory.ino,
            kind: kind::DIRECTORY,
            meta: directory.meta,
            links: 2 + directory.subdirectories,
            size: None,
        };
        self.write_inode(what, Data::Directory(directory.entries), attributes)?;
        self.path.truncate(directory.path);
        Ok(())
    }

    /// All events have come: writes what is left, with `free_inodes` free ones at least.
    pub(crate) fn finish(
        mut self,
        free_inodes: u64,
        medium: &dyn Medium,
    ) -> Result<(Counts, Totals)> {
        // Objects which have more names outside the tree are complete now.
        let mut left: Vec<Box<Linked>> = self.linked.drain().map(|(_, linked)| linked).collect();
        left.sort_unstable_by_key(|linked| linked.object.ino);
        left.into_iter()
            .try_for_each(|linked| self.finish_linked(*linked))?;
        let mut free = 0;
        while free < free_inodes {
            let unit = self
                .space
                .begin_unit()
                .map_err(|error| self.full(error.into()))?;
            self.inodes
                .begin(unit, self.crew)
                .map_err(WriteError::failed)?;
            free += u64::from(unit.count);
        }
        self.outlet.flush().map_err(WriteError::failed)?;
        self.inodes.finish(self.crew).map_err(WriteError::failed)?;
        if self.index.is_some() {
            self.crew.settle().map_err(WriteError::failed)?;
            inode::mark_shared(self.geometry, &self.space.sharers(), medium)
                .map_err(WriteError::Write)?;
        }
        let totals = self.space.finish().map_err(|error| match error {
            SpaceError::Full => WriteError::Full {
                path: "the B-trees of a group".into(),
            },
            SpaceError::Io(cause) => WriteError::Write(cause),
        })?;
        Ok((self.counts, totals))
    }

    /// Finishes an object by the path it was found at first.
    fn finish_linked(&mut self, linked: Linked) -> Result<()> {
        let here = std::mem::replace(&mut self.path, linked.path.into_vec());
        self.finish_object(linked.object)?;
        self.path = here;
        Ok(())
    }

    fn finish_object(&mut self, object: Object) -> Result<()> {
        let mut attributes = self.attributes(object.xattrs)?;
        if self.geometry.features.parent {
            for (parent, name) in &object.names {
                let generation = inode::generation(self.geometry, *parent);
                let done = attributes.push_parent(name, *parent, generation);
                done.map_err(|error| self.full(error.into()))?;
            }
        }
        let (data, size) = match object.contents {
            Contents::Device(number) => (Data::Device(number), None),
            Contents::Symlink(target) => (Data::Symlink(target), None),
            Contents::File { size, extents } => (Data::Extents(extents), Some(size)),
        };
        let what = What {
            ino: object.ino,
            kind: object.kind,
            meta: object.meta,
            links: object.names.len() as u32,
            size,
        };
        self.write_inode(what, data, attributes)
    }

    fn write_inode(
        &mut self,
        what: What,
        data: Data<'a>,
        attributes: Attributes<'a>,
    ) -> Result<()> {
        let forks = place(
            self.geometry,
            &mut self.space,
            what.ino,
            data,
            attributes,
            &mut self.outlet,
        )
        .map_err(|error| self.full(error))?;
        let parts = Parts {
            ino: what.ino,
            kind: what.kind,
            meta: &what.meta,
            links: what.links,
            size: what.size.unwrap_or(forks.size),
            blocks: forks.blocks,
            data: forks.data,
            attributes: forks.attributes,
            data_space: forks.data_space,
        };
        let bytes = inode::encode(self.geometry, &parts);
        self.inodes
            .put(what.ino, bytes, self.crew)
            .map_err(WriteError::failed)
    }

    fn attributes(&self, xattrs: Vec<Xattr>) -> Result<Attributes<'a>> {
        let mut attributes = Attributes::new(self.geometry);
        for xattr in &xattrs {
            attributes.push_xattr(xattr).map_err(|error| {
                let name = show(&xattr.name);
                self.invalid(format!("attribute {name}: {error}"))
            })?;
        }
        Ok(attributes)
    }

    fn enter_name(&mut self, name: &[u8], ino: u64, file_type: u8) -> Result<()> {
        let done = self
            .open
            .last_mut()
            .map(|parent| parent.entries.push(name, ino, file_type));
        match done {
            Some(done) => done.map_err(|error| self.full(error.into())),
            None => Err(self.invalid("the tree does not begin with a directory".into())),
        }
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

    fn new_inode(&mut self) -> Result<u64> {
        let (ino, begun) = self
            .space
            .inode()
            .map_err(|error| self.full(error.into()))?;
        if let Some(unit) = begun {
            self.inodes
                .begin(unit, self.crew)
                .map_err(WriteError::failed)?;
        }
        self.inodes.expect();
        self.counts.inodes += 1;
        Ok(ino)
    }

    /// The two inodes after the root belong to a realtime device, there or not.
    fn reserve_realtime_inodes(&mut self) -> Result<()> {
        for new_bitmap in [true, false] {
            let ino = self.new_inode()?;
            self.counts.inodes -= 1;
            let bytes = inode::realtime(self.geometry, ino, new_bitmap);
            self.inodes
                .put(ino, bytes, self.crew)
                .map_err(WriteError::failed)?;
        }
        Ok(())
    }

    /// The path of what is dealt with now, for a person.
    fn shown_path(&self) -> String {
        if self.path.is_empty() {
            "/".into()
        } else {
            show(&self.path)
        }
    }

    fn full(&self, error: PlaceError) -> WriteError {
        match error {
            PlaceError::Space(SpaceError::Full) => WriteError::Full {
                path: self.shown_path(),
            },
            PlaceError::Space(SpaceError::Io(cause)) => WriteError::Write(cause),
            PlaceError::Fork(cause) => self.invalid(cause.to_string()),
        }
    }

    fn invalid(&self, reason: String) -> WriteError {
        WriteError::Invalid {
            path: self.shown_path(),
            reason,
        }
    }
}

/// What an inode says of itself.
struct What {
    ino: u64,
    kind: u16,
    meta: Meta,
    links: u32,
    /// Of a file; else the data fork says it.
    size: Option<u64>,
}

fn blocks(extents: &[Extent]) -> u64 {
    extents.iter().map(|extent| extent.count).sum()
}

/// Kind of an object in its mode, and in directory entries.
fn kinds(what: &Kind) -> (u16, u8) {
    match what {
        Kind::Directory => (kind::DIRECTORY, file_type::DIRECTORY),
        Kind::File(_) => (kind::REGULAR, file_type::REGULAR),
        Kind::Symlink(_) => (kind::SYMLINK, file_type::SYMLINK),
        Kind::CharDevice(_) => (kind::CHARACTER, file_type::CHARACTER),
        Kind::BlockDevice(_) => (kind::BLOCK, file_type::BLOCK),
        Kind::Fifo => (kind::FIFO, file_type::FIFO),
        Kind::Socket => (kind::SOCKET, file_type::SOCKET),
    }
}
