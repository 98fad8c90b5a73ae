//! Operations of a lane as submissions, and completions as the lane wants them.
//!
//! What the kernel reads or writes while an operation is in flight stays put:
//! pool buffers by the lane's contract, metadata blocks and message headers
//! because they are kept here or in their connection until the completion.

use std::io;
use std::os::fd::RawFd;
use std::sync::Arc;

use io_uring::{IoUring, cqueue, opcode, squeue, types};
use snapstore::{BLOCK_SIZE, Block};

use super::devices::Devices;
use super::memory::{Memory, kernel_index};
use crate::lane::{Action, BufferId, Completion, DeviceSlot, GONE, Op, Token, UNREACHABLE};
use crate::ublk::uapi::IoCmd;

/// `BLOCK_URING_CMD_DISCARD` of `linux/blkdev.h` (Linux 6.12): the first byte in the
/// submission's `addr`, the number of bytes where its `cmd` begins. Punching a hole
/// into a block device would write zeroes instead.
const BLOCK_DISCARD: u32 = 0x1200;

/// Whose completion it is: the top byte of the user data.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Kind {
    /// A lane's operation; the rest is its token.
    Device,
    /// Bytes from a client; the rest is the connection.
    Receive,
    /// Bytes to a client; the rest is the connection.
    Send,
    /// The eventfd was written.
    Event,
    /// Another lane's message.
    Message,
    /// The fate of a message sent; the rest is the lane meant.
    Sent,
    /// Nothing: it only ended a wait.
    Nothing,
    /// A tag's fetch; the rest says whose.
    Fetch,
    /// A tag's pages registered or taken back; the rest says whose.
    Pages,
    /// A moment has passed; the rest says for whom, see [`Ticking`].
    Tick,
}

/// Who waits for a moment to pass.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Ticking {
    /// Requests of block devices.
    Blocks,
    /// NBD clients.
    Clients,
}

const KINDS: [Kind; 10] = [
    Kind::Device,
    Kind::Receive,
    Kind::Send,
    Kind::Event,
    Kind::Message,
    Kind::Sent,
    Kind::Nothing,
    Kind::Fetch,
    Kind::Pages,
    Kind::Tick,
];

/// How long a moment is.
static MOMENT: types::Timespec = types::Timespec::new().nsec(4_000_000);

impl Kind {
    /// User data for `rest`.
    pub(crate) fn data(self, rest: u32) -> u64 {
        (self as u64) << 56 | u64::from(rest)
    }

    /// What user data says.
    pub(crate) fn of(data: u64) -> (Self, u32) {
        let kind = KINDS
            .get((data >> 56) as usize)
            .copied()
            .unwrap_or(Self::Nothing);
        (kind, data as u32)
    }
}

/// One completion, out of the ring.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reaped {
    pub(crate) kind: Kind,
    pub(crate) rest: u32,
    pub(crate) result: i32,
}

/// A metadata block the kernel reads into or writes from.
enum Kept {
    Read(Arc<Block>),
    /// Never looked at again: it only has to stay.
    Write(#[allow(dead_code)] Arc<Block>),
}

/// What has to be known of a lane's operation in flight when it completes.
#[derive(Clone, Copy)]
struct Sent {
    device: DeviceSlot,
    /// Which one of those that were in that place.
    number: u32,
    /// Sectors that the kernel may count as written.
    writes: u64,
    /// It moves bytes: none moved is bad news.
    moves: bool,
    flushes: bool,
    /// A flush that a user asked for.
    asked: bool,
    /// Of a flush: the sectors that it covers.
    landed: u64,
}

impl Sent {
    fn new(op: &Op) -> Self {
        let (bytes, moves) = match op.action {
            Action::Write { len, .. } => (u64::from(len), true),
            Action::WriteBlock { .. } => (BLOCK_SIZE as u64, true),
            Action::Punch { len, .. } => (len, false),
            // Tried as one command, and written out where the device knows none.
            Action::Zero { len, .. } => (2 * len, false),
            Action::Read { .. } | Action::ReadBlock { .. } => (0, true),
            Action::Flush { .. } | Action::Trim { .. } | Action::Extents { .. } => (0, false),
        };
        Self {
            device: op.device,
            number: 0,
            writes: bytes.div_ceil(512),
            moves,
            flushes: matches!(op.action, Action::Flush { .. }),
            asked: matches!(op.action, Action::Flush { asked: true }),
            landed: 0,
        }
    }

    fn failed(&self, result: i32) -> bool {
        result < 0 || (self.moves && result == 0)
    }
}

/// The ring and what its operations hold on to.
pub(crate) struct Submitter {
    ring: IoUring,
    registered: bool,
    /// Metadata blocks in flight, by token.
    blocks: Vec<Option<Kept>>,
    /// Operations of the lane in flight, by token.
    sent: Vec<Option<Sent>>,
    /// Operations submitted or queued whose completion has not been reaped, without
    /// those forgotten. Below zero while completions of forgotten ones are counted
    /// and not yet remembered.
    in_flight: i64,
    /// Where the eventfd is read into. Boxed: its address is with the kernel.
    event: Box<[u8; 8]>,
}

impl Submitter {
    pub(crate) fn new((ring, registered): (IoUring, bool)) -> Self {
        Self {
            ring,
            registered,
            blocks: Vec::new(),
            sent: Vec::new(),
            in_flight: 0,
            event: Box::default(),
        }
    }

    pub(crate) fn ring(&self) -> &IoUring {
        &self.ring
    }

    /// Queues a submission; makes room by submitting what is queued.
    fn push(&mut self, entry: squeue::Entry, data: u64) -> io::Result<()> {
        let entry = entry.user_data(data);
        loop {
            // SAFETY: every caller in this module hands over memory that stays
            // valid until the completion: see the top of the module.
            if unsafe { self.ring.submission().push(&entry) }.is_ok() {
                self.in_flight += 1;
                return Ok(());
            }
            match self.ring.submit() {
                Ok(_) => {}
                Err(error) if is_passing(&error) => {}
                Err(error) => return Err(error),
            }
        }
    }

    /// Submits all, and waits for at least one completion.
    pub(crate) fn submit_and_wait(&mut self) -> io::Result<()> {
        match self.ring.submit_and_wait(1) {
            Ok(_) => Ok(()),
            Err(error) if is_passing(&error) => Ok(()),
            Err(error) => Err(error),
        }
    }

    /// Takes every completion there is.
    pub(crate) fn reap(&mut self, out: &mut Vec<Reaped>) {
        let before = out.len();
        out.extend(self.ring.completion().map(|entry: cqueue::Entry| {
            let (kind, rest) = Kind::of(entry.user_data());
            Reaped {
                kind,
                rest,
                result: entry.result(),
            }
        }));
        // Messages are completions of another ring's operations.
        let own = out
            .iter()
            .skip(before)
            .filter(|reaped| reaped.kind != Kind::Message)
            .count();
        self.in_flight -= own as i64;
    }

    /// Whether the kernel holds nothing of this thread's any more.
    pub(crate) fn is_idle(&self) -> bool {
        self.in_flight == 0
    }

    /// Queues an operation that ends the next wait.
    pub(crate) fn nudge(&mut self) -> io::Result<()> {
        self.push(opcode::Nop::new().build(), Kind::Nothing.data(0))
    }

    /// Waits for a moment to pass, for `whom`.
    pub(crate) fn tick(&mut self, whom: Ticking) -> io::Result<()> {
        let tick = opcode::Timeout::new(&MOMENT).build();
        self.push(tick, Kind::Tick.data(whom as u32))
    }

    /// Waits for the eventfd.
    pub(crate) fn watch(&mut self, event: RawFd) -> io::Result<()> {
        let target = self.event.as_mut_ptr();
        let read = opcode::Read::new(types::Fd(event), target, 8).build();
        self.push(read, Kind::Event.data(0))
    }

    /// Sends a message to another lane's ring.
    pub(crate) fn message(&mut self, ring: RawFd, lane: u16) -> io::Result<()> {
        let data = Kind::Message.data(0);
        let message = opcode::MsgRingData::new(types::Fd(ring), 0, data, None).build();
        self.push(message, Kind::Sent.data(u32::from(lane)))
    }

    /// Receives at most `len` bytes of connection `connection` to `target`, which
    /// stays valid until the completion.
    pub(crate) fn receive(
        &mut self,
        file: RawFd,
        connection: u32,
        target: *mut u8,
        len: u32,
    ) -> io::Result<()> {
        let receive = opcode::Recv::new(types::Fd(file), target, len).build();
        self.push(receive, Kind::Receive.data(connection))
    }

    /// Sends what `message` describes, or the beginning of it; it and what it points to stay
    /// valid until the completion. Not all at once: how much a slow peer takes is to be seen.
    pub(crate) fn send(
        &mut self,
        file: RawFd,
        connection: u32,
        message: *const libc::msghdr,
    ) -> io::Result<()> {
        let send = opcode::SendMsg::new(types::Fd(file), message)
            .flags(libc::MSG_NOSIGNAL as u32)
            .build();
        self.push(send, Kind::Send.data(connection))
    }

    /// Sends the driver a tag: for its next request, perhaps with the result of
    /// the last. Addresses in `command` stay valid until the completion.
    pub(crate) fn fetch(
        &mut self,
        file: RawFd,
        rest: u32,
        code: u32,
        command: IoCmd,
        auto: Option<u64>,
    ) -> io::Result<()> {
        let entry = opcode::UringCmd16::new(types::Fd(file), code)
            .cmd(zerocopy::transmute!(command))
            .addr(auto)
            .build();
        self.push(entry, Kind::Fetch.data(rest))
    }

    /// Puts the pages of a tag's request into the table of buffers, or takes them out.
    pub(crate) fn pages(
        &mut self,
        file: RawFd,
        rest: u32,
        code: u32,
        command: IoCmd,
    ) -> io::Result<()> {
        let entry = opcode::UringCmd16::new(types::Fd(file), code)
            .cmd(zerocopy::transmute!(command))
            .build();
        self.push(entry, Kind::Pages.data(rest))
    }

    /// Operations the driver keeps: nobody waits for them any more.
    pub(crate) fn forget(&mut self, operations: usize) {
        self.in_flight -= operations as i64;
    }

    /// One of those has completed all the same.
    pub(crate) fn remember(&mut self) {
        self.in_flight += 1;
    }

    /// Whether the kernel has taken everything that was queued.
    pub(crate) fn all_submitted(&mut self) -> bool {
        self.ring.submission().is_empty()
    }

    /// Queues an operation of the lane.
    pub(crate) fn device(&mut self, op: Op, devices: &Devices, memory: &Memory) -> io::Result<()> {
        let file = types::Fixed(op.device.0);
        let mut sent = Sent::new(&op);
        let entry = match op.action {
            Action::Read {
                buffer,
                at,
                offset,
                len,
            } => {
                let (target, index) = self.place(memory, buffer, at, len)?;
                match index {
                    Some(index) => opcode::ReadFixed::new(file, target, len, index)
                        .offset(offset)
                        .build(),
                    None => opcode::Read::new(file, target, len).offset(offset).build(),
                }
            }
            Action::Write {
                buffer,
                at,
                offset,
                len,
                fua,
            } => {
                let (source, index) = self.place(memory, buffer, at, len)?;
                let flags = durable(fua);
                match index {
                    Some(index) => {
                        let write = opcode::WriteFixed::new(file, source, len, index);
                        write.offset(offset).rw_flags(flags).build()
                    }
                    None => {
                        let write = opcode::Write::new(file, source, len);
                        write.offset(offset).rw_flags(flags).build()
                    }
                }
            }
            Action::ReadBlock { offset } => {
                let mut block = Arc::new(Block::zeroed());
                let target = Arc::get_mut(&mut block)
                    .ok_or_else(too_short)?
                    .0
                    .as_mut_ptr();
                put(&mut self.blocks, op.token, Kept::Read(block));
                opcode::Read::new(file, target, BLOCK_SIZE as u32)
                    .offset(offset)
                    .build()
            }
            Action::WriteBlock { offset, data, fua } => {
                let source = data.0.as_ptr();
                put(&mut self.blocks, op.token, Kept::Write(data));
                let write = opcode::Write::new(file, source, BLOCK_SIZE as u32);
                write.offset(offset).rw_flags(durable(fua)).build()
            }
            Action::Flush { .. } => opcode::Fsync::new(file)
                .flags(types::FsyncFlags::DATASYNC)
                .build(),
            Action::Trim { offset, len } if devices.is_block_device(op.device) => {
                opcode::UringCmd16::new(file, BLOCK_DISCARD)
                    .addr(Some(offset))
                    .cmd(u128::from(len).to_le_bytes())
                    .build()
            }
            Action::Trim { offset, len } | Action::Punch { offset, len } => {
                let mode = libc::FALLOC_FL_PUNCH_HOLE | libc::FALLOC_FL_KEEP_SIZE;
                opcode::Fallocate::new(file, len)
                    .offset(offset)
                    .mode(mode)
                    .build()
            }
            Action::Zero { offset, len } => {
                let mode = libc::FALLOC_FL_ZERO_RANGE | libc::FALLOC_FL_KEEP_SIZE;
                opcode::Fallocate::new(file, len)
                    .offset(offset)
                    .mode(mode)
                    .build()
            }
            // Not an operation of the ring: the thread answers it at once.
            Action::Extents { .. } => return Ok(()),
        };
        sent.number = devices.begin(sent.device, sent.writes);
        if sent.flushes {
            sent.landed = devices.landed(sent.device);
        }
        put(&mut self.sent, op.token, sent);
        self.push(entry, Kind::Device.data(op.token.0))
    }

    /// Where `len` bytes of a buffer from `at` on are for the kernel, and under
    /// which index of the table of buffers, if they are registered. Pages of a
    /// request count from 0.
    fn place(
        &self,
        memory: &Memory,
        buffer: BufferId,
        at: u32,
        len: u32,
    ) -> io::Result<(*mut u8, Option<u16>)> {
        if let Some(index) = kernel_index(buffer) {
            let from_start = std::ptr::without_provenance_mut(at as usize);
            return Ok((from_start, Some(index)));
        }
        let address = memory.address(buffer, at as usize, len as usize);
        let address = address.ok_or_else(too_short)?.as_ptr();
        let registered = self.registered && memory.is_registered(buffer);
        Ok((address, registered.then_some(0)))
    }

    /// A device completion as the lane wants it.
    pub(crate) fn completion(
        &mut self,
        token: Token,
        result: i32,
        devices: &Devices,
    ) -> Completion {
        let sent = self.sent.get_mut(token.0 as usize).and_then(Option::take);
        let result = sent.map_or(result, |sent| ended(sent, result, devices));
        let result = u32::try_from(result).map_err(|_| -result);
        match self.blocks.get_mut(token.0 as usize).and_then(Option::take) {
            Some(Kept::Read(block)) => Completion::Block(match result {
                Ok(moved) if moved as usize == BLOCK_SIZE => Ok(block),
                // A store that ended early.
                Ok(_) => Err(libc::EIO),
                Err(errno) => Err(errno),
            }),
            _ => Completion::Moved(result),
        }
    }
}

/// An operation ended so. A device that is gone may say anything, or nothing at all:
/// it becomes [`GONE`]. One that is there, but cut off, may say that it failed:
/// [`UNREACHABLE`].
fn ended(sent: Sent, result: i32, devices: &Devices) -> i32 {
    let well = !sent.failed(result);
    devices.end(sent.device, sent.number, sent.writes, well);
    let gone = || {
        // Or another is in its place already.
        !devices.is_still(sent.device, sent.number) || devices.is_gone(sent.device)
    };
    if !well && gone() {
        return -GONE;
    }
    if result == -libc::EIO && devices.is_unreachable(sent.device, libc::EIO) {
        return -UNREACHABLE;
    }
    if sent.flushes && well {
        devices.flushed(sent.device, sent.number, sent.landed);
        if sent.asked && devices.is_in_doubt(sent.device) {
            return -libc::EIO;
        }
    }
    result
}

/// Puts what belongs to an operation into its place.
fn put<T>(places: &mut Vec<Option<T>>, token: Token, what: T) {
    let index = token.0 as usize;
    if places.len() <= index {
        places.resize_with(index + 1, || None);
    }
    if let Some(place) = places.get_mut(index) {
        *place = Some(what);
    }
}

/// Errors of `io_uring_enter` that only ask to reap first or to come again.
fn is_passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::EINTR | libc::EBUSY | libc::EAGAIN)
    )
}

fn durable(fua: bool) -> i32 {
    if fua { libc::RWF_DSYNC } else { 0 }
}

fn too_short() -> io::Error {
    io::Error::other("an operation reaches beyond its buffer")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A device that stood aside: all its fetches came back at once, and the thread
    /// must still see that nothing is in flight.
    #[test]
    fn what_was_forgotten_and_comes_back_leaves_the_count_right() {
        let (memory, _) = Memory::new(0).unwrap();
        let mut submit = Submitter::new(super::super::setup::ring(64, &memory).unwrap());
        for _ in 0..5 {
            submit.nudge().unwrap();
        }
        submit.forget(5);
        assert!(submit.is_idle());
        let mut reaped = Vec::new();
        while reaped.len() < 5 {
            submit.submit_and_wait().unwrap();
            submit.reap(&mut reaped);
        }
        reaped.iter().for_each(|_| submit.remember());
        assert!(submit.is_idle());
        submit.nudge().unwrap();
        assert!(!submit.is_idle());
    }
}
