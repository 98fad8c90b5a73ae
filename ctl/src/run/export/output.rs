//! The image, in a file, on a device, or in a pipe. A file appears under its name when it
//! is whole and durable.

use std::fmt::Display;
use std::io::stdout;
use std::path::Path;

use imagegen::qcow2::write::{Contents, Options, Targets, WriteError};
use imagegen::qcow2::write::{needed, stream, stream_raw, write, write_raw};
use imagegen::target::{Overwrite, Target, TargetError, capacity};
use imagegen::tree::Progress;
use ublk_target::control::protocol::{ErrorCode, Failure};

use crate::Done;
use crate::cli::{FormatName, ImageArgs};
use crate::progress::watched;
use crate::run::reading::Remote;
use crate::run::{code_of, read_code_of};

/// Where an image goes, and what it shall be.
pub(super) struct Output<'a> {
    /// Of what it is one.
    name: &'a str,
    target: &'a Path,
    image: &'a ImageArgs,
}

impl<'a> Output<'a> {
    /// An image of what is called `name`.
    pub(super) fn new(name: &'a str, target: &'a Path, image: &'a ImageArgs) -> Self {
        Self {
            name,
            target,
            image,
        }
    }

    /// Writes it. Returns its bytes.
    pub(super) fn write(&self, contents: &Contents<'_, &Remote>, options: &Options) -> Done<u64> {
        let checked = options.verify(contents);
        checked.map_err(|error| self.failed(&error, ErrorCode::Usage))?;
        match (self.image.is_piped(), self.image.format) {
            (true, FormatName::Raw) => self.pipe(contents.disk.size(), |seen| {
                stream_raw(contents.disk, stdout(), options.threads, seen)?;
                Ok(contents.disk.size())
            }),
            // Once to see how long it becomes, and once to write it.
            (true, FormatName::Qcow2) => self.pipe(all(contents).saturating_mul(2), |seen| {
                stream(contents, stdout(), options, seen).map(|written| written.length)
            }),
            (false, FormatName::Raw) => self.raw(contents, options),
            (false, FormatName::Qcow2) => self.qcow2(contents, options),
        }
    }

    fn pipe(
        &self,
        work: u64,
        write: impl FnOnce(&Progress) -> Result<u64, WriteError> + Send,
    ) -> Done<u64> {
        watched("Exporting", 0, work, write).map_err(|error| self.unwritten(&error))
    }

    fn raw(&self, contents: &Contents<'_, &Remote>, options: &Options) -> Done<u64> {
        let size = contents.disk.size();
        let room = capacity(self.target).map_err(|error| self.place(&error))?;
        self.fits(size, room)?;
        let target = Target::create(self.target, size, self.overwrite());
        let target = target.map_err(|error| self.place(&error))?;
        let is_new = room.is_none();
        let written = watched("Exporting", 0, size, |seen| {
            write_raw(contents.disk, &target, is_new, options.threads, seen)
        });
        written.map_err(|error| self.unwritten(&error))?;
        target.finish(true).map_err(|error| self.place(&error))?;
        Ok(size)
    }

    fn qcow2(&self, contents: &Contents<'_, &Remote>, options: &Options) -> Done<u64> {
        let room = capacity(self.target).map_err(|error| self.place(&error))?;
        if let Some(room) = room {
            let measured = watched("Measuring", 0, all(contents), |seen| {
                needed(contents, options, room, seen)
            });
            self.fits(
                measured.map_err(|error| self.unwritten(&error))?,
                Some(room),
            )?;
        }
        let target = Target::growing(self.target, room.unwrap_or(0), self.overwrite());
        let target = target.map_err(|error| self.place(&error))?;
        let written = watched("Exporting", 0, all(contents), |seen| {
            write(contents, Targets::alone(&target), options, seen)
        });
        let length = written.map_err(|error| self.unwritten(&error))?.length;
        let finished = target.finish_at(length, true);
        finished.map_err(|error| self.place(&error))?;
        Ok(length)
    }

    /// Whether `size` bytes have room on a device, before anything of it is given up.
    fn fits(&self, size: u64, room: Option<u64>) -> Done<()> {
        match room {
            Some(capacity) if capacity < size => Err(self.place(&TargetError::TooSmall {
                path: self.target.to_owned(),
                capacity,
                size,
            })),
            _ => Ok(()),
        }
    }

    fn overwrite(&self) -> Overwrite {
        match self.image.force {
            true => Overwrite::Force,
            false => Overwrite::Refuse,
        }
    }

    fn unwritten(&self, error: &WriteError) -> Failure {
        match error {
            WriteError::Write(cause) => self.failed(error, code_of(cause)),
            WriteError::Option(_) => self.failed(error, ErrorCode::Usage),
            WriteError::Read(cause) => self.failed(error, read_code_of(cause)),
            WriteError::Zstd(_) => self.failed(error, ErrorCode::Error),
        }
    }

    fn place(&self, error: &TargetError) -> Failure {
        let code = match error {
            TargetError::Io { cause, .. } => code_of(cause),
            TargetError::InUse { .. } | TargetError::Holds { .. } | TargetError::Exists { .. } => {
                ErrorCode::Busy
            }
            TargetError::TooSmall { .. } => ErrorCode::NoSpace,
            TargetError::Unsuitable { .. } => ErrorCode::Usage,
        };
        self.failed(error, code)
    }

    fn failed(&self, error: &impl Display, code: ErrorCode) -> Failure {
        Failure::new(code, format!("cannot export {}: {error}", self.name))
    }
}

/// Bytes of the disk and of its snapshots.
fn all(contents: &Contents<'_, &Remote>) -> u64 {
    let sizes = contents.versions.iter().map(|version| version.disk.size());
    sizes.fold(contents.disk.size(), u64::saturating_add)
}
