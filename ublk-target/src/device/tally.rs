//! What csnapd itself writes to an origin, counted where `kill -9` leaves it: one page
//! of a file in memory, shared by the I/O threads, read by the next csnapd.
//!
//! Compared with what the kernel counted ([`super::Written`]) it tells whether anybody
//! else wrote between the end of one csnapd and the start of the next. Contract:
//!
//! - a write has begun before the kernel can see it, and ends after the kernel has
//!   counted it;
//! - a sample is taken by first summing what has ended and then asking the kernel, so
//!   the kernel's count of then holds all that had ended;
//! - therefore the kernel cannot have counted more of our writes since the sample than
//!   have begun without having ended in it: [`Totals::unsampled`].
//!
//! It also knows whether what was written has been flushed since: a flush that ended
//! well covers the writes that had ended well before it began. And whether users are
//! still to be told that writes may be missing ([`super::OriginDevice::doubt`]).
//!
//! The file must be in memory (tmpfs): an I/O thread never waits for a file system.

use std::fs::{self, File};
use std::io::{self, Write as _};
use std::num::NonZeroUsize;
use std::path::Path;
use std::ptr::NonNull;
use std::sync::atomic::{AtomicU64, Ordering};

use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};

const BYTES: usize = 4096;
const WORDS: usize = BYTES / 8;
/// Words of a line of the processors' caches: each thread has its own.
const LINE: usize = 8;
const LANES: usize = 32;
/// Which of the two samples that follow is valid.
const VALID: usize = LANES * LINE;
const DOUBTFUL: usize = VALID + 3 * LINE;
/// Of the sectors written, those that a flush has covered.
const FLUSHED: usize = VALID + 4 * LINE;
const UNSURE: usize = VALID + 5 * LINE;

/// The page, mapped. See the module.
#[derive(Debug)]
pub struct Tally(NonNull<AtomicU64>);

// SAFETY: what it points to are atomics in a mapping that lives as long as the value.
unsafe impl Send for Tally {}
// SAFETY: likewise.
unsafe impl Sync for Tally {}

/// What a tally says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// Sectors that csnapd began to write, and that the kernel's count of the last
    /// sample need not hold.
    pub unsampled: u64,
    /// The kernel's count at the last sample.
    pub sampled: u64,
    /// The kernel once counted more than csnapd wrote while csnapd held the device.
    pub doubtful: bool,
    /// Something was written that no flush has covered.
    pub unflushed: bool,
    /// Writes may be missing, which no flush has said yet.
    pub unsure: bool,
}

impl Tally {
    /// A new file at `path`, with nothing counted; `sectors` is the kernel's count.
    ///
    /// # Errors
    /// What the system said; [`io::ErrorKind::Unsupported`] where the file would not
    /// be in memory.
    pub fn create(path: &Path, sectors: u64) -> io::Result<Self> {
        let mut file = File::options()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        if fstatfs(&file)?.filesystem_type() != TMPFS_MAGIC {
            fs::remove_file(path)?;
            return Err(io::ErrorKind::Unsupported.into());
        }
        file.write_all(&[0; BYTES])?;
        let access = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let size = NonZeroUsize::new(BYTES).ok_or(io::ErrorKind::InvalidInput)?;
        // SAFETY: a new mapping at an address the kernel chooses touches no existing memory.
        let base = unsafe { mmap(None, size, access, MapFlags::MAP_SHARED, &file, 0) }?;
        let tally = Self(base.cast());
        tally.put(sample_at(0) + 1, sectors);
        Ok(tally)
    }

    /// I/O thread `lane` is about to write so many sectors.
    pub fn begin(&self, lane: u16, sectors: u64) {
        self.add(cell(lane.into(), 0), sectors);
    }

    /// They are written (`well`), or have failed.
    pub fn end(&self, lane: u16, sectors: u64, well: bool) {
        if well {
            self.add(cell(lane.into(), 2), sectors);
        }
        self.add(cell(lane.into(), 1), sectors);
    }

    /// Sectors that have been written, for [`Self::flushed`]: asked before a flush begins.
    #[must_use]
    pub fn landed(&self) -> u64 {
        sum(2, |at| self.get(at))
    }

    /// A flush ended well that began when so many sectors had been written.
    pub fn flushed(&self, landed: u64) {
        if let Some(word) = self.word(FLUSHED) {
            word.fetch_max(landed, Ordering::AcqRel);
        }
    }

    /// Whether anything was written that no flush has covered.
    #[must_use]
    pub fn has_unflushed(&self) -> bool {
        self.totals().unflushed
    }

    /// Something written before anything was counted has not been flushed.
    pub fn inherit(&self) {
        self.add(cell(0, 2), 1);
    }

    /// Writes may be missing, or it has been said that they may.
    pub fn doubt(&self, unsure: bool) {
        self.put(UNSURE, unsure.into());
    }

    /// Takes a sample, by one thread at a time: `ask` gives the kernel's count of now, and
    /// how often it may count a write. Returns whether it counted more since the last one
    /// than csnapd can have written.
    pub fn sample(&self, ask: impl FnOnce() -> Option<(u64, u64)>) -> bool {
        let ended = sum(1, |at| self.get(at));
        let Some((now, times)) = ask() else {
            return false;
        };
        let last = self.totals();
        let own = last.unsampled.saturating_mul(times);
        let foreign = now.saturating_sub(last.sampled) > own;
        if foreign {
            self.put(DOUBTFUL, 1);
        }
        let next = 1 - (self.get(VALID) & 1);
        let place = sample_at(next);
        self.put(place, ended);
        self.put(place + 1, now);
        // Whoever is killed before this leaves the last sample valid.
        self.put(VALID, next);
        foreign
    }

    /// What it says now.
    #[must_use]
    pub fn totals(&self) -> Totals {
        totals(|at| self.get(at))
    }

    /// What a csnapd that ended left at `path`.
    ///
    /// # Errors
    /// What the system said; a file of another size.
    pub fn left_at(path: &Path) -> io::Result<Totals> {
        let bytes = fs::read(path)?;
        if bytes.len() != BYTES {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let (words, _) = bytes.as_chunks::<8>();
        Ok(totals(|at| {
            words.get(at).map_or(0, |word| u64::from_ne_bytes(*word))
        }))
    }

    fn word(&self, at: usize) -> Option<&AtomicU64> {
        // SAFETY: the mapping holds so many words, aligned to a page, for as long as
        // `self`; whoever else maps it uses atomics too.
        let words = unsafe { std::slice::from_raw_parts(self.0.as_ptr(), WORDS) };
        words.get(at)
    }

    fn get(&self, at: usize) -> u64 {
        self.word(at).map_or(0, |word| word.load(Ordering::Acquire))
    }

    fn put(&self, at: usize, value: u64) {
        if let Some(word) = self.word(at) {
            word.store(value, Ordering::Release);
        }
    }

    fn add(&self, at: usize, value: u64) {
        if let Some(word) = self.word(at) {
            word.fetch_add(value, Ordering::AcqRel);
        }
    }
}

impl Drop for Tally {
    fn drop(&mut self) {
        // SAFETY: this value owns the mapping and lends nothing of it.
        if let Err(error) = unsafe { munmap(self.0.cast(), BYTES) } {
            tracing::error!(%error, "cannot unmap a tally");
        }
    }
}

/// The word a lane counts in: what began (0), what ended (1), what ended well (2).
fn cell(lane: usize, what: usize) -> usize {
    lane % LANES * LINE + what
}

fn sum(what: usize, get: impl Fn(usize) -> u64) -> u64 {
    (0..LANES).fold(0, |sum, lane| sum.wrapping_add(get(cell(lane, what))))
}

/// Where a sample is: what had ended, then the kernel's count.
fn sample_at(which: u64) -> usize {
    VALID + LINE * (1 + (which & 1) as usize)
}

fn totals(get: impl Fn(usize) -> u64) -> Totals {
    let sample = sample_at(get(VALID));
    Totals {
        unsampled: sum(0, &get).saturating_sub(get(sample)),
        sampled: get(sample + 1),
        doubtful: get(DOUBTFUL) != 0,
        unflushed: sum(2, &get) > get(FLUSHED),
        unsure: get(UNSURE) != 0,
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    fn memory() -> (tempfile::TempDir, PathBuf) {
        let dir = tempfile::tempdir_in("/dev/shm").unwrap();
        let path = dir.path().join("tally");
        (dir, path)
    }

    #[test]
    fn what_was_begun_and_not_sampled_is_what_csnapd_may_have_written() {
        let (_dir, path) = memory();
        let tally = Tally::create(&path, 1000).unwrap();
        let left = || Tally::left_at(&path).unwrap();
        assert_eq!((left().unsampled, left().sampled), (0, 1000));
        tally.begin(0, 8);
        tally.begin(40, 16);
        tally.begin(63, 1);
        assert_eq!(left().unsampled, 25);
        // The kernel has counted one that has not ended: it counts as both.
        tally.end(0, 8, true);
        assert!(!tally.sample(|| Some((1024, 1))));
        assert_eq!((left().unsampled, left().sampled), (17, 1024));
        tally.end(40, 16, true);
        tally.end(63, 1, true);
        assert!(!tally.sample(|| Some((1025, 1))));
        assert_eq!((left().unsampled, left().sampled), (0, 1025));
        assert!(!tally.sample(|| None), "nothing was learned");
        drop(tally);
        let quiet = Totals {
            unsampled: 0,
            sampled: 1025,
            unflushed: true,
            ..Totals::default()
        };
        assert_eq!(left(), quiet, "it outlives the one who counted");
    }

    #[test]
    fn a_device_that_counts_more_than_was_written_is_doubted_for_ever() {
        let (_dir, path) = memory();
        let tally = Tally::create(&path, 0).unwrap();
        tally.begin(1, 8);
        tally.end(1, 8, true);
        assert!(
            !tally.sample(|| Some((16, 2))),
            "it may count a write twice"
        );
        assert!(!tally.totals().doubtful);
        tally.begin(1, 8);
        assert!(tally.sample(|| Some((25, 1))));
        assert!(!tally.sample(|| Some((25, 1))), "told once");
        assert!(Tally::left_at(&path).unwrap().doubtful);
    }

    #[test]
    fn a_flush_covers_what_had_been_written_before_it_began() {
        let (_dir, path) = memory();
        let tally = Tally::create(&path, 0).unwrap();
        assert!(!tally.has_unflushed());
        tally.begin(0, 8);
        assert!(!tally.has_unflushed(), "not yet written");
        tally.end(0, 8, false);
        assert!(!tally.has_unflushed(), "its user knows");
        tally.begin(1, 8);
        tally.end(1, 8, true);
        assert!(tally.has_unflushed());
        let early = tally.landed();
        tally.begin(2, 8);
        tally.end(2, 8, true);
        let late = tally.landed();
        tally.flushed(early);
        assert!(tally.has_unflushed(), "it began before the second");
        tally.flushed(late);
        tally.flushed(early);
        assert!(!tally.has_unflushed());
    }

    #[test]
    fn what_users_are_to_be_told_outlives_the_one_who_knew() {
        let (_dir, path) = memory();
        let tally = Tally::create(&path, 0).unwrap();
        let left = || {
            let left = Tally::left_at(&path).unwrap();
            (left.unflushed, left.unsure)
        };
        assert_eq!(left(), (false, false));
        tally.inherit();
        assert_eq!(left(), (true, false));
        assert_eq!(tally.totals().unsampled, 0, "it is no write of ours");
        tally.flushed(tally.landed());
        tally.doubt(true);
        assert_eq!(left(), (false, true));
        tally.doubt(false);
        assert_eq!(left(), (false, false));
    }

    #[test]
    fn a_place_that_is_not_in_memory_and_a_file_of_another_kind_are_refused() {
        let disk = tempfile::tempdir_in(env!("CARGO_MANIFEST_DIR")).unwrap();
        let path = disk.path().join("tally");
        let error = Tally::create(&path, 0).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::Unsupported);
        assert!(!path.exists());
        assert!(Tally::left_at(&path).is_err());
        fs::write(&path, b"short").unwrap();
        assert!(Tally::left_at(&path).is_err());
    }
}
