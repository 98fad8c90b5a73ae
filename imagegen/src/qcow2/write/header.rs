//! The first cluster: header, extensions, the backing file's name.

use super::bitmaps::Directory;
use super::tables::Level1;
use super::{Options, WriteError};
use crate::qcow2::format::{
    self, Autoclear, BitmapsExtension, CompressionType, ExtensionHeader, ExtensionKind,
    FeatureName, FeatureNameKind, Header, Incompatible, LENGTH_V2, LENGTH_WITH_COMPRESSION, MAGIC,
};
use zerocopy::{FromZeros, IntoBytes};

/// Where the tables lie.
pub(super) struct Places {
    /// Level 1 of the disk.
    pub(super) l1: Level1,
    /// Byte and clusters of the refcount table.
    pub(super) refcounts: (u64, u32),
    /// Byte and entries of the snapshots' table.
    pub(super) snapshots: (u64, u32),
    /// The bitmaps' directory.
    pub(super) bitmaps: Option<Directory>,
}

/// Names of bits that this program may set, for programs that do not know them.
const NAMES: [(FeatureNameKind, u8, &str); 7] = [
    (FeatureNameKind::Incompatible, 0, "dirty bit"),
    (FeatureNameKind::Incompatible, 1, "corrupt bit"),
    (FeatureNameKind::Incompatible, 2, "external data file"),
    (FeatureNameKind::Incompatible, 3, "compression type"),
    (FeatureNameKind::Incompatible, 4, "extended L2 entries"),
    (FeatureNameKind::Autoclear, 0, "bitmaps"),
    (FeatureNameKind::Autoclear, 1, "raw external data"),
];

/// The bytes of the first cluster.
pub(super) fn first(options: &Options, size: u64, places: &Places) -> Result<Vec<u8>, WriteError> {
    let mut header = Header::new_zeroed();
    header.magic = MAGIC.into();
    header.version = options.version.into();
    header.cluster_bits = options.cluster_bits.into();
    header.size = size.into();
    header.l1_table_offset = places.l1.offset.into();
    header.l1_size = places.l1.entries.into();
    (header.snapshots_offset, header.nb_snapshots) =
        (places.snapshots.0.into(), places.snapshots.1.into());
    header.refcount_table_offset = places.refcounts.0.into();
    header.refcount_table_clusters = places.refcounts.1.into();
    let length = match options.version {
        2 => LENGTH_V2,
        _ => LENGTH_WITH_COMPRESSION,
    };
    if options.version > 2 {
        header.refcount_order = options.refcounts.order().into();
        header.header_length = length.into();
        header.incompatible = incompatible(options).into();
        header.autoclear = autoclear(options, places).into();
        header.compression_type = options.compression_type() as u8;
    }
    let mut rest = Vec::new();
    if let Some((_, format)) = &options.backing {
        extension(
            &mut rest,
            ExtensionKind::BackingFormat,
            format.name().as_bytes(),
        );
    }
    if let Some(name) = &options.data_file {
        extension(&mut rest, ExtensionKind::ExternalDataName, name.as_bytes());
    }
    if let Some(bitmaps) = &places.bitmaps {
        let mut place = BitmapsExtension::new_zeroed();
        place.count = bitmaps.count.into();
        place.directory_offset = bitmaps.offset.into();
        place.directory_size = bitmaps.length.into();
        extension(&mut rest, ExtensionKind::Bitmaps, place.as_bytes());
    }
    if let Some(provenance) = &options.provenance {
        let contents = provenance.encode();
        extension(&mut rest, ExtensionKind::Provenance, contents.as_bytes());
    }
    if options.version > 2 && options.cluster_bits > format::LEAST_CLUSTER_BITS {
        extension(&mut rest, ExtensionKind::FeatureNames, names().as_bytes());
    }
    extension(&mut rest, ExtensionKind::End, &[]);
    if let Some((name, _)) = &options.backing {
        let at = length as usize + rest.len();
        header.backing_file_offset = (at as u64).into();
        header.backing_file_size = (name.len() as u32).into();
        rest.extend_from_slice(name.as_bytes());
    }
    let mut bytes = header
        .as_bytes()
        .get(..length as usize)
        .unwrap_or_default()
        .to_vec();
    bytes.extend_from_slice(&rest);
    if bytes.len() > 1 << options.cluster_bits {
        return Err(WriteError::Option(
            "the names of other files do not fit into the first cluster; take larger clusters",
        ));
    }
    bytes.resize(1 << options.cluster_bits, 0);
    Ok(bytes)
}

/// Whether all of it has room: what [`first`] would find only when all else is written.
pub(super) fn fits(options: &Options, has_bitmaps: bool) -> Result<(), WriteError> {
    let bitmaps = has_bitmaps.then_some(Directory {
        count: 0,
        offset: 0,
        length: 0,
    });
    let l1 = Level1 {
        offset: 0,
        entries: 0,
    };
    let places = Places {
        l1,
        refcounts: (0, 0),
        snapshots: (0, 0),
        bitmaps,
    };
    first(options, 0, &places).map(drop)
}

fn incompatible(options: &Options) -> u64 {
    let mut bits = 0;
    if options.extended {
        bits |= Incompatible::ExtendedL2.mask();
    }
    if options.data_file.is_some() {
        bits |= Incompatible::ExternalData.mask();
    }
    if options.compression_type() != CompressionType::Deflate {
        bits |= Incompatible::CompressionType.mask();
    }
    bits
}

fn autoclear(options: &Options, places: &Places) -> u64 {
    let mut bits = 0;
    if places.bitmaps.is_some() {
        bits |= Autoclear::Bitmaps.mask();
    }
    if options.data_file.is_some() {
        bits |= Autoclear::RawExternal.mask();
    }
    bits
}

fn names() -> [FeatureName; NAMES.len()] {
    NAMES.map(|(kind, bit, name)| {
        let mut entry = FeatureName::new_zeroed();
        entry.kind = kind as u8;
        entry.bit = bit;
        for (to, from) in entry.name.iter_mut().zip(name.bytes()) {
            *to = from;
        }
        entry
    })
}

fn extension(bytes: &mut Vec<u8>, kind: ExtensionKind, contents: &[u8]) {
    let header = ExtensionHeader {
        kind: (kind as u32).into(),
        length: (contents.len() as u32).into(),
    };
    bytes.extend_from_slice(header.as_bytes());
    bytes.extend_from_slice(contents);
    bytes.resize(bytes.len().next_multiple_of(8), 0);
}
