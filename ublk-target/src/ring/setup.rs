//! Making a ring: what it may do is restricted before it does anything.
//!
//! System-call filters cannot see the operations of a ring, so the ring itself
//! is told which there will be. It is enabled by the thread that uses it.

use std::io;
use std::os::fd::{AsRawFd, RawFd};

use io_uring::register::Restriction;
use io_uring::{IoUring, opcode, squeue};

use super::memory::Memory;

/// Entries in the table of fixed files: origins and stores. What waits for ever (a
/// client's next message, a tag's next request) goes by plain descriptors: before
/// Linux 6.13 a file leaves the table only when all older requests on the table's
/// files have ended.
pub(crate) const DEVICES: u32 = 256;
/// Connections one thread can hold.
pub(crate) const SOCKETS: usize = 256;
/// Entries in the table of buffers: the pool, then pages of requests.
pub(crate) const BUFFERS: u16 = 16 << 10;
/// `IORING_REGISTER_FILES_UPDATE`, the one registration used while running.
const FILES_UPDATE: u8 = 6;

/// Operations a ring may be asked for.
const OPERATIONS: [u8; 14] = [
    opcode::Nop::CODE,
    opcode::Timeout::CODE,
    opcode::Read::CODE,
    opcode::Write::CODE,
    opcode::ReadFixed::CODE,
    opcode::WriteFixed::CODE,
    opcode::Fsync::CODE,
    opcode::Fallocate::CODE,
    opcode::Recv::CODE,
    opcode::SendMsg::CODE,
    opcode::MsgRingData::CODE,
    opcode::AsyncCancel::CODE,
    opcode::Shutdown::CODE,
    opcode::UringCmd16::CODE,
];

/// A ring for `depth` submissions, and whether the buffers are registered.
pub(crate) fn ring(depth: u32, memory: &Memory) -> io::Result<(IoUring, bool)> {
    let entries = depth.next_power_of_two().clamp(64, 4096);
    let ring: IoUring = IoUring::builder()
        .setup_single_issuer()
        .setup_defer_taskrun()
        .setup_coop_taskrun()
        .setup_submit_all()
        .setup_r_disabled()
        .setup_cqsize(entries * 4)
        .dontfork()
        .build(entries)?;
    ring.submitter().register_files_sparse(DEVICES)?;
    ring.submitter()
        .register_buffers_sparse(u32::from(BUFFERS))?;
    let pool = [memory.registration()];
    // SAFETY: the mapping outlives the ring: the thread drops its ring first.
    let registered = unsafe { ring.submitter().register_buffers_update(0, &pool, None) };
    if let Err(error) = &registered {
        tracing::warn!(%error, "buffers are not registered (raise LimitMEMLOCK): I/O costs more");
    }
    restrict(&ring)?;
    ring.submitter().register_enable_rings()?;
    Ok((ring, registered.is_ok()))
}

fn restrict(ring: &IoUring) -> io::Result<()> {
    let mut allowed: Vec<Restriction> = OPERATIONS
        .iter()
        .map(|code| Restriction::sqe_op(*code))
        .collect();
    allowed.push(Restriction::sqe_flags_allowed(
        squeue::Flags::FIXED_FILE.bits(),
    ));
    allowed.push(Restriction::register_op(FILES_UPDATE));
    ring.submitter().register_restrictions(&mut allowed)
}

/// Puts a file into the table, or takes one out (-1).
pub(crate) fn set_file(ring: &IoUring, index: u32, fd: RawFd) -> io::Result<()> {
    ring.submitter()
        .register_files_update(index, &[fd])
        .map(drop)
}

/// The number other rings send their messages to.
pub(crate) fn number(ring: &IoUring) -> RawFd {
    ring.as_raw_fd()
}
