//! Which version of which disk an image was made of, so that images are not taken for each
//! other. It stays what it is when the image is written to, or laid over another: by now an
//! image may hold something else.

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

    /// Whether this lies over `below` as it was made to; with nothing below, whether it has
    /// everything itself.
    ///
    /// # Errors
    /// Why not.
    pub fn over(&self, below: Option<&Self>) -> Result<(), Misfit> {
        match (self.since, below) {
            (None, None) => Ok(()),
            (Some(_), None) => Err(Misfit::Nothing),
            (_, Some(below)) if self.disk != below.disk => Err(Misfit::OtherDisk),
            (since, Some(below)) => match below.version.cmp(&since.map_or(0, NonZeroU64::get)) {
                Ordering::Less => Err(Misfit::Older),
                Ordering::Equal => Ok(()),
                Ordering::Greater => Err(Misfit::Newer),
            },
        }
    }
}

/// Why an image cannot be known to lie where it was made to.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Misfit {
    /// It needs an image below, and there is none.
    #[error("it is an increment, and nothing lies below it")]
    Nothing,
    /// The two are of different disks.
    #[error("they were made of two disks")]
    OtherDisk,
    /// What lies below was made before what is needed.
    #[error(
        "the one below was made of an earlier version than the other needs, which is right only \
         if what changed until then was committed into it"
    )]
    Older,
    /// What lies below was made after what is needed.
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
        let below = Some(&below);
        assert_eq!(made(1, 7, 5).over(below), Ok(()));
        assert_eq!(made(1, 7, 6).over(below), Err(Misfit::Older));
        assert_eq!(made(1, 7, 4).over(below), Err(Misfit::Newer));
        assert_eq!(made(1, 7, 0).over(below), Err(Misfit::Newer));
        assert_eq!(made(2, 7, 5).over(below), Err(Misfit::OtherDisk));
        assert_eq!(made(1, 7, 5).over(None), Err(Misfit::Nothing));
        assert_eq!(made(1, 7, 0).over(None), Ok(()));
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
