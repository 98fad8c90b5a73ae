//! All that a power cut, or a kill, may leave of the machine at one moment.
//!
//! The unit is the piece: what one write does to one block of 4 KiB. Pieces that no
//! flush made durable are there or not, on every disk, in any combination; a sector
//! that several of the kept ones wrote holds the last. Besides, every piece may be
//! torn inside, sector by sector.

use std::collections::{BTreeMap, BTreeSet};
use std::hash::{DefaultHasher, Hash, Hasher};

use crate::sim::disk::SimDisk;
use crate::sim::disk::pieces::Cell;
use crate::sim::runtime::Machine;
use crate::sim::value::{Data, PER_BLOCK};

/// Sectors of a block that a torn piece leaves: the first, the last, all but one of
/// them, every other.
const TEARS: [u8; 5] = [0x01, 0x80, 0xfe, 0x7f, 0x55];
/// Most pieces there may be.
const MOST: usize = 120;

/// What pieces of writes are kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kept {
    /// One bit for each piece.
    whole: u128,
    /// This piece, of which only these sectors are.
    torn: Option<(usize, u8)>,
}

impl std::fmt::Display for Kept {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "kept {:#b}", self.whole)?;
        match self.torn {
            Some((piece, sectors)) => write!(f, ", of piece {piece} only sectors {sectors:#010b}"),
            None => Ok(()),
        }
    }
}

/// A sector some piece writes.
#[derive(Clone, Debug)]
struct Spot {
    place: (usize, u64),
    rank: u64,
    data: Data,
    /// What it changes of the digest of all disks.
    delta: u64,
}

#[derive(Clone, Debug)]
struct Loose {
    completed: bool,
    spots: Vec<Spot>,
}

/// See the module.
#[derive(Debug)]
pub struct Sheet<'a> {
    store: &'a SimDisk,
    origins: &'a [SimDisk],
    /// Of what is durable.
    digest: u64,
    pieces: Vec<Loose>,
}

impl<'a> Sheet<'a> {
    /// The disks as they are.
    #[must_use]
    pub fn of(store: &'a SimDisk, origins: &'a [SimDisk]) -> Self {
        let mut sheet = Self {
            store,
            origins,
            digest: 0,
            pieces: Vec::new(),
        };
        for (number, disk) in std::iter::once(store).chain(origins).enumerate() {
            sheet.digest ^= disk.durable_digest(number);
            sheet.pieces.extend(loose(number, disk));
        }
        sheet
    }

    /// How many pieces are not durable.
    #[must_use]
    pub fn pieces(&self) -> usize {
        self.pieces.len()
    }

    /// Whether there are more than can be dealt with.
    #[must_use]
    pub fn is_too_large(&self) -> bool {
        self.pieces.len() > MOST
    }

    /// Two moments with the same mark may leave the same: by a power cut, by a kill.
    #[must_use]
    pub fn marks(&self) -> (u64, u64) {
        let (mut cut, mut kill) = (DefaultHasher::new(), DefaultHasher::new());
        self.digest.hash(&mut cut);
        let contested = self.is_contested();
        for piece in &self.pieces {
            for spot in &piece.spots {
                (spot.place, spot.delta).hash(&mut cut);
                // Their order may change as they complete.
                contested.then_some(spot.rank).hash(&mut cut);
            }
            piece.completed.hash(&mut kill);
        }
        let cut = cut.finish();
        cut.hash(&mut kill);
        (cut, kill.finish())
    }

    /// Whether two pieces write one sector.
    fn is_contested(&self) -> bool {
        let mut places = BTreeSet::new();
        let mut spots = self.pieces.iter().flat_map(|piece| &piece.spots);
        !spots.all(|spot| places.insert(spot.place))
    }

    /// Whatever a power cut may keep. With more than `bound` pieces not every subset, but
    /// those that lack or have at most two, and those that begin or end anywhere.
    #[must_use]
    pub fn cuts(&self, bound: usize) -> Vec<Kept> {
        let all: Vec<usize> = (0..self.pieces.len()).collect();
        self.choices(&all, bound)
    }

    /// Whatever a kill may leave: all that completed, of the rest anything.
    #[must_use]
    pub fn kills(&self, bound: usize) -> Vec<Kept> {
        let loose = self.pieces.iter().enumerate();
        let loose = loose.filter(|(_, piece)| !piece.completed);
        let loose: Vec<usize> = loose.map(|(index, _)| index).collect();
        self.choices(&loose, bound)
    }

    /// Some of what a power cut may keep: as [`Self::cuts`], without pairs and torn pieces.
    #[must_use]
    pub fn some_cuts(&self, bound: usize) -> Vec<Kept> {
        let all: Vec<usize> = (0..self.pieces.len()).collect();
        let lists = if all.len() <= bound {
            choices(&all, bound)
        } else {
            edges(&all)
        };
        let torn = None;
        let kept = lists.iter().map(|list| Kept {
            whole: bits(list),
            torn,
        });
        kept.collect()
    }

    fn choices(&self, loose: &[usize], bound: usize) -> Vec<Kept> {
        let (any, all) = (bits(loose), self.everything());
        let fixed = all & !any;
        let mut kept: Vec<Kept> = choices(loose, bound)
            .into_iter()
            .map(|list| Kept {
                whole: fixed | bits(&list),
                torn: None,
            })
            .collect();
        for index in loose {
            let tears = TEARS.iter().filter(|_| self.can_tear(*index));
            for sectors in tears {
                let torn = Some((*index, *sectors));
                kept.extend([fixed, all].map(|whole| Kept { whole, torn }));
            }
        }
        kept
    }

    fn can_tear(&self, index: usize) -> bool {
        self.pieces.get(index).is_some_and(|p| p.spots.len() > 1)
    }

    fn everything(&self) -> u128 {
        (1u128 << self.pieces.len()) - 1
    }

    /// All of it, or nothing.
    #[must_use]
    pub fn extremes(&self) -> [Kept; 2] {
        let torn = None;
        [self.everything(), 0].map(|whole| Kept { whole, torn })
    }

    /// What is there in place of what is durable.
    fn kept(&self, kept: Kept) -> BTreeMap<(usize, u64), &Spot> {
        let mut top: BTreeMap<(usize, u64), &Spot> = BTreeMap::new();
        for (index, piece) in self.pieces.iter().enumerate() {
            let sectors = match kept.torn {
                Some((torn, sectors)) if torn == index => sectors,
                _ if kept.whole >> index & 1 == 1 => u8::MAX,
                _ => continue,
            };
            for spot in &piece.spots {
                let there = sectors >> (spot.place.1 % PER_BLOCK) & 1 == 1;
                if there && top.get(&spot.place).is_none_or(|t| t.rank < spot.rank) {
                    top.insert(spot.place, spot);
                }
            }
        }
        top
    }

    /// The digest of the disks with these pieces.
    #[must_use]
    pub fn digest(&self, kept: Kept) -> u64 {
        let top = self.kept(kept);
        top.values().fold(self.digest, |all, spot| all ^ spot.delta)
    }

    /// The disks with these pieces.
    #[must_use]
    pub fn machine(&self, kept: Kept) -> Machine {
        let mut disks: Vec<SimDisk> = self.disks().map(SimDisk::durable).collect();
        for ((disk, sector), spot) in self.kept(kept) {
            disks[disk].plant(sector, spot.data.clone());
        }
        let origins = disks.split_off(1);
        Machine {
            store: disks.remove(0),
            origins,
            invalid: Default::default(),
        }
    }

    fn disks(&self) -> impl Iterator<Item = &SimDisk> {
        std::iter::once(self.store).chain(self.origins)
    }
}

fn loose(number: usize, disk: &SimDisk) -> impl Iterator<Item = Loose> {
    disk.pieces().into_iter().map(move |piece| {
        let spot = |cell: Cell| Spot {
            place: (number, cell.sector),
            rank: cell.rank,
            delta: cell.data.placed(number, cell.sector)
                ^ disk.durable_at(cell.sector).placed(number, cell.sector),
            data: cell.data,
        };
        Loose {
            completed: piece.completed,
            spots: piece.cells.into_iter().map(spot).collect(),
        }
    })
}

/// Which of these to keep: every subset of up to `bound` of them. Of more: none, one,
/// two, all but one, all but two, all up to one, all from one on.
fn choices(of: &[usize], bound: usize) -> Vec<Vec<usize>> {
    if of.len() <= bound {
        let subset = |mask: u64| -> Vec<usize> {
            let kept = of.iter().enumerate().filter(|(i, _)| mask >> i & 1 == 1);
            kept.map(|(_, index)| *index).collect()
        };
        return (0..1 << of.len()).map(subset).collect();
    }
    let mut choices = edges(of);
    for (a, first) in of.iter().enumerate() {
        for (b, second) in of.iter().enumerate().skip(a + 1) {
            choices.extend([vec![*first, *second], without(of, a, b)]);
        }
    }
    choices
}

/// None, all, one, all but one, all up to one, all from one on.
fn edges(of: &[usize]) -> Vec<Vec<usize>> {
    let mut choices = vec![Vec::new(), of.to_vec()];
    for (at, index) in of.iter().enumerate() {
        let (before, after) = of.split_at(at);
        choices.extend([vec![*index], without(of, at, at)]);
        choices.extend([before.to_vec(), after.to_vec()]);
    }
    choices
}

/// All but those at two places.
fn without(of: &[usize], a: usize, b: usize) -> Vec<usize> {
    let rest = of.iter().enumerate().filter(|(i, _)| *i != a && *i != b);
    rest.map(|(_, index)| *index).collect()
}

/// One bit for each.
fn bits(list: &[usize]) -> u128 {
    list.iter().fold(0, |mask, index| mask | (1u128 << index))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::sim::dice::{Dice, Order};

    /// A disk with one durable sector, two volatile blocks and one in flight.
    fn disk() -> SimDisk {
        let (mut disk, mut dice) = (SimDisk::new(64), Dice::fixed(Order::Forward));
        let block = |stamp: u64| (0..8).map(|i| Data::pattern(stamp + i)).collect::<Vec<_>>();
        disk.plant(0, Data::pattern(1));
        for (first, stamp) in [(8, 10), (16, 20)] {
            let op = disk.write(first, &block(stamp), false);
            assert!(disk.complete(op, &mut dice).is_some());
        }
        disk.write(8, &block(30), false);
        disk
    }

    fn states(sheet: &Sheet<'_>, kept: &[Kept]) -> BTreeSet<u64> {
        kept.iter().map(|kept| sheet.digest(*kept)).collect()
    }

    #[test]
    fn every_subset_is_there_once_and_digests_are_of_what_is_built() {
        let disk = disk();
        let sheet = Sheet::of(&disk, &[]);
        assert_eq!(sheet.pieces(), 3);
        let cuts = sheet.cuts(3);
        let whole: Vec<Kept> = cuts.iter().filter(|k| k.torn.is_none()).copied().collect();
        assert_eq!(whole.len(), 8);
        // The first write does not show under the third.
        assert_eq!(states(&sheet, &whole).len(), 6);
        for kept in cuts {
            let built = sheet.machine(kept);
            assert_eq!(built.store.durable_digest(0), sheet.digest(kept), "{kept}");
            assert!(built.store.pieces().is_empty());
        }
    }

    #[test]
    fn a_kill_keeps_what_completed() {
        let disk = disk();
        let sheet = Sheet::of(&disk, &[]);
        let kills = sheet.kills(3);
        assert_eq!(states(&sheet, &kills).len(), 2 + TEARS.len());
        for kept in kills {
            let left = sheet.machine(kept).store;
            assert_eq!(left.visible(16), Data::pattern(20));
            let first = left.visible(8);
            assert!(first == Data::pattern(10) || first == Data::pattern(30));
        }
    }

    #[test]
    fn beyond_the_bound_all_that_lacks_or_has_at_most_two_is_there() {
        let of: Vec<usize> = (0..6).collect();
        let some: BTreeSet<Vec<usize>> = choices(&of, 5).into_iter().collect();
        let few = |list: &Vec<usize>| list.len() <= 2 || list.len() >= 4;
        assert_eq!(some.iter().filter(|l| few(l)).count(), 44);
        assert!(some.contains(&vec![0, 1, 2]) && some.contains(&vec![3, 4, 5]));
        assert_eq!(choices(&of, 6).len(), 64);
    }
}
