//! What differs is written, and all is compared again.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::thread;

use imagegen::medium::Source;
use imagegen::qcow2::read::{Disk, ReadError};
use imagegen::tree::Progress;

use ublk_target::control::protocol::ErrorCode;

use super::disk::VolumeDisk;
use crate::progress::watched;
use crate::run::diff::unlike;
use crate::run::reading::interrupt;
use crate::run::{code_of, read_code_of};

/// Bytes that a thread deals with at a time.
const PIECE: u64 = 1 << 20;

/// Why a volume was not restored.
#[derive(Debug, thiserror::Error)]
pub(super) enum RestoreError {
    /// The image cannot be read.
    #[error("the image: {0}")]
    Image(#[from] ReadError),
    /// The volume cannot be read or written.
    #[error("the volume: {0}")]
    Volume(#[from] io::Error),
    /// What is read is not what was written.
    #[error("byte {0} and what follows is not what was written there")]
    Other(u64),
    /// By a signal.
    #[error("it was interrupted")]
    Interrupted,
}

impl RestoreError {
    /// The kind of failure it is.
    pub(super) fn code(&self) -> ErrorCode {
        match self {
            Self::Volume(error) => code_of(error),
            Self::Image(error) => read_code_of(error),
            Self::Other(_) | Self::Interrupted => ErrorCode::Error,
        }
    }
}

/// Makes the volume begin with what the image holds, durably, and reads it again. Returns
/// how many bytes were written.
pub(super) fn restore<S: Source + Send + Sync>(
    image: &Disk<S>,
    volume: &VolumeDisk,
    threads: u32,
) -> Result<u64, RestoreError> {
    let written = AtomicU64::new(0);
    // Once to write, and once to compare.
    watched("Restoring", 0, image.size().saturating_mul(2), |progress| {
        each_piece(image, volume, threads, progress, |at, new, old| {
            let count = write_differing(volume, at, new, old)?;
            written.fetch_add(count, Ordering::Relaxed);
            Ok(())
        })?;
        volume.settle()?;
        each_piece(image, volume, threads, progress, |at, new, old| {
            match new == old {
                true => Ok(()),
                false => Err(RestoreError::Other(at)),
            }
        })
    })?;
    Ok(written.into_inner())
}

/// Gives `act` the place of every piece, and what image and volume hold there.
fn each_piece<S: Source + Send + Sync>(
    image: &Disk<S>,
    volume: &VolumeDisk,
    threads: u32,
    progress: &Progress,
    act: impl Fn(u64, &[u8], &[u8]) -> Result<(), RestoreError> + Sync,
) -> Result<(), RestoreError> {
    let next = AtomicU64::new(0);
    let work = || {
        let (mut new, mut old) = (Vec::new(), Vec::new());
        loop {
            let at = next.fetch_add(PIECE, Ordering::Relaxed);
            if at >= image.size() {
                return Ok(());
            }
            let length = PIECE.min(image.size() - at);
            new.resize(length as usize, 0);
            old.resize(length as usize, 0);
            let done = interrupt::check()
                .map_err(|_| RestoreError::Interrupted)
                .and_then(|()| Ok(image.read_at(at, &mut new)?))
                .and_then(|()| Ok(volume.read_at(at, &mut old)?))
                .and_then(|()| act(at, &new, &old));
            if done.is_err() {
                // Nobody begins another.
                next.store(image.size(), Ordering::Relaxed);
                return done;
            }
            progress.data.fetch_add(length, Ordering::Relaxed);
        }
    };
    thread::scope(|scope| {
        let all: Vec<_> = (0..threads).map(|_| scope.spawn(work)).collect();
        let ended = all.into_iter().map(|thread| match thread.join() {
            Ok(done) => done,
            Err(panic) => std::panic::resume_unwind(panic),
        });
        // All are waited for.
        ended.fold(Ok(()), Result::and)
    })
}

/// Writes the blocks of `new` that are others in `old`, neighbours together.
fn write_differing(
    volume: &VolumeDisk,
    at: u64,
    new: &[u8],
    old: &[u8],
) -> Result<u64, RestoreError> {
    let mut written = 0;
    for range in unlike(new, old) {
        let bytes = &new[range.clone()];
        volume.write_at(at + range.start as u64, bytes)?;
        written += bytes.len() as u64;
    }
    Ok(written)
}
