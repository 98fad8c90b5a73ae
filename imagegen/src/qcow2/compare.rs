//! Whether two disks hold the same, whatever keeps them.

use super::read::{Disk, ReadError, What};
use crate::medium::Source;
use std::sync::atomic::{AtomicU64, Ordering};

/// Bytes that are compared at a time.
const PIECE: usize = 2 << 20;

/// What a comparison found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The same, but for zeroes by which one is longer.
    Same,
    /// The first byte that differs; beyond the shorter one, the first that is not zero.
    Differs(u64),
    /// Of different sizes, which was asked for as a difference.
    Sizes(u64, u64),
}

/// Compares two disks. If `strict`, they must be of the same size. `progress` is told how
/// many bytes were compared.
///
/// # Errors
/// If one cannot be read: which of them (0 or 1), and why.
pub fn compare<S: Source>(
    disks: [&Disk<S>; 2],
    strict: bool,
    progress: &AtomicU64,
) -> Result<Verdict, (usize, ReadError)> {
    let [one, two] = disks;
    if strict && one.size() != two.size() {
        return Ok(Verdict::Sizes(one.size(), two.size()));
    }
    let end = one.size().max(two.size());
    let mut buffers = [vec![0; PIECE], vec![0; PIECE]];
    let mut at = 0;
    while at < end {
        let (first, second) = (
            state(one, at, end).map_err(of(0))?,
            state(two, at, end).map_err(of(1))?,
        );
        let mut length = first.1.min(second.1);
        if first.0 || second.0 {
            length = length.min(PIECE as u64);
            for (which, (disk, state)) in [(one, first), (two, second)].into_iter().enumerate() {
                let buffer = &mut buffers[which][..length as usize];
                match state.0 {
                    true => disk.read_at(at, buffer).map_err(of(which))?,
                    false => buffer.fill(0),
                }
            }
            let [one, two] = &buffers;
            if let Some(differs) = differing(&one[..length as usize], &two[..length as usize]) {
                return Ok(Verdict::Differs(at + differs as u64));
            }
        }
        at += length;
        progress.store(at, Ordering::Relaxed);
    }
    Ok(Verdict::Same)
}

fn of(which: usize) -> impl Fn(ReadError) -> (usize, ReadError) {
    move |cause| (which, cause)
}

/// Whether data may be at byte `at`, and for how many bytes that holds.
fn state<S: Source>(disk: &Disk<S>, at: u64, end: u64) -> Result<(bool, u64), ReadError> {
    if at >= disk.size() {
        return Ok((false, end - at));
    }
    let run = disk.run(at, end - at)?;
    Ok((
        !matches!(run.what, What::Nothing | What::Zero(_)),
        run.length,
    ))
}

/// The first byte that differs; the bytes are as many.
fn differing(one: &[u8], two: &[u8]) -> Option<usize> {
    if one == two {
        return None;
    }
    one.iter().zip(two).position(|(one, two)| one != two)
}
