//! The volume table, the snapshot table and the sharing counters: read into a
//! [`State`](crate::state::State) as recovery does, but over damage; then fields,
//! numbers and names.

use std::collections::BTreeSet;

use super::Checker;
use super::trees::Leaf;
use crate::device::BlockDevice;
use crate::engine::TreeId;
use crate::format::tables::{
    HAS_FINGERPRINT, HELD, MAPPED, MAX_FULL_WAIT_S, Name, PURGED, SnapshotPhase, SnapshotRecord,
    VolumeRecord, text,
};
use crate::ids::{Tag, VolumeId};
use crate::recover::load_record;
use crate::state::Volume;
use crate::tree::{Key, Node};

/// Greatest code of a `DropReason`.
const REASONS: u32 = 5;

impl<D: BlockDevice> Checker<'_, D> {
    pub(super) fn load_tables(&mut self) {
        for tree in [TreeId::Volumes, TreeId::Snapshots, TreeId::Sharing] {
            let mut good = true;
            let mut walk = self.walk(tree);
            while let Some(leaf) = self.next_leaf(&mut walk) {
                match leaf {
                    Leaf::Node(node) => good &= self.load_leaf(tree, &node),
                    Leaf::Hole => good = false,
                }
            }
            let whole = self.finish_walk(walk);
            self.nodes_whole &= whole;
            if tree == TreeId::Sharing {
                self.sharing_whole = good && whole;
            } else {
                self.tables_whole &= good && whole;
            }
        }
        self.report.volumes = self.state.volumes.len() as u64;
        let volumes = self.state.volumes.values();
        self.report.snapshots = volumes.map(|v| v.snapshots.len() as u64).sum();
        self.check_volumes();
    }

    /// Takes the records of a leaf; whether all made sense.
    fn load_leaf(&mut self, tree: TreeId, node: &Node) -> bool {
        let mut good = true;
        for index in 0..node.len() {
            let (key, value) = (node.key(index), node.value(index));
            let loaded = if unused_is_zero(tree, key) {
                load_record(&mut self.state, tree, key, value).map_err(|damage| damage.to_string())
            } else {
                Err("the unused part of the key is not zero".to_owned())
            };
            if let Err(reason) = loaded {
                good = false;
                self.problems.add(format_args!(
                    "{}, block {}: record {key}: {reason}",
                    tree.name(),
                    node.ptr().block
                ));
            }
        }
        good
    }

    fn check_volumes(&mut self) {
        let (next_tag, next_volume) = (self.state.next_tag, self.state.next_volume);
        let mut names = BTreeSet::new();
        for volume in self.state.volumes.values() {
            let mut problem = |reason: &str| {
                self.problems.add(format_args!(
                    "volume {} ({}): {reason}",
                    volume.id,
                    text(&volume.record.name)
                ));
            };
            if volume.id.0 >= next_volume {
                problem("its number is not below the superblock's next one");
            }
            if !volume_fields(&volume.record) {
                problem("a field makes no sense");
            }
            if !volume.deleting() && !names.insert(volume.record.name) {
                problem("another volume has the same name");
            }
            let mut names = BTreeSet::new();
            for (tag, record) in &volume.snapshots {
                for reason in snapshot_problems(*tag, record, next_tag, &mut names) {
                    self.problems.add(format_args!(
                        "snapshot {tag} ({}) of volume {}: {reason}",
                        text(&record.name),
                        volume.id
                    ));
                }
            }
        }
    }

    /// A volume as it was read. `None` when there is none; then whether that is
    /// the fault of a hole in the table.
    pub(super) fn volume(&self, number: u64) -> Result<&Volume, bool> {
        let id = u32::try_from(number).map(VolumeId);
        id.ok()
            .and_then(|id| self.state.volumes.get(&id))
            .ok_or(!self.tables_whole)
    }
}

fn unused_is_zero(tree: TreeId, key: Key) -> bool {
    match tree {
        TreeId::Volumes => key.a == 0 && key.c == 0,
        TreeId::Snapshots => key.c == 0,
        _ => true,
    }
}

/// Whether what [`Volume::new`] lets pass makes sense too.
fn volume_fields(record: &VolumeRecord) -> bool {
    let size = record.size.get();
    record.policy.get() <= 1
        && record.flags.get() & !HAS_FINGERPRINT == 0
        && size > 0
        && size.is_multiple_of(512)
        && record.full_wait_s.get() <= MAX_FULL_WAIT_S
        && record.parent_volume.get() == 0
        && record.parent_tag.get() == 0
        && named(&record.name)
}

/// Whether a name is 1 to 63 bytes of text, padded with zeroes.
fn named(name: &Name) -> bool {
    let mut padding = name.iter().skip_while(|byte| **byte != 0);
    let first = name.first().is_some_and(|byte| *byte != 0);
    let ended = name.last() == Some(&0);
    first && ended && padding.all(|byte| *byte == 0) && std::str::from_utf8(name).is_ok()
}

fn snapshot_problems(
    tag: Tag,
    record: &SnapshotRecord,
    next_tag: u64,
    names: &mut BTreeSet<Name>,
) -> Vec<&'static str> {
    let mut problems = Vec::new();
    if tag.0 == 0 || tag.0 >= next_tag {
        problems.push("its tag is not below the superblock's next one");
    }
    let dropped = record.phase() == Some(SnapshotPhase::Dropped);
    let (flags, reason) = (record.flags.get(), record.reason.get());
    let good = flags & !(MAPPED | PURGED | HELD) == 0
        && (dropped || flags & PURGED == 0)
        && reason <= REASONS
        && (reason != 0) == dropped
        && record.size.get() > 0
        && named(&record.name);
    if !good {
        problems.push("a field makes no sense");
    }
    let visible = record.phase() != Some(SnapshotPhase::Deleting);
    if visible && !names.insert(record.name) {
        problems.push("another snapshot of the volume has the same name");
    }
    problems
}
