//! `csnapctl volume ...`

use clap::Subcommand;
use snapstore::engine::MAX_FULL_WAIT_S;

use super::export::VolumeExportArgs;
use super::restore::RestoreArgs;
use super::{Consent, FormatArgs, PolicyArg};
use crate::names::NewSize;

/// What to do with a volume.
#[derive(Debug, Subcommand)]
pub enum VolumeVerb {
    /// Put an origin under csnap's care
    ///
    /// The origin is not changed, unless --format says so. From now on it must be used
    /// through csnap instead of directly: unmount it first. With ublk that is a block device, which
    /// /dev/csnap/NAME leads to; with NBD an export of the volume's name.
    #[command(after_help = "Examples:\n  csnapctl volume create web /dev/sda\n  \
                            csnapctl volume create db /dev/vg0/db --store /dev/sdb \
                            --policy snapshot-first\n  \
                            csnapctl volume create web /dev/sda --format xfs --label web\n  \
                            csnapctl volume create web /dev/sda --format xfs --from /srv/web\n  \
                            csnapctl volume create web /dev/sda --format erofs --from /srv/web\n  \
                            csnapctl volume create vm7 vm7.img --format xfs --from oci:layout:latest")]
    Create {
        /// The volume's name: letters, digits, '.', '_', '-'
        name: String,
        /// The device that holds the data, or a file
        origin: String,
        /// Path or UUID of the store; may be left out when there is one
        #[arg(long, value_name = "STORE")]
        store: Option<String>,
        /// What goes first when the store is full
        #[arg(long, value_enum, default_value = "origin-first")]
        policy: PolicyArg,
        /// How it is formatted first.
        #[command(flatten)]
        format: FormatArgs,
    },
    /// List the volumes
    #[command(
        visible_alias = "ls",
        after_help = "Examples:\n  csnapctl volume list\n  \
                                                  csnapctl volume list -o name,state,clients"
    )]
    List {
        /// Of this store only
        #[arg(long, value_name = "STORE")]
        store: Option<String>,
    },
    /// Show everything about volumes
    #[command(after_help = "Example:\n  csnapctl volume show web")]
    Show {
        /// The volumes
        #[arg(required = true)]
        names: Vec<String>,
    },
    /// Write an image of a volume as it is now, with its snapshots if wanted
    ///
    /// While everything goes on: it is read from a snapshot that is deleted afterwards.
    /// With --with-snapshots the snapshots of the volume are snapshots of the image, as
    /// `qemu-img snapshot -l` lists them and `-a` applies them.
    #[command(
        after_help = "Examples:\n  csnapctl volume export web -o web.qcow2 --compress zstd\n  \
                            csnapctl volume export web --with-snapshots -o all.qcow2"
    )]
    Export(Box<VolumeExportArgs>),
    /// Overwrite a volume with what an image holds, or a chain of full and incremental ones
    ///
    /// The volume must not be in use. It stays served, and its snapshots keep what they
    /// show as long as the store has room. Only what differs is written; at the end all of it is read again and compared
    /// with the images.
    #[command(
        after_help = "Examples:\n  csnapctl volume restore web --from tuesday.qcow2 --keep before\n  \
                            csnapctl volume restore web --from monday.qcow2 tuesday.qcow2 --yes\n  \
                            csnapctl volume restore web --from monday.img -f raw --yes"
    )]
    Restore(Box<RestoreArgs>),
    /// Forget a volume and delete its snapshots
    ///
    /// The origin itself is not touched: it stays complete and usable alone. Refused
    /// while one of its snapshots is mapped or held.
    #[command(after_help = "Examples:\n  csnapctl volume delete web --dry-run\n  \
                            csnapctl volume delete web --yes")]
    Delete {
        /// The volume
        name: String,
        /// Do it although it is in use: its users get I/O errors
        #[arg(long)]
        force: bool,
        /// How it is confirmed.
        #[command(flatten)]
        consent: Consent,
    },
    /// Change what a volume does when its store is full
    #[command(
        after_help = "Examples:\n  csnapctl volume set web --policy snapshot-first\n  \
                            csnapctl volume set web --policy snapshot-first --full-wait 60"
    )]
    #[command(group(clap::ArgGroup::new("change").required(true).multiple(true)))]
    Set {
        /// The volume
        name: String,
        /// What goes first when the store is full
        #[arg(long, value_enum, group = "change")]
        policy: Option<PolicyArg>,
        /// With snapshot-first, or where all snapshots are held: how long a write waits for
        /// room before it fails
        #[arg(long, value_name = "SECONDS", group = "change",
              value_parser = clap::value_parser!(u32).range(0..=i64::from(MAX_FULL_WAIT_S)))]
        full_wait: Option<u32>,
    },
    /// Make a volume as large as its origin has become
    ///
    /// Extend the origin first (lvextend, truncate, the array's own tool), then this,
    /// then the file system on the volume. Nothing has to be stopped. Clients that
    /// are connected over NBD keep the size they were told; connect anew to see the
    /// new one. Snapshots keep the size they were taken with. A volume never becomes
    /// smaller.
    #[command(
        after_help = "Examples:\n  lvextend -L +10G vg0/db && csnapctl volume resize db\n  \
                            csnapctl volume resize db --size 40G"
    )]
    Resize {
        /// The volume
        name: String,
        /// Bytes, or with K, M, G, T; `max`: all that the origin has now
        #[arg(long, default_value = "max")]
        size: NewSize,
    },
}
