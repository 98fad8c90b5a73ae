//! The block devices of one I/O thread.
//!
//! | module | what it holds |
//! |---|---|
//! | `served` | a device, shared by the lanes that serve its tags |
//! | `share` | the tags of one device that this thread serves |
//!
//! The thread fetches requests on its own ring and hands them to its lane; their
//! answers go back the same way. Tags are named by their share and their place in
//! it, in user data as in [`crate::lane::Request::tag`].

use std::io;
use std::sync::Arc;

use slab::Slab;

use super::NewShare;
use super::client::Io;
use super::memory::kernel_buffer;
use super::setup::BUFFERS;
use super::submit::Ticking;
use crate::lane::{BufferId, Done};

mod served;
mod share;

pub(crate) use served::{Mode, Served, Serving};
use share::{Next, Share};

/// Marks a request of a block device in [`crate::lane::Request::tag`].
const MARK: u64 = 1 << 63;
/// Where a share's number begins.
const SHARE_SHIFT: u32 = 16;
/// Most tags of one device on one thread.
pub(crate) const MOST_TAGS: usize = 1 << SHARE_SHIFT;

fn rest_of(share: u32, tag: usize) -> u32 {
    share << SHARE_SHIFT | tag as u32
}

fn tag_of(share: u32, tag: usize) -> u64 {
    MARK | u64::from(rest_of(share, tag))
}

fn split(rest: u32) -> (usize, usize) {
    (
        (rest >> SHARE_SHIFT) as usize,
        rest as usize & (MOST_TAGS - 1),
    )
}

/// Whether a request came from a block device.
pub(crate) fn is_block(tag: u64) -> bool {
    tag & MARK != 0
}

/// All block devices of a thread.
pub(crate) struct Blocks {
    shares: Slab<Share>,
    /// Free places in the table of buffers.
    indexes: Vec<u16>,
    /// Requests that wait for buffers.
    stalled: Vec<u32>,
    /// Requests that wait because their pages could not be registered yet.
    refused: Vec<u32>,
    /// Those are to be tried again: something was given back, or a moment passed.
    try_refused: bool,
    /// A moment is being waited for.
    ticking: bool,
    /// Buffers the kernel has until everything queued is submitted.
    leaving: Vec<BufferId>,
}

impl Blocks {
    pub(crate) fn new() -> Self {
        Self {
            shares: Slab::new(),
            indexes: (1..BUFFERS).rev().collect(),
            stalled: Vec::new(),
            refused: Vec::new(),
            try_refused: false,
            ticking: false,
            leaving: Vec::new(),
        }
    }

    /// Serves tags of a device: fetches them all.
    pub(crate) fn add(&mut self, new: NewShare, io: &mut Io<'_>) -> io::Result<()> {
        let NewShare { served, tags, done } = new;
        if tags.len() > MOST_TAGS {
            // One that was made by a csnapd with more threads.
            tracing::error!(
                tags = tags.len(),
                limit = MOST_TAGS,
                "too many tags for one I/O thread"
            );
            served.release();
            return Ok(());
        }
        let entry = self.shares.vacant_entry();
        let key = entry.key();
        let sink = sink(&served, io);
        let mut share = Share::new(served.clone(), key as u32, sink);
        let mut complete = true;
        for tag in tags {
            let Some((buffer, index)) = resources(&mut self.indexes, &served, sink, io) else {
                complete = false;
                break;
            };
            share.fetch(tag, (buffer, index), io)?;
        }
        entry.insert(share);
        if complete {
            // Whoever gave the order may have stopped waiting.
            let _ = done.send(());
        }
        self.let_go(key, io);
        Ok(())
    }

    /// A fetch has ended.
    pub(crate) fn fetched(&mut self, rest: u32, result: i32, io: &mut Io<'_>) -> io::Result<()> {
        self.with(rest, io, |share, at, io| share.fetched(at, result, io))
    }

    /// A request's pages were registered or taken back.
    pub(crate) fn pages(&mut self, rest: u32, result: i32, io: &mut Io<'_>) -> io::Result<()> {
        self.try_refused |= result >= 0;
        self.with(rest, io, |share, at, io| share.pages(at, result, io))
    }

    /// A request of a block device is done.
    pub(crate) fn done(&mut self, done: &Done, io: &mut Io<'_>) -> io::Result<()> {
        let outcome = done.result;
        self.try_refused = true;
        self.with(done.tag as u32, io, |share, at, io| {
            share.done(at, outcome, io)
        })
    }

    /// Takes no further request of a device, or of any.
    pub(crate) fn stand_aside(&mut self, number: Option<u64>, io: &mut Io<'_>) {
        let meant: Vec<usize> = self
            .shares
            .iter()
            .filter(|(_, share)| number.is_none_or(|number| share.served().number == number))
            .map(|(key, _)| key)
            .collect();
        self.try_refused = true;
        for key in meant {
            if let Some(share) = self.shares.get_mut(key) {
                share.stand_aside();
            }
            self.let_go(key, io);
        }
    }

    /// Tries requests that wait again, where something has changed.
    pub(crate) fn retry_stalled(&mut self, io: &mut Io<'_>) -> io::Result<()> {
        let mut waiting = std::mem::take(&mut self.stalled);
        self.retry(&mut waiting, io)?;
        // Keep the capacity, and what has to wait again.
        waiting.append(&mut self.stalled);
        self.stalled = waiting;
        if std::mem::take(&mut self.try_refused) {
            let mut waiting = std::mem::take(&mut self.refused);
            self.retry(&mut waiting, io)?;
            waiting.append(&mut self.refused);
            self.refused = waiting;
        }
        if !self.refused.is_empty() && !self.ticking {
            self.ticking = true;
            io.submit.tick(Ticking::Blocks)?;
        }
        Ok(())
    }

    fn retry(&mut self, waiting: &mut Vec<u32>, io: &mut Io<'_>) -> io::Result<()> {
        for rest in waiting.drain(..) {
            self.with(rest, io, |share, at, io| share.retry(at, io))?;
        }
        Ok(())
    }

    /// A moment has passed.
    pub(crate) fn ticked(&mut self) {
        self.ticking = false;
        self.try_refused = true;
    }

    /// Whether a request waits for a buffer.
    pub(crate) fn is_stalled(&self) -> bool {
        !self.stalled.is_empty()
    }

    /// Whether the next submission frees buffers.
    pub(crate) fn is_leaving(&self) -> bool {
        !self.leaving.is_empty()
    }

    /// Everything queued has been submitted: buffers handed back are free.
    pub(crate) fn submitted(&mut self, memory: &mut super::memory::Memory) {
        for buffer in self.leaving.drain(..) {
            memory.give(buffer);
        }
    }

    fn with(
        &mut self,
        rest: u32,
        io: &mut Io<'_>,
        go: impl FnOnce(&mut Share, usize, &mut Io<'_>) -> io::Result<Next>,
    ) -> io::Result<()> {
        let (key, at) = split(rest);
        let Some(share) = self.shares.get_mut(key) else {
            return Ok(());
        };
        match go(share, at, io)? {
            Next::Nothing => {}
            Next::Stalled => self.stalled.push(rest),
            Next::Refused => self.refused.push(rest),
            Next::Free(buffer) => self.leaving.push(buffer),
        }
        self.let_go(key, io);
        Ok(())
    }

    /// Lets go of a share that has nothing to do any more.
    fn let_go(&mut self, key: usize, io: &mut Io<'_>) {
        let Some(share) = self.shares.get_mut(key) else {
            return;
        };
        let Some(kept) = share.finished() else {
            return;
        };
        let first = share.leave();
        if kept > 0 {
            // The driver still knows its tags: its place must stay its own.
            if first {
                io.submit.forget(kept);
                share.served().release();
            }
            return;
        }
        let share = self.shares.remove(key);
        for (buffer, index) in share.resources() {
            if index != 0 {
                self.indexes.push(index);
            }
            if share.served().mode == Mode::Copy {
                io.memory.give(buffer);
            }
        }
        if let Some(sink) = share.sink() {
            io.memory.give(sink);
        }
        if first {
            share.served().release();
        }
    }
}

/// Where the data of writes to a snapshot goes that the kernel lets through: it
/// only warns when a device above is written whose parts are read-only.
fn sink(served: &Served, io: &mut Io<'_>) -> Option<BufferId> {
    (served.mode == Mode::Pooled)
        .then(|| io.memory.take_own(served.max_io_bytes as usize))
        .flatten()
}

/// A buffer and a place in the ring's table for one tag.
fn resources(
    indexes: &mut Vec<u16>,
    served: &Arc<Served>,
    sink: Option<BufferId>,
    io: &mut Io<'_>,
) -> Option<(BufferId, u16)> {
    let index = match served.mode {
        Mode::Auto | Mode::Register => indexes.pop(),
        Mode::Copy | Mode::Pooled => Some(0),
    };
    let Some(index) = index else {
        tracing::error!(
            limit = BUFFERS,
            "no place left in the ring's table of buffers"
        );
        return None;
    };
    let buffer = match served.mode {
        Mode::Auto | Mode::Register => Some(kernel_buffer(index)),
        Mode::Copy => io.memory.take_own(served.max_io_bytes as usize),
        Mode::Pooled => sink,
    };
    if buffer.is_none() && index != 0 {
        indexes.push(index);
    }
    buffer.map(|buffer| (buffer, index))
}

#[cfg(test)]
mod tests {
    use super::share::tests::{refused, with_io};
    use super::*;
    use crate::ring::submit::Kind;

    fn ticks(io: &mut Io<'_>) -> usize {
        let mut reaped = Vec::new();
        io.submit.submit_and_wait().unwrap();
        io.submit.reap(&mut reaped);
        reaped.iter().filter(|one| one.kind == Kind::Tick).count()
    }

    fn blocks() -> Blocks {
        let mut blocks = Blocks::new();
        assert_eq!(blocks.shares.insert(refused()), 0);
        blocks
    }

    fn fetching(blocks: &Blocks) -> usize {
        blocks.shares.get(0).unwrap().fetching()
    }

    #[test]
    fn what_could_not_be_registered_waits_for_a_moment_to_pass() {
        with_io(|io| {
            let mut blocks = blocks();
            blocks.pages(0, -libc::ENOMEM, io).unwrap();
            for _ in 0..3 {
                blocks.retry_stalled(io).unwrap();
                assert!(!blocks.is_stalled(), "the thread may sleep");
                assert_eq!(fetching(&blocks), 0, "not tried, not failed");
            }
            assert_eq!(ticks(io), 1);
            assert!(io.submit.is_idle(), "one moment for all rounds");
            blocks.ticked();
            // It is tried: without descriptors that ends in an answer.
            blocks.retry_stalled(io).unwrap();
            assert_eq!(fetching(&blocks), 1);
        });
    }

    #[test]
    fn another_request_that_ends_is_a_reason_to_try_again() {
        with_io(|io| {
            let mut blocks = blocks();
            blocks.pages(0, -libc::EBUSY, io).unwrap();
            let elsewhere = Done {
                tag: tag_of(9, 0),
                result: Ok(()),
                extents: Vec::new(),
            };
            blocks.done(&elsewhere, io).unwrap();
            blocks.retry_stalled(io).unwrap();
            assert_eq!(fetching(&blocks), 1);
        });
    }

    #[test]
    fn standing_aside_what_waits_is_left_to_the_successor() {
        with_io(|io| {
            let mut blocks = blocks();
            blocks.pages(0, -libc::ENOMEM, io).unwrap();
            blocks.stand_aside(None, io);
            assert!(!blocks.shares.is_empty());
            blocks.retry_stalled(io).unwrap();
            assert!(blocks.shares.is_empty(), "let go of");
            assert!(io.submit.is_idle(), "and not answered");
        });
    }
}
