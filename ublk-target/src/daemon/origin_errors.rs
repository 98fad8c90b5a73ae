//! I/O errors of origins: counted, told now and then, shown with their volume.
//!
//! An error reaches whoever asked for the I/O; the person who runs the machine may
//! be somebody else.

use std::collections::HashMap;
use std::io;
use std::time::{Duration, Instant};

use parking_lot::Mutex;
use snapstore::VolumeId;

use crate::control::views::Problem;

/// Errors of one origin are told at once, and then not more often than this.
const QUIET: Duration = Duration::from_secs(60);

/// Origins that have failed operations since their store was attached.
#[derive(Debug, Default)]
pub struct OriginErrors(Mutex<HashMap<VolumeId, Errors>>);

#[derive(Debug)]
struct Errors {
    count: u64,
    errno: i32,
    told: Instant,
}

impl OriginErrors {
    /// An operation failed with `errno`. What to tell people about, if it is time.
    pub fn note(&self, volume: VolumeId, errno: i32, now: Instant) -> Option<String> {
        let mut all = self.0.lock();
        let fresh = !all.contains_key(&volume);
        let errors = all.entry(volume).or_insert(Errors {
            count: 0,
            errno,
            told: now,
        });
        errors.count += 1;
        errors.errno = errno;
        if !fresh && now.saturating_duration_since(errors.told) < QUIET {
            return None;
        }
        errors.told = now;
        Some(errors.to_string())
    }

    /// What is wrong with a volume's origin, if anything was.
    pub fn problem(&self, volume: VolumeId) -> Option<Problem> {
        self.0.lock().get(&volume).map(|errors| Problem {
            message: format!("its origin failed {errors}"),
            next: "see the kernel's log for the device; if it goes on, replace it; this count begins anew when the store is attached".into(),
        })
    }
}

impl std::fmt::Display for Errors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let why = io::Error::from_raw_os_error(self.errno);
        match self.count {
            1 => write!(f, "one operation: {why}"),
            count => write!(f, "{count} operations, the last: {why}"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_error_is_told_and_later_ones_once_a_minute() {
        let errors = OriginErrors::default();
        let (volume, start) = (VolumeId(3), Instant::now());
        assert!(errors.problem(volume).is_none());
        assert!(
            errors
                .note(volume, libc::EIO, start)
                .unwrap()
                .starts_with("one operation")
        );
        assert_eq!(errors.note(volume, libc::EIO, start + QUIET / 2), None);
        let told = errors.note(volume, libc::ENODEV, start + QUIET).unwrap();
        assert!(
            told.starts_with("3 operations, the last: No such device"),
            "{told}"
        );
        assert!(
            errors
                .problem(volume)
                .unwrap()
                .message
                .contains("3 operations")
        );
        assert!(errors.problem(VolumeId(4)).is_none());
    }
}
