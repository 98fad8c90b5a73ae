//! The header, verified: what every other structure is computed from.

use super::error::{ReadError, Result, damaged};
use crate::qcow2::format::{
    self, Autoclear, Compatible, CompressionType, Header, Incompatible, RefcountWidth, Width,
};
use zerocopy::{FromZeros, IntoBytes};

/// Bits of `incompatible` that are known.
const KNOWN: u64 = Incompatible::Dirty.mask()
    | Incompatible::Corrupt.mask()
    | Incompatible::ExternalData.mask()
    | Incompatible::CompressionType.mask()
    | Incompatible::ExtendedL2.mask();

/// A table of the image.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Table {
    /// Its byte, on a cluster.
    pub offset: u64,
    /// Its entries, of 8 bytes each.
    pub entries: u64,
}

impl Table {
    /// Bytes of the table.
    #[must_use]
    pub const fn bytes(self) -> u64 {
        self.entries * 8
    }
}

/// What the header says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Layout {
    /// 2 or 3.
    pub version: u32,
    /// Bytes of the disk.
    pub size: u64,
    /// log2 of a cluster's bytes, and whether there are subclusters.
    pub width: Width,
    /// Width of refcounts.
    pub refcounts: RefcountWidth,
    /// How compressed clusters are compressed.
    pub compression: CompressionType,
    /// The active level 1 table.
    pub l1: Table,
    /// The refcount table.
    pub refcount_table: Table,
    /// Internal snapshots.
    pub snapshots: u32,
    /// Byte of their table.
    pub snapshots_at: u64,
    /// Byte and bytes of the backing file's name.
    pub backing_name: Option<(u64, u32)>,
    /// [`Incompatible`] bits.
    pub incompatible: u64,
    /// [`Compatible`] bits.
    pub compatible: u64,
    /// [`Autoclear`] bits.
    pub autoclear: u64,
    /// Bytes of the header: extensions follow.
    pub header_length: u32,
}

impl Layout {
    /// From the first bytes of an image, as many as there are of
    /// [`format::LENGTH_WITH_COMPRESSION`].
    ///
    /// # Errors
    /// If it is no QCOW2, one that this program does not know, or not sound.
    pub fn parse(bytes: &[u8]) -> Result<Self> {
        let header = header(bytes)?;
        if header.crypt_method != 0 {
            let what = format!("it is encrypted (method {})", header.crypt_method);
            return Err(ReadError::Unknown { what });
        }
        let incompatible = header.incompatible.get();
        if incompatible & !KNOWN != 0 {
            let what = format!("it has unknown features: bits {:#x}", incompatible & !KNOWN);
            return Err(ReadError::Unknown { what });
        }
        let layout = Self {
            version: header.version.get(),
            size: header.size.get(),
            width: width(&header)?,
            refcounts: refcounts(&header)?,
            compression: compression(&header)?,
            l1: Table {
                offset: header.l1_table_offset.get(),
                entries: header.l1_size.get().into(),
            },
            refcount_table: refcount_table(&header),
            snapshots: header.nb_snapshots.get(),
            snapshots_at: header.snapshots_offset.get(),
            backing_name: match header.backing_file_offset.get() {
                0 => None,
                at => Some((at, header.backing_file_size.get())),
            },
            incompatible,
            compatible: header.compatible.get(),
            autoclear: header.autoclear.get(),
            header_length: header.header_length.get(),
        };
        layout.verify()?;
        Ok(layout)
    }

    /// Bytes of a cluster.
    #[must_use]
    pub const fn cluster(&self) -> u64 {
        1 << self.width.cluster_bits
    }

    /// Whether this bit is set.
    #[must_use]
    pub const fn has(&self, feature: Incompatible) -> bool {
        self.incompatible & feature.mask() != 0
    }

    /// Whether this bit is set.
    #[must_use]
    pub const fn allows(&self, feature: Compatible) -> bool {
        self.compatible & feature.mask() != 0
    }

    /// Whether this bit is set.
    #[must_use]
    pub const fn keeps(&self, feature: Autoclear) -> bool {
        self.autoclear & feature.mask() != 0
    }

    /// Entries a level 1 table needs for a disk of `size` bytes.
    #[must_use]
    pub const fn l1_entries(&self, size: u64) -> u64 {
        size.div_ceil(1 << self.width.table_bits())
    }

    fn verify(&self) -> Result<()> {
        let flaw = if self.l1.bytes() > format::MOST_L1_BYTES {
            "its level 1 table is larger than 32 MiB".to_owned()
        } else if self.l1.entries < self.l1_entries(self.size) {
            let needed = self.l1_entries(self.size);
            format!(
                "its level 1 table has {} entries of {needed}",
                self.l1.entries
            )
        } else if !self.is_cluster(self.l1.offset) {
            format!(
                "its level 1 table is not on a cluster: byte {}",
                self.l1.offset
            )
        } else if !self.is_cluster(self.refcount_table.offset) || self.refcount_table.offset == 0 {
            let at = self.refcount_table.offset;
            format!("its refcount table is not on a cluster: byte {at}")
        } else if self.refcount_table.entries == 0
            || self.refcount_table.bytes() > format::MOST_REFTABLE_BYTES
        {
            format!(
                "its refcount table has {} bytes",
                self.refcount_table.bytes()
            )
        } else if self.snapshots > format::MOST_SNAPSHOTS {
            format!("it has {} snapshots, more than 65536", self.snapshots)
        } else if self.snapshots > 0 && !self.is_cluster(self.snapshots_at) {
            format!(
                "its snapshot table is not on a cluster: byte {}",
                self.snapshots_at
            )
        } else {
            return self.verify_backing();
        };
        Err(damaged("header", 0, flaw))
    }

    fn verify_backing(&self) -> Result<()> {
        let Some((at, length)) = self.backing_name else {
            return Ok(());
        };
        let end = at.saturating_add(length.into());
        if length > format::MOST_BACKING_NAME || end > self.cluster() {
            let flaw = format!("the backing file's name has {length} bytes at byte {at}");
            return Err(damaged("header", 0, flaw));
        }
        Ok(())
    }

    const fn is_cluster(&self, offset: u64) -> bool {
        offset.is_multiple_of(self.cluster())
    }
}

/// The header in version 3's words.
fn header(bytes: &[u8]) -> Result<Header> {
    let mut header = Header::new_zeroed();
    let length = bytes.len().min(size_of::<Header>());
    let (to, from) = (header.as_mut_bytes(), bytes);
    to[..length].copy_from_slice(&from[..length]);
    if length < 4 || header.magic != format::MAGIC {
        return Err(ReadError::Alien(header.magic.get()));
    }
    let needed = match header.version.get() {
        2 => format::LENGTH_V2,
        3 => format::LENGTH_V3,
        version => {
            let what = format!("it is QCOW version {version}");
            return Err(ReadError::Unknown { what });
        }
    };
    if length < needed as usize {
        return Err(damaged("header", 0, format!("it ends at byte {length}")));
    }
    if header.version == 2 {
        header.as_mut_bytes()[needed as usize..].fill(0);
        header.refcount_order = RefcountWidth::V2.order().into();
        header.header_length = needed.into();
    } else if header.header_length < format::LENGTH_V3 || header.header_length.get() % 8 != 0 {
        let flaw = format!("it says that it has {} bytes", header.header_length);
        return Err(damaged("header", 0, flaw));
    } else if header.header_length < format::LENGTH_WITH_COMPRESSION {
        header.compression_type = 0;
    }
    Ok(header)
}

fn width(header: &Header) -> Result<Width> {
    let cluster_bits = header.cluster_bits.get();
    let extended = header.incompatible.get() & Incompatible::ExtendedL2.mask() != 0;
    let least = match extended {
        true => format::LEAST_SUBCLUSTER_BITS,
        false => format::LEAST_CLUSTER_BITS,
    };
    if !(least..=format::MOST_CLUSTER_BITS).contains(&cluster_bits) {
        let flaw = format!("it says that clusters have 2^{cluster_bits} bytes");
        return Err(damaged("header", 0, flaw));
    }
    if header.header_length.get() > 1 << cluster_bits {
        let flaw = format!("it says that it has {} bytes", header.header_length);
        return Err(damaged("header", 0, flaw));
    }
    Ok(Width {
        cluster_bits,
        extended,
    })
}

fn refcounts(header: &Header) -> Result<RefcountWidth> {
    let order = header.refcount_order.get();
    RefcountWidth::from_order(order).ok_or_else(|| {
        let flaw = format!("it says that refcounts have 2^{order} bits");
        damaged("header", 0, flaw)
    })
}

fn compression(header: &Header) -> Result<CompressionType> {
    let flagged = header.incompatible.get() & Incompatible::CompressionType.mask() != 0;
    let found = CompressionType::from_number(header.compression_type);
    match found {
        Some(found) if flagged == (found != CompressionType::Deflate) => Ok(found),
        Some(_) => {
            let flaw = "its compression type contradicts its feature bit";
            Err(damaged("header", 0, flaw))
        }
        None => {
            let what = format!("it has compression type {}", header.compression_type);
            Err(ReadError::Unknown { what })
        }
    }
}

fn refcount_table(header: &Header) -> Table {
    // Clusters have at most 2^21 bytes here: no overflow.
    let clusters = u64::from(header.refcount_table_clusters.get());
    Table {
        offset: header.refcount_table_offset.get(),
        entries: clusters << (header.cluster_bits.get() - 3),
    }
}
