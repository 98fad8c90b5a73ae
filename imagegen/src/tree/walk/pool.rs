//! Threads that read what a lister finds, with the results in the order of finding.
//!
//! One thread lists and cuts what it finds into batches; each batch goes to whichever
//! worker is free, and a slot for its result goes into a queue of bounded length, which
//! the consumer reads in order. So at most [`MOST_AHEAD`] batches are under way, each of
//! which is bounded in objects, bytes and open files: 20 MiB and 400 descriptors in all,
//! however many processors there are.

use std::thread::{self, JoinHandle};
use std::vec::IntoIter;

use crossbeam_channel::{Receiver, Sender, bounded};
use rustix::fs::FileType;

use super::lister::{Found, Lister};
use super::object::Reader;
use crate::tree::content::SMALL;
use crate::tree::{Detail, Event, TreeError, Walk};

/// Most workers: more do not make one lister faster.
const WORKERS: usize = 12;
/// Batches under way for each worker, and in all.
const AHEAD: usize = 2;
const MOST_AHEAD: usize = 24;
/// Most objects in a batch.
const OBJECTS: usize = 256;
/// Bytes of small files in a batch, but for the last file's.
const BYTES: u64 = 512 << 10;
/// Most directories and large files in a batch: each is an open descriptor.
const DESCRIPTORS: usize = 16;

/// What became of a batch: its events, and what went wrong after them.
type Outcome = (Vec<Event>, Option<TreeError>);

/// A batch on its way to a worker.
struct Batch {
    found: Vec<Found>,
    /// What the lister came upon after these.
    error: Option<TreeError>,
    slot: Sender<Outcome>,
}

/// The consumer's end.
struct Ordered {
    slots: Option<Receiver<Receiver<Outcome>>>,
    events: IntoIter<Event>,
    error: Option<TreeError>,
    threads: Vec<JoinHandle<()>>,
}

/// Starts the threads of a walk.
pub(super) fn start(
    lister: Lister,
    detail: Detail,
    workers: usize,
) -> Result<Walk<'static>, TreeError> {
    let workers = workers.clamp(1, WORKERS);
    let ahead = (workers * AHEAD).min(MOST_AHEAD);
    let (give_slot, slots) = bounded(ahead);
    let (give, batches) = bounded::<Batch>(ahead);
    let mut ordered = Ordered {
        slots: Some(slots),
        events: Vec::new().into_iter(),
        error: None,
        threads: Vec::with_capacity(workers + 1),
    };
    for _ in 0..workers {
        let batches = batches.clone();
        ordered.spawn("tree-read", move || work(&batches, detail))?;
    }
    ordered.spawn("tree-list", move || list(lister, &give, &give_slot))?;
    Ok(Box::new(ordered))
}

/// Cuts what is found into batches until the tree or the consumer's interest ends.
fn list(mut lister: Lister, give: &Sender<Batch>, give_slot: &Sender<Receiver<Outcome>>) {
    loop {
        let (found, error, more) = cut(&mut lister);
        let (slot, outcome) = bounded(1);
        let batch = Batch { found, error, slot };
        // The slot first: a batch nobody waits for any more must not be begun.
        if give_slot.send(outcome).is_err() || give.send(batch).is_err() || !more {
            return;
        }
    }
}

/// The next batch, what went wrong after it, and whether another follows.
fn cut(lister: &mut Lister) -> (Vec<Found>, Option<TreeError>, bool) {
    let mut found = Vec::with_capacity(OBJECTS);
    let (mut bytes, mut descriptors) = (0, 0);
    while found.len() < OBJECTS && bytes < BYTES && descriptors < DESCRIPTORS {
        let next = match lister.next() {
            Some(Ok(next)) => next,
            Some(Err(error)) => return (found, Some(error), false),
            None => return (found, None, false),
        };
        match &next {
            Found::Enter(_) => descriptors += 1,
            Found::Object(object) if object.stat.kind == FileType::RegularFile => {
                match object.stat.size {
                    size if size <= SMALL => bytes += size,
                    _ => descriptors += 1,
                }
            }
            _ => {}
        }
        found.push(next);
    }
    (found, None, true)
}

/// Reads batches until there are no more.
fn work(batches: &Receiver<Batch>, detail: Detail) {
    let mut reader = Reader::new(detail);
    for batch in batches {
        let mut events = Vec::with_capacity(batch.found.len());
        let mut error = batch.error;
        for found in batch.found {
            match reader.read(found) {
                Ok(event) => events.push(event),
                Err(cause) => {
                    error = Some(cause);
                    break;
                }
            }
        }
        // If nobody takes it, the walk was given up.
        let _ = batch.slot.send((events, error));
    }
}

impl Ordered {
    fn spawn(&mut self, name: &str, run: impl FnOnce() + Send + 'static) -> Result<(), TreeError> {
        let thread = thread::Builder::new().name(name.to_owned()).spawn(run);
        let thread =
            thread.map_err(|cause| TreeError::io(b"the walk", "start a thread for it", cause))?;
        self.threads.push(thread);
        Ok(())
    }

    /// Waits for the next batch; `None` if that was the last.
    fn refill(&mut self) -> Option<()> {
        let slot = self.slots.as_ref()?.recv().ok()?;
        match slot.recv() {
            Ok((events, error)) => {
                self.events = events.into_iter();
                self.error = error;
            }
            Err(_) => {
                let cause = std::io::Error::other("the thread that read it ended early");
                self.error = Some(TreeError::io(b"the walk", "go on", cause));
            }
        }
        Some(())
    }
}

impl Iterator for Ordered {
    type Item = Result<Event, TreeError>;

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(event) = self.events.next() {
                return Some(Ok(event));
            }
            if let Some(error) = self.error.take() {
                self.slots = None;
                return Some(Err(error));
            }
            self.refill()?;
        }
    }
}

impl Drop for Ordered {
    /// Lets the threads find that nobody waits, and waits for them to end.
    fn drop(&mut self) {
        self.slots = None;
        for thread in self.threads.drain(..) {
            // A thread that panicked has said so already.
            let _ = thread.join();
        }
    }
}
