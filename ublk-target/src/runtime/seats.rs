//! Room for NBD clients on the I/O threads.
//!
//! Contract: a thread has [`SOCKETS`] seats, and all together as many as were allowed. One that was taken is given back when it is
//! dropped, which whoever serves the client does at its end.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::ring::SOCKETS;

/// The seats there are.
#[derive(Debug)]
pub(super) struct Seats {
    /// How many of each thread's are taken.
    taken: Mutex<Vec<usize>>,
    /// Most of all threads.
    most: usize,
}

impl Seats {
    /// Those of so many threads, at `most` so many.
    pub(super) fn new(threads: usize, most: usize) -> Arc<Self> {
        let taken = Mutex::new(vec![0; threads]);
        Arc::new(Self { taken, most })
    }

    /// One on the thread that has most of them.
    pub(super) fn take(self: &Arc<Self>) -> Option<Seat> {
        let mut taken = self.taken.lock();
        if taken.iter().sum::<usize>() >= self.most {
            return None;
        }
        let (thread, count) = taken.iter_mut().enumerate().min_by_key(|(_, n)| **n)?;
        if *count >= SOCKETS {
            return None;
        }
        *count += 1;
        Some(Seat {
            seats: self.clone(),
            thread,
        })
    }
}

/// A client's.
#[derive(Debug)]
pub struct Seat {
    seats: Arc<Seats>,
    thread: usize,
}

impl Seat {
    /// The thread it is on.
    pub(super) fn thread(&self) -> u16 {
        self.thread as u16
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        if let Some(count) = self.seats.taken.lock().get_mut(self.thread) {
            *count -= 1;
        }
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use super::*;

    #[test]
    fn threads_are_filled_evenly_and_no_further() {
        let seats = Seats::new(3, usize::MAX);
        let mut all: Vec<Seat> = (0..3 * SOCKETS).map(|_| seats.take().unwrap()).collect();
        assert_eq!(*seats.taken.lock(), [SOCKETS; 3]);
        assert!(seats.take().is_none());
        let left = all.swap_remove(1).thread();
        all.push(seats.take().unwrap());
        assert_eq!(all.last().unwrap().thread(), left);
        drop(all);
        assert_eq!(*seats.taken.lock(), [0; 3]);
    }

    #[test]
    fn no_more_are_taken_than_allowed() {
        let seats = Seats::new(2, 3);
        let mut all: Vec<Seat> = (0..3).map(|_| seats.take().unwrap()).collect();
        assert!(seats.take().is_none());
        all.pop();
        assert!(seats.take().is_some());
    }
}
