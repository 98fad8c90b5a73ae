//! What the users of an origin are to be told, over the end of csnapd.
//!
//! An origin that was away may miss writes that were acknowledged and not flushed: one
//! flush of its users has to fail for it ([`crate::device::OriginDevice::doubt`]). The
//! users outlive csnapd (block devices wait, NBD clients come again), and so does this:
//! in the tally while the origin is served, in its mark once it was let go.
//!
//! | since the mark, in the same boot | a flush fails |
//! |---|---|
//! | the same disk, csnapd was killed | if one was to fail already |
//! | the disk went and came back, csnapd was killed or could not flush it | also if something was not flushed |
//! | let go in good order, so it was flushed | if one was to fail already |
//!
//! Contract: never for the end of csnapd alone. What it wrote is with the disk then; but
//! it is remembered as not flushed, should the disk go later. A new boot has new users.

use super::marks::Mark;
use crate::device::Totals;

/// What is still to be told.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Owed {
    /// What was written is not flushed: were the disk to go now, it might be missing.
    pub(super) unflushed: bool,
    /// Writes may be missing.
    pub(super) unsure: bool,
}

impl Mark {
    /// What is to be told to users of the origin that the mark `now` is made of; `left` is
    /// what was counted after this one, if that can be known.
    pub(super) fn owes(&self, now: &Self, left: Option<Totals>) -> Owed {
        if self.boot != now.boot {
            return Owed::default();
        }
        let unsure = left.map_or(self.unsure, |left| left.unsure);
        let unflushed = self.sealed.is_none() && left.is_none_or(|left| left.unflushed);
        let went = self.disk != now.disk;
        Owed {
            unflushed: unflushed && !went,
            unsure: unsure || unflushed && went,
        }
    }
}

#[cfg(test)]
mod tests {
    use uuid::Uuid;

    use super::*;
    use crate::device::Plate;

    /// Of a csnapd that was killed.
    fn of(disk: u64) -> Mark {
        Mark {
            store: Uuid::from_u128(1),
            volume: 2,
            boot: "today".into(),
            plate: Plate::default(),
            disk,
            sectors: 600,
            sealed: None,
            used: String::new(),
            tally: Some(Uuid::from_u128(3)),
            foreign: 0,
            unsure: false,
        }
    }

    fn sealed(unsure: bool) -> Mark {
        Mark {
            sealed: Some("seal".into()),
            tally: None,
            unsure,
            ..of(5)
        }
    }

    fn left(unflushed: bool, unsure: bool) -> Option<Totals> {
        Some(Totals {
            unflushed,
            unsure,
            ..Totals::default()
        })
    }

    /// Not flushed, and a flush fails.
    fn owed(mark: &Mark, disk: u64, left: Option<Totals>) -> (bool, bool) {
        let owed = mark.owes(&of(disk), left);
        (owed.unflushed, owed.unsure)
    }

    #[test]
    fn a_kill_alone_fails_no_flush_and_forgets_nothing() {
        let killed = of(5);
        assert_eq!(owed(&killed, 5, left(false, false)), (false, false));
        assert_eq!(owed(&killed, 5, left(true, false)), (true, false));
        assert_eq!(owed(&killed, 5, None), (true, false), "nobody had counted");
        assert_eq!(owed(&killed, 5, left(false, true)), (false, true));
    }

    #[test]
    fn a_disk_that_was_away_meanwhile_fails_one_if_something_was_not_flushed() {
        let killed = of(5);
        assert_eq!(owed(&killed, 6, left(false, false)), (false, false));
        assert_eq!(owed(&killed, 6, left(true, false)), (false, true));
        assert_eq!(owed(&killed, 6, left(false, true)), (false, true));
        assert_eq!(owed(&killed, 6, None), (false, true));
    }

    #[test]
    fn what_was_to_be_told_is_told_after_an_orderly_stop() {
        for disk in [5, 6] {
            assert_eq!(owed(&sealed(false), disk, None), (false, false));
            assert_eq!(owed(&sealed(true), disk, None), (false, true));
        }
    }

    #[test]
    fn what_was_told_after_the_mark_is_told() {
        let unsure = Mark {
            unsure: true,
            ..of(5)
        };
        assert_eq!(owed(&unsure, 5, left(false, false)), (false, false));
        assert_eq!(owed(&unsure, 5, None), (true, true), "it cannot be known");
    }

    #[test]
    fn a_new_boot_has_new_users() {
        let before = |mark| Mark {
            boot: "yesterday".into(),
            ..mark
        };
        assert_eq!(owed(&before(of(5)), 6, None), (false, false));
        assert_eq!(owed(&before(sealed(true)), 5, None), (false, false));
    }
}
