//! Tree nodes that cannot be read.
//!
//! The exception tree and the era tree hold the same exceptions, so what a damaged node
//! of one held is known from the other, which is looked through one leaf at a time
//! while whoever needs the node waits. An era tree's node comes back as it was. In an
//! exception tree's every exception comes back LOST: what its data must sum up to stood
//! only there. Nothing else is concerned: chunks that no exception spoke of are read and
//! written as before, and writes learn what the damaged node would have told them.
//!
//! - A node made anew is kept in memory in place of the damaged one, and holds under
//!   every checkpoint that leads there. The next merge that changes one of its records
//!   replaces it as any other.
//! - A checkpoint meanwhile that left the damaged node alone changed none of its records,
//!   in neither tree: the search goes on under the new roots, so it ends however many
//!   checkpoints there are.
//! - Above the leaves it is made with all leaves below: where the old ones lie is not
//!   known any more, and the new ones lie nowhere until a merge writes them (*loose*).
//! - Blocks that only the damaged node led to, and chunks of exceptions that are LOST
//!   now, stay taken until `store repair`, or until the snapshots go that hold them.
//! - A node that the device did not give, whatever it holds, is made anew only for those
//!   who cannot come again: what fails now may be readable later.
//! - What cannot be made anew costs more: see [`Engine::give_up_node`].

use std::collections::{BTreeMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;

use zerocopy::IntoBytes;

use super::lookup::{Known, TreeId, Wanting};
use super::space::made_reserve;
use super::{Effect, Effects, Engine, Notice, RequestError, Task};
use crate::format::DiskPtr;
use crate::format::exception::{LOST, Place};
use crate::format::superblock::MAX_BLOCKS;
use crate::tree::{HIGH, Key, Node, Ptr, Shape, Span, scan};

/// Most nodes made anew that are kept.
const MOST: usize = 4096;
/// Highest level of a node that is made anew. Those above stay in memory.
const HIGHEST: u16 = HIGH - 1;

/// Damaged nodes, and those of them being made anew.
#[derive(Debug)]
pub(super) struct Heals {
    /// The first one is in work.
    queue: VecDeque<Heal>,
    /// Damaged blocks that were told of, and whether with what they cost.
    told: BTreeMap<u64, bool>,
    /// Blocks and reasons that nobody listened to yet.
    waiting: Vec<(u64, String)>,
    /// Where the exception tree cannot be read, for good.
    holes: Vec<Span>,
    /// A number for a loose node, beyond every block a store may ever have.
    next_loose: u64,
}

/// A node being made anew.
#[derive(Debug)]
struct Heal {
    wanting: Wanting,
    reason: String,
    tasks: Vec<Task>,
    search: Search,
    pinned: Vec<Arc<Node>>,
}

/// Looking through the other tree for the records of a span.
#[derive(Debug)]
struct Search {
    span: Span,
    /// What is left of the other tree.
    from: Key,
    to: Key,
    found: BTreeMap<Key, Place>,
    most: usize,
}

/// The key of the same exception in the other tree.
fn mirror(key: Key) -> Key {
    Key::new(key.a, key.c, key.b)
}

fn twin(tree: TreeId) -> Option<TreeId> {
    match tree {
        TreeId::Exceptions => Some(TreeId::Eras),
        TreeId::Eras => Some(TreeId::Exceptions),
        _ => None,
    }
}

impl Heals {
    pub(super) fn new(damage: Vec<(u64, String)>) -> Self {
        Self {
            queue: VecDeque::new(),
            told: BTreeMap::new(),
            waiting: damage,
            holes: Vec::new(),
            next_loose: MAX_BLOCKS,
        }
    }

    pub(super) fn awaited_by(&self, task: Task) -> bool {
        self.queue.iter().any(|heal| heal.tasks.contains(&task))
    }

    pub(super) fn pinned(&mut self) -> Option<&mut Vec<Arc<Node>>> {
        self.queue.front_mut().map(|heal| &mut heal.pinned)
    }

    /// Whether no checkpoint can change an exception, because it cannot be read.
    pub(super) fn in_hole(&self, exception: Key) -> bool {
        self.holes.iter().any(|span| span.covers(exception))
    }

    /// A node could be read after all: those who waited for it to be made anew.
    pub(super) fn not_needed(&mut self, wanting: Wanting) -> Vec<Task> {
        self.call_off(|heal| heal.wanting == wanting)
    }

    /// Ends the first of these; returns who waited for it.
    fn call_off(&mut self, is_it: impl Fn(&Heal) -> bool) -> Vec<Task> {
        let found = self.queue.iter().position(is_it);
        let heal = found.and_then(|index| self.queue.remove(index));
        heal.map_or_else(Vec::new, |heal| heal.tasks)
    }

    /// Nobody waits for this any more.
    pub(super) fn forget(&mut self, task: Task) {
        for heal in &mut self.queue {
            heal.tasks.retain(|waiting| *waiting != task);
        }
    }

    /// Another node stands there, or will: whoever waited for this one looks again.
    pub(super) fn replaced(&mut self, block: u64) -> Vec<Task> {
        self.told.remove(&block);
        self.call_off(|heal| heal.wanting.ptr.block == block)
    }
}

impl Search {
    fn new(span: Span, most: usize) -> Self {
        let (low, first) = (span.low, span.low.b);
        let (from, to) = match span.up {
            None => (Key::new(low.a, 0, first), Key::MAX),
            Some(up) if up.same_list(&low) => (mirror(low), Key::new(up.a, up.c, 0)),
            // Nothing of the volume it ends at.
            Some(up) if (up.b, up.c) == (0, 0) => (Key::new(low.a, 0, first), Key::new(up.a, 0, 0)),
            Some(up) => {
                let end = Key::new(up.a.saturating_add(1), 0, 0);
                (Key::new(low.a, 0, first), end)
            }
        };
        Self {
            span,
            from,
            to,
            found: BTreeMap::new(),
            most,
        }
    }

    fn is_over(&self) -> bool {
        self.from >= self.to || self.found.len() > self.most
    }

    /// Looks at records of the other tree, in its order; `next`: where it goes on.
    fn look(&mut self, records: impl Iterator<Item = (Key, Place)>, next: Option<Key>) {
        for (key, place) in records {
            if key < self.from {
                continue; // there can be none
            }
            if self.span.covers(mirror(key)) {
                self.found.insert(mirror(key), place);
            } else {
                self.from = self.from.max(self.behind(key));
            }
        }
        self.from = self.from.max(next.unwrap_or(self.to));
    }

    /// A key of the other tree that is none of ours: before which one none can be.
    fn behind(&self, key: Key) -> Key {
        let Span { low, up } = self.span;
        let first = if key.a == low.a { low.b } else { 0 };
        let last = up.filter(|up| up.a == key.a).map_or(u64::MAX, |up| up.b);
        if key.c < first {
            Key { c: first, ..key }
        } else if key.c > last {
            Key::new(key.a, key.b.saturating_add(1), first)
        } else {
            key
        }
    }
}

impl Heal {
    /// The node, and before it the loose ones below it, numbered from `loose` on.
    fn nodes(&self, shape: &Shape, loose: u64) -> Option<Vec<Node>> {
        let Wanting { tree, ptr, level } = self.wanting;
        let records: Vec<(Key, Vec<u8>)> = self
            .search
            .found
            .iter()
            .map(|(key, place)| (*key, value(tree, *place, shape)))
            .collect();
        if level == 0 {
            return Some(vec![Node::made(shape, 0, ptr, false, &records)?]);
        }
        let runs = records.chunk_by(|a, b| a.0.a == b.0.a);
        let mut nodes = Vec::new();
        let mut children = Vec::new();
        for piece in runs.flat_map(|run| run.chunks(shape.capacity(0))) {
            let child = Ptr {
                block: loose + nodes.len() as u64,
                generation: ptr.generation,
            };
            let leaf = Node::made(shape, 0, child, true, piece)?;
            children.push((leaf.key(0), DiskPtr::from(child).as_bytes().to_vec()));
            nodes.push(leaf);
        }
        nodes.push(Node::made(shape, level, ptr, false, &children)?);
        Some(nodes)
    }

    /// Whether only reads wait for it.
    fn for_readers(&self) -> bool {
        let mut tasks = self.tasks.iter();
        tasks.all(|task| matches!(task, Task::Read(_) | Task::Query(_) | Task::Compare(_)))
    }

    /// What it costs, for a person.
    fn cost(&self) -> String {
        let reason = &self.reason;
        if self.wanting.tree == TreeId::Eras {
            return format!("{reason}; made anew from the exceptions, nothing is lost");
        }
        let held = |place: &&Place| place.block != LOST;
        let lost = self.search.found.values().filter(held).count();
        format!("{reason}; the {lost} old chunks it led to are lost, and nothing else")
    }
}

/// What is known of an exception's value.
fn value(tree: TreeId, place: Place, shape: &Shape) -> Vec<u8> {
    let block = if tree == TreeId::Eras {
        place.block
    } else {
        LOST
    };
    let mut value = Vec::with_capacity(shape.value_len);
    Place { block, ..place }.encode(&mut value);
    value.resize(shape.value_len, 0);
    value
}

impl Engine {
    /// A node cannot be had for now. Reads fail for now and purges wait, unless they did
    /// so again and again; returns who cannot.
    pub(super) fn come_again(
        &mut self,
        wanting: Wanting,
        reason: &str,
        tasks: Vec<Task>,
        out: &mut Effects,
    ) -> Vec<Task> {
        let block = wanting.ptr.block;
        self.tell_damage(block, false, reason.to_owned(), out);
        let mut left = Vec::new();
        for task in tasks {
            match task {
                Task::Read(id) => {
                    let reason = reason.to_owned();
                    self.fail_read(id, RequestError::Damaged { block, reason }, out);
                }
                Task::Query(id) => self.fail_query(id, block, reason, out),
                Task::Compare(id) => {
                    let reason = reason.to_owned();
                    self.fail_compare(id, RequestError::Damaged { block, reason }, out);
                }
                Task::Purge if self.postpone_purge() => {}
                task => left.push(task),
            }
        }
        left
    }

    /// A node cannot be used: `tasks` go on when it has been made anew.
    pub(super) fn node_damaged(
        &mut self,
        wanting: Wanting,
        span: Span,
        reason: String,
        mut tasks: Vec<Task>,
        out: &mut Effects,
    ) {
        if tasks.contains(&Task::Heal) {
            // The other tree is damaged as well, where it matters.
            tasks.retain(|task| *task != Task::Heal);
            if let Some(heal) = self.heals.queue.pop_front() {
                self.give_up_node(heal, out);
            }
        }
        let mut queue = self.heals.queue.iter_mut();
        if let Some(heal) = queue.find(|heal| heal.wanting == wanting) {
            return heal.tasks.extend(tasks);
        }
        let shape = self.geometry.shape(wanting.tree);
        let most = match wanting.level {
            0 => shape.capacity(0),
            _ => shape.capacity(0) * shape.capacity(1),
        };
        let heal = Heal {
            wanting,
            reason,
            tasks,
            search: Search::new(span, most),
            pinned: Vec::new(),
        };
        // Trees of as many records are taken for trees of the same: a checkpoint changes
        // both or none.
        let alike = self.roots.exceptions.records == self.roots.eras.records;
        let possible = twin(wanting.tree).is_some() && wanting.level <= HIGHEST && alike;
        let wanted = !heal.tasks.is_empty() && self.failed.is_none();
        if possible && wanted && self.cache.kept() < MOST {
            self.heals.queue.push_back(heal);
        } else {
            self.give_up_node(heal, out);
        }
    }

    /// Looks at one more leaf of the other tree; true if more could be done at once.
    pub(super) fn step_heal(&mut self, out: &mut Effects) -> bool {
        if self.heals.queue.is_empty() || self.waiting_for_node(Task::Heal) {
            return false;
        }
        let Some(mut heal) = self.heals.queue.pop_front() else {
            return false;
        };
        let Some(tree) = twin(heal.wanting.tree) else {
            return false;
        };
        let mut nodes = Known {
            cache: &mut self.cache,
            pinned: &heal.pinned,
        };
        let (from, to) = (heal.search.from, heal.search.to);
        match scan(self.roots.get(tree), from, to, &mut nodes) {
            Ok((leaf, next)) => {
                heal.pinned.clear();
                let records = leaf.as_ref().map(records_of).into_iter().flatten();
                heal.search.look(records, next);
                if heal.search.is_over() {
                    self.end_heal(heal, out);
                } else {
                    self.heals.queue.push_front(heal);
                }
                true
            }
            Err(missing) => {
                self.heals.queue.push_front(heal);
                self.fetch(tree, missing, Task::Heal, out);
                false
            }
        }
    }

    fn end_heal(&mut self, heal: Heal, out: &mut Effects) {
        let shape = self.geometry.shape(heal.wanting.tree);
        let Some(nodes) = heal.nodes(&shape, self.heals.next_loose) else {
            return self.give_up_node(heal, out);
        };
        let count = nodes.len() as u64;
        // A node above leaves comes with them. Without room for what a checkpoint may have
        // to write because of it nobody's snapshot is dropped for a mere read: a write that
        // needs it makes it anew.
        if heal.wanting.level > 0 && heal.for_readers() && !self.room_for_made(count) {
            self.come_again(heal.wanting, &heal.reason, heal.tasks, out);
            return;
        }
        self.heals.next_loose += count;
        if self.checkpoint.busy() {
            self.checkpoint.reserved += made_reserve(count);
        }
        nodes.into_iter().for_each(|node| self.cache.keep(node));
        let span = heal.search.span;
        self.heals.holes.retain(|hole| *hole != span);
        self.tell_damage(heal.wanting.ptr.block, true, heal.cost(), out);
        self.ready.extend(heal.tasks);
    }

    /// Under a failed store nothing is made anew.
    pub(super) fn end_heals(&mut self) {
        for heal in std::mem::take(&mut self.heals.queue) {
            self.ready.extend(heal.tasks);
        }
    }

    /// What was below a node is not known any more. Reads of it fail. A write below it
    /// drops the volume's snapshots, where they do not come first. Purges go around it.
    /// A checkpoint that would have to change it can never be written, unless it is of a
    /// table, which is all in memory.
    fn give_up_node(&mut self, heal: Heal, out: &mut Effects) {
        let Heal {
            wanting,
            reason,
            tasks,
            search: Search { span, .. },
            ..
        } = heal;
        let block = wanting.ptr.block;
        self.tell_damage(block, false, reason.clone(), out);
        if wanting.tree == TreeId::Exceptions && !self.heals.holes.contains(&span) {
            self.heals.holes.push(span);
        }
        let failure = format!("a checkpoint needs damaged block {block}: {reason}");
        let error = RequestError::Damaged {
            block,
            reason: reason.clone(),
        };
        for task in tasks {
            match task {
                Task::Write(id) => self.write_hit_damage(id, &error, out),
                Task::Read(id) => self.fail_read(id, error.clone(), out),
                Task::Query(id) => self.fail_query(id, block, &reason, out),
                Task::Compare(id) => self.fail_compare(id, error.clone(), out),
                Task::Purge => self.purge_hit_damage(&span),
                Task::Merge if self.rewrite_table(wanting.tree) => {}
                Task::Merge => self.fail_store(&failure, out),
                Task::Heal => {}
            }
        }
    }

    /// Each damaged block is told of once, and once more if what it costs is known only
    /// then; what recovery meets, when it is over.
    fn tell_damage(&mut self, block: u64, cost: bool, reason: String, out: &mut Effects) {
        if self.heals.told.get(&block) < Some(&cost) {
            self.heals.told.insert(block, cost);
            self.heals.waiting.push((block, reason));
        }
        if !self.recovering {
            self.tell_waiting(out);
        }
    }

    pub(super) fn tell_waiting(&mut self, out: &mut Effects) {
        for (block, reason) in self.heals.waiting.drain(..) {
            let notice = Notice::Damage { block, reason };
            out.list.push(Effect::Notice(notice));
        }
    }
}

/// The records of a leaf, of either tree.
fn records_of(
    (leaf, range): &(Arc<Node>, Range<usize>),
) -> impl Iterator<Item = (Key, Place)> + '_ {
    let indices = range.clone();
    indices.map(move |index| (leaf.key(index), Place::decode(leaf.value(index))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn key() -> impl Strategy<Value = Key> {
        (1u64..4, 0u64..5, 0u64..5).prop_map(|(a, b, c)| Key::new(a, b, c))
    }

    /// Looks through `twins`, three in a leaf, as [`scan`] shows them.
    fn search(twins: &[Key], span: Span) -> (Vec<Key>, usize) {
        let mut search = Search::new(span, usize::MAX);
        let leaves: Vec<&[Key]> = twins.chunks(3).collect();
        let mut steps = 0;
        while !search.is_over() {
            let (from, to) = (search.from, search.to);
            let begun = leaves.iter().rposition(|leaf| leaf[0] <= from);
            let at = begun.unwrap_or(0);
            let leaf = leaves.get(at).copied().unwrap_or_default();
            let inside = leaf.iter().filter(|key| (from..to).contains(*key));
            let pred = crate::ids::Tag(0);
            let records = inside.map(|key| (*key, Place { pred, block: 1 }));
            let next = leaves.get(at + 1).map(|leaf| leaf[0]);
            search.look(records, next.filter(|next| *next < to));
            steps += 1;
        }
        (search.found.into_keys().collect(), steps)
    }

    proptest! {
        #[test]
        fn a_search_finds_all_of_a_span_and_nothing_else(
            keys in prop::collection::btree_set(key(), 0..60),
            low in key(),
            up in prop::option::of(key()),
        ) {
            let span = Span { low, up };
            let mut twins: Vec<Key> = keys.iter().map(|key| mirror(*key)).collect();
            twins.sort_unstable();
            let (found, steps) = search(&twins, span);
            let wanted: Vec<Key> = keys.into_iter().filter(|key| span.covers(*key)).collect();
            prop_assert_eq!(found, wanted);
            prop_assert!(steps <= twins.len() / 3 + 2, "{} steps", steps);
        }
    }
}
