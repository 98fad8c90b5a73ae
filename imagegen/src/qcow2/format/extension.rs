//! Header extensions (specification: "Header extensions"): type, length, contents padded
//! to 8 bytes; the last has type 0.

use super::{U32, U64, on_disk, size};

on_disk! {
    /// What each begins with.
    pub struct ExtensionHeader {
        /// [`ExtensionKind`].
        pub kind: U32,
        /// Bytes of what follows, without padding.
        pub length: U32,
    }
}
size!(ExtensionHeader, 8);

/// Kinds that are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u32)]
pub enum ExtensionKind {
    /// No more follow.
    End = 0,
    /// Format of the backing file, as text.
    BackingFormat = 0xe279_2aca,
    /// Names of feature bits.
    FeatureNames = 0x6803_f857,
    /// Where the bitmaps lie.
    Bitmaps = 0x2385_2875,
    /// Where the LUKS header lies.
    Encryption = 0x0537_be77,
    /// Name of the external data file.
    ExternalDataName = 0x4441_5441,
    /// [`ProvenanceExtension`]; "csnp". The specification lets programs that do not know a
    /// kind ignore it, and QEMU keeps it when it writes the header again.
    Provenance = 0x6373_6e70,
}

impl ExtensionKind {
    /// By its number.
    #[must_use]
    pub const fn from_number(number: u32) -> Option<Self> {
        match number {
            0 => Some(Self::End),
            0xe279_2aca => Some(Self::BackingFormat),
            0x6803_f857 => Some(Self::FeatureNames),
            0x2385_2875 => Some(Self::Bitmaps),
            0x0537_be77 => Some(Self::Encryption),
            0x4441_5441 => Some(Self::ExternalDataName),
            0x6373_6e70 => Some(Self::Provenance),
            _ => None,
        }
    }
}

on_disk! {
    /// Which version of which disk the image was made of. Not in the specification.
    pub struct ProvenanceExtension {
        /// UUID of the disk.
        pub disk: [u8; 16],
        /// Number of the version, greater than those of older ones.
        pub version: U64,
        /// Number of the version that the image needs below it; 0: it needs none.
        pub since: U64,
    }
}
size!(ProvenanceExtension, 32);

on_disk! {
    /// A feature's name, for messages of programs that do not know the feature.
    pub struct FeatureName {
        /// [`FeatureNameKind`].
        pub kind: u8,
        /// Number of the bit.
        pub bit: u8,
        /// The name, padded with zeroes.
        pub name: [u8; 46],
    }
}
size!(FeatureName, 48);

/// Which field a named bit stands in.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FeatureNameKind {
    /// `incompatible`.
    Incompatible = 0,
    /// `compatible`.
    Compatible = 1,
    /// `autoclear`.
    Autoclear = 2,
}
