//! Walking a B-tree in order, whole or within a range of positions.
//!
//! A child is entered only if its parent's keys say that it may hold something of the
//! range: for trees of intervals that overlap by the highest key too, so that a long
//! record that begins far before the range is found, and nothing else is read. A damaged
//! block is reported where it stands in the order and the walk goes on after it.

use super::block::Wanted;
use super::group::MAX_LEVELS;
use super::tree::Tree;
use super::{Bno, Cnt, Finobt, Inobt, Refcount, Rmap};
use super::{Label, Place, Reader, Result, Source, shape, take};
use crate::xfs::format::btree::{LONG_CRC_AT, LongHeader, SHORT_CRC_AT, ShortHeader};
use crate::xfs::format::group::{Agf, Agi};
use crate::xfs::format::{NULL_AG_BLOCK, NULL_FS_BLOCK, U32, U64};
use std::ops::Range;
use zerocopy::FromBytes;

/// What a walk meets.
#[derive(Debug, Clone, Copy)]
pub enum Visit<R> {
    /// A block of the tree, before what is in it.
    Block {
        /// Its address.
        fsblock: u64,
        /// 0 for leaves.
        level: u32,
    },
    /// A record.
    Record(R),
}

/// Whose tree it is.
#[derive(Debug, Clone, Copy)]
pub(crate) enum TreeOwner {
    Group(u32),
    Fork(u64),
}

/// A child, as its parent describes it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Child<K> {
    pub(crate) low: K,
    pub(crate) high: Option<K>,
    pub(crate) fsblock: u64,
}

#[derive(Debug)]
struct Frame<K> {
    /// Level of the children.
    level: u32,
    children: Vec<Child<K>>,
    next: usize,
}

/// Lowest and highest key of a block; the highest only where trees overlap.
type Bounds<K> = (Option<K>, Option<K>);

/// What a block says besides keys: neighbours.
struct Head {
    level: u32,
    count: usize,
    left: Option<u64>,
    right: Option<u64>,
}

/// A walk. Yields blocks and records; [`Walk::records`] only these.
pub struct Walk<'r, S, T: Tree> {
    reader: &'r Reader<S>,
    owner: TreeOwner,
    range: Range<u64>,
    /// A root that was not read yet, with its level.
    root: Option<(u64, u32)>,
    stack: Vec<Frame<T::Key>>,
    leaf: Vec<T::Record>,
    position: usize,
    last: Option<T::Key>,
    /// Per level the last block with its right neighbour, while all blocks are visited.
    chain: Vec<Option<(u64, Option<u64>)>>,
}

impl<'r, S: Source, T: Tree> Walk<'r, S, T> {
    pub(crate) fn of_group(
        reader: &'r Reader<S>,
        ag: u32,
        root: U32,
        levels: U32,
        range: Range<u64>,
    ) -> Self {
        let root = reader.geometry().fsblock(ag, root.get());
        let levels = levels.get().clamp(1, MAX_LEVELS);
        Self {
            reader,
            owner: TreeOwner::Group(ag),
            range,
            root: Some((root, levels - 1)),
            stack: Vec::new(),
            leaf: Vec::new(),
            position: 0,
            last: None,
            chain: vec![None; levels as usize],
        }
    }

    /// A walk whose root lies in an inode: `children` of `level`.
    pub(crate) fn of_fork(
        reader: &'r Reader<S>,
        owner: TreeOwner,
        level: u32,
        children: Vec<Child<T::Key>>,
        range: Range<u64>,
    ) -> Self {
        Self {
            reader,
            owner,
            range,
            root: None,
            stack: vec![Frame {
                level,
                children,
                next: 0,
            }],
            leaf: Vec::new(),
            position: 0,
            last: None,
            chain: vec![None; level as usize + 1],
        }
    }

    /// Only the records of the range.
    pub fn records(self) -> impl Iterator<Item = Result<T::Record>> + use<'r, S, T> {
        self.filter_map(|visit| match visit {
            Ok(Visit::Record(record)) => Some(Ok(record)),
            Ok(Visit::Block { .. }) => None,
            Err(error) => Some(Err(error)),
        })
    }

    fn whole(&self) -> bool {
        self.range == (0..u64::MAX)
    }

    fn bad<V>(&self, place: Place, text: impl Into<String>) -> Result<V> {
        Err(shape(T::NAME, place, text))
    }

    fn head(&self, fsblock: u64, level: u32, bytes: &[u8]) -> Result<Head> {
        let place = self.reader.place(fsblock);
        let geometry = self.reader.geometry();
        let (label, head, crc_at, owner) = match self.owner {
            TreeOwner::Group(ag) => {
                let header: ShortHeader = take(T::NAME, place, bytes, 0)?;
                let owner = u64::from(header.owner.get());
                let near = |block: U32| {
                    (block.get() != NULL_AG_BLOCK).then(|| geometry.fsblock(ag, block.get()))
                };
                let head = Head {
                    level: header.level.get().into(),
                    count: header.count.get().into(),
                    left: near(header.left),
                    right: near(header.right),
                };
                let label = Label {
                    magic: header.magic.get(),
                    uuid: header.uuid,
                    daddr: Some(header.daddr.get()),
                    owner: Some(owner),
                    lsn: header.lsn.get(),
                };
                (label, head, SHORT_CRC_AT, ag.into())
            }
            TreeOwner::Fork(ino) => {
                let header: LongHeader = take(T::NAME, place, bytes, 0)?;
                let near = |block: U64| (block.get() != NULL_FS_BLOCK).then(|| block.get());
                let head = Head {
                    level: header.level.get().into(),
                    count: header.count.get().into(),
                    left: near(header.left),
                    right: near(header.right),
                };
                let label = Label {
                    magic: header.magic.get(),
                    uuid: header.uuid,
                    daddr: Some(header.daddr.get()),
                    owner: Some(header.owner.get()),
                    lsn: header.lsn.get(),
                };
                (label, head, LONG_CRC_AT, ino)
            }
        };
        let wanted = Wanted {
            structure: T::NAME,
            place,
            magic: &[T::MAGIC],
            crc_at,
            daddr: geometry.daddr(fsblock),
            owner,
        };
        self.reader.verify(bytes, &label, &wanted)?;
        if head.level != level {
            return self.bad(place, format!("level {} instead of {level}", head.level));
        }
        Ok(head)
    }

    /// Reads a block that its parent describes as `said`, and goes into it.
    fn enter(
        &mut self,
        fsblock: u64,
        level: u32,
        said: Option<&Child<T::Key>>,
        is_root: bool,
    ) -> Result<()> {
        let place = self.reader.place(fsblock);
        if !self.reader.geometry().holds(fsblock, 1) {
            return self.bad(place, "a child outside the file system");
        }
        let bytes = self.reader.block(fsblock)?;
        let head = self.head(fsblock, level, &bytes)?;
        if head.count == 0 && !(is_root && level == 0) {
            return self.bad(place, "an empty block");
        }
        self.siblings(fsblock, &head, is_root)?;
        let header = if T::LONG {
            size_of::<LongHeader>()
        } else {
            size_of::<ShortHeader>()
        };
        let body = bytes.get(header..).unwrap_or_default();
        let (low, high) = if level == 0 {
            self.load_leaf(place, body, head.count)?
        } else {
            self.load_node(place, body, head.count, level)?
        };
        let wrong = said.filter(|said| Some(said.low) != low || (T::OVERLAPS && said.high != high));
        if let Some(said) = wrong {
            if level == 0 {
                self.leaf.clear();
            } else {
                self.stack.pop();
            }
            let text = format!(
                "keys {low:?} to {high:?}, but its parent says {:?} to {:?}",
                said.low, said.high
            );
            return self.bad(place, text);
        }
        Ok(())
    }

    fn siblings(&mut self, fsblock: u64, head: &Head, is_root: bool) -> Result<()> {
        let place = self.reader.place(fsblock);
        if is_root && (head.left.is_some() || head.right.is_some()) {
            return self.bad(place, "a root with neighbours");
        }
        if !self.whole() {
            return Ok(());
        }
        let Some(slot) = self.chain.get_mut(head.level as usize) else {
            return self.bad(place, "a level that cannot be");
        };
        let before = slot.replace((fsblock, head.right));
        let fits = match before {
            None => head.left.is_none(),
            Some((left, right)) => head.left == Some(left) && right == Some(fsblock),
        };
        if fits {
            Ok(())
        } else {
            self.bad(place, "neighbours do not point to each other")
        }
    }

    fn load_leaf(&mut self, place: Place, body: &[u8], count: usize) -> Result<Bounds<T::Key>> {
        let size = size_of::<T::Record>();
        if count > body.len() / size {
            return self.bad(place, format!("{count} records do not fit"));
        }
        let records: Vec<T::Record> = body
            .chunks_exact(size)
            .take(count)
            .filter_map(|bytes| T::Record::read_from_bytes(bytes).ok())
            .collect();
        let ag = match self.owner {
            TreeOwner::Group(ag) => ag,
            TreeOwner::Fork(_) => 0,
        };
        for record in &records {
            if let Some(flaw) = T::flaw(self.reader.geometry(), ag, record) {
                return self.bad(place, format!("{record:?}: {flaw}"));
            }
        }
        let keys = records.iter().map(T::low);
        if let Some(key) = self.out_of_order(keys) {
            return self.bad(place, format!("record {key:?} is out of order"));
        }
        self.last = records.last().map(T::low).or(self.last);
        let low = records.first().map(T::low);
        let high = records.iter().map(T::high).max();
        self.leaf = records;
        self.position = 0;
        Ok((low, T::OVERLAPS.then_some(high).flatten()))
    }

    fn out_of_order(&self, keys: impl Iterator<Item = T::Key>) -> Option<T::Key> {
        let mut last = self.last;
        for key in keys {
            if last.is_some_and(|last| last >= key) {
                return Some(key);
            }
            last = Some(key);
        }
        None
    }

    fn load_node(
        &mut self,
        place: Place,
        body: &[u8],
        count: usize,
        level: u32,
    ) -> Result<Bounds<T::Key>> {
        let keys = T::KEY_SIZE * if T::OVERLAPS { 2 } else { 1 };
        let pointer = if T::LONG { 8 } else { 4 };
        let most = body.len() / (keys + pointer);
        if count > most {
            return self.bad(place, format!("{count} children do not fit"));
        }
        let children = children::<T>(body, count, most, |block| match self.owner {
            TreeOwner::Group(ag) => self.reader.geometry().fsblock(ag, block as u32),
            TreeOwner::Fork(_) => block,
        });
        let Some(children) = children else {
            return self.bad(place, "keys that cannot be read");
        };
        let rising = children.windows(2).all(|two| two[0].low < two[1].low);
        if !rising {
            return self.bad(place, "keys out of order");
        }
        let low = children.first().map(|child| child.low);
        let high = children.iter().filter_map(|child| child.high).max();
        self.stack.push(Frame {
            level: level - 1,
            children,
            next: 0,
        });
        Ok((low, high))
    }

    /// The next child that may hold something of the range.
    fn next_child(&mut self) -> Option<(u32, Child<T::Key>)> {
        let frame = self.stack.last_mut()?;
        while let Some(child) = frame.children.get(frame.next) {
            frame.next += 1;
            let after = frame.children.get(frame.next);
            let begins = T::at(&child.low) < self.range.end;
            let reaches = match (child.high, after) {
                (Some(high), _) => T::at(&high) >= self.range.start,
                (None, Some(after)) => T::at(&after.low) > self.range.start,
                (None, None) => true,
            };
            if begins && reaches {
                return Some((frame.level, *child));
            }
        }
        None
    }
}

/// The children of a node whose keys and pointers lie in `body`, which holds `most`.
pub(crate) fn children<T: Tree>(
    body: &[u8],
    count: usize,
    most: usize,
    address: impl Fn(u64) -> u64,
) -> Option<Vec<Child<T::Key>>> {
    let keys = T::KEY_SIZE * if T::OVERLAPS { 2 } else { 1 };
    let pointer = if T::LONG { 8 } else { 4 };
    let child = |index: usize| {
        let key = body.get(index * keys..)?;
        let at = body.get(most * keys + index * pointer..)?;
        let block = if T::LONG {
            U64::read_from_prefix(at).ok()?.0.get()
        } else {
            U32::read_from_prefix(at).ok()?.0.get().into()
        };
        let high = if T::OVERLAPS {
            Some(T::key(key.get(T::KEY_SIZE..)?)?)
        } else {
            None
        };
        Some(Child {
            low: T::key(key)?,
            high,
            fsblock: address(block),
        })
    };
    (0..count).map(child).collect()
}

impl<S: Source, T: Tree> Iterator for Walk<'_, S, T> {
    type Item = Result<Visit<T::Record>>;

    fn next(&mut self) -> Option<Self::Item> {
        if let Some((fsblock, level)) = self.root.take() {
            let entered = self.enter(fsblock, level, None, true);
            return Some(entered.map(|()| Visit::Block { fsblock, level }));
        }
        loop {
            while let Some(record) = self.leaf.get(self.position) {
                self.position += 1;
                let (from, to) = T::span(record);
                if to > self.range.start && from < self.range.end {
                    return Some(Ok(Visit::Record(*record)));
                }
            }
            match self.next_child() {
                Some((level, child)) => {
                    let fsblock = child.fsblock;
                    let entered = self.enter(fsblock, level, Some(&child), false);
                    return Some(entered.map(|()| Visit::Block { fsblock, level }));
                }
                None => drop(self.stack.pop()?),
            }
        }
    }
}

/// The trees of a group. `range` is in blocks of the group (for inodes: inodes of the
/// group; for [`Cnt`]: sizes); `0..u64::MAX` is all of it and checks neighbours too.
impl<S: Source> Reader<S> {
    /// Free space by block.
    pub fn bno(&self, ag: u32, agf: &Agf, range: Range<u64>) -> Walk<'_, S, Bno> {
        Walk::of_group(self, ag, agf.bno_root, agf.bno_level, range)
    }

    /// Free space by size.
    pub fn cnt(&self, ag: u32, agf: &Agf, range: Range<u64>) -> Walk<'_, S, Cnt> {
        Walk::of_group(self, ag, agf.cnt_root, agf.cnt_level, range)
    }

    /// Reverse mappings; only with rmapbt.
    pub fn rmap(&self, ag: u32, agf: &Agf, range: Range<u64>) -> Walk<'_, S, Rmap> {
        Walk::of_group(self, ag, agf.rmap_root, agf.rmap_level, range)
    }

    /// Reference counts; only with reflink.
    pub fn refcount(&self, ag: u32, agf: &Agf, range: Range<u64>) -> Walk<'_, S, Refcount> {
        Walk::of_group(self, ag, agf.refcount_root, agf.refcount_level, range)
    }

    /// Inodes.
    pub fn inobt(&self, ag: u32, agi: &Agi, range: Range<u64>) -> Walk<'_, S, Inobt> {
        Walk::of_group(self, ag, agi.root, agi.level, range)
    }

    /// Chunks with free inodes; only with finobt.
    pub fn finobt(&self, ag: u32, agi: &Agi, range: Range<u64>) -> Walk<'_, S, Finobt> {
        Walk::of_group(self, ag, agi.free_root, agi.free_level, range)
    }
}
