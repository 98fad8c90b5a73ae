//! A disk as its user sees it: an image over its backing files, the last of which may be
//! raw. Where a layer below is shorter, zeroes follow it.

use super::error::{ReadError, Result};
use super::{Image, Place};
use crate::medium::Source;
use std::ops::Range;

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
    layers: Vec<(Layer<S>, u64)>,
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
    /// Zeroes by what a layer says.
    Zero,
    /// Data, at this byte of the layer's file.
    Data(u64),
    /// Data, compressed, at this byte of the layer's file.
    Compressed(u64),
}

impl<S: Source> Disk<S> {
    /// From its layers, the topmost first.
    ///
    /// # Errors
    /// If a raw one cannot tell its size.
    pub fn new(layers: Vec<Layer<S>>) -> Result<Self> {
        let sized = layers.into_iter().map(|layer| {
            let size = layer.size()?;
            Ok((layer, size))
        });
        let layers = sized.collect::<Result<_>>()?;
        Ok(Self { layers })
    }

    /// Its layers.
    pub fn layers(&self) -> impl Iterator<Item = &Layer<S>> {
        self.layers.iter().map(|(layer, _)| layer)
    }

    /// Them alone.
    #[must_use]
    pub fn into_layers(self) -> Vec<Layer<S>> {
        self.layers.into_iter().map(|(layer, _)| layer).collect()
    }

    /// Bytes of the disk.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.layers.first().map_or(0, |(_, size)| *size)
    }

    /// What the bytes from `at` on are, as far as they are alike; at most `most` of them.
    ///
    /// # Errors
    /// If a layer's tables cannot be read or are not sound.
    pub fn run(&self, at: u64, most: u64) -> Result<Run> {
        let mut length = most.min(self.size().saturating_sub(at));
        for (depth, (layer, size)) in self.layers.iter().enumerate() {
            if at >= *size {
                let what = What::Nothing;
                return Ok(Run {
                    at,
                    length,
                    what,
                    depth,
                });
            }
            length = length.min(size - at);
            let what = match layer {
                Layer::Raw(source) => raw(source, at, &mut length)?,
                Layer::Parts(source, parts) => {
                    let next = parts.partition_point(|part| part.end <= at);
                    match parts.get(next) {
                        Some(part) if part.start <= at => {
                            length = length.min(part.end - at);
                            raw(source, at, &mut length)?
                        }
                        next => {
                            length = next.map_or(length, |part| length.min(part.start - at));
                            continue;
                        }
                    }
                }
                Layer::Qcow2(image) => {
                    let extent = image.extent(at)?;
                    length = length.min(extent.length);
                    match extent.place {
                        Place::Below => continue,
                        Place::Zero => What::Zero,
                        Place::Data(host) => What::Data(host),
                        Place::Compressed(compressed) => What::Compressed(compressed.offset),
                    }
                }
            };
            return Ok(Run {
                at,
                length,
                what,
                depth,
            });
        }
        Ok(Run {
            at,
            length,
            what: What::Nothing,
            depth: self.layers.len(),
        })
    }

    /// Bytes from `at` on that are in the same places as those of `other`; at most `most`.
    /// The layers of the one with fewer are the lowest of the other.
    ///
    /// # Errors
    /// If a layer's tables cannot be read or are not sound.
    pub fn same_places(&self, other: &Self, at: u64, most: u64) -> Result<u64> {
        let end = at + most;
        let mut next = at;
        while next < end {
            let (one, two) = (self.run(next, end - next)?, other.run(next, end - next)?);
            let place = |disk: &Self, run: &Run| (run.what, disk.layers.len() - run.depth);
            if place(self, &one) != place(other, &two) || one.length == 0 {
                break;
            }
            // Of a compressed cluster the length says how much of it is meant.
            next += one.length.min(two.length);
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
            let run = self.run(at, rest.len() as u64)?;
            let (now, later) = rest.split_at_mut(run.length as usize);
            self.read_run(&run, now)?;
            (at, rest) = (at + run.length, later);
        }
        Ok(())
    }

    fn read_run(&self, run: &Run, buffer: &mut [u8]) -> Result<()> {
        let failed = |cause| ReadError::Io {
            offset: run.at,
            length: run.length,
            cause,
        };
        match (run.what, self.layers.get(run.depth)) {
            (What::Data(_) | What::Compressed(_), Some((Layer::Qcow2(image), _))) => {
                image.read_extent(&image.extent(run.at)?, 0, buffer)
            }
            (What::Data(at), Some((Layer::Raw(source) | Layer::Parts(source, _), _))) => {
                source.read_at(at, buffer).map_err(failed)
            }
            _ => {
                buffer.fill(0);
                Ok(())
            }
        }
    }
}

/// What the bytes from `at` on of a file are; `length` is cut to those that are alike.
fn raw<S: Source>(source: &S, at: u64, length: &mut u64) -> Result<What> {
    Ok(match source.data_from(at)? {
        Some(data) if data.start <= at => {
            *length = (*length).min(data.end.saturating_sub(at).max(1));
            What::Data(at)
        }
        next => {
            *length = next.map_or(*length, |data| (*length).min(data.start - at));
            What::Zero
        }
    })
}
