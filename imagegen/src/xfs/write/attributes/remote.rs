//! Values too large for a leaf: in blocks of their own, each with a header, one value
//! after the other behind the leaves (`xfs_attr_remote.c`).

use super::record::Records;
use crate::xfs::format::attr::{REMOTE_CRC_AT, REMOTE_MAGIC, RemoteHeader};
use crate::xfs::geometry::Geometry;
use crate::xfs::write::ForkError;
use crate::xfs::write::output::{Output, put};

/// The sequence number of what never is in the log (`NULLCOMMITLSN`).
const NEVER_LOGGED: u64 = u64::MAX;

/// All such values of an inode.
#[derive(Debug, Default)]
pub(super) struct Values(Vec<Value>);

#[derive(Debug)]
struct Value {
    /// Which record it belongs to.
    record: u32,
    /// Its first block in the fork.
    block: u64,
    bytes: Box<[u8]>,
}

/// Bytes of a value that a block holds.
fn room(geometry: &Geometry) -> usize {
    geometry.block_size() - size_of::<RemoteHeader>()
}

impl Values {
    /// Adds the value of record `record`.
    pub(super) fn add(&mut self, record: u32, bytes: &[u8]) {
        self.0.push(Value {
            record,
            block: 0,
            bytes: bytes.into(),
        });
    }

    /// Gives every value its blocks from `first` on and tells the records; returns the
    /// end.
    pub(super) fn place(
        &mut self,
        geometry: &Geometry,
        first: u64,
        records: &mut Records,
    ) -> Result<u64, ForkError> {
        let too_many = |_| ForkError::TooMany { what: "attributes" };
        let mut next = first;
        for value in &mut self.0 {
            value.block = next;
            records.set_value_block(value.record, u32::try_from(next).map_err(too_many)?);
            next += value.bytes.len().div_ceil(room(geometry)) as u64;
        }
        u32::try_from(next).map_err(too_many)?;
        Ok(next)
    }

    /// Hands out the blocks of all values.
    pub(super) fn encode(&self, output: &mut Output<'_>) {
        let room = room(output.geometry);
        for value in &self.0 {
            for (index, part) in value.bytes.chunks(room).enumerate() {
                let offset = value.block + index as u64;
                let header = RemoteHeader {
                    magic: REMOTE_MAGIC.into(),
                    offset: ((index * room) as u32).into(),
                    bytes: (part.len() as u32).into(),
                    uuid: *output.geometry.uuid.as_bytes(),
                    owner: output.owner.into(),
                    daddr: output.daddr(offset).into(),
                    lsn: NEVER_LOGGED.into(),
                    ..RemoteHeader::default()
                };
                let mut block = vec![0; output.geometry.block_size()];
                put(&mut block, 0, &header);
                put(&mut block, size_of::<RemoteHeader>(), part);
                output.write(offset, &mut block, REMOTE_CRC_AT);
            }
        }
    }
}
