//! What damage to the store costs: the views that may not be readable any more. They
//! fail; wrong contents are never legal.

use std::ops::{Range, RangeInclusive};

use snapstore::{Tag, VolumeId};

/// Old contents that damage may have cost.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Hurt {
    /// Whose.
    pub volume: VolumeId,
    /// Which sectors.
    pub sectors: Range<u64>,
    /// In which snapshots.
    pub tags: RangeInclusive<Tag>,
}

/// Everything the damaged blocks cost at most.
#[derive(Clone, Debug, Default)]
pub struct Damage {
    hurts: Vec<Hurt>,
    /// A node of the exception tree cannot be read: until it is replaced or made anew,
    /// reads of snapshots that need it fail, whatever it holds.
    blind: bool,
    /// Some block was damaged, whatever it cost.
    any: bool,
    /// Reads that failed and were allowed to.
    pub failed: u64,
}

impl Damage {
    /// A block was damaged that led to these.
    pub fn add(&mut self, hurts: impl IntoIterator<Item = Hurt>) {
        self.any = true;
        self.hurts.extend(hurts);
    }

    /// Such a node cannot be read.
    pub fn blind(&mut self) {
        self.blind = true;
    }

    /// Whether a block was damaged.
    #[must_use]
    pub const fn any(&self) -> bool {
        self.any
    }

    /// A read failed. Whether damage may be why.
    pub(super) fn excuses(&mut self, volume: VolumeId, tag: Tag, sectors: &Range<u64>) -> bool {
        let meets = |hurt: &Hurt| {
            let apart = hurt.sectors.end <= sectors.start || sectors.end <= hurt.sectors.start;
            hurt.volume == volume && hurt.tags.contains(&tag) && !apart
        };
        let excused = self.blind || self.hurts.iter().any(meets);
        self.failed += u64::from(excused);
        excused
    }
}
