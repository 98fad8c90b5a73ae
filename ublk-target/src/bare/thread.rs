//! One thread of the bare target: fetches, carries out, commits.
//!
//! Each tag has a place (`Slot`) here for good. Loop: reap all completions, go on
//! with each, one enter.

use std::io;
use std::ops::Range;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::atomic::Ordering;

use io_uring::squeue::{Entry, Flags};
use io_uring::{opcode, types};
use zerocopy::IntoBytes;

use super::Shared;
use super::copies::{Claim, Waiter};
use super::ring::{Area, Ring};
use crate::ublk::uapi::{self, IoCmd, IoDesc, io as code, op};

/// Places in the table of fixed files.
const CHAR: types::Fixed = types::Fixed(0);
const ORIGIN: types::Fixed = types::Fixed(1);
const STORE: types::Fixed = types::Fixed(2);

/// `BLOCK_URING_CMD_DISCARD` (Linux 6.12): `_IO(0x12, 0)`, the first byte in the
/// submission's `addr`, the number of bytes in its `addr3`, where `cmd` begins.
/// (`fallocate` on a block device would write zeroes, which a RAM disk cannot.)
const BLOCK_DISCARD: u32 = 0x1200;

/// Whose completion it is: the top byte of the user data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    /// A request came in, or the tag is over.
    Fetched,
    /// The origin did what was asked.
    Served,
    /// Old contents were read.
    CopyRead,
    /// Old contents were written.
    CopyWritten,
    /// The store was flushed.
    Flushed,
    /// A copy this slot waits for is over.
    Woken,
    /// Nobody's.
    Nothing,
}

const KINDS: [Kind; 7] = [
    Kind::Fetched,
    Kind::Served,
    Kind::CopyRead,
    Kind::CopyWritten,
    Kind::Flushed,
    Kind::Woken,
    Kind::Nothing,
];

impl Kind {
    fn data(self, slot: u32) -> u64 {
        (self as u64) << 56 | u64::from(slot)
    }

    fn of(data: u64) -> (Self, u32) {
        let kind = KINDS.get((data >> 56) as usize).copied();
        (kind.unwrap_or(Self::Nothing), data as u32)
    }
}

/// How the pages of requests get here.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Mode {
    /// They are copied to and from the slot's buffer.
    Copy,
    /// They are registered by command.
    Register,
    /// They are registered by themselves.
    Auto,
}

/// One tag and what goes on for it.
#[derive(Debug)]
struct Slot {
    queue: u16,
    tag: u16,
    request: IoDesc,
    /// The next chunk to look at.
    at: u64,
    /// Chunks being copied.
    run: Range<u64>,
    /// Their pages were registered by command.
    registered: bool,
}

/// See the module.
pub(super) struct Server<'a> {
    me: u32,
    shared: &'a Shared,
    slots: Vec<Slot>,
    /// Tags that are not over.
    live: usize,
    /// Copies whose flush is under way, and those that wait for the next.
    flushing: Vec<u32>,
    to_flush: Vec<u32>,
    reaped: Vec<(u64, i32)>,
    woken: Vec<Waiter>,
    // The ring is dropped before the memory it uses.
    ring: Ring,
    area: Area,
}

impl<'a> Server<'a> {
    /// Fetches every tag of `tags`. To be called on the thread that serves them.
    pub(super) fn new(me: u32, shared: &'a Shared, tags: &[(u16, u16)]) -> io::Result<Self> {
        let count = tags.len();
        let area = Area::new(count * shared.stride())?;
        let store = shared.store.as_ref();
        let store = store.map_or(-1, |store| store.as_fd().as_raw_fd());
        let files: [RawFd; 3] = [
            shared.device.as_fd().as_raw_fd(),
            shared.origin.as_fd().as_raw_fd(),
            store,
        ];
        let ring = Ring::new(count as u32 * 4, &files, count as u32, &area)?;
        if let Some(number) = shared.rings.get(me as usize) {
            number.store(ring.as_raw(), Ordering::Release);
        }
        let slot = |&(queue, tag): &(u16, u16)| Slot {
            queue,
            tag,
            request: IoDesc::default(),
            at: 0,
            run: 0..0,
            registered: false,
        };
        let mut server = Self {
            me,
            shared,
            slots: tags.iter().map(slot).collect(),
            live: count,
            flushing: Vec::with_capacity(count),
            to_flush: Vec::with_capacity(count),
            reaped: Vec::with_capacity(count * 2),
            woken: Vec::new(),
            ring,
            area,
        };
        for slot in 0..count as u32 {
            let entry = server.command(slot, code::FETCH, 0);
            server.ring.push(&[entry])?;
        }
        server.ring.enter(false)?;
        Ok(server)
    }

    /// Serves until every tag is over.
    pub(super) fn run(&mut self) -> io::Result<()> {
        while self.live > 0 {
            self.ring.enter(true)?;
            let mut reaped = std::mem::take(&mut self.reaped);
            self.ring.reap(&mut reaped);
            for (data, result) in reaped.drain(..) {
                let (kind, slot) = Kind::of(data);
                self.completed(kind, slot, result)?;
            }
            self.reaped = reaped;
            self.flush()?;
        }
        Ok(())
    }

    fn completed(&mut self, kind: Kind, slot: u32, result: i32) -> io::Result<()> {
        match kind {
            Kind::Fetched if result == uapi::IO_OK => self.start(slot),
            Kind::Fetched => {
                if result != uapi::IO_ABORT {
                    tracing::error!(slot, result, "a tag is over for a strange reason");
                }
                self.live -= 1;
                Ok(())
            }
            Kind::Served => self.commit(slot, result),
            Kind::CopyRead => self.copy_read(slot, result),
            Kind::CopyWritten => self.copy_written(slot, result),
            Kind::Flushed => self.flushed(result),
            Kind::Woken => self.advance(slot),
            Kind::Nothing => Ok(()),
        }
    }

    fn start(&mut self, slot: u32) -> io::Result<()> {
        let Some(place) = self.slots.get_mut(slot as usize) else {
            return Ok(());
        };
        let queue = self.shared.descriptors.get(usize::from(place.queue));
        let Some(request) = queue.and_then(|queue| queue.get(place.tag)) else {
            return Ok(());
        };
        place.request = request;
        place.registered = false;
        let kind = request.op_flags & op::MASK;
        match (&self.shared.copies, request.bytes()) {
            (Some(copies), Some((start, _))) if kind != op::READ && kind != op::FLUSH => {
                place.at = start / copies.chunk;
                self.advance(slot)
            }
            _ => self.serve(slot),
        }
    }

    /// Copies the next chunks that need it; writes when none does.
    fn advance(&mut self, slot: u32) -> io::Result<()> {
        let (Some(place), Some(copies)) = (
            self.slots.get_mut(slot as usize),
            self.shared.copies.as_ref(),
        ) else {
            return Ok(());
        };
        let end = place.request.bytes().map_or(0, |(start, len)| start + len);
        let end = end.div_ceil(copies.chunk);
        loop {
            match copies.claim(&mut place.at, end) {
                Claim::Done => return self.serve(slot),
                Claim::Copy(run) => {
                    place.run = run;
                    return self.read_old(slot);
                }
                Claim::Busy(chunk) if copies.wait(chunk, (self.me, slot)) => return Ok(()),
                Claim::Busy(_) => {}
            }
        }
    }

    /// Where the chunks being copied for `slot` lie in the origin, and how long.
    fn run_bytes(&self, slot: u32) -> (u64, u32) {
        let (Some(place), Some(copies)) =
            (self.slots.get(slot as usize), self.shared.copies.as_ref())
        else {
            return (0, 0);
        };
        let start = place.run.start * copies.chunk;
        let end = (place.run.end * copies.chunk).min(self.shared.origin.size());
        (start, end.saturating_sub(start) as u32)
    }

    fn read_old(&mut self, slot: u32) -> io::Result<()> {
        let (start, len) = self.run_bytes(slot);
        let buffer = self.area.address(self.shared.copy_at(slot));
        let read = opcode::ReadFixed::new(ORIGIN, buffer, len, self.own())
            .offset(start)
            .build();
        self.ring.push(&[read.user_data(Kind::CopyRead.data(slot))])
    }

    fn copy_read(&mut self, slot: u32, result: i32) -> io::Result<()> {
        let (_, len) = self.run_bytes(slot);
        let Some(copies) = self.shared.copies.as_ref().filter(|_| result == len as i32) else {
            return self.copy_over(slot, false);
        };
        let buffer = self.area.address(self.shared.copy_at(slot));
        let write = opcode::WriteFixed::new(STORE, buffer, len, self.own())
            .offset(copies.place(u64::from(len)))
            .build();
        self.ring
            .push(&[write.user_data(Kind::CopyWritten.data(slot))])
    }

    fn copy_written(&mut self, slot: u32, result: i32) -> io::Result<()> {
        let copied = result == self.run_bytes(slot).1 as i32;
        if copied && self.shared.copies.as_ref().is_some_and(|c| c.flush) {
            self.to_flush.push(slot);
            return Ok(());
        }
        self.copy_over(slot, copied)
    }

    /// One flush at a time, for every copy that waits.
    fn flush(&mut self) -> io::Result<()> {
        if !self.flushing.is_empty() || self.to_flush.is_empty() {
            return Ok(());
        }
        std::mem::swap(&mut self.flushing, &mut self.to_flush);
        let flush = opcode::Fsync::new(STORE)
            .flags(types::FsyncFlags::DATASYNC)
            .build();
        self.ring.push(&[flush.user_data(Kind::Flushed.data(0))])
    }

    fn flushed(&mut self, result: i32) -> io::Result<()> {
        let mut done = std::mem::take(&mut self.flushing);
        for slot in done.drain(..) {
            self.copy_over(slot, result >= 0)?;
        }
        self.flushing = done;
        Ok(())
    }

    fn copy_over(&mut self, slot: u32, copied: bool) -> io::Result<()> {
        let (Some(place), Some(copies)) = (
            self.slots.get_mut(slot as usize),
            self.shared.copies.as_ref(),
        ) else {
            return Ok(());
        };
        let mut woken = std::mem::take(&mut self.woken);
        copies.finish(place.run.clone(), copied, &mut woken);
        for (thread, other) in woken.drain(..) {
            self.wake(thread, other)?;
        }
        self.woken = woken;
        if copied {
            self.advance(slot)
        } else {
            self.commit(slot, -libc::EIO)
        }
    }

    fn wake(&mut self, thread: u32, slot: u32) -> io::Result<()> {
        let data = Kind::Woken.data(slot);
        let number = self.shared.rings.get(thread as usize);
        let entry = match number.map(|number| number.load(Ordering::Acquire)) {
            Some(ring) if thread != self.me => {
                opcode::MsgRingData::new(types::Fd(ring), 0, data, None)
                    .build()
                    .user_data(Kind::Nothing.data(0))
            }
            // It takes its turn after what has completed already.
            _ => opcode::Nop::new().build().user_data(data),
        };
        self.ring.push(&[entry])
    }

    /// Passes the request on to the origin.
    fn serve(&mut self, slot: u32) -> io::Result<()> {
        let Some(place) = self.slots.get_mut(slot as usize) else {
            return Ok(());
        };
        let request = place.request;
        let kind = request.op_flags & op::MASK;
        let moves = kind == op::READ || kind == op::WRITE;
        let failed = request.op_flags & op::NEED_REG_BUF != 0;
        place.registered = moves
            && (self.shared.mode == Mode::Register || (self.shared.mode == Mode::Auto && failed));
        let registered = place.registered;
        let Some(entry) = self.operation(slot, &request) else {
            return self.commit(slot, -libc::EOPNOTSUPP);
        };
        let entry = entry.user_data(Kind::Served.data(slot));
        if !registered {
            return self.ring.push(&[entry]);
        }
        let register = self
            .command(slot, code::REGISTER_BUFFER, 0)
            .flags(Flags::IO_LINK | Flags::SKIP_SUCCESS)
            .user_data(Kind::Nothing.data(0));
        self.ring.push(&[register, entry])
    }

    fn operation(&self, slot: u32, request: &IoDesc) -> Option<Entry> {
        // Of a flush they are not looked at.
        let (offset, bytes) = request.bytes().unwrap_or((0, 0));
        let len = u32::try_from(bytes).ok()?;
        let (buffer, index) = match self.shared.mode {
            Mode::Copy => (self.area.address(self.shared.data_at(slot)), self.own()),
            // In a request's own pages addresses begin at 0.
            Mode::Register | Mode::Auto => (std::ptr::null_mut(), slot as u16),
        };
        let keep = libc::FALLOC_FL_KEEP_SIZE;
        let fua = if request.op_flags & op::FUA == 0 {
            0
        } else {
            libc::RWF_DSYNC
        };
        Some(match request.op_flags & op::MASK {
            op::READ => opcode::ReadFixed::new(ORIGIN, buffer, len, index)
                .offset(offset)
                .build(),
            op::WRITE => opcode::WriteFixed::new(ORIGIN, buffer, len, index)
                .offset(offset)
                .rw_flags(fua)
                .build(),
            op::FLUSH => opcode::Fsync::new(ORIGIN)
                .flags(types::FsyncFlags::DATASYNC)
                .build(),
            op::DISCARD if self.shared.origin.is_block_device() => {
                opcode::UringCmd16::new(ORIGIN, BLOCK_DISCARD)
                    .addr(Some(offset))
                    .cmd(u128::from(bytes).to_le_bytes())
                    .build()
            }
            op::DISCARD => opcode::Fallocate::new(ORIGIN, bytes)
                .offset(offset)
                .mode(libc::FALLOC_FL_PUNCH_HOLE | keep)
                .build(),
            op::WRITE_ZEROES => opcode::Fallocate::new(ORIGIN, bytes)
                .offset(offset)
                .mode(libc::FALLOC_FL_ZERO_RANGE | keep)
                .build(),
            _ => return None,
        })
    }

    fn commit(&mut self, slot: u32, result: i32) -> io::Result<()> {
        let commit = self.command(slot, code::COMMIT_AND_FETCH, result);
        if !self.slots.get(slot as usize).is_some_and(|s| s.registered) {
            return self.ring.push(&[commit]);
        }
        // Linked hard: without pages to take back the request still ends.
        let unregister = self
            .command(slot, code::UNREGISTER_BUFFER, 0)
            .flags(Flags::IO_HARDLINK | Flags::SKIP_SUCCESS)
            .user_data(Kind::Nothing.data(0));
        self.ring.push(&[unregister, commit])
    }

    /// A command to the driver about `slot`; its completion is a fetch's.
    fn command(&self, slot: u32, code: u32, result: i32) -> Entry {
        let (q_id, tag) = self
            .slots
            .get(slot as usize)
            .map_or((0, 0), |place| (place.queue, place.tag));
        let fetches = code == code::FETCH || code == code::COMMIT_AND_FETCH;
        let addr = match self.shared.mode {
            // Registration by command names its place in the table here.
            _ if !fetches => u64::from(slot),
            Mode::Copy => {
                let buffer = self.area.address(self.shared.data_at(slot));
                buffer.expose_provenance() as u64
            }
            Mode::Register | Mode::Auto => 0,
        };
        let command = IoCmd {
            q_id,
            tag,
            result,
            addr,
        };
        let mut bytes = [0; 16];
        for (to, from) in bytes.iter_mut().zip(command.as_bytes()) {
            *to = *from;
        }
        let auto = fetches && self.shared.mode == Mode::Auto;
        opcode::UringCmd16::new(CHAR, code)
            .cmd(bytes)
            .addr(auto.then(|| uapi::auto_buffer(slot as u16)))
            .build()
            .user_data(Kind::Fetched.data(slot))
    }

    /// The place of the thread's own memory in the table of buffers.
    fn own(&self) -> u16 {
        self.slots.len() as u16
    }
}
