//! Which version of which disk an image was made of, so that images are not taken for each
//! other. It stays what it is when the image is written to: an image may by now hold a
//! later version, but never an earlier one.

use std::cmp::Ordering;
use std::num::NonZeroU64;

use uuid::Uuid;
use zerocopy::FromBytes;

use super::format::ProvenanceExtension;

/// One version of one disk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Provenance {
    /// The disk.
    pub disk: Uuid,
    /// The version, a number greater than those of older ones.
    pub version: u64,
    /// The version that must lie below; `None`: the image has everything.
    pub since: Option<NonZeroU64>,
}

impl Provenance {
    /// The extension's bytes; `None`: there are too few of them.
    pub(super) fn decode(bytes: &[u8]) -> Option<Self> {
        // A later release may tell more.
        let (found, _) = ProvenanceExtension::read_from_prefix(bytes).ok()?;
        Some(Self {
            disk: Uuid::from_bytes(found.disk),
            version: found.version.get(),
            since: NonZeroU64::new(found.since.get()),
        })
    }

    pub(super) fn encode(&self) -> ProvenanceExtension {
        ProvenanceExtension {
            disk: self.disk.into_bytes(),
            version: self.version.into(),
            since: self.since.map_or(0, NonZeroU64::get).into(),
        }
    }

    /// Whether this may lie over `below`.
    ///
    /// # Errors
    /// Why it may not.
    pub fn over(&self, below: &Self) -> Result<Fit, Misfit> {
        let since = self.since.map_or(0, NonZeroU64::get);
        if self.disk != below.disk {
            return Err(Misfit::OtherDisk);
        }
        match below.version.cmp(&since) {
            Ordering::Less => Ok(Fit::IfCommitted),
            Ordering::Equal => Ok(Fit::Exact),
            Ordering::Greater => Err(Misfit::Newer),
        }
    }
}

/// How one image lies over another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// The other was made of the very version that is needed.
    Exact,
    /// The other was made of an older one, and is right only if what changed until the one
    /// that is needed was committed into it.
    IfCommitted,
}

/// Why an image cannot lie over another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// The two are of different disks.
    #[error("they were made of two disks")]
    OtherDisk,
    /// What lies below was made later than what is needed.
    #[error("the one below was made of a later version than the other needs")]
    Newer,
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use super::*;
    use zerocopy::IntoBytes;

    fn made(disk: u128, version: u64, since: u64) -> Provenance {
        Provenance {
            disk: Uuid::from_u128(disk),
            version,
            since: NonZeroU64::new(since),
        }
    }

    #[test]
    fn images_lie_over_what_they_need() {
        let below = made(1, 5, 0);
        assert_eq!(made(1, 7, 5).over(&below), Ok(Fit::Exact));
        assert_eq!(made(1, 7, 6).over(&below), Ok(Fit::IfCommitted));
        assert_eq!(made(1, 7, 4).over(&below), Err(Misfit::Newer));
        assert_eq!(made(1, 7, 0).over(&below), Err(Misfit::Newer));
        assert_eq!(made(2, 7, 5).over(&below), Err(Misfit::OtherDisk));
    }

    #[test]
    fn bytes_come_back() {
        for all in [made(77, u64::MAX, 0), made(0, 0, 9)] {
            let mut bytes = all.encode().as_bytes().to_vec();
            bytes.extend(b"more");
            assert_eq!(Provenance::decode(&bytes).unwrap(), all);
            assert_eq!(Provenance::decode(&bytes[..31]), None);
        }
    }
}
