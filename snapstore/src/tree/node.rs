//! One node: verified bytes with accessors, and the builder of new ones.
//!
//! A [`Node`] exists only for bytes that passed [`Node::verify`] or came from
//! [`Builder`], so its accessors trust `len` and the order of keys. An index
//! beyond `len` is a bug of the caller and panics like any slice.

use std::sync::Arc;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

use super::key::Key;
use super::layout::{
    InteriorKey, LeafKey, MAX_HEIGHT, NODE_HEADER_LEN, NodeHeader, Shape, key_len,
};
use crate::block::{BLOCK_SIZE, Block};
use crate::format::Ptr;
use crate::format::{self, Damage, HEADER_LEN};

/// A node known to be good, immutable.
#[derive(Clone, Debug)]
pub struct Node {
    /// Not the block it came in, which is aligned for I/O: that takes half as much
    /// again, and memory between such blocks is hard to use.
    bytes: Box<[u8; BLOCK_SIZE]>,
    ptr: Ptr,
    a: u64,
    level: u16,
    len: u16,
    value_len: u16,
    loose: bool,
}

impl Node {
    /// Verifies that `block` is the node of `level` that `ptr` names.
    ///
    /// # Errors
    /// The first thing that is wrong. Never panics, whatever the bytes.
    pub fn verify(block: Arc<Block>, ptr: Ptr, shape: &Shape, level: u16) -> Result<Self, Damage> {
        let outer = format::verify(&block, shape.kind, ptr.block, shape.store)?;
        if outer.generation.get() != ptr.generation {
            return Err(Damage::Generation);
        }
        let head: NodeHeader = at(&block.0, HEADER_LEN);
        let len = usize::from(head.count.get());
        if head.level.get() != level || level >= MAX_HEIGHT {
            return Err(Damage::Field("node of another level"));
        }
        if usize::from(head.value_len.get()) != shape.value_len_at(level) {
            return Err(Damage::Field("record size of another tree"));
        }
        if len == 0 || len > shape.capacity(level) {
            return Err(Damage::Field("impossible number of records"));
        }
        let reserved = head.reserved.get() != 0 || head.reserved2 != [0; 16];
        if reserved || (level > 0 && head.a.get() != 0) {
            return Err(Damage::Field("reserved bytes are not zero"));
        }
        let node = Self {
            bytes: Box::new(block.0),
            ptr,
            a: head.a.get(),
            level,
            len: head.count.get(),
            value_len: head.value_len.get(),
            loose: false,
        };
        node.verify_records()?;
        Ok(node)
    }

    /// A node of these records in place of the one at `ptr`, which cannot be read; a
    /// *loose* one stands at no block, and `ptr` only tells it from others. `None`: no
    /// node can hold these.
    pub(crate) fn made(
        shape: &Shape,
        level: u16,
        ptr: Ptr,
        loose: bool,
        records: &[(Key, Vec<u8>)],
    ) -> Option<Self> {
        let ascending = records.windows(2).all(|pair| match pair {
            [a, b] => a.0 < b.0 && (level > 0 || a.0.a == b.0.a),
            _ => true,
        });
        let fits = (1..=shape.capacity(level)).contains(&records.len());
        let long = shape.value_len_at(level);
        if !ascending || !fits || records.iter().any(|(_, value)| value.len() != long) {
            return None;
        }
        let mut builder = Builder::new(shape, level);
        for (key, value) in records {
            builder.push(*key, value);
        }
        let node = builder.finish(shape, ptr);
        Some(Self { loose, ..node })
    }

    fn verify_records(&self) -> Result<(), Damage> {
        let ascending = (1..self.len()).all(|i| self.key(i - 1) < self.key(i));
        if !ascending {
            return Err(Damage::Field("records out of order"));
        }
        if self.level > 0 {
            for child in (0..self.len()).map(|i| self.child(i)) {
                if child.block == 0 || child.block == self.ptr.block {
                    return Err(Damage::Field("impossible child address"));
                }
                if child.generation > self.ptr.generation {
                    return Err(Damage::Field("child newer than its parent"));
                }
            }
        }
        Ok(())
    }

    /// Where it is.
    #[must_use]
    pub fn ptr(&self) -> Ptr {
        self.ptr
    }

    /// The block to write at [`Self::ptr`], sealed.
    #[must_use]
    pub fn to_block(&self) -> Arc<Block> {
        Arc::new(Block(*self.bytes))
    }

    /// Whether it stands at no block: see [`Self::made`].
    pub(super) fn is_loose(&self) -> bool {
        self.loose
    }

    /// 0 is a leaf.
    #[must_use]
    pub fn level(&self) -> u16 {
        self.level
    }

    /// Number of records, at least 1.
    #[must_use]
    #[allow(clippy::len_without_is_empty)] // no node is empty
    pub fn len(&self) -> usize {
        usize::from(self.len)
    }

    /// The `a` of every key of a leaf; 0 in an interior node.
    #[must_use]
    pub fn a(&self) -> u64 {
        self.a
    }

    /// Key of record `i` (interior: the separator of child `i`).
    #[must_use]
    pub fn key(&self, i: usize) -> Key {
        let start = self.record(i);
        if self.level == 0 {
            let key: LeafKey = at(&self.bytes, start);
            Key {
                a: self.a,
                b: key.b.get(),
                c: key.c.get(),
            }
        } else {
            let key: InteriorKey = at(&self.bytes, start);
            Key {
                a: key.a.get(),
                b: key.b.get(),
                c: key.c.get(),
            }
        }
    }

    /// Value of record `i`.
    #[must_use]
    pub fn value(&self, i: usize) -> &[u8] {
        let start = self.record(i) + key_len(self.level);
        &self.bytes[start..start + usize::from(self.value_len)]
    }

    /// Child `i` of an interior node.
    #[must_use]
    pub fn child(&self, i: usize) -> Ptr {
        debug_assert!(self.level > 0, "a leaf has no children");
        Ptr::decode(self.value(i))
    }

    /// Index of the first record whose key is `>= key`; `len` if there is none.
    #[must_use]
    pub fn lower_bound(&self, key: &Key) -> usize {
        self.partition(|k| k < *key)
    }

    /// Index of the child that covers `key`.
    #[must_use]
    pub fn child_for(&self, key: &Key) -> usize {
        // The first child also covers what lies below its separator.
        self.partition(|k| k <= *key).saturating_sub(1)
    }

    /// Number of leading records for which `before` holds.
    fn partition(&self, before: impl Fn(Key) -> bool) -> usize {
        let (mut low, mut high) = (0, self.len());
        while low < high {
            let mid = low.midpoint(high);
            if before(self.key(mid)) {
                low = mid + 1;
            } else {
                high = mid;
            }
        }
        low
    }

    fn record(&self, i: usize) -> usize {
        assert!(i < self.len(), "record {i} of a node of {}", self.len);
        NODE_HEADER_LEN + i * (key_len(self.level) + usize::from(self.value_len))
    }
}

/// The structure at byte `start`; zero if it would not fit, which a verified
/// count rules out.
fn at<T: FromBytes + Immutable + KnownLayout + Unaligned>(
    block: &[u8; BLOCK_SIZE],
    start: usize,
) -> T {
    let bytes = block.get(start..).unwrap_or_default();
    T::read_from_prefix(bytes).map_or_else(|_| T::new_zeroed(), |(value, _)| value)
}

/// Fills a new node record by record.
#[derive(Debug)]
pub(super) struct Builder {
    block: Block,
    level: u16,
    value_len: usize,
    a: u64,
    len: u16,
    end: usize,
}

impl Builder {
    pub(super) fn new(shape: &Shape, level: u16) -> Self {
        let value_len = shape.value_len_at(level);
        Self {
            block: Block::zeroed(),
            level,
            value_len,
            a: 0,
            len: 0,
            end: NODE_HEADER_LEN,
        }
    }

    /// Adds a record. The caller keeps to ascending keys, one `a` in a leaf, the
    /// tree's value length and [`Shape::capacity`].
    pub(super) fn push(&mut self, key: Key, value: &[u8]) {
        debug_assert_eq!(value.len(), self.value_len);
        debug_assert!(self.level > 0 || self.len == 0 || self.a == key.a);
        let (b, c) = (key.b.into(), key.c.into());
        if self.level == 0 {
            self.a = key.a;
            self.append(LeafKey { b, c }.as_bytes());
        } else {
            self.append(
                InteriorKey {
                    a: key.a.into(),
                    b,
                    c,
                }
                .as_bytes(),
            );
        }
        self.append(value);
        self.len += 1;
    }

    fn append(&mut self, bytes: &[u8]) {
        let end = self.end + bytes.len();
        self.block.0[self.end..end].copy_from_slice(bytes);
        self.end = end;
    }

    /// Seals the node for the place it will be written at.
    pub(super) fn finish(mut self, shape: &Shape, ptr: Ptr) -> Node {
        let head = NodeHeader {
            level: self.level.into(),
            count: self.len.into(),
            value_len: (self.value_len as u16).into(),
            reserved: 0.into(),
            a: self.a.into(),
            reserved2: [0; 16],
        };
        self.block.0[HEADER_LEN..NODE_HEADER_LEN].copy_from_slice(head.as_bytes());
        format::seal(
            &mut self.block,
            shape.kind,
            ptr.block,
            shape.store,
            ptr.generation,
        );
        Node {
            bytes: Box::new(self.block.0),
            ptr,
            a: self.a,
            level: self.level,
            len: self.len,
            value_len: self.value_len as u16,
            loose: false,
        }
    }
}
