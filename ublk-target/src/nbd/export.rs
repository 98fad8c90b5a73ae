//! What is known of an export, and where exports come from.
//!
//! [`ExportInfo`] is a plain value, fixed while a connection lives: what the
//! negotiation tells the client is what the transmission phase checks requests
//! against. [`Exports`] is implemented by the daemon; this code knows neither
//! volumes nor the runtime.

use super::wire::{MAX_PAYLOAD, export_flag};

/// What a client is told of an export, and what its requests are checked against.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ExportInfo {
    size: u64,
    read_only: bool,
    minimum: u32,
    preferred: u32,
    maximum: u32,
    fast_zero: bool,
}

/// Facts no client could be served by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum BadExportInfo {
    /// The size is not a multiple of the minimum block size.
    #[error(
        "the size {size} is no multiple of the block size {minimum}; grow the image to a multiple"
    )]
    Size {
        /// Bytes.
        size: u64,
        /// Bytes.
        minimum: u32,
    },
    /// A block size breaks the rules of the protocol ("Block size constraints").
    #[error(
        "block sizes {minimum}/{preferred}/{maximum} are not allowed: minimum and preferred are \
         powers of two, minimum at most 64 KiB, each at most the next, the largest at most 32 MiB \
         and a multiple of the first"
    )]
    BlockSizes {
        /// Bytes.
        minimum: u32,
        /// Bytes.
        preferred: u32,
        /// Bytes.
        maximum: u32,
    },
}

impl ExportInfo {
    /// An export of `size` bytes. Block sizes are in bytes: every request is a
    /// multiple of `minimum` (512 or the device's logical block), `preferred` is
    /// best for throughput (the chunk), `maximum` is the longest payload of a read
    /// or a write (what an I/O buffer holds).
    ///
    /// # Errors
    /// When no client could be served with these facts.
    pub fn new(
        size: u64,
        read_only: bool,
        minimum: u32,
        preferred: u32,
        maximum: u32,
    ) -> Result<Self, BadExportInfo> {
        let ordered = minimum <= preferred && preferred <= maximum && maximum <= MAX_PAYLOAD;
        let powers = minimum.is_power_of_two() && preferred.is_power_of_two();
        if !ordered || !powers || minimum > 64 << 10 || !maximum.is_multiple_of(minimum) {
            return Err(BadExportInfo::BlockSizes {
                minimum,
                preferred,
                maximum,
            });
        }
        let info = Self {
            size: 0,
            read_only,
            minimum,
            preferred,
            maximum,
            fast_zero: false,
        };
        info.with_size(size)
    }

    /// The same with another size, in bytes.
    ///
    /// # Errors
    /// When it is no multiple of the minimum block size.
    pub fn with_size(self, size: u64) -> Result<Self, BadExportInfo> {
        let minimum = self.minimum;
        if size.is_multiple_of(u64::from(minimum)) {
            Ok(Self { size, ..self })
        } else {
            Err(BadExportInfo::Size { size, minimum })
        }
    }

    /// Promises that a write-zeroes with `fast` is either faster than writing or
    /// answered with [`Errno::NotSup`](super::Errno::NotSup).
    #[must_use]
    pub fn with_fast_zero(self) -> Self {
        Self {
            fast_zero: true,
            ..self
        }
    }

    /// Bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Nothing may change it.
    #[must_use]
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// Every offset and length is a multiple of it; bytes.
    #[must_use]
    pub fn minimum_block(&self) -> u32 {
        self.minimum
    }

    /// Best for throughput; bytes.
    #[must_use]
    pub fn preferred_block(&self) -> u32 {
        self.preferred
    }

    /// Longest payload of a read or a write; bytes.
    #[must_use]
    pub fn maximum_payload(&self) -> u32 {
        self.maximum
    }

    /// Whether a fast write-zeroes may be asked for.
    #[must_use]
    pub fn fast_zero(&self) -> bool {
        self.fast_zero
    }

    /// The transmission flags told to a client that has (not) asked for
    /// structured replies.
    ///
    /// Multi-connection is promised because a flush covers the volume, not the
    /// connection. `SEND_CACHE` is not: all I/O is direct, there is no cache to fill.
    #[must_use]
    pub fn flags(&self, structured: bool) -> u16 {
        let mut flags = export_flag::HAS_FLAGS
            | export_flag::SEND_FLUSH
            | export_flag::SEND_FUA
            | export_flag::CAN_MULTI_CONN;
        if structured {
            flags |= export_flag::SEND_DF;
        }
        if self.read_only {
            return flags | export_flag::READ_ONLY;
        }
        flags |= export_flag::SEND_TRIM | export_flag::SEND_WRITE_ZEROES;
        if self.fast_zero {
            flags |= export_flag::SEND_FAST_ZERO;
        }
        flags
    }
}

/// One line of the list of exports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ExportEntry {
    /// What a client opens: `vol` or `vol@name`.
    pub name: String,
    /// Opened when somebody asks for it: never the export that is meant when no name is
    /// given.
    pub on_demand: bool,
}

/// An older snapshot, for the question what changed since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Since {
    /// The daemon's number for it.
    pub tag: u64,
    /// Its size in bytes: what lies beyond has changed.
    pub size: u64,
}

/// Where exports come from.
pub trait Exports {
    /// An opened export. Dropping it closes it again.
    type Export;

    /// All exports there are now.
    fn list(&self) -> Vec<ExportEntry>;

    /// What it is, for people; may be empty.
    fn describe(&self, name: &str) -> String;

    /// The snapshots an export can be compared with, by their names without the
    /// volume's.
    fn older(&self, name: &str) -> Vec<(String, Since)> {
        let _ = name;
        Vec::new()
    }

    /// Opens an export and says what it is like. Also called for a client that only
    /// asks, so it has to be cheap.
    ///
    /// # Errors
    /// When it is not there or may not be opened; the message goes to the client.
    fn open(&self, name: &str) -> Result<(Self::Export, ExportInfo), Refusal>;
}

/// Why an export cannot be opened.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{message}")]
pub struct Refusal {
    /// Which error the client sees.
    pub kind: RefusalKind,
    /// For the person behind the client; names the export and the next step.
    pub message: String,
}

/// Kinds of [`Refusal`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum RefusalKind {
    /// There is no such export.
    Unknown,
    /// It is there but may not be opened now.
    Policy,
    /// The daemon is stopping.
    Shutdown,
}
