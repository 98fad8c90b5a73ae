//! The table of internal snapshots.

use super::error::{Result, damaged};
use super::layout::{Layout, Table};
use super::names::text;
use crate::medium::Source;
use crate::qcow2::format::{self, SnapshotEntry, SnapshotExtra};
use std::time::Duration;
use zerocopy::{FromBytes, FromZeros, IntoBytes};

/// An internal snapshot.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Snapshot {
    /// A number, as text.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When it was taken, since 1970.
    pub taken: Duration,
    /// How long the guest had run.
    pub vm_clock: Duration,
    /// Bytes of the machine's state.
    pub vm_state: u64,
    /// Bytes of the disk then, if it says.
    pub disk_size: Option<u64>,
    /// Its level 1 table.
    pub l1: Table,
    /// Byte of its entry, and bytes of that.
    pub entry: (u64, u64),
}

/// Largest extra data that QEMU takes.
const MOST_EXTRA: u32 = 1024;

/// The table, entry by entry: each says where the next begins.
pub(super) fn each<S: Source>(
    source: &S,
    end: u64,
    layout: &Layout,
    give: &mut dyn FnMut(Snapshot),
) -> Result<()> {
    let mut at = layout.snapshots_at;
    for _ in 0..layout.snapshots {
        let snapshot = one(source, end, layout, at)?;
        at += snapshot.entry.1;
        if at - layout.snapshots_at > format::MOST_SNAPSHOT_BYTES {
            let flaw = "it has more than 64 MiB";
            return Err(damaged("snapshot table", layout.snapshots_at, flaw));
        }
        give(snapshot);
    }
    Ok(())
}

fn one<S: Source>(source: &S, end: u64, layout: &Layout, at: u64) -> Result<Snapshot> {
    let fixed = size_of::<SnapshotEntry>() as u64;
    let bytes = super::read(source, end, at, fixed)?;
    let Ok(entry) = SnapshotEntry::read_from_bytes(&bytes) else {
        return Err(damaged("snapshot", at, "it is cut off"));
    };
    if entry.extra_size > MOST_EXTRA {
        let flaw = format!("it has {} bytes of extra data", entry.extra_size);
        return Err(damaged("snapshot", at, flaw));
    }
    let extra_size = u64::from(entry.extra_size.get());
    let (id, name) = (
        u64::from(entry.id_size.get()),
        u64::from(entry.name_size.get()),
    );
    let rest = super::read(source, end, at + fixed, extra_size + id + name)?;
    let (extra, names) = rest.split_at(extra_size as usize);
    let (id, name) = names.split_at(id as usize);
    let (vm_state, disk_size) = sizes(&entry, extra);
    let l1 = Table {
        offset: entry.l1_table_offset.get(),
        entries: entry.l1_size.get().into(),
    };
    if !l1.offset.is_multiple_of(layout.cluster()) || l1.bytes() > format::MOST_L1_BYTES {
        let flaw = format!(
            "its level 1 table has {} entries at byte {}",
            l1.entries, l1.offset
        );
        return Err(damaged("snapshot", at, flaw));
    }
    Ok(Snapshot {
        id: text(id),
        name: text(name),
        taken: Duration::from_secs(entry.date_sec.get().into())
            + Duration::from_nanos(entry.date_nsec.get().into()),
        vm_clock: Duration::from_nanos(entry.vm_clock_nsec.get()),
        vm_state,
        disk_size,
        l1,
        entry: (at, (fixed + rest.len() as u64).next_multiple_of(8)),
    })
}

/// Of the machine's state, and of the disk.
fn sizes(entry: &SnapshotEntry, extra: &[u8]) -> (u64, Option<u64>) {
    let mut known = SnapshotExtra::new_zeroed();
    let length = extra.len().min(size_of::<SnapshotExtra>());
    known.as_mut_bytes()[..length].copy_from_slice(&extra[..length]);
    let vm_state = match extra.len() {
        8.. => known.vm_state_size.get(),
        _ => entry.vm_state_size.get().into(),
    };
    (vm_state, (extra.len() >= 16).then(|| known.disk_size.get()))
}
