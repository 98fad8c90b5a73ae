//! The buffers of one thread. The disk owns the bytes of an operation from its
//! submission to its completion: what it reads into is scribbled over meanwhile,
//! and whoever else touches them breaks a promise.

use std::cell::RefCell;

use snapstore::{BLOCK_SIZE, Checksum};
use ublk_target::lane::{self, BufferId};

use crate::sim::{Outcome, Violation};

/// What nobody has written yet, or the disk is writing.
const SCRIBBLE: u8 = 0xa5;

/// Bytes the disk owns.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Owned {
    pub(super) buffer: BufferId,
    pub(super) at: u32,
    pub(super) len: u32,
    /// The disk writes them; otherwise it only reads them.
    pub(super) filled: bool,
}

impl Owned {
    fn clashes(&self, other: &Self) -> bool {
        self.buffer == other.buffer
            && self.at < other.at + other.len
            && other.at < self.at + self.len
            && (self.filled || other.filled)
    }
}

/// See the module.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Contents, as far as they were ever used, and how long each may become.
    rooms: Vec<(Vec<u8>, usize)>,
    free: Vec<BufferId>,
    owned: Vec<Owned>,
    broken: RefCell<Option<String>>,
    /// Planted: zeroing is forgotten.
    pub(super) forgets_zeroes: bool,
    /// Planted: who touches what the disk owns is not told.
    pub(super) careless: bool,
}

impl Memory {
    /// A buffer of `len` bytes.
    pub(super) fn make(&mut self, len: usize) -> BufferId {
        self.rooms.push((Vec::new(), len));
        BufferId(self.rooms.len() as u32 - 1)
    }

    /// A buffer for a request, with what another one left in it.
    pub(super) fn take(&mut self, len: usize) -> BufferId {
        let buffer = self.free.pop().unwrap_or_else(|| self.make(0));
        if let Some((_, room)) = self.rooms.get_mut(buffer.0 as usize) {
            *room = len;
        }
        buffer
    }

    pub(super) fn give(&mut self, buffer: BufferId) {
        if self.owned.iter().any(|owned| owned.buffer == buffer) {
            self.wrong("given back", buffer);
        }
        self.free.push(buffer);
    }

    /// The bytes of a buffer.
    pub(super) fn bytes(&mut self, buffer: BufferId, at: u32, len: u32) -> &mut [u8] {
        let (at, end) = (at as usize, (at + len) as usize);
        let index = buffer.0 as usize;
        if self.rooms.get(index).is_none_or(|(_, room)| end > *room) {
            self.wrong("used beyond its end", buffer);
            return &mut [];
        }
        let (bytes, _) = &mut self.rooms[index];
        if bytes.len() < end {
            bytes.resize(end, SCRIBBLE);
        }
        &mut bytes[at..end]
    }

    /// The disk gets these bytes.
    pub(super) fn lend(&mut self, owned: Owned) {
        if self.owned.iter().any(|other| owned.clashes(other)) {
            self.wrong("in two operations at once", owned.buffer);
        }
        if owned.filled {
            self.bytes(owned.buffer, owned.at, owned.len).fill(SCRIBBLE);
        }
        self.owned.push(owned);
    }

    /// The disk is through with them.
    pub(super) fn take_back(&mut self, owned: &Owned) {
        if let Some(at) = self.owned.iter().position(|other| other == owned) {
            self.owned.swap_remove(at);
        }
    }

    /// What was done wrong since the last call.
    pub(super) fn verdict(&self) -> Outcome {
        match self.broken.take() {
            Some(wrong) if !self.careless => Err(Violation(wrong)),
            _ => Ok(()),
        }
    }

    fn touched(&self, buffer: BufferId, at: u32, len: u32, filled: bool) {
        let mine = Owned {
            buffer,
            at,
            len,
            filled,
        };
        if self.owned.iter().any(|owned| mine.clashes(owned)) {
            self.wrong("used while the disk owns it", buffer);
        }
    }

    fn wrong(&self, what: &str, buffer: BufferId) {
        *self.broken.borrow_mut() = Some(format!("{buffer:?} was {what}"));
    }
}

impl lane::Memory for Memory {
    fn checksum(&self, by: Checksum, buffer: BufferId, at: u32, len: u32, out: &mut Vec<u32>) {
        self.touched(buffer, at, len, false);
        let range = at as usize..(at + len) as usize;
        let bytes = self.rooms.get(buffer.0 as usize);
        match bytes.and_then(|(bytes, _)| bytes.get(range)) {
            Some(bytes) => out.extend(bytes.chunks(BLOCK_SIZE).map(|block| by.of(block))),
            None => self.wrong("summed beyond its end", buffer),
        }
    }

    fn zero(&mut self, buffer: BufferId, at: u32, len: u32) {
        self.touched(buffer, at, len, true);
        let forgets = self.forgets_zeroes;
        let bytes = self.bytes(buffer, at, len);
        if !forgets {
            bytes.fill(0);
        }
    }
}
