//! Which device is ours: what a block device serves, and the number under which
//! the driver keeps that for us.
//!
//! The driver stores 64 bits of the server's own with every device
//! (`ublksrv_flags`). csnap puts a digest of what the device serves there, so a
//! number that the kernel gave to somebody else meanwhile is never taken for one
//! of ours.

use sha2::{Digest, Sha256};
use snapstore::{Tag, VolumeId};
use uuid::Uuid;

use crate::export::ExportTarget;

/// What a block device serves, over restarts and renames.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// The store.
    pub store: Uuid,
    /// Number of the volume in it.
    pub volume: u32,
    /// Tag of the snapshot; `None` for the live origin.
    pub tag: Option<u64>,
}

impl Key {
    /// What serves `target` of `store`.
    #[must_use]
    pub fn new(store: Uuid, target: ExportTarget) -> Self {
        let (VolumeId(volume), tag) = match target {
            ExportTarget::Origin(volume) => (volume, None),
            ExportTarget::Snapshot(volume, Tag(tag)) => (volume, Some(tag)),
        };
        Self { store, volume, tag }
    }

    /// The first 8 bytes, little-endian, of SHA-256 over the store's UUID, the
    /// volume's number (4 bytes, little-endian), and for a snapshot its tag (8
    /// bytes, little-endian): kept in `ublksrv_flags`.
    #[must_use]
    pub fn identity(&self) -> u64 {
        let mut hash = Sha256::new();
        hash.update(self.store.as_bytes());
        hash.update(self.volume.to_le_bytes());
        if let Some(tag) = self.tag {
            hash.update(tag.to_le_bytes());
        }
        let digest: [u8; 32] = hash.finalize().into();
        digest
            .iter()
            .take(8)
            .rev()
            .fold(0, |value, &byte| value << 8 | u64::from(byte))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Devices wait in the kernel across an upgrade of csnapd: the number must
    /// never come out differently.
    #[test]
    fn the_identity_of_a_device_is_for_ever() {
        let store = Uuid::from_u128(0x0011_2233_4455_6677_8899_aabb_ccdd_eeff);
        let live = Key::new(store, ExportTarget::Origin(VolumeId(1)));
        let snapshot = Key::new(store, ExportTarget::Snapshot(VolumeId(1), Tag(7)));
        // printf 'UUID VOLUME [TAG]' | xxd -r -p | sha256sum, first 8 bytes.
        assert_eq!(live.identity().to_le_bytes(), LIVE);
        assert_eq!(snapshot.identity().to_le_bytes(), SNAPSHOT);
    }

    const LIVE: [u8; 8] = [0x32, 0x3b, 0x40, 0xe0, 0x02, 0x6d, 0x2e, 0x71];
    const SNAPSHOT: [u8; 8] = [0xcb, 0x0a, 0xe4, 0xd0, 0x0d, 0xc2, 0x1d, 0x0d];

    #[test]
    fn whatever_differs_makes_another_identity() {
        let key = |store, volume, tag| {
            let store = Uuid::from_u128(store);
            Key { store, volume, tag }.identity()
        };
        let mut all = vec![
            key(1, 1, None),
            key(2, 1, None),
            key(1, 2, None),
            key(1, 1, Some(0)),
            key(1, 1, Some(1)),
        ];
        all.sort_unstable();
        all.dedup();
        assert_eq!(all.len(), 5);
    }
}
