//! The leaves of a tree: blocks of an image, read and hashed by several threads, their
//! hashes handed on in order.

use super::hash::Salted;
use crate::medium::Medium;
use crossbeam_channel::{Receiver, Sender, bounded};
use std::io;
use std::thread::Scope;

/// Bytes that a thread reads at a time, unless a block is larger.
const STRETCH: u64 = 1 << 20;
/// Stretches whose hashes may wait, for each thread.
const WAITING: usize = 2;
/// More threads than this wait for the medium.
const MOST_THREADS: usize = 64;

/// What is hashed: the first `length` bytes of a medium, in blocks of `block`; the last one
/// is filled up with zeroes.
#[derive(Clone, Copy)]
pub(super) struct Leaves<'a> {
    pub(super) medium: &'a dyn Medium,
    pub(super) length: u64,
    pub(super) block: usize,
    pub(super) function: &'a Salted,
}

impl Leaves<'_> {
    /// Gives `take` the hash of every block, in order. 0 threads are as many as there are
    /// processors.
    pub(super) fn each(
        self,
        threads: usize,
        mut take: impl FnMut(&[u8]) -> io::Result<()>,
    ) -> io::Result<()> {
        let stretches = self.length.div_ceil(self.stretch());
        let processors = || std::thread::available_parallelism().map_or(1, usize::from);
        let threads = match threads {
            0 => processors(),
            given => given,
        };
        let threads = threads
            .min(MOST_THREADS)
            .min(usize::try_from(stretches).unwrap_or(MOST_THREADS));
        std::thread::scope(|scope| {
            // Thread n hashes every stretch whose number leaves the rest n: the order is kept
            // and no thread runs ahead of what may wait.
            let hashes: Vec<_> = (0..threads)
                .map(|first| self.start(scope, first, threads))
                .collect();
            for number in 0..stretches {
                let from = hashes.get((number % threads as u64) as usize);
                let Some(Ok(hashed)) = from.map(Receiver::recv) else {
                    return Ok(()); // the thread panicked: the scope passes it on
                };
                for hash in hashed?.chunks_exact(self.function.algorithm().size()) {
                    take(hash)?;
                }
            }
            Ok(())
        })
    }

    fn stretch(&self) -> u64 {
        STRETCH.max(self.block as u64)
    }

    fn start<'scope, 'env>(
        self,
        scope: &'scope Scope<'scope, 'env>,
        first: usize,
        step: usize,
    ) -> Receiver<io::Result<Vec<u8>>>
    where
        Self: 'scope,
    {
        let (sender, receiver) = bounded(WAITING);
        scope.spawn(move || self.serve(&sender, first, step));
        receiver
    }

    fn serve(&self, hashed: &Sender<io::Result<Vec<u8>>>, first: usize, step: usize) {
        let mut buffer = Vec::new();
        for number in (first as u64..).step_by(step) {
            let Some(at) = number.checked_mul(self.stretch()) else {
                return;
            };
            if at >= self.length {
                return;
            }
            let done = self.hash(at, &mut buffer);
            let failed = done.is_err();
            // Nobody takes it when another thread failed.
            if hashed.send(done).is_err() || failed {
                return;
            }
        }
    }

    /// The hashes of the stretch at `at`, one after the other.
    fn hash(&self, at: u64, buffer: &mut Vec<u8>) -> io::Result<Vec<u8>> {
        let length = (self.length - at).min(self.stretch()) as usize;
        buffer.resize(length, 0);
        self.medium.read(at, buffer)?;
        buffer.resize(length.next_multiple_of(self.block), 0);
        let mut hashes = Vec::with_capacity(buffer.len() / self.block * 64);
        for block in buffer.chunks_exact(self.block) {
            hashes.extend_from_slice(self.function.hash(block).bytes());
        }
        Ok(hashes)
    }
}
