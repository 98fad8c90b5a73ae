//! Requests: what they change, what they may return, how they may fail.

use std::ops::Range;

use snapstore::engine::{RequestError, SnapshotState};
use snapstore::{Tag, VolumeId};

use super::Oracle;
use super::image::Choice;
use crate::sim::runtime::{Ask, Failure};
use crate::sim::value::{Data, Value, ZERO};
use crate::sim::{Outcome, Violation};

/// What an open request waits for.
#[derive(Clone, Debug)]
pub(super) enum Kind {
    Write { first: u64, count: u64, fua: bool },
    Trim { first: u64, count: u64 },
    Flush,
    Read { first: u64, legal: Vec<Choice> },
    Snapshot { tag: Tag, first: u64, count: u64 },
}

/// A request not yet answered.
#[derive(Clone, Debug)]
pub(super) struct Open {
    pub(super) volume: VolumeId,
    origin: usize,
    issued: u64,
    /// The volume's policy may have put snapshots first since it was submitted.
    pub(super) strict: bool,
    /// A snapshot of it may have been held since then.
    pub(super) held: bool,
    kind: Kind,
}

impl Oracle {
    /// A request is submitted.
    pub fn submitted(&mut self, owner: u64, volume: VolumeId, ask: &Ask) {
        let now = self.tick();
        let Some(origin) = self.volumes.get(&volume).map(|v| v.origin) else {
            return;
        };
        let kind = match ask {
            Ask::Write { first, data, fua } => {
                let values: Vec<Value> = data.iter().map(Data::value).collect();
                self.issue(owner, volume, *first, &values);
                Kind::Write {
                    first: *first,
                    count: values.len() as u64,
                    fua: *fua,
                }
            }
            Ask::Trim { first, count } => {
                self.issue(owner, volume, *first, &vec![ZERO; *count as usize]);
                Kind::Trim {
                    first: *first,
                    count: *count,
                }
            }
            Ask::Flush => Kind::Flush,
            Ask::Read { first, count } => {
                let model = &self.origins[origin];
                let sectors = *first..*first + *count;
                let legal = sectors.map(|s| Choice::of(model.possible(s))).collect();
                Kind::Read {
                    first: *first,
                    legal,
                }
            }
            Ask::ReadSnapshot { tag, first, count } => Kind::Snapshot {
                tag: *tag,
                first: *first,
                count: *count,
            },
        };
        let strict = self.snapshots_may_be_first(volume);
        let held = self.may_hold(volume);
        self.open.insert(
            owner,
            Open {
                volume,
                origin,
                issued: now,
                strict,
                held,
                kind,
            },
        );
    }

    /// A write may land from now on: in the origin, in reads under way, in
    /// snapshots being taken.
    fn issue(&mut self, owner: u64, volume: VolumeId, first: u64, values: &[Value]) {
        let now = self.clock;
        let Some(origin) = self.volumes.get(&volume).map(|v| v.origin) else {
            return;
        };
        self.origins[origin].issue(owner, first, values, now);
        let (model, count) = (&self.origins[origin], values.len() as u64);
        for take in self.takes.values_mut() {
            if take.images.contains_key(&volume) {
                take.instant.issued(volume, model, owner, first, count);
            }
        }
        let images = self
            .takes
            .values_mut()
            .filter_map(|t| t.images.get_mut(&volume));
        for image in images {
            add(&mut image.sectors, 0, first, values);
        }
        for open in self.open.values_mut().filter(|o| o.origin == origin) {
            if let Kind::Read { first: at, legal } = &mut open.kind {
                add(legal, *at, first, values);
            }
        }
    }

    /// A request ended.
    ///
    /// # Errors
    /// When it returned what it may not, or failed as it may not.
    pub fn ended(&mut self, owner: u64, result: &Result<Vec<Data>, Failure>) -> Outcome {
        let now = self.tick();
        let Some(open) = self.open.remove(&owner) else {
            return Err(Violation(format!(
                "request {owner} was answered and is not open"
            )));
        };
        self.end_change(owner, &open, result, now);
        match result {
            Ok(data) => self.returned(&open, data),
            Err(failure) if self.may_fail(&open, failure) => Ok(()),
            Err(failure) => Err(Violation(format!(
                "request {owner} failed: {failure}; {open:?}"
            ))),
        }
    }

    fn end_change(
        &mut self,
        owner: u64,
        open: &Open,
        result: &Result<Vec<Data>, Failure>,
        now: u64,
    ) {
        let acknowledged = result.is_ok() && matches!(open.kind, Kind::Write { .. });
        for take in self.takes.values_mut() {
            take.instant.ended(owner, acknowledged, now);
        }
        let model = &mut self.origins[open.origin];
        match (&open.kind, result) {
            (Kind::Write { first, count, .. }, Err(Failure::Refused(_))) => {
                model.never(owner, *first, *count);
            }
            (Kind::Write { first, count, fua }, _) => {
                model.end(owner, *first, *count, result.is_ok(), *fua, now);
            }
            // A trim promises nothing, so it supersedes nothing.
            (Kind::Trim { first, count }, _) => model.end(owner, *first, *count, false, false, now),
            (Kind::Flush, Ok(_)) => model.flushed(open.issued),
            _ => {}
        }
    }

    fn returned(&mut self, open: &Open, data: &[Data]) -> Outcome {
        match &open.kind {
            Kind::Read { first, legal } => {
                for (index, (sector, legal)) in data.iter().zip(legal).enumerate() {
                    let value = sector.value();
                    if !legal.allows(value) {
                        let sector = first + index as u64;
                        return Err(Violation(format!(
                            "volume {} sector {sector} reads {value:#x}, legal: {legal:x?}",
                            open.volume
                        )));
                    }
                }
                Ok(())
            }
            Kind::Snapshot { tag, first, .. } => {
                let values: Vec<Value> = data.iter().map(Data::value).collect();
                self.snapshot_seen(open.volume, *tag, *first, &values)
            }
            _ => Ok(()),
        }
    }

    fn snapshot_seen(
        &mut self,
        volume: VolumeId,
        tag: Tag,
        first: u64,
        values: &[Value],
    ) -> Outcome {
        let snapshots = self.volumes.get_mut(&volume).map(|v| &mut v.snapshots);
        // A read that was under way when its snapshot was deleted may still be right.
        let Some(snapshot) = snapshots.and_then(|s| s.get_mut(&tag)) else {
            return Ok(());
        };
        snapshot
            .seen(first, values)
            .and_then(|()| match self.instants.get_mut(&tag) {
                Some(instant) => instant.seen(volume, first, values),
                None => Ok(()),
            })
            .map_err(|v| Violation(format!("volume {volume} tag {tag}: {v}")))
    }

    fn may_fail(&mut self, open: &Open, failure: &Failure) -> bool {
        let allow = self.allow;
        let volume = self.volumes.get(&open.volume);
        let leaving = volume.is_none_or(|v| v.deleting);
        match (&open.kind, failure) {
            (_, Failure::Broken(error)) => self.may_fail(open, &Failure::Refused(error.clone())),
            (_, Failure::Refused(RequestError::Closing)) => allow.closing,
            (_, Failure::Refused(RequestError::NoVolume(_))) => leaving,
            (Kind::Snapshot { tag, first, count }, failure) => {
                let sectors = *first..*first + *count;
                self.read_may_fail((open.volume, *tag), &sectors, leaving, failure)
            }
            (Kind::Read { .. }, Failure::Device(_)) => allow.origin_reads,
            (_, Failure::Device(_)) => allow.origin_writes,
            (Kind::Write { .. }, Failure::Refused(error)) => {
                let strict = open.strict || self.snapshots_may_be_first(open.volume);
                match error {
                    RequestError::NoSpace(_) => {
                        (strict || open.held || self.may_hold(open.volume)) && allow.full
                    }
                    RequestError::StoreFailed(_) => strict && allow.store_errors,
                    RequestError::Damaged { .. } => strict && allow.store_errors,
                    _ => false,
                }
            }
            _ => false,
        }
    }

    fn read_may_fail(
        &mut self,
        (volume, tag): (VolumeId, Tag),
        sectors: &Range<u64>,
        leaving: bool,
        failure: &Failure,
    ) -> bool {
        let allow = self.allow;
        let trouble = allow.full || allow.store_errors;
        let mut damaged = || self.damage.excuses(volume, tag, sectors);
        let snapshots = self.volumes.get_mut(&volume).map(|v| &mut v.snapshots);
        let snapshot = snapshots.and_then(|s| s.get_mut(&tag));
        match failure {
            Failure::Mismatch(_) => damaged(),
            Failure::Device(_) => allow.origin_reads || allow.store_errors || damaged(),
            Failure::Refused(RequestError::NoSnapshot(..)) => {
                leaving || snapshot.is_none_or(|s| s.deleting)
            }
            Failure::Refused(RequestError::Dropped(_, _, reason)) => {
                if let Some(snapshot) = snapshot {
                    snapshot.state = SnapshotState::Dropped(*reason);
                }
                trouble
            }
            Failure::Refused(RequestError::Lost(..)) => trouble || allow.origin_reads || damaged(),
            Failure::Refused(RequestError::Damaged { .. }) => allow.store_errors || damaged(),
            Failure::Refused(RequestError::StoreFailed(_)) => allow.store_errors,
            Failure::Refused(_) | Failure::Broken(_) => false,
        }
    }
}

/// Adds what was written at `first` to the choices, which begin at sector `at`.
fn add(choices: &mut [Choice], at: u64, first: u64, values: &[Value]) {
    for (index, value) in values.iter().enumerate() {
        let sector = first + index as u64;
        let Some(offset) = sector.checked_sub(at) else {
            continue;
        };
        if let Some(choice) = choices.get_mut(offset as usize) {
            choice.add(*value);
        }
    }
}
