//! `csnapctl snapshot ...`

use clap::{Args, Subcommand};

use super::Consent;
use super::export::SnapshotExportArgs;
use super::hold::HoldArgs;
use super::mount::{MountArgs, UmountArgs};
use crate::names::{SnapshotArg, TargetArg};

const MOUNT_HELP: &str = "\
Examples:
  csnapctl snapshot mount web@monday /mnt
  csnapctl snapshot mount web@monday /srv/monday --mkdir
  csnapctl snapshot mount disk@monday /mnt --partition 2
  csnapctl snapshot mount web@monday /mnt --options noexec,uid=1000

Options given to mount(8) besides those of --options:
  all           ro,nodev,nosuid
  XFS           nouuid,norecovery
  ext3, ext4    noload
  btrfs         rescue=nologreplay
  F2FS, NILFS2  norecovery
  bcachefs      nochanges";

const EXPORT_HELP: &str = "\
Examples:
  csnapctl snapshot export web@monday -o monday.qcow2 --compress zstd
  csnapctl snapshot export web@tuesday --from web@monday -b monday.qcow2 -o tuesday.qcow2
  csnapctl snapshot export web@monday -o web.img --to raw --rate 50M
  csnapctl snapshot export web@monday -o - | ssh backup 'cat > monday.qcow2'";

/// How a difference is told.
#[derive(Debug, Clone, Copy, Args)]
pub struct DiffArgs {
    /// Compare what changed, in blocks of 4 KiB
    #[arg(long)]
    pub blocks: bool,
    /// A JSON object for each range, on a line of its own
    #[arg(long, conflicts_with = "json")]
    pub json_lines: bool,
}

/// What is changed about a snapshot.
#[derive(Debug, Clone, Copy, Args)]
#[group(required = true, multiple = true)]
pub struct ChangeArgs {
    /// When the store is full the lowest is dropped first
    #[arg(long, allow_negative_numbers = true)]
    pub priority: Option<i32>,
    /// Hold it: never dropped to make room, deleted only with --force
    #[arg(long, conflicts_with = "no_hold")]
    pub hold: bool,
    /// Hold it no longer
    #[arg(long)]
    pub no_hold: bool,
}

impl ChangeArgs {
    /// Held from now on, or not, or as before.
    #[must_use]
    pub fn held(self) -> Option<bool> {
        (self.hold || self.no_hold).then_some(self.hold)
    }
}

/// What to do with snapshots.
#[derive(Debug, Subcommand)]
pub enum SnapshotVerb {
    /// Take snapshots of one or more volumes, all at one instant
    ///
    /// When this returns the snapshots are durable. Volumes named together (of one
    /// store, at most 64) are taken together: no write lies between them. A name counts
    /// for the volumes before it that have none: `web db@monday` makes web@monday and
    /// db@monday. Those without any get one made from the time, like
    /// 2026-11-20T22.15.03.123Z. Prints the snapshots' names.
    #[command(after_help = "Examples:\n  csnapctl snapshot take web@monday\n  \
                            csnapctl snapshot take web db@monday\n  \
                            csnapctl snapshot take web db\n  \
                            csnapctl snapshot take web@before-upgrade --priority 10\n  \
                            csnapctl snapshot take web@still --freeze /srv/web")]
    Take {
        /// Volumes, with or without a name for their snapshots
        #[arg(required = true, value_name = "VOLUME[@NAME]")]
        targets: Vec<TargetArg>,
        /// When the store is full the lowest is dropped first
        #[arg(long, default_value_t = 0, allow_negative_numbers = true)]
        priority: i32,
        /// What is held still meanwhile
        #[command(flatten)]
        hold: HoldArgs,
    },
    /// List snapshots: when, how large, and what they hold
    ///
    /// ONLY HERE is what deleting that one gives back, SHARED what it holds together
    /// with others. USES counts NBD clients, and mounts, programs and devices on top of
    /// its block device. One that was dropped stays until it is deleted: `show` says
    /// why it was.
    #[command(
        visible_alias = "ls",
        after_help = "Examples:\n  csnapctl snapshot list\n  \
                                                  csnapctl snapshot list web\n  \
                                                  csnapctl snapshot list web --no-header -o name"
    )]
    List {
        /// Of this volume only
        volume: Option<String>,
    },
    /// Show everything about snapshots
    #[command(after_help = "Example:\n  csnapctl snapshot show web@monday")]
    Show {
        /// The snapshots
        #[arg(required = true, value_name = "VOLUME@NAME")]
        snapshots: Vec<SnapshotArg>,
    },
    /// List what changed between two snapshots, or since one
    ///
    /// Ranges of bytes, exact to the store's chunks: all that was written between the two
    /// is in them, even if it was written again as it had been. Costs what changed, not
    /// what the volume holds. Both are of one volume; NEWER is a snapshot of it, or the
    /// volume itself: as it is now.
    ///
    /// With --blocks what changed is read and compared: ranges are exact to 4 KiB, and what
    /// was written again as it had been is in none. The volume itself is then read from a
    /// snapshot that is deleted afterwards.
    #[command(
        after_help = "Examples:\n  csnapctl snapshot diff web@monday web@tuesday\n  \
                            csnapctl snapshot diff web@monday web --bytes --no-header\n  \
                            csnapctl snapshot diff web@monday web --json-lines\n  \
                            csnapctl snapshot diff web@monday web@tuesday --blocks"
    )]
    Diff {
        /// The older one
        #[arg(value_name = "VOLUME@OLDER")]
        from: SnapshotArg,
        /// The newer one, or the volume
        #[arg(value_name = "VOLUME[@NEWER]")]
        to: TargetArg,
        /// How it is told.
        #[command(flatten)]
        how: DiffArgs,
    },
    /// Write an image of a snapshot, or of what changed since an older one
    ///
    /// Mapped or not, while everything goes on. The image appears under its name when it
    /// is whole and durable. With --from it holds what changed since that snapshot and has
    /// an image of it as backing file, so `qemu-img rebase` and `commit` and virtual
    /// machines use it as it is. While it is exported, a snapshot cannot be deleted.
    #[command(after_help = EXPORT_HELP)]
    Export(Box<SnapshotExportArgs>),
    /// Delete snapshots
    ///
    /// They are gone when this returns; their space comes back in the background.
    /// Other snapshots keep all they have. A mapped snapshot is refused: unmap it
    /// first. So is one that is held, unless forced: see `csnapctl snapshot set --help`.
    #[command(after_help = "Examples:\n  csnapctl snapshot delete web@monday\n  \
                            csnapctl snapshot delete web@monday web@tuesday --yes")]
    Delete {
        /// The snapshots
        #[arg(required = true, value_name = "VOLUME@NAME")]
        snapshots: Vec<SnapshotArg>,
        /// Delete those that are held too, and disconnect NBD clients that read them
        #[arg(long)]
        force: bool,
        /// How it is confirmed.
        #[command(flatten)]
        consent: Consent,
    },
    /// Give a snapshot another name
    #[command(after_help = "Example:\n  csnapctl snapshot rename web@monday before-upgrade")]
    Rename {
        /// The snapshot
        #[arg(value_name = "VOLUME@NAME")]
        snapshot: SnapshotArg,
        /// The new name
        new: String,
    },
    /// Make snapshots readable, again after every restart
    ///
    /// With ublk each becomes a read-only block device; its path is printed, and
    /// /dev/csnap/VOLUME@NAME leads to it. With NBD it is a read-only export named
    /// VOLUME@NAME on the daemon's NBD socket. See `csnapctl status` for which.
    #[command(after_help = "Examples:\n  csnapctl snapshot map web@monday\n  \
                            fio --readonly --filename=$(csnapctl snapshot map web@monday) ...\n  \
                            nbdcopy 'nbd+unix:///web@monday?socket=/run/csnap/nbd.sock' monday.img")]
    Map {
        /// The snapshots
        #[arg(required = true, value_name = "VOLUME@NAME")]
        snapshots: Vec<SnapshotArg>,
    },
    /// Take that away again
    ///
    /// Refused while the block device is open (mounted, held by another device,
    /// opened by a program) or NBD clients are connected; says by whom.
    #[command(after_help = "Example:\n  csnapctl snapshot unmap web@monday")]
    Unmap {
        /// The snapshots
        #[arg(required = true, value_name = "VOLUME@NAME")]
        snapshots: Vec<SnapshotArg>,
        /// Do it although it is in use: its users get I/O errors
        #[arg(long)]
        force: bool,
    },
    /// Mount a snapshot's file system, read-only
    ///
    /// The snapshot is mapped if it is not. The file system on its block device is
    /// recognised and mounted with what it needs beside its origin, which has the
    /// same UUID, and without replaying its log: a snapshot cannot be written. So
    /// one that was not frozen when it was taken can look as after a power cut,
    /// with the last moments' files missing or short.
    ///
    /// Set-user-ID programs and device nodes in a snapshot have no effect: what was
    /// replaced because it was dangerous is in there as it was. --options suid,dev
    /// gives them their effect again.
    #[command(after_help = MOUNT_HELP)]
    Mount(MountArgs),
    /// Unmount a snapshot
    ///
    /// It is unmounted wherever it is, or on DIR alone, and unmapped again if mounting
    /// it had mapped it. When one of these mounts is in use nothing happens and the
    /// users are named.
    #[command(after_help = "Examples:\n  csnapctl snapshot umount web@monday\n  \
                            csnapctl snapshot umount /mnt")]
    Umount(UmountArgs),
    /// Change a snapshot
    ///
    /// One that is held is never dropped to make room, and deleted only with --force.
    /// When nothing else is left to drop, writes to its volume fare as under the policy
    /// snapshot-first: they wait as long as --full-wait says, then fail.
    #[command(
        after_help = "Examples:\n  csnapctl snapshot set web@monday --priority 10\n  \
                            csnapctl snapshot set web@monday --hold\n  \
                            csnapctl snapshot set web@monday --no-hold"
    )]
    Set {
        /// The snapshot
        #[arg(value_name = "VOLUME@NAME")]
        snapshot: SnapshotArg,
        /// What about it.
        #[command(flatten)]
        change: ChangeArgs,
    },
}
