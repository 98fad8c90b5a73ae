//! A volume as what is written: its block device, or its NBD export.

use std::fs::{File, OpenOptions};
use std::io;
use std::ops::Range;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

use imagegen::medium::Source;
use nix::fcntl::{OFlag, PosixFadviseAdvice, posix_fadvise};
use ublk_target::control::protocol::{ErrorCode, Failure};
use ublk_target::control::views::VolumeView;

use crate::Done;
use crate::run::reading::Remote;
use crate::run::{code_of, status};
use crate::session::Session;

/// Connections that write, however many threads there are.
const MOST_CONNECTIONS: usize = 16;

/// Where the bytes of a volume go.
#[derive(Debug)]
pub(super) enum VolumeDisk {
    /// Its device, which nobody else has mounted or claimed.
    Device(File),
    /// Its export.
    Export(Remote),
}

impl VolumeDisk {
    /// The one of a volume that is served.
    pub(super) fn open(session: &mut Session, view: &VolumeView) -> Done<Self> {
        match &view.device {
            Some(device) => device_of(view, device.into()),
            None => export_of(session, view),
        }
    }

    /// Refuses an image whose end is within what is written at once.
    pub(super) fn must_take(&self, view: &VolumeView, size: u64) -> Done {
        let block = match self {
            Self::Device(_) => 512,
            Self::Export(remote) => remote.block(),
        };
        if size.is_multiple_of(block) {
            return Ok(());
        }
        let message = format!(
            "the image has {size} bytes, and {} takes whole blocks of {block}",
            view.name
        );
        Err(Failure::new(ErrorCode::Usage, message)
            .next("make it longer: truncate, qemu-img resize"))
    }

    /// Writes `bytes` at `offset`.
    pub(super) fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        match self {
            Self::Device(file) => file.write_all_at(bytes, offset),
            Self::Export(remote) => remote.write_at(offset, bytes),
        }
    }

    /// All that was written is durable, and read from the volume from now on.
    pub(super) fn settle(&self) -> io::Result<()> {
        match self {
            Self::Device(file) => {
                file.sync_all()?;
                posix_fadvise(file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?;
                Ok(())
            }
            Self::Export(remote) => remote.flush(),
        }
    }
}

impl Source for VolumeDisk {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        match self {
            Self::Device(file) => file.read_exact_at(buffer, offset),
            Self::Export(remote) => remote.read_at(offset, buffer),
        }
    }

    fn size(&self) -> io::Result<u64> {
        match self {
            Self::Device(file) => Source::size(file),
            Self::Export(remote) => remote.size(),
        }
    }

    /// What is written meanwhile is no hole any more: nothing that was told is believed.
    fn data_from(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let size = self.size()?;
        Ok((offset < size).then_some(offset..size))
    }
}

fn device_of(view: &VolumeView, device: PathBuf) -> Done<VolumeDisk> {
    let mut options = OpenOptions::new();
    options.read(true).write(true);
    // Fails if it is mounted, or part of something that is in use.
    options.custom_flags(OFlag::O_EXCL.bits());
    options
        .open(&device)
        .map(VolumeDisk::Device)
        .map_err(|error| {
            let what = format!("{} ({})", view.name, device.display());
            let (code, message) = match error.kind() {
                io::ErrorKind::ResourceBusy => (ErrorCode::Busy, format!("{what} is in use")),
                _ => (ErrorCode::Error, format!("cannot write {what}: {error}")),
            };
            Failure::new(code, message).next("unmount it, and end what uses it")
        })
}

fn export_of(session: &mut Session, view: &VolumeView) -> Done<VolumeDisk> {
    let socket = status::of(session)?.nbd_socket;
    let failed = |error: io::Error| {
        let message = format!("cannot write {}: {error}", view.name);
        Failure::new(code_of(&error), message).next("csnapctl status shows how csnapd is")
    };
    let remote = Remote::connect(socket.into(), view.name.clone(), MOST_CONNECTIONS, None);
    let remote = remote.map_err(failed)?;
    // Who is answered is counted among the clients.
    let mut block = vec![0; remote.block() as usize];
    let read = remote.read_at(0, &mut block);
    read.map_err(failed)?;
    Ok(VolumeDisk::Export(remote))
}
