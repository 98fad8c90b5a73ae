//! The tags of one block device that one thread serves.
//!
//! A tag is fetched once and from then on goes round: the driver completes the
//! fetch when a request is there, the lane carries it out, and its result is
//! committed together with the next fetch. Nothing is allocated on the way.
//!
//! Invariants:
//! - A tag's buffer (or place in the ring's table) belongs to the request from
//!   its fetch's completion to its commit.
//! - A request is committed exactly once; a fetch that ends with an error takes
//!   the tag out for good.
//! - Standing aside, what the driver brings is left with it: it will issue it
//!   again to the next server. So is a request that could not be carried out only
//!   because this server is ending.

use std::io;
use std::os::fd::{AsFd, AsRawFd, RawFd};
use std::sync::Arc;

use super::super::client::Io;
use super::served::{Mode, Served};
use crate::lane::{BufferId, Request, Target, Verb};
use crate::ublk::uapi::{self, IoCmd, IoDesc, op};

/// After so many failures to register a request's pages a person is told: its user
/// has waited for long.
const NOTICE: u32 = 1024;

/// A tag as its thread knows it.
#[derive(Debug)]
struct Tag {
    queue: u16,
    number: u16,
    /// The buffer its requests use; with [`Mode::Pooled`] that of the current one.
    buffer: BufferId,
    /// Its place in the ring's table, if it has one.
    index: u16,
    phase: Phase,
    /// Registrations that failed.
    failures: u32,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Phase {
    /// With the driver.
    Fetching,
    /// The request waits: for a buffer, or for its pages to be registered.
    Stalled,
    /// Its pages are being registered.
    Registering,
    /// With the lane.
    Running {
        /// Bytes to be moved.
        len: i32,
        /// Its pages were registered by command.
        registered: bool,
        /// First byte of a read's data in the buffer.
        data_at: u32,
    },
    /// Its pages are being taken back; then it is committed.
    Unregistering { result: i32 },
    /// Never to be fetched again.
    Over,
}

/// What a thread serves of a device.
#[derive(Debug)]
pub(super) struct Share {
    served: Arc<Served>,
    key: u32,
    /// What is written to a snapshot ends here; all idle tags of it point here.
    sink: Option<BufferId>,
    tags: Vec<Tag>,
    /// Tags with the driver.
    fetching: usize,
    /// Tags that are over.
    over: usize,
    /// Takes no further request.
    aside: bool,
    /// Told that it has finished.
    left: bool,
}

/// What follows for the caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Next {
    /// Nothing.
    Nothing,
    /// The tag waits for a buffer: try again.
    Stalled,
    /// The tag waits for its pages to be registered: try again.
    Refused,
    /// The buffer is free once everything queued so far is submitted.
    Free(BufferId),
}

impl Share {
    /// A share of nothing yet.
    pub(super) fn new(served: Arc<Served>, key: u32, sink: Option<BufferId>) -> Self {
        Self {
            served,
            key,
            sink,
            tags: Vec::new(),
            fetching: 0,
            over: 0,
            aside: false,
            left: false,
        }
    }

    pub(super) fn served(&self) -> &Arc<Served> {
        &self.served
    }

    pub(super) fn sink(&self) -> Option<BufferId> {
        self.sink
    }

    /// Buffers and places in the ring's table that it holds.
    pub(super) fn resources(&self) -> impl Iterator<Item = (BufferId, u16)> + '_ {
        self.tags.iter().map(|tag| (tag.buffer, tag.index))
    }

    /// Fetches a tag for the first time.
    pub(super) fn fetch(
        &mut self,
        (queue, number): (u16, u16),
        (buffer, index): (BufferId, u16),
        io: &mut Io<'_>,
    ) -> io::Result<()> {
        let at = self.tags.len();
        self.tags.push(Tag {
            queue,
            number,
            buffer,
            index,
            phase: Phase::Fetching,
            failures: 0,
        });
        self.fetching += 1;
        self.command(at, uapi::io::FETCH, 0, (buffer, 0), io)
    }

    /// A fetch has ended.
    pub(super) fn fetched(&mut self, at: usize, result: i32, io: &mut Io<'_>) -> io::Result<Next> {
        let Some(tag) = self.tags.get_mut(at) else {
            return Ok(Next::Nothing);
        };
        self.fetching = self.fetching.saturating_sub(1);
        if self.left {
            io.submit.remember();
        }
        if result == uapi::IO_NEED_GET_DATA && !self.aside {
            let sink = self.sink.unwrap_or(tag.buffer);
            self.fetching += 1;
            self.command(at, uapi::io::NEED_GET_DATA, 0, (sink, 0), io)?;
            return Ok(Next::Nothing);
        }
        if result != uapi::IO_OK || self.aside {
            if result < 0 && result != uapi::IO_ABORT {
                let (queue, number) = (tag.queue, tag.number);
                tracing::error!(queue, tag = number, result, "ublk refused a tag");
            }
            tag.phase = Phase::Over;
            self.over += 1;
            return Ok(Next::Nothing);
        }
        tag.failures = 0;
        self.start(at, false, io)
    }

    /// Goes on with a request that had to wait.
    pub(super) fn retry(&mut self, at: usize, io: &mut Io<'_>) -> io::Result<Next> {
        match self.tags.get(at).map(|tag| tag.phase) {
            // It has not begun.
            Some(Phase::Stalled) if self.aside => Ok(self.abandon(at)),
            Some(Phase::Stalled) => self.start(at, false, io),
            _ => Ok(Next::Nothing),
        }
    }

    /// A request's pages are registered or taken back, or not.
    pub(super) fn pages(&mut self, at: usize, result: i32, io: &mut Io<'_>) -> io::Result<Next> {
        let Some(tag) = self.tags.get_mut(at) else {
            return Ok(Next::Nothing);
        };
        match tag.phase {
            Phase::Registering if result >= 0 => return self.start(at, true, io),
            Phase::Registering => {}
            Phase::Unregistering { result: done } => {
                if result < 0 {
                    tracing::error!(result, "the pages of a request cannot be taken back");
                }
                return self.commit(at, done, 0, io);
            }
            _ => return Ok(Next::Nothing),
        }
        if will_pass(result) {
            tag.phase = Phase::Stalled;
            tag.failures = tag.failures.saturating_add(1);
            if tag.failures == NOTICE {
                tracing::warn!(
                    result,
                    "the pages of a request cannot be registered for long"
                );
            }
            return Ok(Next::Refused);
        }
        tracing::error!(result, "the pages of a request cannot be registered");
        self.commit(at, result, 0, io)
    }

    /// The lane has carried a request out.
    pub(super) fn done(
        &mut self,
        at: usize,
        outcome: Result<(), i32>,
        io: &mut Io<'_>,
    ) -> io::Result<Next> {
        let Some(tag) = self.tags.get_mut(at) else {
            return Ok(Next::Nothing);
        };
        let Phase::Running {
            len,
            registered,
            data_at,
        } = tag.phase
        else {
            return Ok(Next::Nothing);
        };
        let result = match outcome {
            Ok(()) => len,
            // The store closes, or the origin was let go of: no error of the device.
            Err(libc::ESHUTDOWN | libc::ENODEV) if self.aside => return Ok(self.abandon(at)),
            Err(errno) => -errno,
        };
        if registered {
            tag.phase = Phase::Unregistering { result };
            self.buffer_command(at, uapi::io::UNREGISTER_BUFFER, io)?;
            return Ok(Next::Nothing);
        }
        self.commit(at, result, data_at, io)
    }

    /// Leaves a request with the driver.
    fn abandon(&mut self, at: usize) -> Next {
        let pooled = self.served.mode == Mode::Pooled;
        let Some(tag) = self.tags.get_mut(at) else {
            return Next::Nothing;
        };
        let taken = matches!(tag.phase, Phase::Running { len, .. } if len > 0);
        tag.phase = Phase::Over;
        self.over += 1;
        if pooled && taken {
            Next::Free(tag.buffer)
        } else {
            Next::Nothing
        }
    }

    /// Takes no further request from the driver.
    pub(super) fn stand_aside(&mut self) {
        self.aside = true;
    }

    /// Whether it has nothing to do any more, and how many fetches the driver
    /// keeps: none, but when standing aside.
    pub(super) fn finished(&self) -> Option<usize> {
        let idle = self.over + self.fetching == self.tags.len();
        (idle && (self.aside || self.fetching == 0)).then_some(self.fetching)
    }

    #[cfg(test)]
    pub(super) fn fetching(&self) -> usize {
        self.fetching
    }

    /// Marks it as left. Whether it was not before.
    pub(super) fn leave(&mut self) -> bool {
        !std::mem::replace(&mut self.left, true)
    }

    /// Hands a request to the lane, if what it needs is there.
    fn start(&mut self, at: usize, registered: bool, io: &mut Io<'_>) -> io::Result<Next> {
        let served = &*self.served;
        let Some(tag) = self.tags.get_mut(at) else {
            return Ok(Next::Nothing);
        };
        let request = served
            .request(tag.queue, tag.number)
            .and_then(|desc| translate(&desc, served.target).map(|verb| (desc, verb)));
        let Some((desc, verb)) = request else {
            return self.commit(at, -libc::EOPNOTSUPP, 0, io);
        };
        // A flush carries no place: its sector is all ones.
        let (offset, len) = match verb {
            Verb::Flush => (0, 0),
            _ => match desc.bytes() {
                Some(range) => range,
                None => return self.commit(at, -libc::EINVAL, 0, io),
            },
        };
        let moves = matches!(verb, Verb::Read | Verb::Write);
        if moves && len > u64::from(served.max_io_bytes) {
            return self.commit(at, -libc::EINVAL, 0, io);
        }
        if moves && !registered && wants_registration(served.mode, &desc) {
            tag.phase = Phase::Registering;
            self.buffer_command(at, uapi::io::REGISTER_BUFFER, io)?;
            return Ok(Next::Nothing);
        }
        if moves && served.mode == Mode::Pooled {
            let need = Request::buffer_len(served.target, verb, offset, len);
            let Some(buffer) = io.memory.take(need as usize) else {
                tag.phase = Phase::Stalled;
                return Ok(Next::Stalled);
            };
            tag.buffer = buffer;
        }
        tag.phase = Phase::Running {
            len: if moves { len as i32 } else { 0 },
            registered,
            data_at: Request::data_at(served.target, offset),
        };
        io.lane.submit(Request {
            tag: super::tag_of(self.key, at),
            volume: served.volume,
            target: served.target,
            verb,
            offset,
            len,
            fua: desc.op_flags & op::FUA != 0,
            buffer: tag.buffer,
        });
        Ok(Next::Nothing)
    }

    /// Answers a request and fetches the tag's next one.
    fn commit(
        &mut self,
        at: usize,
        result: i32,
        data_at: u32,
        io: &mut Io<'_>,
    ) -> io::Result<Next> {
        let Some(tag) = self.tags.get_mut(at) else {
            return Ok(Next::Nothing);
        };
        // Only a running request of this mode has taken a buffer.
        let running = matches!(tag.phase, Phase::Running { len, .. } if len > 0);
        let (buffer, pooled) = (tag.buffer, self.served.mode == Mode::Pooled && running);
        tag.phase = Phase::Fetching;
        if let Some(sink) = self.sink.filter(|_| pooled) {
            tag.buffer = sink;
        }
        self.fetching += 1;
        let (code, data_at) = (uapi::io::COMMIT_AND_FETCH, if pooled { data_at } else { 0 });
        self.command(at, code, result, (buffer, data_at), io)?;
        Ok(if pooled {
            Next::Free(buffer)
        } else {
            Next::Nothing
        })
    }

    fn command(
        &mut self,
        at: usize,
        code: u32,
        result: i32,
        (buffer, data_at): (BufferId, u32),
        io: &mut Io<'_>,
    ) -> io::Result<()> {
        let Some(tag) = self.tags.get(at) else {
            return Ok(());
        };
        let copies = matches!(self.served.mode, Mode::Copy | Mode::Pooled);
        let addr = if copies {
            let address = io.memory.address(buffer, data_at as usize, 1);
            address.map_or(0, |address| address.as_ptr() as u64)
        } else {
            0
        };
        let auto = (self.served.mode == Mode::Auto).then(|| uapi::auto_buffer(tag.index));
        let command = IoCmd {
            q_id: tag.queue,
            tag: tag.number,
            result,
            addr,
        };
        io.submit
            .fetch(self.fd(), super::rest_of(self.key, at), code, command, auto)
    }

    fn fd(&self) -> RawFd {
        self.served.char.as_fd().as_raw_fd()
    }

    /// Puts a request's pages into the ring's table, or takes them out.
    fn buffer_command(&mut self, at: usize, code: u32, io: &mut Io<'_>) -> io::Result<()> {
        let Some(tag) = self.tags.get(at) else {
            return Ok(());
        };
        let command = IoCmd {
            q_id: tag.queue,
            tag: tag.number,
            result: 0,
            addr: u64::from(tag.index),
        };
        let rest = super::rest_of(self.key, at);
        io.submit.pages(self.fd(), rest, code, command)
    }
}

/// Whether registering pages may succeed later: memory is short, or the place in
/// the table is still held by an operation that is ending.
fn will_pass(result: i32) -> bool {
    matches!(
        -result,
        libc::ENOMEM | libc::EBUSY | libc::EAGAIN | libc::EINTR
    )
}

fn wants_registration(mode: Mode, desc: &IoDesc) -> bool {
    match mode {
        Mode::Auto => desc.op_flags & op::NEED_REG_BUF != 0,
        Mode::Register => true,
        Mode::Copy | Mode::Pooled => false,
    }
}

/// What the driver asks for, if it is anything a lane can do.
fn translate(desc: &IoDesc, target: Target) -> Option<Verb> {
    let verb = match desc.op_flags & op::MASK {
        op::READ => Verb::Read,
        op::WRITE => Verb::Write,
        op::FLUSH => Verb::Flush,
        op::DISCARD => Verb::Trim,
        op::WRITE_ZEROES => Verb::WriteZeroes {
            punch: desc.op_flags & op::NOUNMAP == 0,
        },
        _ => return None,
    };
    let reads = matches!(verb, Verb::Read | Verb::Flush);
    (reads || target == Target::Origin).then_some(verb)
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::lane::{Lane, LaneConfig, VolumeSlot};
    use crate::ring::block::Serving;
    use crate::ring::memory::{Memory, Reserved};
    use crate::ring::setup;
    use crate::ring::submit::Submitter;
    use crate::ublk::CharDevice;

    fn share(mode: Mode, target: Target) -> Share {
        let what = Serving {
            number: 1,
            volume: VolumeSlot(0),
            target,
            mode,
            max_io_bytes: 4096,
            lanes: 1,
        };
        let served = Served::new(&what, Vec::new(), CharDevice::of_nothing());
        let mut share = Share::new(Arc::new(served), 0, None);
        let running = Phase::Running {
            len: 4096,
            registered: false,
            data_at: 0,
        };
        share.tags.push(Tag {
            queue: 0,
            number: 0,
            buffer: BufferId(7),
            index: 0,
            phase: running,
            failures: 0,
        });
        share
    }

    /// With a request whose pages are being registered.
    pub(in crate::ring::block) fn refused() -> Share {
        let mut share = share(Mode::Register, Target::Origin);
        share.tags[0].phase = Phase::Registering;
        share
    }

    pub(in crate::ring::block) fn with_io(run: impl FnOnce(&mut Io<'_>)) {
        let (mut memory, Reserved { copies, zeroes }) = Memory::new(0).unwrap();
        let mut submit = Submitter::new(setup::ring(64, &memory).unwrap());
        let mut lane = Lane::new(LaneConfig {
            lane: 0,
            copy_buffers: copies,
            zeroes,
        });
        run(&mut Io {
            memory: &mut memory,
            lane: &mut lane,
            submit: &mut submit,
        });
    }

    /// The store closed under a write that waited: the next server carries it out.
    #[test]
    fn standing_aside_a_request_refused_by_the_end_is_left_to_the_successor() {
        with_io(|io| {
            for errno in [libc::ESHUTDOWN, libc::ENODEV] {
                let mut share = share(Mode::Copy, Target::Origin);
                share.stand_aside();
                assert_eq!(share.finished(), None);
                let next = share.done(0, Err(errno), io).unwrap();
                assert_eq!(next, Next::Nothing);
                assert_eq!(share.finished(), Some(0), "over, and not committed");
            }
            assert!(io.submit.is_idle());
            let snapshot = Target::Snapshot {
                tag: snapstore::Tag(1),
                size: 4096,
            };
            let mut share = share(Mode::Pooled, snapshot);
            share.stand_aside();
            let next = share.done(0, Err(libc::ESHUTDOWN), io).unwrap();
            assert_eq!(next, Next::Free(BufferId(7)));
        });
    }

    #[test]
    fn a_request_fails_for_what_does_not_pass_and_for_nothing_else() {
        with_io(|io| {
            for errno in [libc::ENOMEM, libc::EBUSY, libc::EAGAIN] {
                let mut share = refused();
                for _ in 0..3 * NOTICE {
                    share.tags[0].phase = Phase::Registering;
                    assert_eq!(share.pages(0, -errno, io).unwrap(), Next::Refused);
                }
                assert_eq!(share.fetching, 0, "not answered");
            }
            assert!(io.submit.is_idle());
            for result in [uapi::IO_ABORT, -libc::EINVAL, -libc::EOPNOTSUPP] {
                let mut share = refused();
                assert_eq!(share.pages(0, result, io).unwrap(), Next::Nothing);
                assert_eq!(share.fetching, 1, "answered");
            }
        });
    }

    #[test]
    fn other_errors_and_those_of_a_device_that_goes_reach_the_user() {
        with_io(|io| {
            for (aside, errno) in [(true, libc::EIO), (false, libc::ESHUTDOWN)] {
                let mut share = share(Mode::Auto, Target::Origin);
                if aside {
                    share.stand_aside();
                }
                share.done(0, Err(errno), io).unwrap();
                assert_eq!(share.fetching, 1, "committed");
            }
            assert!(!io.submit.is_idle());
        });
    }
}
