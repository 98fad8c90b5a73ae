//! The command line: noun, then verb. Help texts are part of the product: every
//! verb says what it does, what it does not, and shows an example.

mod export;
mod format;
mod hold;
mod mount;
mod restore;
mod snapshot;
mod store;
mod volume;

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use ublk_target::control::client::DEFAULT_RUN_DIR;
use ublk_target::control::views::PolicyName;

pub use export::{FormatName, ImageArgs, SnapshotExportArgs, VolumeExportArgs};
pub use format::{FormatArg, FormatArgs, KernelArg};
pub use hold::{HoldArgs, HolderArgs};
pub use mount::{MountArgs, UmountArgs};
pub use restore::RestoreArgs;
pub use snapshot::{ChangeArgs, DiffArgs, SnapshotVerb};
pub use store::{StoreVerb, StructureArg};
pub use volume::VolumeVerb;

const MAIN_HELP: &str = "\
First steps:
  csnapctl store create /dev/sdb                   make an empty store
  csnapctl store attach /dev/sdb                   let csnapd serve it
  csnapctl volume create web /dev/sda --store /dev/sdb
  csnapctl snapshot take web@monday                a point in time
  csnapctl snapshot map web@monday                 make it readable: prints its device
  csnapctl snapshot mount web@monday /mnt          look into it
  csnapctl snapshot list

Exit codes:
  0  done                         4  in use or held
  1  any other error              5  no space
  2  wrong usage                  6  stored data is damaged
  3  not found                    7  the daemon cannot be reached

Results go to standard output, everything else to standard error.";

/// Copy-on-write snapshots of block devices that already hold data.
///
/// csnapctl makes stores and asks the daemon csnapd to serve volumes and to take,
/// list, export and delete their snapshots. An origin stays where it is, byte for
/// byte usable without csnap; the old contents its snapshots need are kept in a
/// store, once for all of them.
#[derive(Debug, Parser)]
#[command(name = "csnapctl", version, after_help = MAIN_HELP, max_term_width = 100)]
pub struct Cli {
    /// Options of every verb.
    #[command(flatten)]
    pub common: Common,
    /// What to act on.
    #[command(subcommand)]
    pub noun: Noun,
}

/// Options of every verb.
#[derive(Debug, Clone, Args)]
pub struct Common {
    /// Directory of the daemon's sockets
    #[arg(long, global = true, env = "CSNAP_RUN_DIR", value_name = "DIR",
          default_value = DEFAULT_RUN_DIR, help_heading = "Common options")]
    pub run_dir: PathBuf,
    /// Print JSON with a versioned schema instead of a table
    #[arg(long, global = true, help_heading = "Common options")]
    pub json: bool,
    /// Print these fields only, in this order (a wrong name lists them all)
    #[arg(
        short = 'o',
        long,
        global = true,
        value_name = "FIELD,...",
        value_delimiter = ',',
        help_heading = "Common options"
    )]
    pub output: Vec<String>,
    /// Print exact numbers of bytes instead of rounded sizes
    #[arg(long, global = true, help_heading = "Common options")]
    pub bytes: bool,
    /// Leave out the table's header
    #[arg(long, global = true, help_heading = "Common options")]
    pub no_header: bool,
}

/// What to act on.
#[derive(Debug, Subcommand)]
pub enum Noun {
    /// The devices that keep old data
    #[command(subcommand)]
    Store(StoreVerb),
    /// The origins under csnap's care
    #[command(subcommand)]
    Volume(VolumeVerb),
    /// Points in time of volumes
    #[command(subcommand, visible_alias = "snap")]
    Snapshot(SnapshotVerb),
    /// Show how the daemon, its stores and its volumes are
    ///
    /// Exits with 0 when everything that should be served is and no block device
    /// waits for something, with 1 otherwise: useful in monitoring.
    #[command(after_help = "Examples:\n  csnapctl status\n  csnapctl status --json")]
    Status,
    /// Show what the kernel offers to serve block devices with
    ///
    /// What the ublk driver of this kernel can do, what csnapd uses of it, and what
    /// it means where something is missing. Works without the daemon too.
    #[command(after_help = "Examples:\n  csnapctl features\n  csnapctl features --json")]
    Features,
    /// Show what happened: snapshots dropped, damage found, space running low
    ///
    /// The daemon remembers the newest 4096 events since its start.
    #[command(
        after_help = "Examples:\n  csnapctl events\n  csnapctl events --follow --since 120\n  \
                            csnapctl events --json --follow | jq .message"
    )]
    Events {
        /// Go on printing events as they happen
        #[arg(long, short = 'f')]
        follow: bool,
        /// Only events with a greater sequence number
        #[arg(long, value_name = "N")]
        since: Option<u64>,
    },
    /// Hold file systems still; csnapctl starts this itself
    #[command(hide = true)]
    Hold(HolderArgs),
    /// Print a completion script for a shell
    #[command(after_help = "Examples:\n  csnapctl completion bash \
                            > /usr/share/bash-completion/completions/csnapctl\n  \
                            csnapctl completion zsh > /usr/share/zsh/site-functions/_csnapctl")]
    Completion {
        /// Which shell
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
}

/// How a destructive verb is confirmed.
#[derive(Debug, Clone, Copy, Default, Args)]
pub struct Consent {
    /// Do it without asking; needed when not on a terminal
    #[arg(long, short = 'y')]
    pub yes: bool,
    /// Only say what would be done
    #[arg(long, conflicts_with = "yes")]
    pub dry_run: bool,
}

/// What goes first when the store is full.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum PolicyArg {
    /// The origin goes on; snapshots are dropped, lowest priority first, then oldest
    OriginFirst,
    /// Snapshots stay; origin writes that would cost one fail with "no space"
    SnapshotFirst,
}

impl From<PolicyArg> for PolicyName {
    fn from(policy: PolicyArg) -> Self {
        match policy {
            PolicyArg::OriginFirst => Self::OriginFirst,
            PolicyArg::SnapshotFirst => Self::SnapshotFirst,
        }
    }
}
