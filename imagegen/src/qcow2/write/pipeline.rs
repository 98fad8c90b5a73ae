//! Threads that read, compress and write pieces; whoever places them gets them in order.

use super::codec::Codec;
use super::piece::Piece;
use super::views::{Stretch, Views};
use super::{Options, WriteError};
use crate::medium::{Medium, Source};
use crate::tree::Progress;
use crossbeam_channel::{Receiver, Sender, bounded, unbounded};
use parking_lot::Mutex;
use std::collections::VecDeque;
use std::ops::Range;
use std::sync::atomic::Ordering;

/// What is to be done.
enum Job {
    /// Reads these clusters of a view.
    Read(usize, Range<u64>, Sender<Result<Piece, WriteError>>),
    /// Writes a piece to its places.
    Write(Piece, Vec<Part>),
}

/// Bytes of a piece and where they go.
pub(super) struct Part {
    pub(super) at: u64,
    pub(super) from: From,
}

/// Which bytes of a piece.
pub(super) enum From {
    /// Of those as they are.
    Plain(Range<usize>),
    /// Of the packed ones.
    Packed(Range<usize>),
}

/// What threads read, and where they write it.
pub(super) struct Crew<'a, S> {
    pub(super) views: Views<'a, S>,
    /// Takes the pieces' bytes.
    pub(super) medium: &'a dyn Medium,
    pub(super) options: &'a Options,
    pub(super) progress: &'a Progress,
}

struct Shared<'a, S> {
    crew: &'a Crew<'a, S>,
    spare: Mutex<Vec<Piece>>,
    failure: Mutex<Option<WriteError>>,
}

/// What is to be placed next.
pub(super) enum Placed<'a> {
    /// A piece of a view that was read.
    Piece(usize, &'a Piece),
    /// Clusters of which none was read.
    Unread(Stretch),
}

/// A stretch on its way.
enum Waiting {
    Piece(usize, Receiver<Result<Piece, WriteError>>),
    Unread(Stretch),
}

/// Says where a piece's bytes go.
type Place<'a> = dyn FnMut(Placed<'_>) -> Result<Vec<Part>, WriteError> + 'a;

impl<S: Source + Send + Sync> Crew<'_, S> {
    /// Has `stretches` read and gives the pieces to `place` in order, which says what goes
    /// where.
    pub(super) fn run(
        &self,
        stretches: &mut dyn Iterator<Item = Result<Stretch, WriteError>>,
        place: &mut Place<'_>,
    ) -> Result<(), WriteError> {
        let shared = Shared {
            crew: self,
            spare: Mutex::default(),
            failure: Mutex::default(),
        };
        let threads = match self.options.threads {
            0 => std::thread::available_parallelism().map_or(1, usize::from),
            given => given,
        };
        std::thread::scope(|scope| {
            let (jobs, work) = unbounded();
            for _ in 0..threads {
                let (work, shared) = (work.clone(), &shared);
                scope.spawn(move || serve(&work, shared));
            }
            conduct(&shared, &jobs, 2 * threads + 2, stretches, place)
        })?;
        shared.failure.into_inner().map_or(Ok(()), Err)
    }
}

fn conduct<S: Source + Send + Sync>(
    shared: &Shared<'_, S>,
    jobs: &Sender<Job>,
    most: usize,
    stretches: &mut dyn Iterator<Item = Result<Stretch, WriteError>>,
    place: &mut Place<'_>,
) -> Result<(), WriteError> {
    let mut waiting: VecDeque<Waiting> = VecDeque::new();
    let mut take = |one: Waiting| -> Result<(), WriteError> {
        match one {
            Waiting::Unread(stretch) => place(Placed::Unread(stretch)).map(drop),
            Waiting::Piece(view, promise) => {
                // Its thread panicked, which the scope passes on.
                let Ok(piece) = promise.recv() else {
                    return Ok(());
                };
                let piece = piece?;
                let parts = place(Placed::Piece(view, &piece))?;
                let _ = jobs.send(Job::Write(piece, parts));
                Ok(())
            }
        }
    };
    for stretch in stretches {
        if shared.failure.lock().is_some() {
            return Ok(());
        }
        // Memory is bounded by the pieces on their way: those to be written come first,
        // because threads take jobs in order.
        while waiting.len() >= most
            && let Some(one) = waiting.pop_front()
        {
            take(one)?;
        }
        waiting.push_back(match stretch? {
            Stretch::Data(view, clusters) => {
                let (reply, promise) = bounded(1);
                let _ = jobs.send(Job::Read(view, clusters, reply));
                Waiting::Piece(view, promise)
            }
            stretch => Waiting::Unread(stretch),
        });
    }
    waiting.into_iter().try_for_each(take)
}

fn serve<S: Source>(work: &Receiver<Job>, shared: &Shared<'_, S>) {
    let mut codec = None;
    for job in work {
        match job {
            Job::Read(view, clusters, reply) => {
                // Nobody waits for it if an error ended the writing.
                let _ = reply.send(read(view, &clusters, &mut codec, shared));
            }
            Job::Write(piece, parts) => {
                if shared.failure.lock().is_none()
                    && let Err(error) = write(&piece, &parts, shared)
                {
                    shared.failure.lock().get_or_insert(error);
                }
                shared.spare.lock().push(piece);
            }
        }
    }
}

fn read<S: Source>(
    view: usize,
    clusters: &Range<u64>,
    codec: &mut Option<Codec>,
    shared: &Shared<'_, S>,
) -> Result<Piece, WriteError> {
    let Crew { views, options, .. } = shared.crew;
    if let (None, Some(compression)) = (&codec, options.compression) {
        *codec = Some(Codec::new(compression)?);
    }
    let mut piece = shared.spare.lock().pop().unwrap_or_default();
    if let Some(disk) = views.disk(view) {
        piece.read(disk, views.below, clusters, options, codec.as_mut())?;
    }
    Ok(piece)
}

fn write<S>(piece: &Piece, parts: &[Part], shared: &Shared<'_, S>) -> Result<(), WriteError> {
    for part in parts {
        let bytes = match &part.from {
            From::Plain(range) => piece.bytes.bytes().get(range.clone()),
            From::Packed(range) => piece.packed.get(range.clone()),
        };
        shared
            .crew
            .medium
            .write(part.at, bytes.unwrap_or_default())?;
    }
    let done = piece.bytes.bytes().len() as u64;
    shared.crew.progress.data.fetch_add(done, Ordering::Relaxed);
    Ok(())
}
