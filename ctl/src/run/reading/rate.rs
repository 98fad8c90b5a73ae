//! Not more than so many bytes in a second.

use std::io;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::interrupt;

/// How often somebody who waits looks up.
const LOOK: Duration = Duration::from_millis(100);

/// A limit that all threads together keep.
#[derive(Debug)]
pub(crate) struct Rate {
    bytes_per_second: u64,
    /// When the next bytes may come.
    next: Mutex<Instant>,
}

impl Rate {
    /// At most so many; one at least.
    pub(super) fn new(bytes_per_second: u64) -> Self {
        Self {
            bytes_per_second: bytes_per_second.max(1),
            next: Mutex::new(Instant::now()),
        }
    }

    /// Waits until `bytes` more are allowed, or something interrupts that.
    pub(super) fn wait(&self, bytes: u64) -> io::Result<()> {
        let begin = Instant::now();
        let turn = self.turn(bytes, begin);
        while let Some(rest) = turn.checked_sub(begin.elapsed()) {
            interrupt::check()?;
            std::thread::sleep(rest.min(LOOK));
        }
        Ok(())
    }

    /// How long whoever wants `bytes` now has to wait. What was not used before is lost.
    fn turn(&self, bytes: u64, now: Instant) -> Duration {
        let nanoseconds = u128::from(bytes) * 1_000_000_000 / u128::from(self.bytes_per_second);
        let cost = Duration::from_nanos(u64::try_from(nanoseconds).unwrap_or(u64::MAX));
        let mut next = self.next.lock();
        let turn = next.saturating_duration_since(now);
        // Only a rate of next to nothing could lead beyond the end of time.
        *next = (now + turn).checked_add(cost).unwrap_or(*next);
        turn
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn turns_come_one_after_the_other_and_idleness_is_not_made_up_for() {
        let rate = Rate::new(1000);
        let begin = *rate.next.lock();
        let after = |ms| begin + Duration::from_millis(ms);
        assert_eq!(rate.turn(500, begin), Duration::ZERO);
        assert_eq!(rate.turn(100, after(100)), Duration::from_millis(400));
        assert_eq!(rate.turn(1, after(600)), Duration::ZERO);
        assert_eq!(rate.turn(1000, after(9000)), Duration::ZERO);
        assert_eq!(rate.turn(1, after(9001)), Duration::from_millis(999));
        assert_eq!(Rate::new(0).bytes_per_second, 1);
    }
}
