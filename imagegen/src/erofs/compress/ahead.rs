//! A look ahead of the writer: the events of a walk come out as they went in, while files
//! that come later are compressed already.

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests;

use std::collections::VecDeque;
use std::sync::Arc;

use super::algorithm::Algorithm;
use super::choice::{Method, SAMPLE, trial};
use super::codec::CodecError;
use super::dedupe::{Shared, Stamp};
use super::parts::{self, Part};
use super::pool::{Codecs, Pool, Promise};
use super::segment::{Cut, End, SEGMENT, Segment, compress};
use super::selection::Selection;
use crate::medium::{Failure, read_part};
use crate::tree::{Bytes, Content, Event, Kind, TreeError};

/// Segments that wait or are compressed, for each thread.
const SEGMENTS: u64 = 3;
/// Events that wait.
const EVENTS: usize = 4096;
/// Of these, files that are open on their own, besides those of the walk, 400 at most: many a
/// process has 1024 descriptors.
const FILES: usize = 256;

/// Why a segment is not there.
#[derive(Debug)]
pub(crate) enum SegmentError {
    /// Its bytes cannot be read.
    Read(Failure),
    /// They cannot be compressed.
    Compress(CodecError),
    /// Its thread panicked.
    Lost,
}

/// A file that is being compressed.
#[derive(Debug)]
pub(crate) struct Packing {
    /// What is compressed.
    pub(crate) content: Arc<Content>,
    /// Segments of it, to be [asked for](Ahead::segment) in their order.
    pub(crate) segments: u64,
    /// Bytes of its clusters at most.
    pub(crate) cluster: u32,
    /// It is not what the walk before saw.
    pub(crate) changed: bool,
}

/// What a thread made of a segment.
pub(crate) struct Packed {
    pub(crate) segment: Segment,
    /// None if it is all plain.
    pub(crate) algorithm: Option<Algorithm>,
}

/// A segment that is being compressed.
pub(crate) struct Promised(Promise<Result<Packed, SegmentError>>);

impl Promised {
    /// Waits for it.
    pub(crate) fn wait(self) -> Result<Packed, SegmentError> {
        self.0.wait().unwrap_or(Err(SegmentError::Lost))
    }
}

/// An event, and what is compressed of it.
type Item = (Event, Option<Packing>);

/// What waits, with what it holds.
enum Unit {
    Event(Box<Item>, Held),
    Segment(Promised, Held),
}

/// What is held until something is dealt with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Held {
    /// Bytes of contents, compressed or not.
    bytes: u64,
    /// Files that are open.
    files: usize,
}

/// A file of which not all segments were given to threads.
struct Open {
    content: Arc<Content>,
    method: Method,
    cluster: u32,
    /// What is left of it.
    parts: VecDeque<Part>,
    /// What becomes of its end.
    end: End,
}

/// The look ahead.
pub(crate) struct Ahead<'a, 'scope> {
    events: &'a mut dyn Iterator<Item = Result<Event, TreeError>>,
    pool: &'a Pool<'scope>,
    selection: Selection,
    shared: Option<Shared>,
    /// Of the files that consist of pieces, how many came.
    planned: usize,
    waiting: VecDeque<Unit>,
    /// What they hold together.
    held: Held,
    open: Option<Open>,
    /// What ended the events.
    end: Option<Result<(), TreeError>>,
}

impl<'a, 'scope> Ahead<'a, 'scope> {
    pub(crate) fn new(
        events: &'a mut dyn Iterator<Item = Result<Event, TreeError>>,
        pool: &'a Pool<'scope>,
        selection: Selection,
        shared: Option<Shared>,
    ) -> Self {
        Self {
            events,
            pool,
            selection,
            shared,
            planned: 0,
            waiting: VecDeque::new(),
            held: Held::default(),
            open: None,
            end: None,
        }
    }

    /// The next event. All segments of the file before it were asked for.
    pub(crate) fn next(&mut self) -> Option<Result<Item, TreeError>> {
        loop {
            self.fill();
            match self.waiting.pop_front() {
                Some(Unit::Event(item, held)) => {
                    self.release(held);
                    return Some(Ok(*item));
                }
                // Of a file that did not need it.
                Some(Unit::Segment(_, held)) => self.release(held),
                None => return self.end.replace(Ok(()))?.err().map(Err),
            }
        }
    }

    /// The next segment of the file that came last.
    pub(crate) fn segment(&mut self) -> Result<Packed, SegmentError> {
        self.fill();
        match self.waiting.pop_front() {
            Some(Unit::Segment(promise, held)) => {
                self.release(held);
                promise.wait()
            }
            Some(unit @ Unit::Event(..)) => {
                self.waiting.push_front(unit);
                Err(SegmentError::Lost)
            }
            None => Err(SegmentError::Lost),
        }
    }

    /// Has a segment compressed that belongs to no file of the walk.
    pub(crate) fn submit(
        &self,
        bytes: Vec<u8>,
        algorithm: Algorithm,
        cluster: u32,
        end: End,
    ) -> Promised {
        let cut = Cut {
            interlaced: self.selection.plan.interlaced_within,
            ..self.cut(cluster, end)
        };
        let method = Method::By(algorithm);
        let packed = self
            .pool
            .submit(move |codecs| pack(&bytes, method, &[], &cut, codecs));
        Promised(packed)
    }

    fn cut(&self, cluster: u32, end: End) -> Cut {
        Cut {
            block: self.selection.plan.block,
            cluster: cluster as usize,
            interlaced: self.selection.plan.interlaced,
            end,
            ends_file: false,
        }
    }

    /// Gives the threads as much as may wait.
    fn fill(&mut self) {
        let (most, events) = match self.selection.is_empty() {
            false => (SEGMENT * SEGMENTS * self.pool.threads() as u64, EVENTS),
            true => (1, 1),
        };
        while self.held.bytes < most && self.waiting.len() < events {
            if let Some(open) = self.open.take() {
                self.begin(open);
                continue;
            }
            if self.end.is_some() || self.held.files >= FILES {
                return;
            }
            match self.events.next() {
                None => self.end = Some(self.complete()),
                Some(Err(error)) => self.end = Some(Err(error)),
                Some(Ok(event)) => self.event(event),
            }
        }
    }

    /// That all files came that the walk before saw.
    fn complete(&self) -> Result<(), TreeError> {
        match &self.shared {
            Some(shared) if shared.files.len() != self.planned => {
                Err(TreeError::changed(b"/", "files were added or removed"))
            }
            _ => Ok(()),
        }
    }

    fn release(&mut self, held: Held) {
        self.held.bytes -= held.bytes;
        self.held.files -= held.files;
    }

    fn wait_for(&mut self, unit: Unit) {
        let (Unit::Event(_, held) | Unit::Segment(_, held)) = &unit;
        self.held.bytes += held.bytes;
        self.held.files += held.files;
        self.waiting.push_back(unit);
    }

    fn event(&mut self, event: Event) {
        let selected = self.selection.of(&event);
        let mut held = held(&event);
        let item = match (event, selected) {
            (Event::Node(mut node), Some(how)) => {
                let packing = match &mut node.kind {
                    Kind::File(content) => Some(self.file(content, how)),
                    _ => None,
                };
                (Event::Node(node), packing)
            }
            (event, _) => (event, None),
        };
        if self.open.is_some() {
            held.bytes = 0; // they count with the file's parts
        }
        self.wait_for(Unit::Event(Box::new(item), held));
    }

    /// Takes a file's contents.
    fn file(&mut self, content: &mut Content, how: (Method, u32)) -> Packing {
        let known = Content {
            size: content.size,
            data: content.data.clone(),
            bytes: Bytes::Unread,
            digests: Vec::new(),
        };
        let content = Arc::new(std::mem::replace(content, known));
        let mut packing = Packing {
            content: Arc::clone(&content),
            segments: 0,
            cluster: how.1,
            changed: false,
        };
        let (block, end) = (self.selection.plan.block, self.selection.plan.end);
        let parts = match &self.shared {
            Some(shared) if self.selection.shares(content.size, how.1) => {
                let plan = shared.files.get(self.planned);
                self.planned += 1;
                let same = plan.filter(|plan| plan.stamp == Stamp::of(&content));
                packing.changed = same.is_none();
                same.map(|plan| parts::of_steps(&plan.steps, block))
            }
            _ => Some(parts::of_size(content.size)),
        };
        let parts = parts.unwrap_or_default();
        packing.segments = parts.len() as u64;
        if self.selection.plan.takes_only {
            return packing;
        }
        self.open = Some(Open {
            content,
            method: how.0,
            cluster: how.1,
            parts: parts.into(),
            end,
        });
        packing
    }

    /// Gives a file's next segment to the threads.
    fn begin(&mut self, mut open: Open) {
        let Some(part) = open.parts.pop_front() else {
            return;
        };
        let ends_file = open.parts.is_empty();
        let end = if ends_file { open.end } else { End::Blocks };
        let cut = Cut {
            ends_file,
            ..self.cut(open.cluster, end)
        };
        let (content, method) = (Arc::clone(&open.content), open.method);
        let pieces = self
            .shared
            .as_ref()
            .map(|shared| Arc::clone(&shared.pieces));
        let range = part.range();
        let held = Held {
            bytes: range.end - range.start, // also of pieces, which may have to be made
            files: 0,
        };
        let promise = self.pool.submit(move |codecs| {
            let read = |range| read_part(&content, &range).map_err(SegmentError::Read);
            let packed = match (pieces, method) {
                (Some(pieces), Method::By(algorithm)) => {
                    part.pack(algorithm, &pieces, &cut, codecs, &read)?
                }
                _ => {
                    let bytes = read(part.range())?;
                    // All segments of a file find the same, so that it has one algorithm.
                    let sample = match method {
                        Method::Auto if part.begin > 0 => read(0..SAMPLE as u64)?,
                        _ => bytes.get(..SAMPLE).unwrap_or(&bytes).to_vec(),
                    };
                    pack(&bytes, method, &sample, &cut, codecs)?
                }
            };
            drop(content); // before it is known that this is done: nobody else has it then
            Ok(packed)
        });
        self.wait_for(Unit::Segment(Promised(promise), held));
        if !ends_file {
            self.open = Some(open);
        }
    }

    /// Where a piece lies that files share; `put` gives it a place, if it has none.
    pub(crate) fn place_piece<E>(
        &self,
        piece: u32,
        put: impl FnOnce(&[u8]) -> Result<u64, E>,
    ) -> Result<Option<u64>, E> {
        match &self.shared {
            Some(shared) => shared.pieces.place(piece, put),
            None => Ok(None),
        }
    }
}

/// What an event holds.
fn held(event: &Event) -> Held {
    let mut held = Held::default();
    if let Event::Node(node) = event
        && let Kind::File(content) = &node.kind
    {
        match &content.bytes {
            Bytes::Unread => {}
            Bytes::Read(bytes) => held.bytes = bytes.len() as u64,
            // An archive with many files is open anyway.
            Bytes::At { file, .. } => held.files = usize::from(Arc::strong_count(file) == 1),
        }
    }
    held
}

fn pack(
    bytes: &[u8],
    method: Method,
    sample: &[u8],
    cut: &Cut,
    codecs: &mut Codecs,
) -> Result<Packed, SegmentError> {
    let cluster = cut.cluster as u32; // as it was given
    let algorithm = match method {
        Method::Plain => None,
        Method::By(algorithm) => Some(algorithm),
        Method::Auto => trial(sample, cluster, codecs).map_err(SegmentError::Compress)?,
    };
    let segment = match algorithm {
        Some(algorithm) => codecs
            .get(algorithm, cluster)
            .and_then(|codec| compress(bytes, cut, codec))
            .map_err(SegmentError::Compress)?,
        None => super::segment::plain(bytes, cut),
    };
    Ok(Packed { segment, algorithm })
}
