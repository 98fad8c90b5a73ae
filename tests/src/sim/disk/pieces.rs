//! Everything a power cut may leave of a disk: what is durable, and pieces of writes
//! each of which may be there or not, in any combination.

use std::collections::BTreeMap;

use super::{Op, OpId, SimDisk, Slot};
use crate::sim::value::{Data, PER_BLOCK};

/// Above the ranks of all writes that are visible already.
const IN_FLIGHT: u64 = 1 << 32;

/// One sector of a piece.
#[derive(Clone, Debug)]
pub struct Cell {
    /// Which.
    pub sector: u64,
    /// Of several that were kept of one sector, the highest is there.
    pub rank: u64,
    /// What it holds.
    pub data: Data,
}

/// What one volatile or unfinished write does to one block.
#[derive(Clone, Debug)]
pub struct Piece {
    /// The write.
    pub op: OpId,
    /// It is in the disk's cache: a kill leaves it there.
    pub completed: bool,
    /// Its sectors in the block.
    pub cells: Vec<Cell>,
}

impl SimDisk {
    /// What may be kept or lost, in the order in which it was submitted.
    #[must_use]
    pub fn pieces(&self) -> Vec<Piece> {
        let mut pieces: BTreeMap<(OpId, u64), Piece> = BTreeMap::new();
        let mut add = |op: OpId, completed: bool, cell: Cell| {
            let place = (op, cell.sector / PER_BLOCK);
            let piece = pieces.entry(place).or_insert_with(|| Piece {
                op,
                completed: true,
                cells: Vec::new(),
            });
            piece.completed &= completed;
            piece.cells.push(cell);
        };
        for &sector in &self.dirty {
            let versions = self.slots.get(sector as usize).map(|s| s.versions.iter());
            for (rank, version) in (0..).zip(versions.into_iter().flatten()) {
                let data = version.data.clone();
                let cell = Cell { sector, rank, data };
                add(version.op, version.completed.is_some(), cell);
            }
        }
        for (&op, kind) in &self.ops {
            let Op::Write {
                first,
                data,
                applied,
                ..
            } = kind
            else {
                continue;
            };
            let sectors = (*first..self.sectors()).zip(data).zip(applied);
            for ((sector, data), _) in sectors.filter(|(_, applied)| !**applied) {
                let (rank, Some(data)) = (IN_FLIGHT + op, data.clone()) else {
                    continue;
                };
                add(op, false, Cell { sector, rank, data });
            }
        }
        pieces.into_values().collect()
    }

    /// The disk with nothing but what is durable.
    #[must_use]
    pub fn durable(&self) -> Self {
        let slots = self.slots.iter().map(|slot| Slot {
            durable: slot.durable.clone(),
            versions: Vec::new(),
        });
        Self {
            slots: slots.collect(),
            ..Self::new(0)
        }
    }

    /// What is durable of a sector.
    #[must_use]
    pub fn durable_at(&self, sector: u64) -> Data {
        let slot = self.slots.get(sector as usize);
        slot.map(|slot| slot.durable.clone()).unwrap_or_default()
    }

    /// The digest of all that is durable, as disk number `disk` of several.
    #[must_use]
    pub fn durable_digest(&self, disk: usize) -> u64 {
        let placed = (0..)
            .zip(&self.slots)
            .map(|(sector, slot)| slot.durable.placed(disk, sector));
        placed.fold(0, |all, one| all ^ one)
    }
}
