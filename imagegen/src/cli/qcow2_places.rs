//! Where a conversion to QCOW2 writes: the image, and its data file if it has one. Neither
//! stays without the other.

use super::Failure;
use super::places::Destination;
use super::qcow2::Convert;
use imagegen::medium::Medium;
use imagegen::qcow2::write::{Targets, WriteError};
use imagegen::target::{Overwrite, Target};
use parking_lot::Mutex;
use std::io;
use std::path::Path;

/// Both places. Nothing of them is changed yet.
pub(super) struct Places<'a> {
    image: Destination<'a>,
    data: Option<(&'a Path, Destination<'a>)>,
    overwrite: Overwrite,
    sync: bool,
}

/// Both, being made.
pub(super) struct Outputs<'a> {
    image: Headless,
    /// With its name, and the bytes it gets.
    data: Option<(&'a Path, Target, u64)>,
    sync: bool,
}

impl<'a> Places<'a> {
    pub(super) fn open(arguments: &'a Convert) -> Result<Self, Failure> {
        let overwrite = arguments.run.overwrite();
        let image = Destination::open(&arguments.target, overwrite)?;
        let open = |path| Ok::<_, Failure>((path, Destination::open(path, overwrite)?));
        let data = arguments.parts.data_file.as_deref();
        Ok(Self {
            image,
            data: data.map(open).transpose()?,
            overwrite,
            sync: !arguments.run.no_sync,
        })
    }

    /// Bytes of the device that the image goes to, if it is one.
    pub(super) fn room(&self) -> Option<u64> {
        self.image.capacity()
    }

    /// Begins an image of `length` bytes, if it goes to a device, and a data file of `size`.
    pub(super) fn begin(self, length: u64, size: u64) -> Result<Outputs<'a>, Failure> {
        let Self {
            image,
            data,
            overwrite,
            sync,
        } = self;
        image.fits(length)?;
        if let Some((_, data)) = &data {
            data.fits(size)?;
        }
        let begin_data = |data: Option<(&'a Path, Destination<'a>)>| {
            let begun = data.map(|(path, place)| {
                let target = place.begin(size, size, overwrite)?;
                Ok::<_, Failure>((path, target, size))
            });
            begun.transpose()
        };
        // A file may be in use, which shall be seen before a device is wiped.
        let (image, data) = match image.is_device() {
            true => {
                let data = begin_data(data)?;
                (image.begin(length, 0, overwrite)?, data)
            }
            false => (image.begin(length, 0, overwrite)?, begin_data(data)?),
        };
        let image = Headless::of(image);
        Ok(Outputs { image, data, sync })
    }
}

impl Outputs<'_> {
    pub(super) fn targets(&self) -> Targets<'_> {
        let data = self.data.as_ref();
        Targets {
            image: &self.image,
            data: data.map(|(_, target, _)| target as &dyn Medium),
        }
    }

    /// Names the data file, and then the image of `length` bytes that leads to it: by its
    /// name, on a device by its header. If the image cannot, nor does the data file keep its
    /// name.
    pub(super) fn finish(self, length: u64) -> Result<(), Failure> {
        let Self { image, data, sync } = self;
        let Some((path, data, size)) = data else {
            return image.finish(length, sync);
        };
        // What takes time, and may well fail, comes before both.
        image.target.settle(length, sync)?;
        data.settle(size, sync)?;
        data.finish_at(size, sync)?;
        image.finish(length, sync).inspect_err(|error| {
            let is_named = matches!(error, Failure::Target(error) if error.is_named());
            if !is_named && path.is_file() {
                let _ = std::fs::remove_file(path);
            }
        })
    }
}

/// An image that is none until it is finished: what is written at its byte 0 waits.
struct Headless {
    target: Target,
    header: Mutex<Vec<u8>>,
}

impl Headless {
    fn of(target: Target) -> Self {
        let header = Mutex::default();
        Self { target, header }
    }

    fn finish(self, length: u64, sync: bool) -> Result<(), Failure> {
        let header = self.header.into_inner();
        let written = self.target.write(0, &header);
        written.map_err(WriteError::Write)?;
        Ok(self.target.finish_at(length, sync)?)
    }
}

impl Medium for Headless {
    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        if at > 0 {
            return self.target.write(at, bytes);
        }
        *self.header.lock() = bytes.to_vec();
        Ok(())
    }

    fn read(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.target.read(at, bytes)
    }

    fn barrier(&self) -> io::Result<()> {
        self.target.barrier()
    }

    fn skip(&self, at: u64, length: u64) -> io::Result<()> {
        self.target.skip(at, length)
    }

    fn zero(&self, at: u64, length: u64) -> io::Result<()> {
        self.target.zero(at, length)
    }
}

#[cfg(test)]
#[allow(clippy::unwrap_used, reason = "a test stops at the first surprise")]
mod tests {
    use super::*;
    use std::fs;

    /// Whichever of the two gets no name because somebody was quicker.
    #[test]
    fn no_data_file_stays_without_its_image_nor_an_image_without_it() {
        for taken in ["image", "data"] {
            let dir = tempfile::tempdir().unwrap();
            let path = |name: &str| dir.path().join(name);
            let new = |name: &str| Target::growing(&path(name), 0, Overwrite::Refuse).unwrap();
            let data = path("data");
            let outputs = Outputs {
                image: Headless::of(new("image")),
                data: Some((&data, new("data"), 512)),
                sync: false,
            };
            fs::write(path(taken), "theirs").unwrap();
            // As a device: nothing leads to the data file while that has no name.
            outputs.image.write(0, b"QFI").unwrap();
            outputs.image.write(510, b"it").unwrap();
            let mut begin = [1; 3];
            outputs.image.read(0, &mut begin).unwrap();
            assert_eq!(begin, [0; 3]);
            assert!(outputs.finish(512).is_err(), "{taken}");
            let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
            assert_eq!(left.len(), 1, "{taken}: {left:?}");
            assert_eq!(fs::read(path(taken)).unwrap(), b"theirs");
        }
    }
}
