//! Where a conversion to QCOW2 writes: the image, and its data file if it has one. Neither
//! stays without the other.

use super::Failure;
use super::places::Destination;
use super::qcow2::Convert;
use imagegen::medium::Medium;
use imagegen::qcow2::format::SECTOR;
use imagegen::qcow2::write::Targets;
use imagegen::target::{Overwrite, Target};
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
    image: Target,
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

    /// Names the data file, and then the image of `length` bytes that leads to it. If only
    /// one of them can have its name, neither keeps it; an image on a device is none then.
    pub(super) fn finish(self, length: u64) -> Result<(), Failure> {
        let Self { image, data, sync } = self;
        let Some((path, data, size)) = data else {
            return Ok(image.finish_at(length, sync)?);
        };
        // What takes time, and may well fail, comes before both.
        image.settle(length, sync)?;
        let named = data.settle(size, sync);
        let named = named.and_then(|()| data.finish_at(size, sync));
        named.inspect_err(|_| {
            let _ = image.write(0, &[0; SECTOR as usize]);
        })?;
        Ok(image.finish_at(length, sync).inspect_err(|error| {
            if !error.is_named() && path.is_file() {
                let _ = std::fs::remove_file(path);
            }
        })?)
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
                image: new("image"),
                data: Some((&data, new("data"), 512)),
                sync: false,
            };
            fs::write(path(taken), "theirs").unwrap();
            assert!(outputs.finish(512).is_err(), "{taken}");
            let left: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
            assert_eq!(left.len(), 1, "{taken}: {left:?}");
            assert_eq!(fs::read(path(taken)).unwrap(), b"theirs");
        }
    }
}
