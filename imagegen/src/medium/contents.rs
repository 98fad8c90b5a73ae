//! A file's contents on their way to their places: read already, or to be copied.

use super::{Copy, Failure, Part};
use crate::tree::{Bytes, Content, Time, written};
use std::io;
use std::ops::Range;
use std::os::unix::fs::FileExt;
use std::sync::Arc;

/// Bytes that one copy moves: files are cut, so that several threads share a large one.
const COPIED_AT_ONCE: u64 = 8 << 20;

/// A part of a file and where it goes. What of it is hole, or beyond the file's end, is
/// zeroes there.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Stretch {
    /// Bytes of the file.
    pub(crate) file: Range<u64>,
    /// Where the first of them goes, in bytes.
    pub(crate) at: u64,
}

/// What takes contents.
pub(crate) trait Sink {
    /// Bytes for the place `at`; what is missing to a whole block is zero.
    fn put(&mut self, at: u64, bytes: &[u8]) -> Result<(), Failure>;

    /// Contents to be copied.
    fn copy(&mut self, copy: Copy) -> Result<(), Failure>;
}

/// Sends contents to their places: `stretches` are sorted and do not overlap.
pub(crate) fn send(
    content: Content,
    stretches: &[Stretch],
    sink: &mut dyn Sink,
) -> Result<(), Failure> {
    match content.bytes {
        Bytes::Unread => Ok(()),
        Bytes::Read(bytes) => match (&content.data[..], stretches) {
            ([all], [stretch]) if *all == (0..content.size) => {
                let end = stretch.file.end.min(content.size) as usize;
                let part = bytes.get(stretch.file.start as usize..end);
                sink.put(stretch.at, part.unwrap_or_default())
            }
            (data, stretches) => stretches.iter().try_for_each(|stretch| {
                sink.put(stretch.at, &part_of(data, &bytes, &stretch.file))
            }),
        },
        Bytes::At {
            file,
            path,
            offsets,
            written,
        } => {
            let found = Plan::new(&content.data, &offsets, stretches);
            let copies = found.copies(&file, &path, written);
            copies.into_iter().try_for_each(|copy| sink.copy(copy))
        }
    }
}

/// The bytes of `part` of a file; holes are zeroes.
pub(crate) fn read_part(content: &Content, part: &Range<u64>) -> Result<Vec<u8>, Failure> {
    match &content.bytes {
        Bytes::Unread => Ok(vec![0; (part.end - part.start) as usize]),
        Bytes::Read(bytes) => Ok(part_of(&content.data, bytes, part)),
        Bytes::At {
            file,
            path,
            offsets,
            written: when,
        } => {
            let mut found = vec![0; (part.end - part.start) as usize];
            for (range, offset) in content.data.iter().zip(offsets) {
                let both = range.start.max(part.start)..range.end.min(part.end);
                if both.start < both.end {
                    let to = (both.start - part.start) as usize;
                    let room = &mut found[to..to + (both.end - both.start) as usize];
                    let read = file.read_exact_at(room, offset + (both.start - range.start));
                    read.map_err(|cause| failed(path, cause))?;
                }
            }
            if when.is_some() && *when != written(file).ok() {
                let path = Arc::clone(path);
                return Err(Failure::Changed { path });
            }
            Ok(found)
        }
    }
}

fn failed(path: &Arc<[u8]>, cause: io::Error) -> Failure {
    let ended = cause.kind() == io::ErrorKind::UnexpectedEof;
    Failure::Copy {
        path: Arc::clone(path),
        cause: (!ended).then_some(cause),
    }
}

/// The same of data that was read already.
fn part_of(data: &[Range<u64>], bytes: &[u8], part: &Range<u64>) -> Vec<u8> {
    let mut block = vec![0; (part.end - part.start) as usize];
    let mut at = 0; // where the range begins in `bytes`
    for range in data {
        let both = range.start.max(part.start)..range.end.min(part.end);
        if both.start < both.end {
            let from = at + (both.start - range.start) as usize;
            let length = (both.end - both.start) as usize;
            let to = (both.start - part.start) as usize;
            block[to..to + length].copy_from_slice(&bytes[from..from + length]);
        }
        at += (range.end - range.start) as usize;
    }
    block
}

/// What is to be copied where, with the bytes between that are zero.
#[derive(Default)]
struct Plan {
    parts: Vec<Part>,
}

impl Plan {
    fn new(data: &[Range<u64>], offsets: &[u64], stretches: &[Stretch]) -> Self {
        let mut plan = Self::default();
        let mut sources = data.iter().zip(offsets).peekable();
        for stretch in stretches {
            let whole = &stretch.file;
            let device = |at: u64| stretch.at + (at - whole.start);
            let mut at = whole.start;
            while let Some((range, offset)) = sources.peek() {
                if range.end <= at {
                    sources.next(); // goes nowhere
                    continue;
                }
                let part = range.start.max(at)..range.end.min(whole.end);
                if part.start < part.end {
                    plan.zero(device(at), part.start - at);
                    plan.copy(
                        *offset + (part.start - range.start),
                        device(part.start),
                        part.end - part.start,
                    );
                    at = part.end;
                }
                if range.end > whole.end || range.start >= whole.end {
                    break; // the next stretch goes on with it
                }
                sources.next();
            }
            plan.zero(device(at), whole.end - at);
        }
        plan
    }

    fn zero(&mut self, at: u64, length: u64) {
        if length > 0 {
            self.parts.push(Part {
                at,
                length,
                from: None,
            });
        }
    }

    fn copy(&mut self, from: u64, at: u64, length: u64) {
        let mut done = 0;
        while done < length {
            let now = (length - done).min(COPIED_AT_ONCE);
            self.parts.push(Part {
                at: at + done,
                length: now,
                from: Some(from + done),
            });
            done += now;
        }
    }

    /// In portions of about [`COPIED_AT_ONCE`] bytes.
    fn copies(
        self,
        file: &Arc<std::fs::File>,
        path: &Arc<[u8]>,
        written: Option<Time>,
    ) -> Vec<Copy> {
        let mut copies: Vec<Copy> = Vec::new();
        let mut held = COPIED_AT_ONCE;
        for part in self.parts {
            // Zeroes fill up a block, or lie between: they stay with what is before them.
            if copies.is_empty() || (part.from.is_some() && held + part.length > COPIED_AT_ONCE) {
                copies.push(Copy {
                    file: Arc::clone(file),
                    path: Arc::clone(path),
                    parts: Vec::new(),
                    written,
                });
                held = 0;
            }
            held += part.length;
            if let Some(copy) = copies.last_mut() {
                copy.parts.push(part);
            }
        }
        copies
    }
}
