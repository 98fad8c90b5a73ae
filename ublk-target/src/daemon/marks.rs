//! Was an origin written while csnapd did not serve it? What the kernel's counter says.
//!
//! The fingerprint knows an orderly stop only, and parts of the device only. Beside it
//! the state file has a *mark* of every origin that is a block device: the boot, the
//! disk and the kernel's count of sectors written, as they were when csnapd took the
//! origin, and again when it let go of it in good order.
//!
//! | since the mark | foreign is |
//! |---|---|
//! | the same disk, let go in good order | whatever was counted |
//! | the same disk, csnapd was killed | what was counted and csnapd did not write |
//! | another boot | whatever was counted in it: the count began anew |
//! | the disk went and came back | the same, if the count shows it |
//!
//! What csnapd itself wrote before it was killed it counts in memory ([`Tally`]).
//! Contract: a mark is durable before the first write that follows it, so that no write
//! of csnapd is ever taken for somebody else's; where that cannot be known for sure,
//! nothing is foreign. After a kill the mark also tells the disk from another one that
//! has its name now. What was found stays until it is accepted, because the next boot
//! counts anew. A mark speaks only for the store as it was left: another csnapd, with a
//! state directory of its own, may have served it since. Each stop, and each use of an
//! origin, has a number of its own there and in the mark ([`Seal`]).

use std::fmt::Write as _;
use std::fs;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use serde::{Deserialize, Serialize};
use snapstore::VolumeId;
use snapstore::engine::{Seal, VolumeInfo};
use uuid::Uuid;

use super::Daemon;
use super::owed::Owed;
use super::state::{State, StateError};
use super::store::Store;
use crate::device::{OriginDevice, Plate, Tally, Totals, Written};

const BOOT_ID: &str = "/proc/sys/kernel/random/boot_id";

/// What is remembered of an origin.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Mark {
    /// Its store.
    pub store: Uuid,
    /// Number of its volume there.
    pub volume: u32,
    /// Of which boot the rest is.
    pub boot: String,
    /// What the disk said of itself.
    #[serde(default)]
    pub plate: Plate,
    /// Its number in this boot.
    pub disk: u64,
    /// The kernel's count.
    pub sectors: u64,
    /// The fingerprint in the store, once the origin was let go in good order.
    pub sealed: Option<String>,
    /// Until then the number in the store of this use of it.
    #[serde(default = "first_use")]
    pub used: String,
    /// Where csnapd counts what it writes, while it has the origin.
    pub tally: Option<Uuid>,
    /// Sectors somebody else was found to have written.
    #[serde(default)]
    pub foreign: u64,
    /// Its users were to be told that writes may be missing.
    #[serde(default)]
    pub unsure: bool,
}

/// What speaks against an origin.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Evidence {
    /// Sectors that somebody else has written since csnapd last had it, at least.
    pub foreign: u64,
    /// It is another disk.
    pub another: bool,
}

impl Evidence {
    /// Whether anything does.
    #[must_use]
    pub fn any(self) -> bool {
        self != Self::default()
    }
}

/// What there is to compare a mark with.
struct Now<'a> {
    boot: &'a str,
    written: Option<Written>,
    /// In the store.
    seal: Seal,
    /// What the csnapd before counted.
    totals: Option<Totals>,
}

impl Mark {
    fn is_of(&self, store: Uuid, volume: VolumeId) -> bool {
        (self.store, self.volume) == (store, volume.0)
    }

    /// Whether an origin with this plate certainly is another disk. After an orderly
    /// stop the fingerprint says more: a copy on another disk has the same.
    fn is_of_another(&self, plate: &Plate, now: &Now<'_>) -> bool {
        let killed = self.sealed.is_none() && self.is_the_last(&now.seal);
        killed && self.plate.contradicts(plate)
    }

    /// Whether nobody has served the store since.
    fn is_the_last(&self, seal: &Seal) -> bool {
        match seal {
            Seal::Fingerprint(bytes) => self.sealed == Some(hex(bytes)),
            Seal::Use(bytes) => self.sealed.is_none() && self.used == hex(bytes),
        }
    }

    /// Sectors that somebody else has written since, as far as is certain.
    fn foreign(&self, now: &Now<'_>) -> u64 {
        if !self.is_the_last(&now.seal) {
            return 0;
        }
        let Some(written) = now.written.filter(|_| self.foreign == 0) else {
            return self.foreign;
        };
        if now.boot.is_empty() {
            return 0; // the kernel does not say which boot it is
        }
        let seen = now.totals.map_or(0, |totals| totals.sampled);
        let seen = seen.max(self.sectors);
        if self.boot != now.boot || self.disk != written.disk {
            // Some drivers number a disk anew that has not gone.
            let anew = self.boot != now.boot || written.sectors < seen;
            let sure = anew && written.from_zero;
            return if sure { written.sectors } else { 0 };
        }
        let (from, own) = match now.totals {
            _ if self.sealed.is_some() => (self.sectors, 0),
            Some(totals) if !totals.doubtful => {
                let own = totals.unsampled.saturating_mul(written.times);
                (totals.sampled, own)
            }
            _ => return 0,
        };
        written.sectors.saturating_sub(from).saturating_sub(own)
    }
}

impl State {
    /// The mark of an origin.
    #[must_use]
    pub fn mark_of(&self, store: Uuid, volume: VolumeId) -> Option<&Mark> {
        self.origins.iter().find(|mark| mark.is_of(store, volume))
    }

    /// Remembers a mark instead of the one before.
    pub fn mark(&mut self, mark: Mark) {
        self.forget_mark(mark.store, VolumeId(mark.volume));
        self.origins.push(mark);
    }

    /// Nothing is known of this origin any more.
    pub fn forget_mark(&mut self, store: Uuid, volume: VolumeId) {
        self.origins.retain(|mark| !mark.is_of(store, volume));
    }
}

impl Daemon {
    /// What speaks against an origin that csnapd had before.
    pub(super) fn evidence(
        &self,
        store: Uuid,
        info: &VolumeInfo,
        origin: &OriginDevice,
    ) -> Evidence {
        let state = self.state.get();
        let Some(mark) = state.mark_of(store, info.id) else {
            return Evidence::default();
        };
        let now = Now {
            boot: &boot(),
            written: origin.written(),
            seal: info.seal,
            totals: self.left(mark),
        };
        Evidence {
            foreign: mark.foreign(&now),
            another: mark.is_of_another(origin.plate(), &now),
        }
    }

    /// Remembers what was found, until it is accepted.
    pub(super) fn remember_foreign(
        &self,
        store: &Store,
        volume: VolumeId,
        foreign: u64,
    ) -> Result<(), StateError> {
        self.state.update(|state| {
            let mut marks = state.origins.iter_mut();
            if let Some(mark) = marks.find(|mark| mark.is_of(store.uuid, volume)) {
                mark.foreign = foreign;
            }
        })
    }

    /// csnapd is about to write to an origin: from now on it counts.
    pub(super) fn mark_taken(
        &self,
        store: &Store,
        volume: VolumeId,
        origin: &OriginDevice,
    ) -> Result<(), StateError> {
        let Some(written) = origin.written() else {
            return self.replace_mark(store, volume, None);
        };
        // Listed before it is made: then a csnapd that is killed leaves none unlisted.
        let tally = Uuid::new_v4();
        let mark = new_mark(store, volume, origin, written);
        let owed = self.owed(&mark);
        let listed = Mark {
            tally: Some(tally),
            unsure: owed.unsure,
            ..mark
        };
        self.replace_mark(store, volume, Some(listed))?;
        match Tally::create(&self.tally_path(tally), written.sectors) {
            Ok(made) => {
                if owed.unflushed {
                    made.inherit();
                }
                origin.count_in(Arc::new(made));
            }
            Err(error) => {
                let origin = origin.path().display();
                tracing::info!(%origin, %error, "writes are not counted: should csnapd be killed, nobody can tell whether others wrote the origin before it is back");
            }
        }
        if owed.unsure {
            origin.doubt();
        }
        Ok(())
    }

    /// What the mark before this one leaves to be told.
    fn owed(&self, new: &Mark) -> Owed {
        let state = self.state.get();
        let old = state.mark_of(new.store, VolumeId(new.volume));
        old.map_or_else(Owed::default, |old| old.owes(new, self.left(old)))
    }

    /// What was counted for a mark.
    fn left(&self, mark: &Mark) -> Option<Totals> {
        let path = self.tally_path(mark.tally?);
        Tally::left_at(&path).ok()
    }

    /// csnapd has written its last to an origin, whose fingerprint the store has.
    pub(super) fn mark_left(
        &self,
        store: &Store,
        volume: VolumeId,
        origin: &OriginDevice,
        seal: &Seal,
    ) -> Result<(), StateError> {
        let mark = origin.written().map(|written| Mark {
            sealed: match seal {
                Seal::Fingerprint(bytes) => Some(hex(bytes)),
                Seal::Use(_) => None,
            },
            unsure: origin.is_in_doubt(),
            ..new_mark(store, volume, origin, written)
        });
        self.replace_mark(store, volume, mark)
    }

    /// Nothing is remembered of the origin of a volume that is gone.
    pub(super) fn forget_mark(&self, store: &Store, volume: VolumeId) {
        if let Err(error) = self.replace_mark(store, volume, None) {
            tracing::warn!(%error, "the state file still has a mark of a deleted volume");
        }
    }

    fn replace_mark(
        &self,
        store: &Store,
        volume: VolumeId,
        mark: Option<Mark>,
    ) -> Result<(), StateError> {
        let state = self.state.get();
        let old = state
            .mark_of(store.uuid, volume)
            .and_then(|mark| mark.tally);
        // First, while it is listed. It has been judged by, or is not needed any more.
        if let Some(old) = old.map(|old| self.tally_path(old)) {
            match fs::remove_file(&old) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => {
                    tracing::warn!(path = %old.display(), %error, "cannot remove");
                }
                _ => {}
            }
        }
        self.state.update(|state| match mark {
            Some(mark) => state.mark(mark),
            None => state.forget_mark(store.uuid, volume),
        })
    }

    fn tally_path(&self, id: Uuid) -> PathBuf {
        let name = format!("written-{id}");
        self.settings.devices.run_dir.join(name)
    }
}

fn new_mark(store: &Store, volume: VolumeId, origin: &OriginDevice, written: Written) -> Mark {
    Mark {
        store: store.uuid,
        volume: volume.0,
        boot: boot(),
        plate: origin.plate().clone(),
        disk: written.disk,
        sectors: written.sectors,
        sealed: None,
        used: match store.seal_of(volume) {
            Seal::Use(bytes) => hex(&bytes),
            Seal::Fingerprint(_) => String::new(),
        },
        tally: None,
        foreign: 0,
        unsure: false,
    }
}

/// The number of the first use of a new volume.
fn first_use() -> String {
    hex(&[0; 32])
}

/// Which boot this is; empty where the kernel does not say.
fn boot() -> String {
    let id = fs::read_to_string(BOOT_ID).unwrap_or_default();
    id.trim().to_owned()
}

fn hex(fingerprint: &[u8; 32]) -> String {
    fingerprint.iter().fold(String::new(), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const DISK: Written = Written {
        sectors: 1000,
        disk: 5,
        from_zero: true,
        times: 1,
    };

    fn taken() -> Mark {
        Mark {
            store: Uuid::from_u128(1),
            volume: 2,
            boot: "today".into(),
            plate: Plate::default(),
            disk: 5,
            sectors: 600,
            sealed: None,
            used: hex(&[7; 32]),
            tally: Some(Uuid::from_u128(3)),
            foreign: 0,
            unsure: false,
        }
    }

    fn left() -> Mark {
        Mark {
            sealed: Some(hex(&[8; 32])),
            used: String::new(),
            tally: None,
            sectors: 1000,
            ..taken()
        }
    }

    fn now(written: Written) -> Now<'static> {
        Now {
            boot: "today",
            written: Some(written),
            seal: Seal::Use([7; 32]),
            totals: None,
        }
    }

    /// After an orderly stop.
    fn stopped(written: Written) -> Now<'static> {
        Now {
            seal: Seal::Fingerprint([8; 32]),
            ..now(written)
        }
    }

    /// After a kill: the last sample, and what was written after it.
    fn killed(sampled: u64, unsampled: u64) -> Now<'static> {
        let totals = Totals {
            unsampled,
            sampled,
            ..Totals::default()
        };
        Now {
            totals: Some(totals),
            ..now(DISK)
        }
    }

    #[test]
    fn after_an_orderly_stop_every_sector_is_foreign() {
        assert_eq!(left().foreign(&stopped(DISK)), 0);
        let more = Written {
            sectors: 1001,
            ..DISK
        };
        assert_eq!(left().foreign(&stopped(more)), 1);
        // Loop devices count what was in them before, but not since under this number.
        let reused = Written {
            from_zero: false,
            ..more
        };
        assert_eq!(left().foreign(&stopped(reused)), 1);
        // Killed between the store and the mark: only the fingerprint counts.
        assert_eq!(left().foreign(&now(more)), 0);
        assert_eq!(taken().foreign(&stopped(more)), 0);
        // Another csnapd has served it since, and left it looking the same.
        let served = Now {
            seal: Seal::Fingerprint([9; 32]),
            ..stopped(more)
        };
        assert_eq!(left().foreign(&served), 0);
    }

    #[test]
    fn after_a_kill_what_csnapd_wrote_is_its_own() {
        assert_eq!(taken().foreign(&killed(1000, 0)), 0);
        assert_eq!(taken().foreign(&killed(900, 100)), 0);
        // The kernel never got the last of it.
        assert_eq!(taken().foreign(&killed(900, 5000)), 0);
        assert_eq!(taken().foreign(&killed(900, 60)), 40);
        assert_eq!(taken().foreign(&killed(999, 0)), 1);
        let twice = Now {
            written: Some(Written { times: 2, ..DISK }),
            ..killed(900, 50)
        };
        assert_eq!(taken().foreign(&twice), 0, "it may count a write twice");
        let served = Now {
            seal: Seal::Use([9; 32]),
            ..killed(999, 0)
        };
        assert_eq!(taken().foreign(&served), 0, "another csnapd was killed too");
    }

    #[test]
    fn a_new_boot_and_a_disk_that_came_back_count_from_zero() {
        let count = |sectors| Written { sectors, ..DISK };
        for (mark, seal) in [
            (taken(), Seal::Use([7; 32])),
            (left(), Seal::Fingerprint([8; 32])),
        ] {
            let mark = Mark {
                boot: "yesterday".into(),
                ..mark
            };
            let foreign = |written| {
                mark.foreign(&Now {
                    seal,
                    ..now(written)
                })
            };
            assert_eq!(foreign(count(0)), 0);
            assert_eq!(foreign(DISK), 1000);
            let unsure = Written {
                from_zero: false,
                ..DISK
            };
            assert_eq!(foreign(unsure), 0);
        }
        let elsewhere = Mark { disk: 4, ..taken() };
        assert_eq!(elsewhere.foreign(&now(count(0))), 0);
        assert_eq!(elsewhere.foreign(&now(count(8))), 8);
        assert_eq!(elsewhere.foreign(&now(count(600))), 0, "renumbered only");
        // It had been seen with more than at the mark.
        let seen = Now {
            written: Some(count(700)),
            ..killed(900, 0)
        };
        assert_eq!(elsewhere.foreign(&seen), 700);
    }

    #[test]
    fn what_cannot_be_known_is_not_foreign_and_what_was_found_stays() {
        assert_eq!(taken().foreign(&now(DISK)), 0, "the tally is gone");
        let mut doubtful = killed(900, 0);
        if let Some(totals) = &mut doubtful.totals {
            totals.doubtful = true;
        }
        assert_eq!(taken().foreign(&doubtful), 0);
        let silent = Now {
            written: None,
            ..killed(900, 0)
        };
        assert_eq!(taken().foreign(&silent), 0);
        let nowhere = Now {
            boot: "",
            ..now(DISK)
        };
        assert_eq!(taken().foreign(&nowhere), 0);
        let found = Mark {
            foreign: 40,
            boot: "yesterday".into(),
            ..taken()
        };
        let untouched = Written { sectors: 0, ..DISK };
        assert_eq!(found.foreign(&now(untouched)), 40);
        assert_eq!(found.foreign(&silent), 40);
        assert_eq!(found.foreign(&stopped(DISK)), 0, "another csnapd had it");
    }

    #[test]
    fn another_disk_under_the_same_name_is_seen_after_a_kill() {
        let plate = |serial: &str| {
            let json = format!("{{\"serial\": \"{serial}\"}}");
            serde_json::from_str::<Plate>(&json).unwrap()
        };
        let with = |mark| Mark {
            plate: plate("A"),
            ..mark
        };
        let another = |mark: Mark, now| with(mark).is_of_another(&plate("B"), &now);
        assert!(another(taken(), now(DISK)));
        assert!(!another(left(), stopped(DISK)), "the fingerprint decides");
        assert!(!another(taken(), stopped(DISK)), "another csnapd had it");
        assert!(!with(taken()).is_of_another(&plate("A"), &now(DISK)));
        assert!(!with(taken()).is_of_another(&Plate::default(), &now(DISK)));
    }

    #[test]
    fn marks_are_remembered_by_store_and_volume() {
        let mut state = State::default();
        state.mark(taken());
        let other = Mark {
            volume: 3,
            ..left()
        };
        state.mark(other.clone());
        state.mark(left());
        let store = Uuid::from_u128(1);
        assert_eq!(state.mark_of(store, VolumeId(2)), Some(&left()));
        state.forget_mark(store, VolumeId(2));
        assert_eq!(state.origins, [other]);
        assert_eq!(state.mark_of(Uuid::from_u128(2), VolumeId(3)), None);
    }
}
