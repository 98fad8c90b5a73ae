//! Every name below a directory, depth first, in the order of the directories.
//!
//! Bounded whatever the image says: a directory that is reached a second time is not
//! entered again, there may be no more names than an image of its size can hold, and the
//! directories that are open hold at most `HELD` entries between them: what they let go is
//! read again on the way back.

use super::directory::{Entries, Entry};
use super::error::{ReadError, Result, damaged};
use super::{Area, Image, Inode};
use crate::erofs::format::directory::ENTRY;
use crate::medium::Source;
use hashbrown::HashSet;
use rustc_hash::FxBuildHasher;

/// Compressed directories may be larger than the image by this factor, and so may the
/// metabox.
const DENSITY: u64 = 64;

/// Most entries that are kept for the way back.
const HELD: usize = 1 << 16;

/// What a walk comes to.
#[derive(Debug)]
pub enum Step {
    /// A directory; what is in it follows, then [`Step::Leave`].
    Enter(Inode),
    /// Anything else.
    Node(Inode),
    /// The end of a directory.
    Leave,
    /// Something that cannot be read: the object of this path, or the rest of this
    /// directory.
    Broken(ReadError),
}

/// A walk; after each [`Walk::next`] it knows the path.
#[derive(Debug)]
pub struct Walk<'a, S> {
    image: &'a Image<S>,
    first: Option<Inode>,
    stack: Vec<Frame<'a, S>>,
    path: Vec<u8>,
    entry: Option<Entry>,
    /// Directories that were entered.
    seen: HashSet<u64, FxBuildHasher>,
    /// Names that may still come.
    left: u64,
    /// Entries kept in the directories above the last one.
    held: usize,
}

#[derive(Debug)]
struct Frame<'a, S> {
    entries: Entries<'a, S>,
    /// Bytes of the path with this directory.
    path: usize,
    /// Entries of it that count as held.
    held: usize,
}

impl<S: Source> Image<S> {
    /// A walk from `inode` on, whose own path is empty.
    pub fn walk(&self, inode: Inode) -> Walk<'_, S> {
        Walk {
            image: self,
            first: Some(inode),
            stack: Vec::new(),
            path: Vec::new(),
            entry: None,
            seen: HashSet::default(),
            left: self.most_names(),
            held: 0,
        }
    }

    /// As many names as an image of this size can hold, or more.
    pub(crate) fn most_names(&self) -> u64 {
        let image = self.area_size(Area::Image);
        let metabox = self.area_size(Area::Metabox);
        let metabox = metabox.min(image.saturating_mul(DENSITY));
        let bytes = image.saturating_add(metabox).saturating_mul(DENSITY);
        bytes / ENTRY as u64
    }
}

impl<'a, S: Source> Walk<'a, S> {
    /// The path of what came last, from where the walk began.
    pub fn path(&self) -> &[u8] {
        &self.path
    }

    /// The entry of what came last; none where the walk began and at a directory's end.
    pub(crate) fn entry(&self) -> Option<&Entry> {
        self.entry.as_ref()
    }

    /// Leaves out what is in the directory that was entered last, and its end.
    pub fn skip(&mut self) {
        self.leave();
    }

    fn leave(&mut self) {
        self.stack.pop();
        if let Some(frame) = self.stack.last_mut() {
            self.held -= frame.held;
            frame.held = 0;
        }
    }

    /// Goes on.
    #[allow(clippy::should_implement_trait)] // the path is borrowed between two steps
    pub fn next(&mut self) -> Option<Step> {
        if let Some(inode) = self.first.take() {
            return Some(self.object(inode));
        }
        let frame = self.stack.last_mut()?;
        self.path.truncate(frame.path);
        self.entry = None;
        let entry = loop {
            match frame.entries.next() {
                Some(Ok(entry)) if entry.is_dots() => match self.left.checked_sub(1) {
                    Some(left) => self.left = left,
                    None => return Some(Step::Broken(self.too_many(&entry))),
                },
                other => break other,
            }
        };
        let entry = match entry {
            Some(Ok(entry)) => entry,
            Some(Err(error)) => return Some(Step::Broken(error)),
            None => {
                self.leave();
                return Some(Step::Leave);
            }
        };
        if self.path.last().is_some_and(|byte| *byte != b'/') {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(&entry.name);
        let inode = self.enter(&entry);
        self.entry = Some(entry);
        Some(match inode {
            Ok(inode) => self.object(inode),
            Err(error) => Step::Broken(error),
        })
    }

    /// The end of a walk that would not end.
    fn too_many(&mut self, entry: &Entry) -> ReadError {
        self.stack.clear();
        let flaw = "more names than an image of this size can hold";
        damaged("directories", super::Place::Inode(entry.nid), flaw)
    }

    fn enter(&mut self, entry: &Entry) -> Result<Inode> {
        let Some(left) = self.left.checked_sub(1) else {
            return Err(self.too_many(entry));
        };
        self.left = left;
        let inode = self.image.inode(entry.nid)?;
        if inode.is_directory() && self.seen.contains(&inode.nid) {
            let flaw = "it is reached a second time";
            return Err(damaged("directory", inode.place(), flaw));
        }
        Ok(inode)
    }

    fn object(&mut self, inode: Inode) -> Step {
        if !inode.is_directory() {
            return Step::Node(inode);
        }
        self.seen.insert(inode.nid);
        match self.image.entries(&inode) {
            Ok(entries) => {
                self.hold();
                self.stack.push(Frame {
                    entries,
                    path: self.path.len(),
                    held: 0,
                });
                Step::Enter(inode)
            }
            Err(error) => Step::Broken(error),
        }
    }

    /// Keeps the entries of the last directory while others are entered, if there is room.
    fn hold(&mut self) {
        let Some(frame) = self.stack.last_mut() else {
            return;
        };
        let entries = frame.entries.held();
        if self.held + entries > HELD {
            frame.entries.let_go();
            return;
        }
        frame.held = entries;
        self.held += entries;
    }
}
