//! One layer of a disk: where its bytes lie, and what they are.

use super::error::{ReadError, Result};
use super::{Extent, Layer, Place};
use crate::medium::Source;
use parking_lot::Mutex;
use std::ops::Range;
use std::sync::Arc;

/// A layer where it stands; several disks may stand on it.
#[derive(Debug)]
pub(super) struct Level<S> {
    pub(super) layer: Layer<S>,
    pub(super) size: u64,
    /// Of its file, if there are several that errors could be about.
    pub(super) name: Option<String>,
    /// What was last asked of a raw one.
    seen: Mutex<Seen>,
}

/// Bytes of a file that are all data, or all in a hole. Asking for that takes several
/// calls of the system, and pieces that are read follow each other.
#[derive(Debug, Default)]
struct Seen {
    range: Range<u64>,
    is_data: bool,
}

impl<S: Source> Level<S> {
    pub(super) fn new(layer: Layer<S>, name: Option<String>) -> Result<Arc<Self>> {
        Ok(Arc::new(Self {
            size: layer.size()?,
            layer,
            name,
            seen: Mutex::default(),
        }))
    }

    pub(super) fn named(&self, cause: ReadError) -> ReadError {
        match &self.name {
            None => cause,
            Some(name) => ReadError::In {
                name: name.clone(),
                cause: Box::new(cause),
            },
        }
    }

    /// Where the bytes from `at` on lie; `length` is cut to those that are alike.
    pub(super) fn place(&self, at: u64, length: &mut u64) -> Result<Place> {
        match &self.layer {
            Layer::Raw(source) => self.raw(source, at, length),
            Layer::Parts(source, parts) => {
                let next = parts.partition_point(|part| part.end <= at);
                match parts.get(next) {
                    Some(part) if part.start <= at => {
                        *length = (*length).min(part.end - at);
                        self.raw(source, at, length)
                    }
                    next => {
                        *length = next.map_or(*length, |part| (*length).min(part.start - at));
                        Ok(Place::Below)
                    }
                }
            }
            Layer::Qcow2(image) => {
                let extent = image.extent(at, *length)?;
                *length = extent.length;
                Ok(extent.place)
            }
        }
    }

    fn raw(&self, source: &S, at: u64, length: &mut u64) -> Result<Place> {
        let mut seen = self.seen.lock();
        if !seen.range.contains(&at) {
            *seen = Seen::at(source, at)?;
        }
        *length = (*length).min(seen.range.end - at);
        Ok(match seen.is_data {
            true => Place::Data(at),
            false => Place::Zero(Some(at)),
        })
    }

    /// Fills `buffer` with what lies at `place`, from byte `at` of the disk on.
    pub(super) fn read(&self, at: u64, place: Place, buffer: &mut [u8]) -> Result<()> {
        let length = buffer.len() as u64;
        match (&self.layer, place) {
            (Layer::Qcow2(image), place) => {
                image.read_extent(&Extent { at, length, place }, 0, buffer)
            }
            (Layer::Raw(source) | Layer::Parts(source, _), Place::Data(host)) => {
                let read = source.read_at(host, buffer);
                read.map_err(|cause| ReadError::Io {
                    offset: host,
                    length,
                    cause,
                })
            }
            _ => {
                buffer.fill(0);
                Ok(())
            }
        }
    }
}

impl Seen {
    fn at<S: Source>(source: &S, at: u64) -> Result<Self> {
        let next = source.data_from(at)?;
        let is_data = next.as_ref().is_some_and(|data| data.start <= at);
        let end = match (next, is_data) {
            (Some(data), true) => data.end.max(at + 1),
            (Some(data), false) => data.start,
            (None, _) => u64::MAX,
        };
        Ok(Self {
            range: at..end,
            is_data,
        })
    }
}
