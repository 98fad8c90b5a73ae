//! Internal snapshots: their table.

use super::space::Space;
use super::tables::Level1;
use super::{WriteError, whole_sectors};
use crate::medium::Source;
use crate::qcow2::format::{self, SnapshotEntry, SnapshotExtra};
use crate::qcow2::read::{Disk, Snapshot};
use std::time::Duration;
use zerocopy::{FromZeros, IntoBytes};

/// What a disk was at some time.
#[derive(Debug)]
pub struct Version<S> {
    /// A number, as text, that no other has.
    pub id: String,
    /// Its name.
    pub name: String,
    /// When that was, since 1970.
    pub taken: Duration,
    /// How long the guest had run.
    pub vm_clock: Duration,
    /// The disk then.
    pub disk: Disk<S>,
}

impl<S> Version<S> {
    /// As an image has it; not the machine's state.
    #[must_use]
    pub fn new(snapshot: &Snapshot, disk: Disk<S>) -> Self {
        Self {
            id: snapshot.id.clone(),
            name: snapshot.name.clone(),
            taken: snapshot.taken,
            vm_clock: snapshot.vm_clock,
            disk,
        }
    }
}

/// The byte of the table, and its entries.
pub(super) fn write<'a, S: Source + 'a>(
    versions: impl Iterator<Item = (&'a Version<S>, Level1)>,
    space: &mut Space<'_>,
) -> Result<(u64, u32), WriteError> {
    let mut table = Vec::new();
    let mut count = 0;
    for (version, l1) in versions {
        entry(&mut table, version, l1)?;
        count += 1;
    }
    if count == 0 {
        return Ok((0, 0));
    }
    if table.len() as u64 > format::MOST_SNAPSHOT_BYTES {
        return Err(WriteError::Option(
            "the names of the snapshots are more than 64 MiB",
        ));
    }
    Ok((space.table(table)?, count))
}

fn entry<S: Source>(
    table: &mut Vec<u8>,
    version: &Version<S>,
    l1: Level1,
) -> Result<(), WriteError> {
    let length = |text: &str| {
        u16::try_from(text.len())
            .map_err(|_| WriteError::Option("the name of a snapshot has 65,536 bytes or more"))
    };
    let seconds = u32::try_from(version.taken.as_secs());
    let clock = u64::try_from(version.vm_clock.as_nanos());
    let mut entry = SnapshotEntry::new_zeroed();
    entry.l1_table_offset = l1.offset.into();
    entry.l1_size = l1.entries.into();
    entry.id_size = length(&version.id)?.into();
    entry.name_size = length(&version.name)?.into();
    entry.date_sec = seconds
        .map_err(|_| WriteError::Option("a snapshot was taken after 2106"))?
        .into();
    entry.date_nsec = version.taken.subsec_nanos().into();
    entry.vm_clock_nsec = clock.unwrap_or(u64::MAX).into();
    entry.extra_size = (size_of::<SnapshotExtra>() as u32).into();
    let mut extra = SnapshotExtra::new_zeroed();
    extra.disk_size = whole_sectors(version.disk.size()).into();
    extra.icount = u64::MAX.into();
    table.extend_from_slice(entry.as_bytes());
    table.extend_from_slice(extra.as_bytes());
    table.extend_from_slice(version.id.as_bytes());
    table.extend_from_slice(version.name.as_bytes());
    table.resize(table.len().next_multiple_of(8), 0);
    Ok(())
}
