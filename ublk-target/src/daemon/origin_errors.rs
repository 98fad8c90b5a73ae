//! What went wrong with origins: counted, told once, shown with their volume until
//! `store attach` finds them well again.
//!
//! An error reaches whoever asked for the I/O; the person who runs the machine may
//! be somebody else. A second error of the same kind is no news; a disk that is gone
//! has only that to say.

use std::collections::HashMap;
use std::io;

use parking_lot::Mutex;
use snapstore::VolumeId;

use crate::lane::GONE;

/// Origins that have failed operations, or are gone.
#[derive(Debug, Default)]
pub struct OriginErrors(Mutex<HashMap<VolumeId, Errors>>);

/// What is wrong with one origin.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Errors {
    count: u64,
    errno: i32,
    told: Vec<i32>,
    /// The device was taken away.
    pub gone: bool,
    /// Why the last try to have it back failed.
    pub still: Option<String>,
}

impl OriginErrors {
    /// An operation failed with `errno`. What to tell people, if it is news.
    pub fn note(&self, volume: VolumeId, errno: i32) -> Option<String> {
        let mut all = self.0.lock();
        let errors = all.entry(volume).or_default();
        errors.count += 1;
        errors.errno = errno;
        // Of those that are gone only that is told.
        if errors.gone || errno == GONE || errors.told.contains(&errno) {
            return None;
        }
        errors.told.push(errno);
        Some(errors.to_string())
    }

    /// The device was taken away. Whether that is news.
    pub fn note_gone(&self, volume: VolumeId) -> bool {
        let mut all = self.0.lock();
        let errors = all.entry(volume).or_default();
        !std::mem::replace(&mut errors.gone, true)
    }

    /// It is still not well, for this reason.
    pub fn note_still(&self, volume: VolumeId, why: &str) {
        if let Some(errors) = self.0.lock().get_mut(&volume) {
            errors.still = Some(why.to_owned());
        }
    }

    /// It is well again, or not ours any more: what happens next is news.
    pub fn clear(&self, volume: VolumeId) {
        self.0.lock().remove(&volume);
    }

    /// What is wrong with it, if anything is.
    #[must_use]
    pub fn of(&self, volume: VolumeId) -> Option<Errors> {
        self.0.lock().get(&volume).cloned()
    }

    /// How many origins are gone.
    #[must_use]
    pub fn gone(&self) -> u64 {
        self.0.lock().values().filter(|errors| errors.gone).count() as u64
    }
}

impl std::fmt::Display for Errors {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        if self.gone {
            write!(f, "is gone")?;
        } else {
            let why = io::Error::from_raw_os_error(self.errno);
            match self.count {
                1 => write!(f, "failed one operation: {why}")?,
                count => write!(f, "failed {count} operations, the last: {why}")?,
            }
        }
        match &self.still {
            Some(still) => write!(f, " (the last try to go on with it: {still})"),
            None => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const VOLUME: VolumeId = VolumeId(3);

    #[test]
    fn every_kind_of_error_is_told_once_until_all_is_well() {
        let errors = OriginErrors::default();
        assert_eq!(errors.of(VOLUME), None);
        let told = errors.note(VOLUME, libc::EIO).unwrap();
        assert!(told.starts_with("failed one operation"), "{told}");
        assert_eq!(errors.note(VOLUME, libc::EIO), None);
        let told = errors.note(VOLUME, libc::ENOSPC).unwrap();
        assert!(
            told.starts_with("failed 3 operations, the last: No space"),
            "{told}"
        );
        assert_eq!(errors.note(VOLUME, libc::EIO), None);
        assert_eq!(errors.of(VolumeId(4)), None);
        errors.clear(VOLUME);
        assert_eq!(errors.of(VOLUME), None);
        assert!(errors.note(VOLUME, libc::EIO).is_some());
    }

    #[test]
    fn a_device_that_is_gone_is_told_once_and_its_errors_no_more() {
        let errors = OriginErrors::default();
        assert_eq!(errors.note(VOLUME, GONE), None);
        assert!(errors.note_gone(VOLUME));
        assert!(!errors.note_gone(VOLUME));
        assert_eq!(errors.note(VOLUME, libc::EIO), None);
        assert_eq!(errors.gone(), 1);
        errors.note_still(VOLUME, "no such device");
        let shown = errors.of(VOLUME).unwrap().to_string();
        assert!(shown.starts_with("is gone (") && shown.contains("no such device"));
        errors.clear(VOLUME);
        assert_eq!(errors.gone(), 0);
        assert!(errors.note_gone(VOLUME));
    }
}
