//! A look ahead of the writer: the events of a walk come out as they went in, while files
//! that come later are compressed already.

use std::collections::VecDeque;
use std::sync::Arc;

use super::algorithm::Algorithm;
use super::choice::{Choice, Compression, Fragments, Method, SAMPLE, trial};
use super::codec::CodecError;
use super::pool::{Codecs, Pool, Promise};
use super::segment::{Cut, End, SEGMENT, Segment, compress};
use crate::medium::{Failure, read_part};
use crate::tree::{Bytes, Content, Event, Kind, TreeError};

/// Segments that wait or are compressed, for each thread.
const SEGMENTS: u64 = 3;
/// Events that wait.
const EVENTS: usize = 4096;

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

/// What waits, with the bytes it holds.
enum Unit {
    Event(Box<Item>, u64),
    Segment(Promised, u64),
}

/// A file of which not all segments were given to threads.
struct Open {
    content: Arc<Content>,
    method: Method,
    cluster: u32,
    next: u64,
    segments: u64,
}

/// How files are cut.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) block: usize,
    pub(crate) interlaced: bool,
    pub(crate) end: End,
    /// Files are only taken, for whoever asks for their contents.
    pub(crate) takes_only: bool,
}

impl Plan {
    /// As asked for.
    pub(crate) fn new(compression: Option<&Compression>, block: usize) -> Self {
        let end = match compression {
            None => End::Blocks,
            Some(compression) => match compression.fragments {
                Fragments::None if compression.inline_tails => End::Inline,
                Fragments::None => End::Blocks,
                Fragments::Tails | Fragments::All => End::Fragment,
            },
        };
        Self {
            block,
            interlaced: end == End::Fragment,
            end,
            takes_only: compression.is_some_and(|c| c.fragments == Fragments::All),
        }
    }
}

/// The look ahead.
pub(crate) struct Ahead<'a, 'scope> {
    events: &'a mut dyn Iterator<Item = Result<Event, TreeError>>,
    pool: &'a Pool<'scope>,
    /// None if nothing is compressed here.
    choice: Option<Choice>,
    plan: Plan,
    waiting: VecDeque<Unit>,
    /// Bytes that they hold.
    bytes: u64,
    open: Option<Open>,
    /// What ended the events.
    end: Option<Result<(), TreeError>>,
    /// Of what came last, without the leading slash.
    path: Vec<u8>,
    /// Lengths of the paths before.
    paths: Vec<usize>,
}

impl<'a, 'scope> Ahead<'a, 'scope> {
    pub(crate) fn new(
        events: &'a mut dyn Iterator<Item = Result<Event, TreeError>>,
        pool: &'a Pool<'scope>,
        choice: Option<Choice>,
        plan: Plan,
    ) -> Self {
        Self {
            events,
            pool,
            choice,
            plan,
            waiting: VecDeque::new(),
            bytes: 0,
            open: None,
            end: None,
            path: Vec::new(),
            paths: Vec::new(),
        }
    }

    /// The next event. All segments of the file before it were asked for.
    pub(crate) fn next(&mut self) -> Option<Result<Item, TreeError>> {
        loop {
            self.fill();
            match self.waiting.pop_front() {
                Some(Unit::Event(item, bytes)) => {
                    self.bytes -= bytes;
                    return Some(Ok(*item));
                }
                // Of a file that did not need it.
                Some(Unit::Segment(_, bytes)) => self.bytes -= bytes,
                None => return self.end.take()?.err().map(Err),
            }
        }
    }

    /// The next segment of the file that came last.
    pub(crate) fn segment(&mut self) -> Result<Packed, SegmentError> {
        self.fill();
        match self.waiting.pop_front() {
            Some(Unit::Segment(promise, bytes)) => {
                self.bytes -= bytes;
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
        let cut = self.cut(cluster, end);
        let method = Method::By(algorithm);
        let packed = self
            .pool
            .submit(move |codecs| pack(&bytes, method, &[], &cut, codecs));
        Promised(packed)
    }

    fn cut(&self, cluster: u32, end: End) -> Cut {
        Cut {
            block: self.plan.block,
            cluster: cluster as usize,
            interlaced: self.plan.interlaced,
            end,
        }
    }

    /// Gives the threads as much as may wait.
    fn fill(&mut self) {
        let (most, events) = match self.choice {
            Some(_) => (SEGMENT * SEGMENTS * self.pool.threads() as u64, EVENTS),
            None => (1, 1),
        };
        while self.bytes < most && self.waiting.len() < events {
            if let Some(open) = self.open.take() {
                self.begin(open);
                continue;
            }
            if self.end.is_some() {
                return;
            }
            match self.events.next() {
                None => self.end = Some(Ok(())),
                Some(Err(error)) => self.end = Some(Err(error)),
                Some(Ok(event)) => self.event(event),
            }
        }
    }

    fn event(&mut self, event: Event) {
        let item = match event {
            Event::Enter(node) => {
                self.paths.push(self.path.len());
                self.go_to(&node.name);
                (Event::Enter(node), None)
            }
            Event::Leave => {
                self.path.truncate(self.paths.pop().unwrap_or(0));
                (Event::Leave, None)
            }
            Event::Node(mut node) => {
                let before = self.path.len();
                self.go_to(&node.name);
                let packing = match &mut node.kind {
                    Kind::File(content) => self.file(content),
                    _ => None,
                };
                self.path.truncate(before);
                (Event::Node(node), packing)
            }
            link @ Event::Link { .. } => (link, None),
        };
        let bytes = held(&item.0);
        self.bytes += bytes;
        self.waiting.push_back(Unit::Event(Box::new(item), bytes));
    }

    fn go_to(&mut self, name: &[u8]) {
        if !self.path.is_empty() {
            self.path.push(b'/');
        }
        self.path.extend_from_slice(name);
    }

    /// Takes a file's contents, if they are to be compressed.
    fn file(&mut self, content: &mut Content) -> Option<Packing> {
        let (method, cluster) = self.choice.as_ref()?.of(&self.path);
        let small = self.plan.end == End::Blocks && content.size <= self.plan.block as u64;
        if method == Method::Plain || content.size == 0 || small || is_sparse(content) {
            return None;
        }
        let known = Content {
            size: content.size,
            data: content.data.clone(),
            bytes: Bytes::Unread,
            digests: Vec::new(),
        };
        let content = Arc::new(std::mem::replace(content, known));
        let segments = content.size.div_ceil(SEGMENT);
        self.open = (!self.plan.takes_only).then(|| Open {
            content: Arc::clone(&content),
            method,
            cluster,
            next: 0,
            segments,
        });
        Some(Packing {
            content,
            segments,
            cluster,
        })
    }

    /// Gives a file's next segment to the threads.
    fn begin(&mut self, mut open: Open) {
        let range = open.next * SEGMENT..((open.next + 1) * SEGMENT).min(open.content.size);
        open.next += 1;
        let end = match open.next == open.segments {
            true => self.plan.end,
            false => End::Blocks,
        };
        let cut = self.cut(open.cluster, end);
        let (content, method) = (Arc::clone(&open.content), open.method);
        let bytes = range.end - range.start;
        let promise = self.pool.submit(move |codecs| {
            let read = |range| read_part(&content, &range).map_err(SegmentError::Read);
            let bytes = read(range.clone())?;
            // All segments of a file find the same, so that it has one algorithm.
            let sample = match method {
                Method::Auto if range.start > 0 => read(0..SAMPLE as u64)?,
                _ => bytes.get(..SAMPLE).unwrap_or(&bytes).to_vec(),
            };
            drop(content); // before it is known that this is done: nobody else has it then
            pack(&bytes, method, &sample, &cut, codecs)
        });
        self.bytes += bytes;
        self.waiting
            .push_back(Unit::Segment(Promised(promise), bytes));
        if open.next < open.segments {
            self.open = Some(open);
        }
    }
}

/// Bytes of contents that an event holds.
fn held(event: &Event) -> u64 {
    let Event::Node(node) = event else { return 0 };
    match &node.kind {
        Kind::File(Content {
            bytes: Bytes::Read(bytes),
            ..
        }) => bytes.len() as u64,
        _ => 0,
    }
}

/// Whether a file is so much hole that chunks tell it better.
fn is_sparse(content: &Content) -> bool {
    let data: u64 = content
        .data
        .iter()
        .map(|range| range.end - range.start)
        .sum();
    content.size > 64 << 20 && data < content.size / 8
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
