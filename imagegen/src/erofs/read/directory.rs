//! Directories: one block at a time, or a name by binary search.

use super::contents::Contents;
use super::error::{Result, damaged};
use super::{Image, Inode, Place};
use crate::erofs::format::directory::{ENTRY, Entry as Raw};
use crate::medium::Source;
use crate::tree::NAME_MAX;
use zerocopy::FromBytes;

const NAME: &str = "directory";

/// A name in a directory.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Entry {
    /// The name.
    pub name: Vec<u8>,
    /// Number of the inode.
    pub nid: u64,
    /// Its kind, as [`crate::erofs::format::directory::kind`].
    pub kind: u8,
    /// Whether the reserved byte is not zero.
    pub(crate) reserved: bool,
}

impl Entry {
    /// Whether it is `.` or `..`.
    pub fn is_dots(&self) -> bool {
        matches!(&self.name[..], b"." | b"..")
    }
}

/// The entries of a directory in their order, `.` and `..` among them; after an error
/// nothing more.
#[derive(Debug)]
pub struct Entries<'a, S> {
    contents: Contents<'a, S>,
    /// The block after that of `entries`.
    block: u64,
    entries: std::vec::IntoIter<Entry>,
    /// Entries that its block has.
    all: usize,
    /// How many of the block before came already, if the others were let go.
    came: Option<usize>,
}

impl<S: Source> Iterator for Entries<'_, S> {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(entry) = self.entries.next() {
                return Some(Ok(entry));
            }
            let (number, came) = match self.came.take() {
                Some(came) => (self.block.saturating_sub(1), came),
                None => (self.block, 0),
            };
            if number >= self.contents.blocks() {
                return None;
            }
            match block(&mut self.contents, number) {
                Ok(entries) => {
                    self.block = number + 1;
                    self.all = entries.len();
                    self.entries = entries.into_iter();
                    self.entries.by_ref().take(came).for_each(drop);
                }
                Err(error) => {
                    self.block = u64::MAX;
                    return Some(Err(error));
                }
            }
        }
    }
}

impl<S> Entries<'_, S> {
    /// Entries whose memory is in use.
    pub(super) fn held(&self) -> usize {
        self.all
    }

    /// Lets them go; they are read again when they are wanted.
    pub(super) fn let_go(&mut self) {
        self.came = match self.entries.len() {
            0 => None,
            left => Some(self.all - left),
        };
        self.entries = Vec::new().into_iter();
        self.all = 0;
    }
}

impl<S: Source> Image<S> {
    /// The entries of a directory.
    ///
    /// # Errors
    /// If `inode` is no directory, or what says where its contents lie is damaged.
    pub fn entries(&self, inode: &Inode) -> Result<Entries<'_, S>> {
        if !inode.is_directory() {
            return Err(damaged(NAME, inode.place(), "it is none"));
        }
        Ok(Entries {
            contents: self.contents(inode)?,
            block: 0,
            entries: Vec::new().into_iter(),
            all: 0,
            came: None,
        })
    }

    /// The entry of `name`, by binary search as the kernel does it; in a directory whose
    /// order is damaged it may not be found.
    ///
    /// # Errors
    /// If `inode` is no directory, or a block on the way is damaged.
    pub fn lookup(&self, inode: &Inode, name: &[u8]) -> Result<Option<Entry>> {
        let mut contents = self.entries(inode)?.contents;
        let (mut from, mut to) = (0, contents.blocks());
        while from < to {
            let middle = from + (to - from) / 2;
            let mut entries = block(&mut contents, middle)?;
            let found = entries.binary_search_by(|entry| entry.name[..].cmp(name));
            match found {
                Ok(index) => return Ok(Some(entries.swap_remove(index))),
                Err(0) => to = middle,
                Err(index) if index == entries.len() => from = middle + 1,
                Err(_) => return Ok(None),
            }
        }
        Ok(None)
    }
}

/// Block `number` of a directory: entries with names that can be, in whatever order.
pub(crate) fn block<S: Source>(contents: &mut Contents<'_, S>, number: u64) -> Result<Vec<Entry>> {
    let size = contents.block_size() as u64;
    // Both are below 2^63: the block is one of the contents.
    let at = number * size;
    let place = Place::Contents(contents.nid(), at);
    let length = contents.size().saturating_sub(at).min(size) as usize;
    let mut bytes = vec![0; length];
    contents.read_exact_at(at, &mut bytes)?;
    parse(&bytes, place)
}

fn parse(bytes: &[u8], place: Place) -> Result<Vec<Entry>> {
    let bad = |flaw: String| damaged(NAME, place, flaw);
    let raw = |index: usize| {
        let part = bytes.get(index * ENTRY..)?;
        Raw::read_from_prefix(part).ok().map(|(entry, _)| entry)
    };
    let names_at = raw(0).map_or(0, |entry| usize::from(entry.name_at.get()));
    let count = names_at / ENTRY;
    if count == 0 || !names_at.is_multiple_of(ENTRY) || names_at >= bytes.len() {
        return Err(bad(format!("names begin at byte {names_at} of the block")));
    }
    let mut entries = Vec::with_capacity(count);
    let mut begin = names_at;
    for index in 0..count {
        let entry = raw(index).ok_or_else(|| bad(format!("no entry {index}")))?;
        let next = raw(index + 1).filter(|_| index + 1 < count);
        let end = match next {
            Some(next) => usize::from(next.name_at.get()),
            None => bytes.len(),
        };
        let name = bytes.get(begin..end).unwrap_or_default();
        let name = match (next, name.iter().position(|byte| *byte == 0)) {
            (None, Some(zero)) => name.get(..zero).unwrap_or_default(),
            _ => name,
        };
        if usize::from(entry.name_at.get()) != begin || name.is_empty() || name.len() > NAME_MAX {
            let flaw = format!("entry {index}: a name from byte {begin} to {end}");
            return Err(bad(flaw));
        }
        if name.iter().any(|byte| matches!(byte, 0 | b'/')) {
            let name = name.escape_ascii();
            return Err(bad(format!("entry {index}: the name \"{name}\"")));
        }
        entries.push(Entry {
            name: name.to_vec(),
            nid: entry.nid.get(),
            kind: entry.kind,
            reserved: entry.reserved != 0,
        });
        begin = end;
    }
    Ok(entries)
}
