//! What a sector holds.
//!
//! The oracle compares 64-bit digests; the disks carry the bytes. Zeroes are
//! the one content everybody knows, and cost nothing.

use std::sync::{Arc, OnceLock};

use snapstore::Checksum;

/// Bytes in the smallest unit a disk writes at once.
pub const SECTOR: usize = 512;
/// Sectors in a metadata block.
pub const PER_BLOCK: u64 = (snapstore::BLOCK_SIZE / SECTOR) as u64;

/// The digest of a sector's contents; [`ZERO`] for zeroes.
pub type Value = u64;
/// The digest of a sector of zeroes.
pub const ZERO: Value = 0;

/// The contents of one sector, cheap to clone.
#[derive(Clone, Default)]
pub struct Data(Option<Arc<Sector>>);

/// Bytes that are not all zero, and their digest once somebody asked for it.
struct Sector {
    bytes: [u8; SECTOR],
    value: OnceLock<Value>,
}

static ZEROES: [u8; SECTOR] = [0; SECTOR];

impl Data {
    /// A sector of zeroes.
    #[must_use]
    pub const fn zero() -> Self {
        Self(None)
    }

    /// The contents `bytes`, padded or cut to a sector.
    #[must_use]
    pub fn of(bytes: &[u8]) -> Self {
        if bytes.iter().all(|b| *b == 0) {
            return Self(None);
        }
        let mut sector = ZEROES;
        let len = bytes.len().min(SECTOR);
        sector[..len].copy_from_slice(&bytes[..len]);
        Self::made_of(sector)
    }

    /// Contents that belong to no other `stamp`.
    #[must_use]
    pub fn pattern(stamp: u64) -> Self {
        let mut sector = ZEROES;
        let mut state = stamp.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1;
        for word in sector.chunks_exact_mut(8) {
            state = mix(state.wrapping_add(0x9e37_79b9_7f4a_7c15));
            word.copy_from_slice(&state.to_le_bytes());
        }
        Self::made_of(sector)
    }

    fn made_of(bytes: [u8; SECTOR]) -> Self {
        let value = OnceLock::new();
        Self(Some(Arc::new(Sector { bytes, value })))
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8; SECTOR] {
        self.0.as_deref().map_or(&ZEROES, |sector| &sector.bytes)
    }

    /// The digest the oracle knows it by.
    #[must_use]
    pub fn value(&self) -> Value {
        let Some(sector) = &self.0 else { return ZERO };
        *sector.value.get_or_init(|| digest(&sector.bytes))
    }

    /// The digest of these contents at one place of one disk. Those of all sectors,
    /// combined by exclusive or, say what the disks hold; zeroes add nothing.
    #[must_use]
    pub fn placed(&self, disk: usize, sector: u64) -> u64 {
        match self.value() {
            ZERO => 0,
            value => mix(value ^ mix(((disk as u64) << 56) | sector)),
        }
    }
}

impl PartialEq for Data {
    fn eq(&self, other: &Self) -> bool {
        match (&self.0, &other.0) {
            (Some(one), Some(two)) => Arc::ptr_eq(one, two) || one.bytes == two.bytes,
            (one, two) => one.is_none() && two.is_none(),
        }
    }
}

impl Eq for Data {}

impl std::fmt::Debug for Data {
    /// The digest: what a violation names the contents by.
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:x}", self.value())
    }
}

/// The bytes of sectors laid end to end.
#[must_use]
pub fn bytes_of(sectors: &[Data]) -> Vec<u8> {
    sectors.iter().flat_map(|s| *s.bytes()).collect()
}

/// Whole sectors made of `bytes`.
#[must_use]
pub fn sectors_of(bytes: &[u8]) -> Vec<Data> {
    bytes.chunks(SECTOR).map(Data::of).collect()
}

/// The checksum of every 4 KiB of `sectors`.
#[must_use]
pub fn checksums_of(checksum: Checksum, sectors: &[Data]) -> Vec<u32> {
    let mut bytes = [0; snapstore::BLOCK_SIZE];
    let mut of = |block: &[Data]| {
        for (bytes, sector) in bytes.chunks_exact_mut(SECTOR).zip(block) {
            bytes.copy_from_slice(sector.bytes());
        }
        checksum.of(&bytes[..block.len() * SECTOR])
    };
    sectors.chunks(PER_BLOCK as usize).map(&mut of).collect()
}

fn digest(bytes: &[u8; SECTOR]) -> Value {
    let mut digest = 0x1234_5678_9abc_def1;
    for word in bytes.chunks_exact(8) {
        let mut raw = [0; 8];
        raw.copy_from_slice(word);
        digest = mix(digest ^ u64::from_le_bytes(raw));
    }
    digest.max(1)
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    z ^ (z >> 31)
}
