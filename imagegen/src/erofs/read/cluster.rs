//! Decoded clusters, each decoded once as long as it is in the cache.

use super::decode::{Decoded, Request, decode};
use super::error::{ReadError, Result, damaged};
use super::{Coding, Extent, Image, Inode, Where};
use crate::medium::Source;
use std::sync::Arc;

const NAME: &str = "compressed contents";

/// What makes decoded bytes what they are.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct ClusterKey {
    place: Where,
    coding: Coding,
    length: u64,
    /// Where in a block they begin, for what is interlaced.
    turned: u64,
}

impl<S: Source> Image<S> {
    /// The contents of an extent that is stored in another form.
    pub(super) fn cluster(&self, inode: &Inode, extent: &Extent) -> Result<Arc<[u8]>> {
        let block = self.superblock.block_size() as u64;
        let key = ClusterKey {
            place: extent.place,
            coding: extent.coding,
            length: extent.length,
            turned: match extent.coding {
                Coding::Interlaced => extent.offset % block,
                _ => 0,
            },
        };
        if let Some(bytes) = self.clusters.lock().get(&key) {
            return Ok(bytes);
        }
        let bytes = Arc::from(self.decode(inode, extent)?.bytes);
        self.clusters.lock().put(key, &bytes);
        Ok(bytes)
    }

    /// The same, not through the cache.
    pub(crate) fn decode(&self, inode: &Inode, extent: &Extent) -> Result<Decoded> {
        let stored = self.stored(inode, extent)?;
        let block = self.superblock.block_size();
        let inside = (extent.offset % block as u64) as usize;
        let request = Request {
            coding: extent.coding,
            wanted: extent.length as usize,
            block: (block, inside),
        };
        decode(&stored, request).map_err(|error| {
            let place = inode.contents_at(extent.offset);
            let flaw = format!("{}: {error}", show(extent.place));
            damaged(NAME, place, flaw)
        })
    }

    /// The bytes of an extent as they are stored.
    pub(crate) fn stored(&self, inode: &Inode, extent: &Extent) -> Result<Vec<u8>> {
        match extent.place {
            Where::Device(device, at, length) => {
                self.reachable(inode, extent)?;
                self.device_bytes(device, at, length as usize)
            }
            Where::Metadata(area, at, length) => {
                let mut bytes = vec![0; length as usize];
                self.metadata(area, at, &mut bytes)?;
                Ok(bytes)
            }
            Where::Hole | Where::Packed(_) => Ok(Vec::new()),
        }
    }

    /// Whether the device of an extent is there and long enough.
    pub(crate) fn reachable(&self, inode: &Inode, extent: &Extent) -> Result<()> {
        let Where::Device(device, at, length) = extent.place else {
            return Ok(());
        };
        let place = inode.contents_at(extent.offset);
        let Some(size) = self.device_size(device) else {
            return Err(match self.superblock.devices.len() {
                named if usize::from(device.0) > named => damaged(
                    "contents",
                    place,
                    format!("{device}, which is not in the table"),
                ),
                _ => ReadError::NoDevice {
                    place,
                    number: device.0,
                    tag: self.device_name(device),
                },
            });
        };
        if at.checked_add(length).is_none_or(|end| end > size) {
            let flaw = format!("{}, which has {size} bytes", show(extent.place));
            return Err(damaged("contents", place, flaw));
        }
        Ok(())
    }
}

/// A place for people.
pub(crate) fn show(place: Where) -> String {
    match place {
        Where::Hole => "a hole".into(),
        Where::Device(device, at, length) => format!("{length} bytes at byte {at} of {device}"),
        Where::Metadata(area, at, length) => format!("{length} bytes at {}", area.place(at)),
        Where::Packed(at) => format!("byte {at} of the packed inode"),
    }
}
