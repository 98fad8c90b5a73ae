//! How much input fits, for codecs that only compress all they are given: predicted from
//! what was compressed before, corrected by what came out.
//!
//! A cluster may have any number of blocks up to its maximum, so an attempt is good enough
//! if it ends shortly before the end of *any* block.

use super::{Codec, CodecError, Fit, Room, judged, plain};

/// Attempts for a cluster before the best one is taken.
const ATTEMPTS: usize = 5;

/// How many bytes of input recently made how many of output.
#[derive(Debug, Clone, Copy)]
pub(super) struct Pace {
    taken: usize,
    size: usize,
}

impl Default for Pace {
    /// Of nothing in particular: what programs and texts come to.
    fn default() -> Self {
        Self { taken: 5, size: 2 }
    }
}

impl Pace {
    /// What was seen last.
    pub(super) fn note(&mut self, taken: usize, size: usize) {
        if taken > 0 && size > 0 {
            *self = Self { taken, size };
        }
    }

    /// Input that makes `size` bytes of output, at least 1.
    pub(super) fn input_for(&self, size: usize) -> usize {
        let wide = size as u128 * self.taken as u128 / self.size.max(1) as u128;
        usize::try_from(wide).unwrap_or(usize::MAX).max(1)
    }
}

/// Bytes of clusters in which attempts are so cheap that few bytes are worth another.
const SMALL: usize = 8 << 10;

/// Bytes that may stay unused at a cluster's end.
pub(super) fn slack(room: Room) -> usize {
    match room.bytes {
        ..=SMALL => 12,
        bytes => bytes / 100,
    }
}

/// A library that only compresses all it is given.
pub(super) trait Whole: Send {
    /// One whole compression of an input: how many bytes, which are all in `out` if it takes
    /// so many. None if they are more, and nobody knows how many.
    fn compress(&mut self, input: &[u8], out: &mut [u8]) -> Result<Option<usize>, CodecError>;
}

/// What an attempt came to.
#[derive(Debug, Clone, Copy, Default)]
struct Seen {
    taken: usize,
    size: usize,
}

/// The codec of such a library, and what its attempts work in.
pub(super) struct Search<W> {
    library: W,
    pace: Pace,
    attempt: Vec<u8>,
}

impl<W: Whole> Codec for Search<W> {
    fn fit(&mut self, input: &[u8], room: Room, out: &mut Vec<u8>) -> Result<Fit, CodecError> {
        let goal = room.bytes - slack(room) / 2;
        let (mut fits, mut over) = (Seen::default(), None);
        let mut too_many = input.len() + 1;
        let mut next = self.pace.input_for(goal);
        out.clear();
        // With more room than there is, it is known how much too large an attempt was.
        self.attempt.resize(room.bytes * 2, 0);
        for _ in 0..ATTEMPTS {
            let now = next.clamp(fits.taken + 1, too_many - 1);
            let Some(seen) = input.get(..now) else { break };
            match self.library.compress(seen, &mut self.attempt)? {
                Some(size) if size <= room.bytes => {
                    out.clear();
                    out.extend_from_slice(self.attempt.get(..size).unwrap_or_default());
                    fits = Seen { taken: now, size };
                    if now + 1 >= too_many || room.occupied(size) - size <= slack(room) {
                        break;
                    }
                    self.pace.note(now, size);
                    next = self.aim(goal, fits, over);
                }
                // No input that does not fit at its own size is worth more attempts.
                size if now <= room.bytes || size.is_some_and(|size| size >= now) => {
                    return Ok(plain(now.max(room.bytes), room, input.len()));
                }
                Some(size) => {
                    too_many = now;
                    over = Some(Seen { taken: now, size });
                    self.pace.note(now, size);
                    next = self.aim(goal, fits, over);
                }
                None => {
                    too_many = now;
                    next = match fits.taken {
                        // What was compressed before is no help.
                        0 => (now / 2).min(Pace::default().input_for(goal)),
                        fits => fits + (now - fits) / 2,
                    };
                }
            }
            if fits.taken + 1 >= too_many {
                break;
            }
        }
        self.pace.note(fits.taken, fits.size);
        Ok(judged(fits.taken, fits.size, room, input.len()))
    }

    fn forget(&mut self) {
        self.pace = Pace::default();
    }
}

impl<W> Search<W> {
    pub(super) fn new(library: W) -> Self {
        Self {
            library,
            pace: Pace::default(),
            attempt: Vec::new(),
        }
    }

    /// Input that should come to `goal`, after so much of it was seen to fit, and so much not.
    fn aim(&self, goal: usize, fits: Seen, over: Option<Seen>) -> usize {
        match over {
            Some(over) if fits.taken > 0 => {
                let wide =
                    (over.taken - fits.taken) as u128 * goal.saturating_sub(fits.size) as u128;
                fits.taken + (wide / (over.size - fits.size).max(1) as u128) as usize
            }
            // Shorter input compresses less, so attempts only come near to what fits.
            Some(_) => self.pace.input_for(goal - goal / 32),
            None => self.pace.input_for(goal),
        }
    }
}
