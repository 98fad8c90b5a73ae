//! What every block of metadata says about itself, compared with what it should say.

use super::{Flaw, Place, Reader, Result, Source, damaged};
use crate::xfs::format::checksum;

/// What a block says about itself.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Label {
    /// Its magic number.
    pub(crate) magic: u32,
    /// Its file system.
    pub(crate) uuid: [u8; 16],
    /// Its place, where it says so.
    pub(crate) daddr: Option<u64>,
    /// Whose it is, where it says so.
    pub(crate) owner: Option<u64>,
    /// Sequence of its last change, or all ones.
    pub(crate) lsn: u64,
}

/// What it should say.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Wanted<'a> {
    pub(crate) structure: &'static str,
    pub(crate) place: Place,
    pub(crate) magic: &'a [u32],
    pub(crate) crc_at: usize,
    pub(crate) daddr: u64,
    pub(crate) owner: u64,
}

impl<S: Source> Reader<S> {
    /// Whether `bytes` with `label` are the block that is wanted.
    pub(crate) fn verify(&self, bytes: &[u8], label: &Label, wanted: &Wanted<'_>) -> Result<()> {
        let flaw = if !wanted.magic.contains(&label.magic) {
            Flaw::Magic(label.magic)
        } else if !checksum::holds(bytes, wanted.crc_at) {
            Flaw::Checksum
        } else if label.uuid != self.meta_uuid {
            Flaw::Uuid
        } else if let Some(daddr) = label.daddr.filter(|daddr| *daddr != wanted.daddr) {
            Flaw::Address(daddr)
        } else if let Some(owner) = label.owner.filter(|owner| *owner != wanted.owner) {
            Flaw::Owner(owner)
        } else if label.lsn != u64::MAX && self.newest.is_some_and(|newest| label.lsn > newest) {
            Flaw::Newer(label.lsn)
        } else {
            return Ok(());
        };
        Err(damaged(wanted.structure, wanted.place, flaw))
    }
}
