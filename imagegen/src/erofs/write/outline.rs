//! What has to be known of a tree before its first inode is written, from a quick walk.
//!
//! A directory's children need its number, so its inode gets its place before they come:
//! the room it takes must be known. The same holds for links, which an inode counts, and
//! for the time that short inodes have.

use super::super::format::inode::EXTENDED;
use super::directory::Measure;
use crate::tree::{Detail, Event, Kind, Node, Source, Survey, Surveyor, Time, TreeError};
use rustc_hash::FxHashMap;

/// How many times are counted at once to find the most used one.
const CANDIDATES: usize = 256;

/// What a directory will be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Listing {
    /// Bytes of its entries.
    pub(crate) bytes: u64,
    /// Directories in it.
    pub(crate) subdirectories: u32,
}

/// A tree, as far as it matters beforehand.
#[derive(Debug)]
pub(crate) struct Outline {
    pub(crate) survey: Survey,
    /// Directories in the order in which they are entered.
    pub(crate) directories: Vec<Listing>,
    /// Names in the tree by object, of those that have several.
    pub(crate) links: FxHashMap<u64, u32>,
    /// The time of modification that most objects have, about.
    pub(crate) usual: Time,
    /// The first and the last of these times, in seconds.
    pub(crate) times: Option<(i64, i64)>,
    /// Bytes of inodes with what lies beside them, about: only where metadata and data
    /// alternate depends on it.
    pub(crate) metadata: u64,
    /// Bytes of everything if nothing is a hole.
    pub(crate) at_most: u64,
}

impl Outline {
    /// Of a tree in blocks of `block` bytes.
    ///
    /// # Errors
    /// If it cannot be read.
    pub(crate) fn of(source: &dyn Source, block: usize) -> Result<Self, TreeError> {
        let mut drawing = Drawing::new(block);
        for event in source.walk(Detail::Names)? {
            drawing.add(&event?);
        }
        Ok(drawing.finish())
    }
}

/// An outline that is being made.
struct Drawing {
    block: usize,
    surveyor: Surveyor,
    outline: Outline,
    open: Vec<Open>,
    times: Frequent,
}

struct Open {
    /// Which of the outline's directories.
    number: usize,
    measure: Measure,
    subdirectories: u32,
}

impl Drawing {
    fn new(block: usize) -> Self {
        Self {
            block,
            surveyor: Surveyor::default(),
            outline: Outline {
                survey: Survey::default(),
                directories: Vec::new(),
                links: FxHashMap::default(),
                usual: Time::default(),
                times: None,
                metadata: 0,
                at_most: 0,
            },
            open: Vec::new(),
            times: Frequent::default(),
        }
    }

    fn add(&mut self, event: &Event) {
        self.surveyor.add(event);
        match event {
            Event::Enter(node) => {
                self.name(&node.name);
                if let Some(parent) = self.open.last_mut() {
                    parent.subdirectories += 1;
                }
                let empty = Listing {
                    bytes: 0,
                    subdirectories: 0,
                };
                self.open.push(Open {
                    number: self.outline.directories.len(),
                    measure: Measure::new(self.block),
                    subdirectories: 0,
                });
                self.outline.directories.push(empty);
                self.object(node);
            }
            Event::Node(node) => {
                self.name(&node.name);
                self.object(node);
                let size = match &node.kind {
                    Kind::File(content) => content.size,
                    _ => 0,
                };
                self.contents(size);
                if let Some(links) = node.links {
                    self.outline.links.insert(links.id, 1);
                }
            }
            Event::Link { name, id } => {
                self.name(name);
                *self.outline.links.entry(*id).or_insert(0) += 1;
            }
            Event::Leave => self.leave(),
        }
    }

    fn name(&mut self, name: &[u8]) {
        if let Some(parent) = self.open.last_mut() {
            parent.measure.add(name);
        }
    }

    fn object(&mut self, node: &Node) {
        let time = node.meta.mtime;
        self.times.add(time);
        let seconds = time.seconds;
        let (first, last) = self.outline.times.unwrap_or((seconds, seconds));
        self.outline.times = Some((first.min(seconds), last.max(seconds)));
    }

    fn contents(&mut self, size: u64) {
        let tail = size % self.block as u64;
        let beside = match EXTENDED as u64 + tail {
            both if both <= self.block as u64 => both,
            _ => EXTENDED as u64,
        };
        self.outline.metadata += beside;
        let whole = size.saturating_add(2 * self.block as u64);
        self.outline.at_most = self.outline.at_most.saturating_add(whole);
    }

    fn leave(&mut self) {
        let Some(open) = self.open.pop() else {
            return;
        };
        let bytes = open.measure.finish();
        self.contents(bytes);
        if let Some(listing) = self.outline.directories.get_mut(open.number) {
            listing.bytes = bytes;
            listing.subdirectories = open.subdirectories;
        }
    }

    fn finish(self) -> Outline {
        Outline {
            survey: self.surveyor.finish(),
            usual: self.times.most(),
            ..self.outline
        }
    }
}

/// Finds what comes most often among more than can be counted: exact if there are few, and
/// right if one of them is every second hundredth at least (Misra and Gries).
#[derive(Default)]
struct Frequent {
    counts: FxHashMap<Time, u64>,
}

impl Frequent {
    fn add(&mut self, time: Time) {
        *self.counts.entry(time).or_insert(0) += 1;
        if self.counts.len() > CANDIDATES {
            self.counts.retain(|_, count| {
                *count -= 1;
                *count > 0
            });
        }
    }

    fn most(&self) -> Time {
        let most = self
            .counts
            .iter()
            .max_by_key(|(time, count)| (**count, **time));
        most.map(|(time, _)| *time).unwrap_or_default()
    }
}
