//! Threads that compress, each with its codecs.
//!
//! A task's result waits until it is asked for, so whoever asks in order gets an order that
//! the threads do not have.

use std::thread::{Scope, ScopedJoinHandle};

use crossbeam_channel::{Receiver, Sender, bounded, unbounded};

use super::algorithm::Algorithm;
use super::codec::{Codec, CodecError, codec};

type Task = Box<dyn FnOnce(&mut Codecs) + Send>;

/// Codecs of one thread, made when they are needed.
#[derive(Default)]
pub(crate) struct Codecs {
    made: Vec<((Algorithm, u32), Box<dyn Codec>)>,
}

impl Codecs {
    /// That of `algorithm` for clusters of up to `cluster` bytes.
    pub(crate) fn get(
        &mut self,
        algorithm: Algorithm,
        cluster: u32,
    ) -> Result<&mut (dyn Codec + 'static), CodecError> {
        let key = (algorithm, cluster);
        let position = match self.made.iter().position(|(made, _)| *made == key) {
            Some(position) => position,
            None => {
                self.made.push((key, codec(algorithm, cluster)?));
                self.made.len() - 1
            }
        };
        match self.made.get_mut(position) {
            Some((_, codec)) => Ok(codec.as_mut()),
            None => unreachable!("it was found, or made just now"),
        }
    }
}

/// The threads.
pub(crate) struct Pool<'scope> {
    tasks: Sender<Task>,
    threads: Vec<ScopedJoinHandle<'scope, ()>>,
}

/// A result that may not be there yet.
pub(crate) struct Promise<T>(Receiver<T>);

impl<T> Promise<T> {
    /// Waits for it; none if its thread panicked, which [`Pool::finish`] passes on.
    pub(crate) fn wait(self) -> Option<T> {
        self.0.recv().ok()
    }
}

impl<'scope> Pool<'scope> {
    /// Starts `count` threads, 0 for as many as there are processors; none if there will be
    /// nothing to do.
    pub(crate) fn start(scope: &'scope Scope<'scope, '_>, count: Option<usize>) -> Self {
        let (tasks, work) = unbounded::<Task>();
        let threads = (0..count.map_or(0, threads))
            .map(|_| {
                let work = work.clone();
                scope.spawn(move || {
                    let mut codecs = Codecs::default();
                    work.iter().for_each(|task| task(&mut codecs));
                })
            })
            .collect();
        Self { tasks, threads }
    }

    /// How many threads there are.
    pub(crate) fn threads(&self) -> usize {
        self.threads.len()
    }

    /// Has a thread do `task`, after those that were given before.
    pub(crate) fn submit<T: Send + 'static>(
        &self,
        task: impl FnOnce(&mut Codecs) -> T + Send + 'static,
    ) -> Promise<T> {
        let (result, promise) = bounded(1);
        let task = move |codecs: &mut Codecs| {
            // Nobody waits for it if an error ended the writing.
            let _ = result.send(task(codecs));
        };
        // Without threads the promise is broken, and `finish` says why.
        let _ = self.tasks.send(Box::new(task));
        Promise(promise)
    }

    /// Ends the threads when all is done.
    pub(crate) fn finish(self) {
        drop(self.tasks);
        for thread in self.threads {
            if let Err(panic) = thread.join() {
                std::panic::resume_unwind(panic);
            }
        }
    }
}

fn threads(asked: usize) -> usize {
    match asked {
        0 => std::thread::available_parallelism().map_or(1, usize::from),
        asked => asked,
    }
}
