//! What goes into a lane and what comes out.

use std::sync::Arc;

use snapstore::device::IoError;
use snapstore::ids::IoId;
use snapstore::{BLOCK_SIZE, Block, Checksum, Tag, VolumeId};

/// A store, by its place in every lane's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct StoreSlot(pub u32);

/// A volume, by its place in every lane's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct VolumeSlot(pub u32);

/// A device, by its place in the driver's table.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceSlot(pub u32);

/// A buffer of the driver.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct BufferId(pub u32);

/// An operation in flight, to be handed back with its completion.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Token(pub u32);

/// What a request is about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Target {
    /// The live volume.
    Origin,
    /// One of its snapshots.
    Snapshot {
        /// Which.
        tag: Tag,
        /// Size of the volume when it was taken, in bytes.
        size: u64,
    },
}

/// What is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verb {
    /// Read into the buffer, at [`Request::data_at`].
    Read,
    /// Write the buffer.
    Write,
    /// Make the range read as zeroes.
    WriteZeroes {
        /// Its space may be given back.
        punch: bool,
    },
    /// The contents of the range are no longer needed.
    Trim,
    /// Make everything completed so far durable.
    Flush,
    /// Say which parts hold data; fewer bytes than asked may be told of.
    Extents,
    /// Say which parts changed since a snapshot, as [`Verb::Extents`]; fewer bytes than
    /// asked may be told of.
    Changed {
        /// The snapshot; older than the request's target.
        since: Tag,
        /// Its size in bytes: what lies beyond has changed.
        size: u64,
    },
}

/// One request of a front end.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// The front end's own number, handed back in [`Done`].
    pub tag: u64,
    /// Of which volume.
    pub volume: VolumeSlot,
    /// The volume itself or a snapshot.
    pub target: Target,
    /// What.
    pub verb: Verb,
    /// First byte.
    pub offset: u64,
    /// Number of bytes; [`Verb::Read`] and [`Verb::Write`]: at most [`Request::MAX_BYTES`].
    pub len: u64,
    /// Durable before it is done.
    pub fua: bool,
    /// Where the data is or goes: at least [`Request::buffer_len`] bytes.
    pub buffer: BufferId,
}

impl Request {
    /// Most bytes in one read or write.
    pub const MAX_BYTES: u64 = 32 << 20;

    /// Bytes of buffer such a request needs. A read of a snapshot needs whole
    /// 4 KiB blocks around what is asked for, because checksums cover blocks.
    #[must_use]
    pub fn buffer_len(target: Target, verb: Verb, offset: u64, len: u64) -> u64 {
        match (target, verb) {
            (Target::Snapshot { .. }, Verb::Read) => {
                let (start, end) = blocks_around(offset, len);
                end - start
            }
            (_, Verb::Read | Verb::Write) => len,
            _ => 0,
        }
    }

    /// Where in the buffer a read's data begins.
    #[must_use]
    pub fn data_at(target: Target, offset: u64) -> u32 {
        match target {
            Target::Snapshot { .. } => (offset % BLOCK_SIZE as u64) as u32,
            Target::Origin => 0,
        }
    }

    pub(super) fn end(&self) -> u64 {
        self.offset + self.len
    }
}

/// The range of whole 4 KiB blocks around a range of bytes.
pub(super) fn blocks_around(offset: u64, len: u64) -> (u64, u64) {
    let block = BLOCK_SIZE as u64;
    (
        offset / block * block,
        (offset + len).div_ceil(block) * block,
    )
}

/// A stretch of an export, for block status.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// Bytes.
    pub len: u64,
    /// Holds data; otherwise it is a hole and reads as zeroes. For [`Verb::Changed`]: it
    /// has changed.
    pub data: bool,
}

/// A request that is done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Done {
    /// The request's own number.
    pub tag: u64,
    /// How it went; an `errno` if badly.
    pub result: Result<(), i32>,
    /// For [`Verb::Extents`] and [`Verb::Changed`]: from the request's offset on.
    pub extents: Vec<Extent>,
}

/// What is to be done to a device.
#[derive(Clone, Debug)]
pub enum Action {
    /// Read into a buffer. May come back short.
    Read {
        /// Where to.
        buffer: BufferId,
        /// First byte of the buffer.
        at: u32,
        /// First byte of the device.
        offset: u64,
        /// Bytes.
        len: u32,
    },
    /// Write from a buffer. May come back short.
    Write {
        /// Where from.
        buffer: BufferId,
        /// First byte of the buffer.
        at: u32,
        /// First byte of the device.
        offset: u64,
        /// Bytes.
        len: u32,
        /// Durable when it completes.
        fua: bool,
    },
    /// Read one metadata block; answered by [`Completion::Block`].
    ReadBlock {
        /// First byte of the device.
        offset: u64,
    },
    /// Write one metadata block.
    WriteBlock {
        /// First byte of the device.
        offset: u64,
        /// What.
        data: Arc<Block>,
        /// Durable when it completes.
        fua: bool,
    },
    /// Make completed writes durable.
    Flush {
        /// A user asked for it, and learns how it went.
        asked: bool,
    },
    /// Tell the device that the range is no longer needed; it may read as anything.
    Trim {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Make the range read as zeroes by giving its space back.
    Punch {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Make the range read as zeroes.
    Zero {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
    /// Tell data from holes; answered by [`Completion::Extents`].
    Extents {
        /// First byte.
        offset: u64,
        /// Bytes.
        len: u64,
    },
}

/// One operation on a device.
#[derive(Clone, Debug)]
pub struct Op {
    /// To be handed back.
    pub token: Token,
    /// Which device.
    pub device: DeviceSlot,
    /// What.
    pub action: Action,
}

/// The `errno` of every operation on a device that has been taken away.
pub const GONE: i32 = libc::ENXIO;

/// The `errno` of an operation on a device that cannot be reached for now, whatever
/// its driver said.
pub const UNREACHABLE: i32 = libc::ENOLINK;

/// How an operation went.
#[derive(Debug)]
pub enum Completion {
    /// Bytes moved (0 where none are meant), or an `errno`.
    Moved(Result<u32, i32>),
    /// A metadata block, or an `errno`.
    Block(Result<Arc<Block>, i32>),
    /// Data and holes from the asked offset on.
    Extents(Vec<Extent>),
}

/// What the driver takes from a lane.
#[derive(Debug, Default)]
pub struct Outbox {
    /// Operations to submit, in any order.
    pub ops: Vec<Op>,
    /// Requests that are done.
    pub done: Vec<Done>,
    /// Pauses this lane has drained for.
    pub paused: Vec<(StoreSlot, IoId)>,
    /// Volumes whose origin failed an operation, with the `errno`.
    pub origin_errors: Vec<(StoreSlot, VolumeId, i32)>,
    /// Volumes being detached that nothing uses any more.
    pub detached: Vec<VolumeSlot>,
}

/// The bytes, as far as a lane needs them.
pub trait Memory {
    /// Appends the checksum, by this algorithm, of every 4 KiB of `len` bytes of
    /// `buffer` from `at` on.
    fn checksum(&self, by: Checksum, buffer: BufferId, at: u32, len: u32, out: &mut Vec<u32>);
    /// Zeroes `len` bytes of `buffer` from `at` on.
    fn zero(&mut self, buffer: BufferId, at: u32, len: u32);
}

/// The engine's kind of error for an `errno`.
pub(super) fn io_error(errno: i32) -> IoError {
    IoError::Errno(errno)
}
