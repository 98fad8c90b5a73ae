//! Damaged stores are repaired: sound afterwards, and no snapshot ever shows anything
//! but what it was taken of, or an error that was announced.

mod crashes;
mod directed;
mod random;

use std::collections::BTreeSet;

use super::{Loss, Repair, RepairOptions, repair};
use crate::check::tests::world::{CHUNKS, Disk, World, report};
use crate::device::BlockDevice;
use crate::ids::{Tag, VolumeId};

fn mend(disk: &mut impl BlockDevice) -> Result<Repair, super::RepairError> {
    repair(disk, RepairOptions::default(), &mut |_, _| ())
}

/// Opens a repaired store and holds it against what it was before.
fn judge(was: &World, disk: Disk, report: &Repair) {
    let mut now = World::open(disk, was.origins.clone());
    // Some chunks were lost long before.
    let mut then = World::open(was.disk.clone(), was.origins.clone());
    for id in [VolumeId(1), VolumeId(2)] {
        judge_volume(was, [&mut then, &mut now], id, &report.losses);
    }
    // Opened, purged and checkpointed it is still sound.
    now.checkpoint();
    let after = self::report(&mut now.disk, true);
    assert_eq!(after.problems, Vec::<String>::new());
}

fn judge_volume(was: &World, [then, now]: [&mut World; 2], id: VolumeId, losses: &[Loss]) {
    let behind_journal = losses
        .iter()
        .any(|loss| matches!(loss, Loss::Journal { .. }));
    let gone = losses
        .iter()
        .any(|loss| matches!(loss, Loss::Volume { volume } if *volume == id));
    let told: BTreeSet<Tag> = losses
        .iter()
        .filter_map(|loss| match loss {
            Loss::Snapshot {
                volume, snapshot, ..
            } if *volume == id => Some(snapshot.tag),
            _ => None,
        })
        .collect();
    let (before, _) = was.snapshots(id);
    let (live, _) = now.snapshots(id);
    for tag in &before {
        let lost = gone || behind_journal || told.contains(tag) || nameless(losses, id);
        assert!(
            live.contains(tag) || lost,
            "volume {id}: {tag} is gone: {losses:#?}"
        );
    }
    for tag in live {
        assert!(
            before.contains(&tag) && !told.contains(&tag),
            "volume {id}: {tag} came up"
        );
        judge_view(was, [then, now], id, tag, losses);
    }
}

/// A whole table leaf without a trace of what it held.
fn nameless(losses: &[Loss], id: VolumeId) -> bool {
    losses.iter().any(
        |loss| matches!(loss, Loss::Table { volumes, .. } if volumes.contains(&u64::from(id.0))),
    )
}

fn judge_view(was: &World, [then, now]: [&mut World; 2], id: VolumeId, tag: Tag, losses: &[Loss]) {
    let image = &was.images[&(id, tag)];
    for chunk in 0..CHUNKS {
        let announced = losses.iter().any(|loss| {
            matches!(loss, Loss::Chunks { volume, first, count, from, to, .. }
                if *volume == id && (*first..first + count).contains(&chunk)
                    && (from.tag..=to.tag).contains(&tag))
        });
        match now.view(id, tag, chunk) {
            Some(byte) => assert_eq!(byte, image[chunk as usize], "{id}@{tag}, chunk {chunk}"),
            None => assert!(
                announced || then.view(id, tag, chunk).is_none(),
                "{id}@{tag}, chunk {chunk}: {losses:#?}"
            ),
        }
    }
}
