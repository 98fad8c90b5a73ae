//! A disk in memory behind a connection machine: the smallest honest driver.
//!
//! It has exactly as many request buffers as requests may be in flight, so taking
//! one too many fails the test. Requests are carried out in the order they come;
//! when and in which order the replies go out is up to the test.

use std::sync::{Arc, Mutex};

use crate::nbd::{
    Connection, Errno, ExportInfo, Extent, Incoming, Op, Options, Receive, Request, Segment, Slot,
    Status,
};

/// Contents shared by all connections.
pub(super) type Disk = Arc<Mutex<Vec<u8>>>;

/// Granularity of block status.
const GRAIN: usize = 64 << 10;

/// How a test wants the driver to behave.
#[derive(Clone, Copy, Debug)]
pub(super) struct Manner {
    /// Requests in flight.
    pub(super) limit: usize,
    /// Replies are held back until the machine waits, then go out last first.
    pub(super) lazy: bool,
    /// Bytes of one partial send.
    pub(super) send: usize,
    /// Offer the stream buffer behind a payload.
    pub(super) scatter: bool,
}

pub(super) const PLAIN: Manner = Manner {
    limit: 16,
    lazy: false,
    send: usize::MAX,
    scatter: false,
};

pub(super) struct Driver {
    pub(super) connection: Connection,
    disk: Disk,
    manner: Manner,
    buffers: Vec<Vec<u8>>,
    free: Vec<Slot>,
    /// Carried out, reply held back; the buffer is the read's data or the write's
    /// payload.
    pending: Vec<(Request, Option<Slot>)>,
    /// Every request that was to be carried out.
    pub(super) log: Vec<Request>,
    /// What was sent.
    pub(super) output: Vec<u8>,
}

impl Driver {
    pub(super) fn new(info: ExportInfo, options: Options, disk: Disk, manner: Manner) -> Self {
        Self {
            connection: Connection::new(info, options, manner.limit),
            disk,
            manner,
            buffers: vec![vec![0; info.maximum_payload() as usize]; manner.limit],
            free: (0..manner.limit as u32).map(Slot).collect(),
            pending: Vec::new(),
            log: Vec::new(),
            output: Vec::new(),
        }
    }

    /// Takes what a client sent, as far as the machine wants it.
    pub(super) fn feed(&mut self, mut input: &[u8]) {
        while !input.is_empty() {
            match self.connection.receive() {
                Receive::Ended => return,
                Receive::Wait => assert!(self.answer() > 0, "stuck: {:?}", self.connection.end()),
                Receive::Stream => {
                    let n = copy(input, self.connection.stream_space());
                    self.arrived(&mut input, n);
                }
                Receive::Payload { slot, start, len } => {
                    let buffer = &mut self.buffers[slot.0 as usize];
                    let mut n = copy(input, &mut buffer[start..start + len]);
                    if self.manner.scatter {
                        n += copy(&input[n..], self.connection.stream_space());
                    }
                    self.arrived(&mut input, n);
                }
            }
        }
        if !self.manner.lazy {
            self.answer();
        }
    }

    fn arrived(&mut self, input: &mut &[u8], n: usize) {
        assert!(n > 0, "the machine asked for bytes without giving space");
        self.connection.received(n);
        *input = &input[n..];
        self.take_requests();
    }

    fn take_requests(&mut self) {
        while let Some(incoming) = self.connection.next_request() {
            match incoming {
                Incoming::NeedsBuffer(_) => {
                    let slot = self.free.pop().expect("more buffers in use than the limit");
                    let memory = &mut self.buffers[slot.0 as usize];
                    assert!(self.connection.payload_buffer(slot, memory));
                }
                Incoming::Write(request, slot) => self.carry_out(request, Some(slot)),
                Incoming::Request(request) => self.carry_out(request, None),
            }
            assert!(self.connection.in_flight() <= self.manner.limit);
        }
    }

    fn carry_out(&mut self, request: Request, slot: Option<Slot>) {
        self.log.push(request);
        let mut disk = self.disk.lock().unwrap();
        let start = request.offset as usize;
        // Indexing is the test: the machine promised that the range is inside.
        let range = &mut disk[start..start + request.len as usize];
        let slot = match request.op {
            Op::Read => {
                let slot = self.free.pop().expect("more buffers in use than the limit");
                copy(range, &mut self.buffers[slot.0 as usize]);
                Some(slot)
            }
            Op::Write => {
                let slot = slot.expect("a write has a buffer");
                range.copy_from_slice(&self.buffers[slot.0 as usize][..range.len()]);
                Some(slot)
            }
            Op::WriteZeroes { .. } => {
                range.fill(0);
                None
            }
            Op::Trim | Op::Flush | Op::BlockStatus { .. } => None,
        };
        self.pending.push((request, slot));
    }

    /// Replies to everything carried out, sends it in pieces, and goes on with what
    /// was waiting. Returns how many bytes went out.
    pub(super) fn answer(&mut self) -> usize {
        let before = self.output.len();
        loop {
            while let Some((request, slot)) = self.pending.pop() {
                self.reply(&request, slot);
            }
            self.send();
            self.take_requests();
            if self.pending.is_empty() && self.connection.replies().is_empty() {
                return self.output.len() - before;
            }
        }
    }

    fn reply(&mut self, request: &Request, slot: Option<Slot>) {
        match (request.op, slot) {
            (Op::Read, Some(slot)) => self.connection.reply_data(request, slot, 0),
            (Op::WriteZeroes { fast: true, .. }, _) => {
                self.connection
                    .reply_error(request, Errno::NotSup, "not faster than writing");
            }
            (Op::BlockStatus { .. }, _) => {
                let contexts: Vec<_> = self.connection.options().contexts().collect();
                let told = contexts.iter().map(|(context, _)| Status {
                    context: *context,
                    extents: self.extents(request),
                });
                let told: Vec<Status> = told.collect();
                self.connection.reply_extents(request, &told);
            }
            (_, slot) => {
                self.free.extend(slot);
                self.connection.reply_done(request);
            }
        }
    }

    fn extents(&self, request: &Request) -> Vec<Extent> {
        let disk = self.disk.lock().unwrap();
        let start = request.offset as usize;
        disk[start..start + request.len as usize]
            .chunks(GRAIN)
            .map(|grain| {
                let zero = grain.iter().all(|&byte| byte == 0);
                Extent::allocation(grain.len() as u64, !zero)
            })
            .collect()
    }

    /// Sends all replies, `manner.send` bytes at a time.
    fn send(&mut self) {
        loop {
            let mut gathered = Vec::new();
            for segment in self.connection.replies().segments() {
                assert!(segment.len() > 0);
                match segment {
                    Segment::Bytes(bytes) => gathered.extend_from_slice(bytes),
                    Segment::Buffer { slot, start, len } => gathered
                        .extend_from_slice(&self.buffers[slot.0 as usize][start..start + len]),
                }
                if gathered.len() >= self.manner.send {
                    break;
                }
            }
            gathered.truncate(self.manner.send);
            if gathered.is_empty() {
                return;
            }
            self.output.extend_from_slice(&gathered);
            let free = &mut self.free;
            self.connection.sent(gathered.len(), |slot| {
                assert!(!free.contains(&slot), "{slot:?} was handed back twice");
                free.push(slot);
            });
        }
    }

    /// The client is gone: everything is answered and no buffer may be missing.
    pub(super) fn finish(&mut self) {
        self.answer();
        let slot = self.connection.hang_up(crate::nbd::End::Closed);
        self.free.extend(slot);
        assert!(
            self.connection.is_finished(),
            "{} in flight",
            self.connection.in_flight()
        );
        let mut free: Vec<u32> = self.free.iter().map(|slot| slot.0).collect();
        free.sort_unstable();
        assert_eq!(
            free,
            (0..self.manner.limit as u32).collect::<Vec<_>>(),
            "a buffer is lost"
        );
    }
}

fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let n = from.len().min(to.len());
    to[..n].copy_from_slice(&from[..n]);
    n
}
