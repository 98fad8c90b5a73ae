//! How fast a store fills, and so when it will be full.
//!
//! The rate is that of the last minutes: long enough that one burst is no alarm,
//! short enough that a person is told while there is time. What was given back in
//! between counts, as a store that is cleaned as fast as it fills never runs full.

use std::collections::VecDeque;
use std::time::{Duration, Instant};

/// Between two samples.
const PERIOD: Duration = Duration::from_secs(10);
/// Looked back upon at most.
const SPAN: Duration = Duration::from_secs(600);
/// Too short a time to judge by.
const LEAST: Duration = Duration::from_secs(30);
/// So far ahead nobody can see.
const FARTHEST: Duration = Duration::from_secs(90 * 24 * 3600);

/// Samples of how full a store was.
#[derive(Debug, Default)]
pub struct FillRate {
    samples: VecDeque<(Instant, u64)>,
    /// Bytes of the store at the last of them.
    size: u64,
}

impl FillRate {
    /// Whether it is time for another sample.
    #[must_use]
    pub fn is_due(&self, now: Instant) -> bool {
        let newest = self.samples.back();
        newest.is_none_or(|(at, _)| now.saturating_duration_since(*at) >= PERIOD)
    }

    /// `used` bytes of `size` are in use.
    pub fn sample(&mut self, now: Instant, used: u64, size: u64) {
        self.size = size;
        let old = |at: &Instant| now.saturating_duration_since(*at) > SPAN;
        while self.samples.front().is_some_and(|(at, _)| old(at)) {
            self.samples.pop_front();
        }
        self.samples.push_back((now, used));
    }

    /// When it will be full; `None` if it does not fill, or too little is known.
    #[must_use]
    pub fn full_in(&self) -> Option<Duration> {
        let (first, before) = self.samples.front()?;
        let (last, now) = self.samples.back()?;
        let time = last.saturating_duration_since(*first);
        let grown = now.checked_sub(*before).filter(|grown| *grown > 0)?;
        if time < LEAST {
            return None;
        }
        let free = self.size.saturating_sub(*now);
        let seconds = free as f64 / grown as f64 * time.as_secs_f64();
        let left = Duration::try_from_secs_f64(seconds).ok()?;
        Some(left).filter(|left| *left <= FARTHEST)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn full_in(size: u64, samples: &[(u64, u64)]) -> Option<u64> {
        let begin = Instant::now();
        let mut rate = FillRate::default();
        for (second, used) in samples {
            let now = begin + Duration::from_secs(*second);
            rate.sample(now, *used, size);
        }
        rate.full_in().map(|left| left.as_secs())
    }

    #[test]
    fn a_steady_rate_tells_the_time_left() {
        let samples = [(0, 1000), (10, 2000), (60, 7000)];
        assert_eq!(full_in(13_000, &samples), Some(60));
        assert_eq!(full_in(7000, &samples), Some(0));
    }

    #[test]
    fn what_does_not_fill_has_no_end() {
        assert_eq!(full_in(9, &[(0, 5), (60, 5)]), None);
        assert_eq!(full_in(9, &[(0, 5), (60, 4)]), None);
        assert_eq!(full_in(9, &[(0, 5), (20, 6)]), None, "too short");
        assert_eq!(full_in(9, &[]), None);
        assert_eq!(full_in(u64::MAX, &[(0, 5), (60, 6)]), None, "too far");
    }

    #[test]
    fn what_was_long_ago_does_not_count() {
        // A thousand bytes in the first minute, then one a second.
        let samples = [(0, 0), (60, 1000), (700, 1640), (760, 1700)];
        assert_eq!(full_in(1760, &samples), Some(60));
    }

    #[test]
    fn samples_are_seldom() {
        let now = Instant::now();
        let mut rate = FillRate::default();
        assert!(rate.is_due(now));
        rate.sample(now, 1, 2);
        assert!(!rate.is_due(now + Duration::from_secs(9)));
        assert!(rate.is_due(now + PERIOD));
    }
}
