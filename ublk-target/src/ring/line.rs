//! Who gets the buffers of a thread that has too few for all its NBD clients.
//!
//! - Clients wait in the order they came, those first whose address holds least: it does not
//!   help to come with many. Behind one that waits nobody takes what it needs:
//!   small requests pass a large one, but never use up what it will be made of.
//! - A client keeps a buffer as long as its peer takes to send a payload or to read a reply.
//!   While others wait it must get done with what it holds within [`DRAIN`]; it is looked at
//!   after [`WINDOW`]. Else a few that stop reading would stop everybody.

use std::time::{Duration, Instant};

use super::memory::{LARGE, Memory, SMALL};
use crate::lane::BufferId;

/// How long clients are watched while others wait.
pub(super) const WINDOW: Duration = Duration::from_secs(10);
/// In this time a client is to send or take as much as it holds.
const DRAIN: Duration = Duration::from_secs(30);

/// One round through the clients.
#[derive(Debug)]
pub(crate) struct Line {
    /// Requests of more bytes wait behind one that could not be served.
    free: usize,
}

impl Line {
    /// Nobody waits yet.
    pub(super) fn new() -> Self {
        Self { free: usize::MAX }
    }

    /// A buffer of at least `len` bytes, if there is one and nobody waits for it.
    pub(super) fn take(&self, len: usize, memory: &mut Memory) -> Option<BufferId> {
        let alone = self.free == usize::MAX;
        (len <= self.free)
            .then(|| memory.take_sparing(len, alone))
            .flatten()
    }

    /// A request of `len` bytes waits.
    pub(super) fn stop(&mut self, len: usize) {
        let below = match len {
            0..=SMALL => 0,
            len if len <= LARGE => SMALL,
            _ => LARGE,
        };
        self.free = self.free.min(below);
    }

    /// Whether somebody waits.
    pub(super) fn is_waiting(&self) -> bool {
        self.free != usize::MAX
    }
}

/// What goes on between a client that holds buffers and its peer, one way.
#[derive(Debug, Default)]
pub(super) struct Flow {
    /// Since when the peer is waited for.
    since: Option<Instant>,
    /// Bytes that moved in this window.
    pub(super) moved: usize,
}

impl Flow {
    /// The peer is waited for, or not.
    pub(super) fn go_on(&mut self, waits: bool) {
        match (waits, self.since) {
            (false, _) => self.since = None,
            (true, None) => self.since = Some(Instant::now()),
            (true, Some(_)) => {}
        }
    }

    /// Whether too little moved in a window that began at `begin` and is over: who holds
    /// `held` bytes would take longer than [`DRAIN`].
    pub(super) fn is_too_slow(&self, begin: Instant, held: usize) -> bool {
        let windows = (DRAIN.as_secs() / WINDOW.as_secs()) as usize;
        self.since.is_some_and(|since| since <= begin) && self.moved.saturating_mul(windows) < held
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nobody_takes_what_one_before_waits_for() {
        let (mut memory, _) = Memory::new(32 << 20).unwrap();
        let mut line = Line::new();
        let all = line.take(64 << 20, &mut memory).unwrap();
        assert!(line.take(1 << 20, &mut memory).is_none());
        assert!(!line.is_waiting());
        line.stop(32 << 20);
        memory.give(all);
        assert!(line.is_waiting());
        assert!(line.take(LARGE + 1, &mut memory).is_none(), "it is kept");
        while line.take(LARGE, &mut memory).is_some() {}
        assert!(line.take(SMALL, &mut memory).is_some(), "small ones pass");
        assert!(Line::new().take(LARGE, &mut memory).is_some(), "of its own");
        line.stop(LARGE);
        assert!(line.take(SMALL + 1, &mut memory).is_none());
        line.stop(1);
        assert!(line.take(1, &mut memory).is_none());
    }

    #[test]
    fn who_holds_much_must_move_much() {
        let begin = Instant::now();
        let mut flow = Flow::default();
        assert!(!flow.is_too_slow(begin, 1), "nothing is waited for");
        flow.go_on(true);
        assert!(!flow.is_too_slow(begin, 1), "it began within the window");
        let later = Instant::now();
        assert!(flow.is_too_slow(later, 1));
        flow.moved = 1 << 20;
        assert!(!flow.is_too_slow(later, 3 << 20));
        assert!(flow.is_too_slow(later, (3 << 20) + 1));
        flow.go_on(true);
        assert!(flow.is_too_slow(later, 32 << 20), "it goes on");
        flow.go_on(false);
        assert!(!flow.is_too_slow(later, 32 << 20));
    }
}
