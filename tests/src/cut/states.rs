//! The states of the disk that a log allows, handed out one after the other.
//!
//! A state is a point of the log and what of the writes before it is there: all of them,
//! or (as the seed says) only some of those that no flush and no force made durable, in
//! sectors. The diary is never among what is missing: it says what must be there.

use rand::seq::IteratorRandom;
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::disk::{Disk, SECTOR};
use super::log::{Bytes, Entry, Kind, Log};
use crate::e2e::{Fault, Outcome};

/// Which of the states are wanted.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Entries before the first point: the disk is still being made there.
    pub from: usize,
    /// Points right after a flush or a forced write; more than there are: all.
    pub durable: usize,
    /// Random points between, whole.
    pub between: usize,
    /// Random points where not everything is there.
    pub lossy: usize,
}

/// A state of the disk.
#[derive(Clone, Debug)]
pub struct State {
    /// How many entries of the log lie before it.
    pub point: usize,
    /// Whether writes are missing or torn.
    pub lossy: bool,
    /// What it holds.
    pub disk: Disk,
}

/// Walks through a log; hands out the states wanted, and the last one of the log.
///
/// # Errors
/// If the log cannot be read or tells of places the disk has not, or whatever
/// `judge` says.
pub fn walk<B: Bytes>(
    base: &Disk,
    log: &Log<B>,
    wanted: Wanted,
    seed: u64,
    mut hand_out: impl FnMut(State) -> Outcome,
) -> Outcome<Disk> {
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let points = points(&log.entries, wanted, &mut random);
    let mut now = Now::at(base);
    let mut next = 0;
    for point in 0..=log.entries.len() {
        while let Some((_, lossy)) = points.get(next).filter(|(at, _)| *at == point) {
            let disk = match lossy {
                true => now.lossy(&mut random)?,
                false => now.all.clone(),
            };
            let lossy = *lossy;
            hand_out(State { point, lossy, disk })?;
            next += 1;
        }
        if let Some(entry) = log.entries.get(point) {
            let data = log
                .data(entry)
                .map_err(|error| Fault::wrong(error.to_string()))?;
            now.apply(entry, data)?;
        }
    }
    Ok(now.all)
}

/// Points in order, and whether writes are missing there.
fn points(entries: &[Entry], wanted: Wanted, random: &mut impl Rng) -> Vec<(usize, bool)> {
    let places = |kind: bool| {
        let numbered = (1..).zip(entries);
        numbered.filter(move |(point, entry)| *point >= wanted.from && entry.durable() == kind)
    };
    let durable = places(true).map(|(point, _)| point);
    let mut points: Vec<(usize, bool)> = Vec::new();
    points.extend(
        durable
            .sample(random, wanted.durable.min(entries.len()))
            .into_iter()
            .map(|point| (point, false)),
    );
    for (count, lossy) in [(wanted.between, false), (wanted.lossy, true)] {
        let between = places(false).map(|(point, _)| point);
        points.extend(
            between
                .sample(random, count)
                .into_iter()
                .map(|point| (point, lossy)),
        );
    }
    points.sort_unstable();
    points
}

/// The disk at a point of the log.
struct Now {
    /// With every write.
    all: Disk,
    /// With those that are durable.
    durable: Disk,
    /// The others, in order.
    pending: Vec<(u64, Vec<u8>)>,
}

impl Now {
    fn at(base: &Disk) -> Self {
        Self {
            all: base.clone(),
            durable: base.clone(),
            pending: Vec::new(),
        }
    }

    fn apply(&mut self, entry: &Entry, mut data: Vec<u8>) -> Outcome {
        let forced = match entry.kind {
            Kind::Mark(_) => return Ok(()),
            Kind::Write { forced } => forced,
            Kind::Discard => {
                // It may read as anything from now on.
                data = vec![0xdb; entry.bytes as usize];
                false
            }
            Kind::Flush { forced } => {
                for (at, bytes) in self.pending.drain(..) {
                    self.durable.write(at, &bytes)?;
                }
                forced
            }
        };
        self.all.write(entry.start, &data)?;
        if forced {
            self.durable.write(entry.start, &data)
        } else {
            self.pending.push((entry.start, data));
            Ok(())
        }
    }

    /// Each pending write is there, is not, or is there in part.
    fn lossy(&self, random: &mut impl Rng) -> Outcome<Disk> {
        let mut disk = self.durable.clone();
        let keep = random.random_range(0.0..1.0);
        for (at, bytes) in &self.pending {
            let torn = !Disk::is_diary(*at) && random.random_ratio(1, 4);
            if torn {
                for (sector, piece) in (0..).zip(bytes.chunks(SECTOR)) {
                    if random.random_bool(keep) {
                        disk.write(at + sector * SECTOR as u64, piece)?;
                    }
                }
            } else if Disk::is_diary(*at) || random.random_bool(keep) {
                disk.write(*at, bytes)?;
            }
        }
        Ok(disk)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cut::disk::{ORIGIN, PARTS};

    /// A log in memory: (sector, flags, byte that fills it).
    fn log(entries: &[(u64, u64, u8)]) -> Log<Vec<u8>> {
        let words = [0x006a_7366_7773_6872u64, 1, entries.len() as u64, 512];
        let mut bytes = words.map(u64::to_le_bytes).concat();
        bytes.resize(512, 0);
        for (sector, flags, fill) in entries {
            let count = u64::from(flags & 1 == 0);
            let head = [*sector, count, *flags, 0].map(u64::to_le_bytes).concat();
            let end = bytes.len() + 512;
            bytes.extend(head);
            bytes.resize(end, 0);
            bytes.resize(end + 512 * count as usize, *fill);
        }
        Log::open(bytes).unwrap()
    }

    const ALL: Wanted = Wanted {
        from: 0,
        durable: 99,
        between: 99,
        lossy: 99,
    };

    #[test]
    fn what_was_flushed_or_forced_is_always_there() {
        let diary = PARTS[2].1 / 512;
        // 1 written and flushed, 2 forced, 3 and the diary pending.
        let log = log(&[(1, 0, 1), (0, 1, 0), (2, 2, 2), (3, 0, 3), (diary, 0, 4)]);
        let (mut with, mut without) = (0, 0);
        for seed in 0..20 {
            let mut seen = Vec::new();
            walk(&Disk::default(), &log, ALL, seed, |state| {
                let sector = |number: usize| state.disk.origin().get(0).0[number * 512];
                if state.point >= 2 {
                    assert_eq!(sector(1), 1, "{state:?}");
                }
                if state.point >= 3 {
                    assert_eq!(sector(2), 2, "{state:?}");
                }
                if state.point == 4 && state.lossy {
                    *(if sector(3) == 3 {
                        &mut with
                    } else {
                        &mut without
                    }) += 1;
                }
                if state.point == 5 {
                    assert_eq!(state.disk.diary().get(0).0[0], 4, "{state:?}");
                }
                seen.push((state.point, state.lossy));
                Ok(())
            })
            .unwrap();
            let expected = [1, 4, 5]
                .map(|point| [(point, false), (point, true)])
                .concat();
            let whole = [(2, false), (3, false)];
            let mut expected: Vec<_> = expected.into_iter().chain(whole).collect();
            expected.sort_unstable();
            assert_eq!(seen, expected);
        }
        assert!(with > 0 && without > 0, "{with} with, {without} without");
    }

    #[test]
    fn the_end_holds_everything() {
        let log = log(&[(1, 0, 1), (1, 0, 2), (ORIGIN / 512, 0, 5)]);
        let end = walk(&Disk::default(), &log, ALL, 1, |_| Ok(())).unwrap();
        assert_eq!(end.origin().get(0).0[512], 2);
        assert_eq!(end.store().get(0).0[0], 5);
    }
}
