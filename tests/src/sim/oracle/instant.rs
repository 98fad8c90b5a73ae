//! One instant: what a take shows of all its volumes is what they held at one moment
//! between its request and its reply.
//!
//! Nobody knows which, but whatever a snapshot shows narrows it down: a write that is in
//! it had been issued by then, and one that is not had not been acknowledged. When no
//! moment is left, the snapshots of one take contradict each other.

use std::collections::BTreeMap;

use snapstore::VolumeId;

use super::origin::{OriginModel, Version};
use crate::sim::value::Value;
use crate::sim::{Outcome, Violation};

/// When a take may have happened, and what will tell more.
#[derive(Clone, Debug)]
pub(super) struct Instant {
    /// Behind this moment,
    after: u64,
    /// and before this one.
    before: u64,
    /// Every write that may or may not be in it, until the sector is seen.
    sectors: BTreeMap<(VolumeId, u64), Vec<Version>>,
}

impl Instant {
    /// Of a take asked for `now`.
    #[must_use]
    pub(super) fn new(now: u64) -> Self {
        Self {
            after: now,
            before: u64::MAX,
            sectors: BTreeMap::new(),
        }
    }

    /// The take concerns this volume.
    pub(super) fn covers(&mut self, volume: VolumeId, origin: &OriginModel, size: u64) {
        for sector in 0..size.min(origin.len()) {
            if !origin.is_certain(sector) {
                self.sectors
                    .insert((volume, sector), origin.versions(sector));
            }
        }
    }

    /// A write was issued; `origin` knows it already.
    pub(super) fn issued(
        &mut self,
        volume: VolumeId,
        origin: &OriginModel,
        write: u64,
        first: u64,
        count: u64,
    ) {
        for sector in first..first + count {
            let known = self.sectors.entry((volume, sector)).or_default();
            let unknown = known.is_empty();
            let now = origin.versions(sector).into_iter();
            known.extend(now.filter(|version| unknown || version.write == write));
        }
    }

    /// A write ended; `ok`: acknowledged.
    pub(super) fn ended(&mut self, write: u64, ok: bool, now: u64) {
        let writes = self.sectors.values_mut().flatten();
        for version in writes.filter(|v| v.write == write) {
            (version.ended, version.ok) = (Some(now), ok);
        }
    }

    /// The take was answered.
    pub(super) fn over(&mut self, now: u64) {
        self.before = now;
    }

    /// Its snapshot of this volume shows these values.
    ///
    /// # Errors
    /// When there is no moment at which all that was seen of this take was there.
    pub(super) fn seen(&mut self, volume: VolumeId, first: u64, values: &[Value]) -> Outcome {
        for (sector, value) in (first..).zip(values) {
            let Some(writes) = self.sectors.remove(&(volume, sector)) else {
                continue;
            };
            let (after, before) = bounds(&writes, *value);
            let (known_after, known_before) = (self.after, self.before);
            self.after = known_after.max(after);
            self.before = known_before.min(before);
            if self.after >= self.before {
                return Err(Violation(format!(
                    "no instant: sector {sector} of volume {volume} reads {value:#x}, as between \
                     {after} and {before}; the rest of the take is of between {known_after} and \
                     {known_before}"
                )));
            }
        }
        Ok(())
    }
}

/// Between which moments a sector may have held `value`. Of several writes of the same
/// value each may be the one.
fn bounds(writes: &[Version], value: Value) -> (u64, u64) {
    let same = || writes.iter().filter(|v| v.value == value);
    let until = |old: &Version| {
        let ended = old.ended.unwrap_or(u64::MAX);
        let newer = writes.iter().filter(|v| v.ok && v.issued > ended);
        newer.filter_map(|v| v.ended).min().unwrap_or(u64::MAX)
    };
    let after = same().map(|v| v.issued).min().unwrap_or(0);
    let before = same().map(until).max().unwrap_or(u64::MAX);
    (after, before)
}

#[cfg(test)]
mod tests {
    use super::*;

    const A: VolumeId = VolumeId(1);
    const B: VolumeId = VolumeId(2);

    /// A take of two volumes, of one sector each: a write to A is acknowledged, then one
    /// to B is issued, and nobody knows which of them it caught.
    fn taken() -> Instant {
        let (mut a, mut b) = (OriginModel::new(vec![10]), OriginModel::new(vec![20]));
        let mut instant = Instant::new(1);
        instant.covers(A, &a, 1);
        instant.covers(B, &b, 1);
        a.issue(1, 0, &[11], 2);
        instant.issued(A, &a, 1, 0, 1);
        instant.ended(1, true, 3);
        b.issue(2, 0, &[21], 4);
        instant.issued(B, &b, 2, 0, 1);
        instant.ended(2, true, 5);
        instant.over(6);
        instant
    }

    #[test]
    fn a_later_write_without_an_earlier_one_is_no_instant() {
        for (a, b, legal) in [
            (10, 20, true),
            (11, 20, true),
            (11, 21, true),
            (10, 21, false),
        ] {
            let mut one = taken();
            let seen = one.seen(A, 0, &[a]).and_then(|()| one.seen(B, 0, &[b]));
            assert_eq!(seen.is_ok(), legal, "{a} {b}");
            let mut other = taken();
            let seen = other.seen(B, 0, &[b]).and_then(|()| other.seen(A, 0, &[a]));
            assert_eq!(seen.is_ok(), legal, "{b} {a}, the other way round");
        }
    }

    #[test]
    fn writes_that_overlap_say_nothing_of_each_other() {
        let mut model = OriginModel::new(vec![10, 20]);
        let mut instant = Instant::new(1);
        instant.covers(A, &model, 2);
        for (write, sector, value) in [(1, 0, 11), (2, 1, 21)] {
            model.issue(write, sector, &[value], 1 + write);
            instant.issued(A, &model, write, sector, 1);
        }
        instant.ended(1, true, 4);
        instant.ended(2, true, 5);
        instant.over(6);
        assert!(instant.seen(A, 0, &[10, 21]).is_ok());
    }
}
