//! A disk as its user sees it: an image over its backing files, the last of which may be
//! raw. Where a layer below is shorter, zeroes follow it.

use super::error::{ReadError, Result};
use super::level::Level;
use super::{Image, Place};
use crate::medium::Source;
use std::ops::Range;
use std::sync::Arc;

/// A part of the chain.
#[derive(Debug)]
pub enum Layer<S> {
    /// Bytes as they are.
    Raw(S),
    /// QCOW2.
    Qcow2(Box<Image<S>>),
    /// These bytes, in order and apart from each other, as they are; all others are those
    /// of the layer below.
    Parts(S, Vec<Range<u64>>),
}

impl<S: Source> Layer<S> {
    /// Bytes of its disk.
    ///
    /// # Errors
    /// If a raw one cannot tell.
    pub fn size(&self) -> Result<u64> {
        match self {
            Self::Qcow2(image) => Ok(image.size()),
            Self::Raw(source) | Self::Parts(source, _) => {
                source.size().map_err(|cause| ReadError::Io {
                    offset: 0,
                    length: 0,
                    cause,
                })
            }
        }
    }
}

/// The chain, the image itself first.
#[derive(Debug)]
pub struct Disk<S> {
    levels: Vec<Arc<Level<S>>>,
}

/// Bytes that are alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Run {
    /// First byte.
    pub at: u64,
    /// Bytes.
    pub length: u64,
    /// What they are.
    pub what: What,
    /// The layer that says so: 0 is the image itself.
    pub depth: usize,
}

/// What bytes of a disk are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum What {
    /// In no layer: they read as zeroes.
    Nothing,
    /// Zeroes by what a layer says; at this byte of its file room is set aside for them.
    Zero(Option<u64>),
    /// Data, at this byte of the layer's file.
    Data(u64),
    /// Data, compressed, at this byte of the layer's file.
    Compressed(u64),
}

impl What {
    const fn of(place: Place) -> Self {
        match place {
            Place::Below => Self::Nothing,
            Place::Zero(aside) => Self::Zero(aside),
            Place::Data(at) => Self::Data(at),
            Place::Compressed(compressed) => Self::Compressed(compressed.offset),
        }
    }
}

/// What was found of bytes that are alike.
struct Found {
    length: u64,
    place: Place,
    depth: usize,
}

impl<S: Source> Disk<S> {
    /// From its layers, the topmost first.
    ///
    /// # Errors
    /// If a raw one cannot tell its size.
    pub fn new(layers: Vec<Layer<S>>) -> Result<Self> {
        let levels = layers.into_iter().map(|layer| Level::new(layer, None));
        let levels = levels.collect::<Result<_>>()?;
        Ok(Self { levels })
    }

    /// The same of layers with the names of their files, by which errors call them.
    ///
    /// # Errors
    /// If a raw one cannot tell its size.
    pub fn named(layers: Vec<(Layer<S>, String)>) -> Result<Self> {
        let levels = layers.into_iter();
        let levels = levels.map(|(layer, name)| Level::new(layer, Some(name)));
        let levels = levels.collect::<Result<_>>()?;
        Ok(Self { levels })
    }

    /// Another layer in the place of the topmost, above the same others.
    ///
    /// # Errors
    /// If a raw one cannot tell its size.
    pub fn with_top(&self, layer: Layer<S>) -> Result<Self> {
        let name = self.levels.first().and_then(|level| level.name.clone());
        let mut levels = vec![Level::new(layer, name)?];
        levels.extend(self.levels.iter().skip(1).cloned());
        Ok(Self { levels })
    }

    /// Another layer above these, with the name of its file if it has one.
    ///
    /// # Errors
    /// If a raw one cannot tell its size.
    pub fn with_over(&self, layer: Layer<S>, name: Option<String>) -> Result<Self> {
        let mut levels = vec![Level::new(layer, name)?];
        levels.extend(self.levels.iter().cloned());
        Ok(Self { levels })
    }

    /// Its layers.
    pub fn layers(&self) -> impl Iterator<Item = &Layer<S>> {
        self.levels.iter().map(|level| &level.layer)
    }

    /// The topmost layer, if it is QCOW2.
    #[must_use]
    pub fn image(&self) -> Option<&Image<S>> {
        match &self.levels.first()?.layer {
            Layer::Qcow2(image) => Some(image),
            Layer::Raw(_) | Layer::Parts(..) => None,
        }
    }

    /// Bytes of the disk.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.levels.first().map_or(0, |level| level.size)
    }

    /// What the bytes from `at` on are, as far as they are alike; at most `most` of them.
    ///
    /// # Errors
    /// If a layer's tables cannot be read or are not sound.
    pub fn run(&self, at: u64, most: u64) -> Result<Run> {
        let found = self.find(at, most)?;
        Ok(Run {
            at,
            length: found.length,
            what: What::of(found.place),
            depth: found.depth,
        })
    }

    fn find(&self, at: u64, most: u64) -> Result<Found> {
        let mut length = most.min(self.size().saturating_sub(at));
        for (depth, level) in self.levels.iter().enumerate() {
            let mut place = Place::Below;
            let is_beyond = at >= level.size;
            if !is_beyond {
                length = length.min(level.size - at);
                let found = level.place(at, &mut length);
                place = found.map_err(|cause| level.named(cause))?;
            }
            if is_beyond || place != Place::Below {
                return Ok(Found {
                    length,
                    place,
                    depth,
                });
            }
        }
        Ok(Found {
            length,
            place: Place::Below,
            depth: self.levels.len(),
        })
    }

    /// Where a run is, in a chain that others have in common from its lowest layer on.
    fn place(&self, run: &Run) -> (What, usize) {
        let what = match run.what {
            What::Zero(_) => What::Zero(None),
            what => what,
        };
        (what, self.levels.len() - run.depth)
    }

    /// Bytes from `at` on that are in the same places as those of `other`; at most `most`.
    /// The layers of the one with fewer are the lowest of the other.
    ///
    /// # Errors
    /// If a layer's tables cannot be read or are not sound.
    pub fn same_places(&self, other: &Self, at: u64, most: u64) -> Result<u64> {
        self.alike(other, at, most, true)
    }

    /// Bytes from `at` on none of which is in the same place as that of `other`, with layers
    /// as for [`Self::same_places`]; at most `most`.
    ///
    /// # Errors
    /// If a layer's tables cannot be read or are not sound.
    pub fn differing(&self, other: &Self, at: u64, most: u64) -> Result<u64> {
        self.alike(other, at, most, false)
    }

    /// Bytes from `at` on of which all are in the same place, or none is: as `same` says.
    fn alike(&self, other: &Self, at: u64, most: u64, same: bool) -> Result<u64> {
        let end = at.saturating_add(most);
        let mut next = at;
        while next < end {
            let (one, two) = (self.run(next, end - next)?, other.run(next, end - next)?);
            let is_same = self.place(&one) == other.place(&two);
            // Of a compressed cluster the length says how much of it is meant.
            let length = one.length.min(two.length);
            if is_same != same || length == 0 {
                break;
            }
            next += length;
        }
        Ok(next - at)
    }

    /// Fills `buffer` from byte `at` on.
    ///
    /// # Errors
    /// If that is beyond the end, or a layer cannot be read or is not sound.
    pub fn read_at(&self, at: u64, buffer: &mut [u8]) -> Result<()> {
        let length = buffer.len() as u64;
        if at.checked_add(length).is_none_or(|end| end > self.size()) {
            let cause = std::io::ErrorKind::UnexpectedEof.into();
            return Err(ReadError::Io {
                offset: at,
                length,
                cause,
            });
        }
        let (mut at, mut rest) = (at, buffer);
        while !rest.is_empty() {
            let found = self.find(at, rest.len() as u64)?;
            let (now, later) = rest.split_at_mut(found.length as usize);
            match (found.place, self.levels.get(found.depth)) {
                (Place::Data(_) | Place::Compressed(_), Some(level)) => {
                    let read = level.read(at, found.place, now);
                    read.map_err(|cause| level.named(cause))?;
                }
                _ => now.fill(0),
            }
            (at, rest) = (at + found.length, later);
        }
        Ok(())
    }
}
