//! What a repair finds, loses and makes anew.

use std::fmt;

use crate::ids::{Tag, VolumeId};

/// A snapshot as a person knows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Named {
    /// Its tag.
    pub tag: Tag,
    /// Its name; `None` if that is lost too.
    pub name: Option<String>,
}

impl fmt::Display for Named {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.name {
            Some(name) => write!(f, "{name} (tag {})", self.tag),
            None => write!(f, "tag {}, its name is lost", self.tag),
        }
    }
}

/// Something that is gone for good.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Loss {
    /// Old contents of neighbouring chunks: reads of them fail in the live snapshots
    /// from `from` to `to`, and are right everywhere else.
    Chunks {
        /// Whose.
        volume: VolumeId,
        /// Name of the volume.
        name: String,
        /// The first chunk.
        first: u64,
        /// How many.
        count: u64,
        /// Oldest snapshot affected.
        from: Named,
        /// Newest snapshot affected.
        to: Named,
    },
    /// A snapshot: it stays listed as dropped because of damage if it is known at all.
    Snapshot {
        /// Whose.
        volume: VolumeId,
        /// Name of the volume.
        name: String,
        /// Which.
        snapshot: Named,
    },
    /// A volume with its snapshots. The origin is not affected.
    Volume {
        /// Which.
        volume: VolumeId,
    },
    /// Whatever a damaged block of a table held that nothing else speaks of: volumes
    /// of these numbers or snapshots of theirs.
    Table {
        /// The table.
        table: &'static str,
        /// Numbers of volumes, none above those ever given out.
        volumes: std::ops::RangeInclusive<u64>,
    },
    /// What was recorded about volumes and snapshots behind a damaged journal block.
    Journal {
        /// Where, and what is wrong.
        reason: String,
    },
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Chunks {
                name,
                first,
                count,
                from,
                to,
                ..
            } => {
                let last = first.saturating_add(count.saturating_sub(1));
                write!(
                    f,
                    "volume {name}, chunks {first} to {last}, in snapshot {from}"
                )?;
                if from == to {
                    return Ok(());
                }
                write!(f, " to snapshot {to}")
            }
            Self::Snapshot { name, snapshot, .. } => {
                write!(f, "volume {name}, snapshot {snapshot}: all of it")
            }
            Self::Volume { volume } => {
                write!(
                    f,
                    "volume number {volume} with its snapshots; its origin is complete"
                )
            }
            Self::Table { table, volumes } => write!(
                f,
                "what a damaged block of the {table} held of volumes number {} to {}",
                volumes.start(),
                volumes.end()
            ),
            Self::Journal { reason } => {
                write!(
                    f,
                    "what happened to volumes and snapshots behind this: {reason}"
                )
            }
        }
    }
}

/// What a repair came to, or would come to.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Repair {
    /// Bytes in a chunk; 0 if there is nothing to do.
    pub chunk_size: u32,
    /// What the checker says before. Empty: there is nothing to do.
    pub problems: Vec<String>,
    /// What is gone for good.
    pub losses: Vec<Loss>,
    /// What is written anew from what it was derived from.
    pub rebuilt: Vec<&'static str>,
    /// The checkpoint it rests on, when that is not the newest: nothing was lost that way.
    pub older_checkpoint: Option<u64>,
    /// What the checker says afterwards; empty after a dry run.
    pub remaining: Vec<String>,
}

/// Joins losses of neighbouring chunks.
pub(super) fn join(losses: &mut Vec<Loss>, next: Loss) {
    if let (
        Some(Loss::Chunks {
            volume,
            first,
            count,
            from,
            to,
            ..
        }),
        Loss::Chunks {
            volume: other,
            first: at,
            from: begin,
            to: end,
            ..
        },
    ) = (losses.last_mut(), &next)
        && *volume == *other
        && first.checked_add(*count) == Some(*at)
        && *from == *begin
        && *to == *end
    {
        *count += 1;
        return;
    }
    losses.push(next);
}
