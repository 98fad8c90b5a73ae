//! `csnapctl store ...`

use std::path::PathBuf;

use clap::{Subcommand, ValueEnum};
use snapstore::Checksum;
use snapstore::check::Structure;

use super::Consent;
use crate::names::ByteSize;

/// What to do with a store.
#[derive(Debug, Subcommand)]
pub enum StoreVerb {
    /// Make an empty store on a device or in a file
    ///
    /// The device is written over. It is refused if it is mounted, used as swap,
    /// opened by someone else, or carries the signature of a file system, volume
    /// manager, partition table or store; --force overrides the signature only,
    /// never the use. The daemon is not needed.
    ///
    /// The chunk size is the unit of copying: a power of two from 4K to 1M. Small
    /// chunks copy less for small random writes, large chunks need less metadata.
    ///
    /// The checksum covers what is copied. crc32c is right where the processor has an
    /// instruction for it, as every x86 server and nearly every 64-bit ARM one does;
    /// xxh3 where it has none (small ARM, RISC-V) or where it is emulated. Neither can
    /// be changed later.
    #[command(after_help = "Examples:\n  csnapctl store create /dev/sdb\n  \
                            csnapctl store create /dev/vg0/snapstore --chunk-size 64K\n  \
                            csnapctl store create /var/lib/csnap/store.img --size 20G")]
    Create {
        /// The device, or a file
        device: PathBuf,
        /// Unit of copying
        #[arg(long, value_name = "SIZE", default_value = "16K")]
        chunk_size: ByteSize,
        /// What covers copied data: crc32c or xxh3
        #[arg(long, value_name = "NAME", default_value = "crc32c")]
        checksum: Checksum,
        /// Make a new, sparse file of this size first
        #[arg(long, value_name = "SIZE")]
        size: Option<ByteSize>,
        /// Write over a device that carries a known signature
        #[arg(long)]
        force: bool,
        /// How it is confirmed.
        #[command(flatten)]
        consent: Consent,
    },
    /// Let the daemon serve a store, now and after every restart
    ///
    /// Every volume of the store is served again. A volume whose origin is
    /// missing, or is not what it was when the daemon last stopped, is not served,
    /// and the reason is shown. On a store that is attached already this tries
    /// such origins again.
    #[command(after_help = "Examples:\n  csnapctl store attach /dev/sdb\n  \
                            csnapctl store attach /dev/sdb --accept-changed-origin web")]
    Attach {
        /// The device, or a file
        device: PathBuf,
        /// Serve this volume although its origin was changed without csnap: its
        /// snapshots are dropped, because they no longer can be right, and users of
        /// its device that waits get I/O errors
        #[arg(long, value_name = "VOLUME")]
        accept_changed_origin: Vec<String>,
        /// The origin of this volume is the same disk as before, although its serial
        /// number or other identification is not: it is connected in another way. Its
        /// snapshots are kept, so say this only if you are sure
        #[arg(long, value_name = "VOLUME")]
        same_origin: Vec<String>,
        /// How dropping snapshots is confirmed.
        #[command(flatten)]
        consent: Consent,
    },
    /// Stop serving a store
    ///
    /// Everything is written out, nothing is lost; `store attach` serves it again.
    /// While it is detached its origins must not be written, or their snapshots
    /// would no longer be right (this is noticed at the next attach). Refused while
    /// a block device of it is open or NBD clients are connected.
    #[command(after_help = "Example:\n  csnapctl store detach /dev/sdb")]
    Detach {
        /// Path or UUID
        store: String,
        /// Do it although it is in use: its users get I/O errors
        #[arg(long)]
        force: bool,
    },
    /// Show how the stores are: space, journal, counters
    #[command(after_help = "Examples:\n  csnapctl store status\n  \
                            csnapctl store status /dev/sdb --bytes\n  \
                            csnapctl store status --json -o path,used,size")]
    Status {
        /// Path or UUID; all stores when left out
        store: Option<String>,
    },
    /// Make a store as large as its device has become
    ///
    /// Extend the device first (lvextend, the array's own tool), then this. Nothing has
    /// to be stopped, and writes that wait for room go on. A store in a file is made
    /// longer by --size. A store never becomes smaller. Each TiB needs 64 MiB of memory.
    ///
    /// Do it soon after the device became larger: until then the store's second
    /// superblock is not at the device's end, where it is looked for should the first one
    /// be damaged.
    #[command(
        after_help = "Examples:\n  lvextend -L +100G vg0/snapstore && csnapctl store extend /dev/vg0/snapstore\n  \
                            csnapctl store extend /var/lib/csnap/store.img --size 40G"
    )]
    Extend {
        /// Path or UUID
        store: String,
        /// Make the store's file so large first
        #[arg(long, value_name = "SIZE")]
        size: Option<ByteSize>,
    },
    /// Verify the kept data of an attached store while it is served
    ///
    /// Reads every copied chunk and compares its checksums, at most at the rate given,
    /// and waits for the end. What is damaged is named with its block and the snapshots
    /// that need it, as an event too. Reads of it fail; everything else is right.
    /// Interrupting csnapctl does not stop the scrub, --stop does. Data copied since the
    /// newest checkpoint (half a minute at most) is left to the next scrub.
    ///
    /// Exits with 6 when damage is found, with 4 when a scrub is under way already.
    #[command(after_help = "Examples:\n  csnapctl store scrub /dev/sdb\n  \
                            csnapctl store scrub /dev/sdb --rate 20M --background\n  \
                            csnapctl store scrub /dev/sdb --status --json\n  \
                            csnapctl store scrub /dev/sdb --stop")]
    Scrub {
        /// Path or UUID
        store: String,
        /// Bytes a second at most; not less than 1M
        #[arg(long, value_name = "SIZE", default_value = "100M")]
        rate: ByteSize,
        /// Do not wait for the end
        #[arg(long)]
        background: bool,
        /// Only show how far it is, or what the last one found
        #[arg(long, conflicts_with_all = ["stop", "background"])]
        status: bool,
        /// End the one under way
        #[arg(long, conflicts_with = "background")]
        stop: bool,
    },
    /// Check a store that is not attached
    ///
    /// Reads every superblock, table, tree node and journal block and verifies
    /// what they say of each other; with --data also every chunk. Changes nothing.
    /// Exits with 6 when problems are found, with 4 when the store is in use.
    #[command(after_help = "Examples:\n  csnapctl store check /dev/sdb\n  \
                            csnapctl store check --data /dev/sdb")]
    Check {
        /// The device, or a file
        device: PathBuf,
        /// Also read and verify the kept data itself
        #[arg(long)]
        data: bool,
    },
    /// Make a damaged store that is not attached sound again
    ///
    /// First says what is wrong and what that costs, then asks. What can be derived is
    /// made anew: bitmap, counters, era tree, a superblock. What cannot is lost, and
    /// exactly that is said: chunks whose reads fail in the snapshots named, snapshots
    /// that are dropped because nobody knows any more what they need. What stays is
    /// right; the origins are never touched. A repair that was interrupted is done
    /// again.
    ///
    /// If the store can still be attached, copy what you need from its snapshots first.
    /// Exits with 0 when the store is sound, with 6 when it is not (also after a dry
    /// run), with 4 when the store is in use.
    #[command(
        after_help = "Examples:\n  csnapctl store repair /dev/sdb --dry-run\n  \
                            csnapctl store repair /dev/sdb\n  \
                            csnapctl store repair /dev/sdb --data --yes --json"
    )]
    Repair {
        /// The device, or a file
        device: PathBuf,
        /// Also read the kept data, and give up what is damaged
        #[arg(long)]
        data: bool,
        /// How it is confirmed.
        #[command(flatten)]
        consent: Consent,
    },
    /// Print a store's metadata
    ///
    /// For people who develop or repair. The store must not be attached. Damaged blocks
    /// are lines beginning with `!`, and the dump goes on behind them. With --json every
    /// line is an object whose "kind" says what it is; the first names the schema.
    #[command(after_help = "Examples:\n  csnapctl store dump /dev/sdb > sdb.txt\n  \
                            csnapctl store dump /dev/sdb --json --only snapshots,journal\n  \
                            csnapctl store dump /dev/sdb --only bitmap")]
    Dump {
        /// The device, or a file
        device: PathBuf,
        /// These structures only; without it all but eras, nodes and bitmap, which say
        /// nothing new
        #[arg(long, value_name = "NAME,...", value_delimiter = ',')]
        only: Vec<StructureArg>,
    },
}

/// A part of a store.
#[derive(Debug, Clone, Copy, ValueEnum)]
pub enum StructureArg {
    /// Both superblocks
    Superblocks,
    /// The volume table
    Volumes,
    /// The snapshot table
    Snapshots,
    /// How many exceptions which snapshots share
    Sharing,
    /// Which chunk is kept where, for which snapshots
    Exceptions,
    /// What happened since the last checkpoint
    Journal,
    /// The exceptions in the order they were made
    Eras,
    /// The nodes of every tree
    Nodes,
    /// The blocks in use
    Bitmap,
}

impl From<StructureArg> for Structure {
    fn from(arg: StructureArg) -> Self {
        match arg {
            StructureArg::Superblocks => Self::Superblocks,
            StructureArg::Volumes => Self::Volumes,
            StructureArg::Snapshots => Self::Snapshots,
            StructureArg::Sharing => Self::Sharing,
            StructureArg::Exceptions => Self::Exceptions,
            StructureArg::Journal => Self::Journal,
            StructureArg::Eras => Self::Eras,
            StructureArg::Nodes => Self::Nodes,
            StructureArg::Bitmap => Self::Bitmap,
        }
    }
}
