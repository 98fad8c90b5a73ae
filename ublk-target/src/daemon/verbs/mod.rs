//! What each verb of the control socket does.

mod diff;
mod snapshot;
mod status;
mod store;
mod take;
mod volume;

use snapstore::engine::SnapshotInfo;

use super::failures::not_found;
use crate::control::protocol::{Failure, SnapshotName};

/// The snapshot found under a name, if it is the one that was meant.
pub(super) fn matching(
    wanted: &SnapshotName,
    found: Option<SnapshotInfo>,
) -> Result<SnapshotInfo, Failure> {
    let SnapshotName { volume, name, tag } = wanted;
    let found = found.ok_or_else(|| {
        let next = format!("`csnapctl snapshot list {volume}` shows the snapshots");
        not_found(format_args!("snapshot {volume}@{name}"), &next)
    })?;
    match tag {
        Some(tag) if *tag != found.tag.0 => Err(not_found(
            format_args!("snapshot {volume}@{name} with tag {tag}"),
            "another snapshot has the name by now: look again",
        )),
        _ => Ok(found),
    }
}
