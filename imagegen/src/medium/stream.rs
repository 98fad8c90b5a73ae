//! Ordered large writes: pieces that follow each other are joined, and other threads
//! carry them out.
//!
//! What goes wrong in another thread is told at the next request, or at the end.

use super::Medium;
use super::buffer::Buffer;
use super::copying::Copy;
use crossbeam_channel::{Receiver, Sender, bounded};
use parking_lot::{Condvar, Mutex};
use std::io;
use std::sync::Arc;
use std::thread::{Scope, ScopedJoinHandle};
use std::time::Duration;

/// Jobs that may wait, each with a buffer at most.
const WAITING: usize = 6;
/// More threads do not make one disk faster, and each holds a buffer.
const MOST_THREADS: usize = 8;
/// How often it is looked whether there are threads to wait for.
const LOOKED_AFTER: Duration = Duration::from_secs(1);

/// Something to be written.
enum Job {
    Bytes(Buffer),
    Draft(Buffer),
    /// Small pieces, each with its place, over a draft.
    Pieces(Vec<(u64, Vec<u8>)>),
    Copy(Copy),
}

/// What went wrong with a write.
#[derive(Debug)]
pub(crate) enum Failure {
    /// Writing failed.
    Write(io::Error),
    /// A source was changed while it was copied.
    Changed { path: Arc<[u8]> },
    /// A source could not be copied, or ended early (no cause).
    Copy {
        path: Arc<[u8]>,
        cause: Option<io::Error>,
    },
}

/// What the threads and whoever sends jobs both know.
#[derive(Default)]
struct Shared {
    failure: Mutex<Option<Failure>>,
    /// Jobs sent and not yet done.
    open: Mutex<usize>,
    done: Condvar,
    /// Empty buffers, to be filled again: fresh memory costs a page fault per page.
    spare: Mutex<Vec<Buffer>>,
}

impl Shared {
    /// An empty buffer.
    fn buffer(&self) -> Buffer {
        let spare = self.spare.lock().pop();
        spare.unwrap_or_else(Buffer::new)
    }

    /// Keeps a buffer for later; no more of them than jobs may wait.
    fn keep(&self, buffer: Buffer) {
        let mut spare = self.spare.lock();
        if spare.len() < WAITING {
            spare.push(buffer);
        }
    }
}

/// Threads that write, in no order.
pub(crate) struct Crew<'scope> {
    jobs: Sender<Job>,
    shared: Arc<Shared>,
    threads: Vec<ScopedJoinHandle<'scope, ()>>,
}

impl<'scope> Crew<'scope> {
    /// Starts `threads` of them; 0 for as many as there are processors, but not too many.
    pub(crate) fn start<'env>(
        scope: &'scope Scope<'scope, 'env>,
        medium: &'env dyn Medium,
        threads: usize,
    ) -> Self {
        let (jobs, work) = bounded(WAITING);
        let shared = Arc::new(Shared::default());
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = match threads {
            0 => processors().min(MOST_THREADS),
            given => given,
        };
        let threads = (0..threads)
            .map(|_| {
                let (work, shared) = (work.clone(), Arc::clone(&shared));
                scope.spawn(move || serve(medium, &work, &shared))
            })
            .collect();
        Self {
            jobs,
            shared,
            threads,
        }
    }

    fn send(&self, job: Job) -> Result<(), Failure> {
        if let Some(failure) = self.shared.failure.lock().take() {
            return Err(failure);
        }
        *self.shared.open.lock() += 1;
        if self.jobs.send(job).is_err() {
            // All threads panicked, which `finish` passes on.
            drop(Done(&self.shared));
        }
        Ok(())
    }

    /// Copies from a file, sometime.
    pub(crate) fn copy(&self, copy: Copy) -> Result<(), Failure> {
        self.send(Job::Copy(copy))
    }

    /// Writes small pieces, each at its place, over a draft that is written already.
    pub(crate) fn pieces(&self, pieces: Vec<(u64, Vec<u8>)>) -> Result<(), Failure> {
        self.send(Job::Pieces(pieces))
    }

    /// Waits until all that was sent is written: what is sent now comes after it.
    pub(crate) fn settle(&self) -> Result<(), Failure> {
        let mut open = self.shared.open.lock();
        // Threads that panicked leave jobs behind; `finish` passes the panic on.
        while *open > 0 && !self.threads.iter().all(ScopedJoinHandle::is_finished) {
            self.shared.done.wait_for(&mut open, LOOKED_AFTER);
        }
        self.shared.failure.lock().take().map_or(Ok(()), Err)
    }

    /// Waits until all is written, and ends the threads.
    pub(crate) fn finish(self) -> Result<(), Failure> {
        drop(self.jobs);
        for thread in self.threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
        self.shared.failure.lock().take().map_or(Ok(()), Err)
    }
}

fn serve(medium: &dyn Medium, work: &Receiver<Job>, shared: &Shared) {
    for job in work {
        let _done = Done(shared);
        // After a failure jobs are only taken, so that nobody waits.
        if shared.failure.lock().is_none() {
            let done = match job {
                Job::Bytes(buffer) => {
                    let written = medium.write(buffer.at(), buffer.bytes());
                    shared.keep(buffer);
                    written.map_err(Failure::Write)
                }
                Job::Draft(buffer) => {
                    let written = medium.write_draft(buffer.at(), buffer.bytes());
                    shared.keep(buffer);
                    written.map_err(Failure::Write)
                }
                Job::Pieces(pieces) => pieces
                    .iter()
                    .try_for_each(|(at, bytes)| medium.write_draft(*at, bytes))
                    .map_err(Failure::Write),
                Job::Copy(copy) => {
                    let mut buffer = shared.buffer();
                    buffer.start(0);
                    let copied = copy.carry_out(medium, &mut buffer);
                    shared.keep(buffer);
                    copied
                }
            };
            if let Err(what) = done {
                shared.failure.lock().get_or_insert(what);
            }
        }
    }
}

/// One job less to wait for when it is dropped: also if the job panicked.
struct Done<'a>(&'a Shared);

impl Drop for Done<'_> {
    fn drop(&mut self) {
        *self.0.open.lock() -= 1;
        self.0.done.notify_all();
    }
}

/// Joins writes whose positions follow each other.
pub(crate) struct Stream {
    joined: Option<Buffer>,
    job: fn(Buffer) -> Job,
}

impl Stream {
    /// With nothing to write.
    pub(crate) fn new() -> Self {
        Self {
            joined: None,
            job: Job::Bytes,
        }
    }

    /// The same, of bytes some of which will be written again.
    pub(crate) fn of_drafts() -> Self {
        Self {
            joined: None,
            job: Job::Draft,
        }
    }

    /// Writes `bytes` at `at`, then zeroes up to a multiple of `block` bytes.
    pub(crate) fn write(
        &mut self,
        crew: &Crew<'_>,
        at: u64,
        bytes: &[u8],
        block: usize,
    ) -> Result<(), Failure> {
        let mut rest = bytes;
        while !rest.is_empty() {
            let done = (bytes.len() - rest.len()) as u64;
            rest = self.turn_to(crew, at + done)?.push(rest);
        }
        let end = at + bytes.len() as u64;
        let whole = end.next_multiple_of(block as u64);
        let mut left = whole - end;
        while left > 0 {
            left = self.turn_to(crew, whole - left)?.push_zeroes(left);
        }
        Ok(())
    }

    /// A buffer with room for what comes at `at`.
    fn turn_to(&mut self, crew: &Crew<'_>, at: u64) -> Result<&mut Buffer, Failure> {
        let joined = &mut self.joined;
        if joined
            .as_mut()
            .is_some_and(|b| b.next() != at || b.is_full())
        {
            self.flush(crew)?;
        }
        Ok(self.joined.get_or_insert_with(|| {
            let mut buffer = crew.shared.buffer();
            buffer.start(at);
            buffer
        }))
    }

    /// Hands on what was joined.
    pub(crate) fn flush(&mut self, crew: &Crew<'_>) -> Result<(), Failure> {
        match self.joined.take() {
            Some(buffer) => crew.send((self.job)(buffer)),
            None => Ok(()),
        }
    }
}
