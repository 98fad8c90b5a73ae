//! Opening an image with all that lies below it.
//!
//! What a guest wrote into a raw image must never lead to another file: a backing file is
//! read as the format that the image states, and never guessed at. What was only recognised
//! by its first bytes leads to no other file, and a block device is not even looked at.

use super::format::Incompatible;
use super::read::{Disk, Image, Layer, ReadError};
use super::write::Version;
use rustix::fs::OFlags;
use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, FileTypeExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

/// How bytes of a file are to be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Format {
    /// As they are.
    Raw,
    /// QCOW2.
    Qcow2,
}

impl Format {
    /// As QEMU calls it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Raw => "raw",
            Self::Qcow2 => "qcow2",
        }
    }

    /// By that name.
    #[must_use]
    pub fn from_name(name: &str) -> Option<Self> {
        [Self::Raw, Self::Qcow2]
            .into_iter()
            .find(|format| format.name() == name)
    }

    /// By the first bytes: what is no QCOW2 is raw. So is a block device, whatever it holds:
    /// it is a disk of somebody who may write any bytes.
    ///
    /// # Errors
    /// If they cannot be read.
    pub fn of(file: &File) -> std::io::Result<Self> {
        if file.metadata()?.file_type().is_block_device() {
            return Ok(Self::Raw);
        }
        let mut magic = [0; 4];
        match file.read_exact_at(&mut magic, 0) {
            Ok(()) if u32::from_be_bytes(magic) == super::format::MAGIC => Ok(Self::Qcow2),
            Ok(()) => Ok(Self::Raw),
            Err(error) if error.kind() == std::io::ErrorKind::UnexpectedEof => Ok(Self::Raw),
            Err(error) => Err(error),
        }
    }
}

/// Why a chain cannot be opened.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// A file cannot be opened.
    #[error("{}: cannot open it: {cause}", shown(path))]
    Open {
        /// Which.
        path: PathBuf,
        /// Why not.
        cause: std::io::Error,
    },
    /// Something that would keep whoever opens it waiting, or has no bytes at places.
    #[error(
        "{}: it is a {what}; images are read from files and block devices, so put it into one",
        shown(path)
    )]
    Kind {
        /// Which.
        path: PathBuf,
        /// What it is.
        what: &'static str,
    },
    /// A file cannot be read as what it should be.
    #[error("{}: {cause}", shown(path))]
    Read {
        /// Which.
        path: PathBuf,
        /// Why not.
        cause: ReadError,
    },
    /// A backing file whose format is not stated.
    #[error(
        "{}: it does not state the format of its backing file {backing:?}; state it: qemu-img rebase -u -b {backing:?} -F raw|qcow2 {}",
        shown(path),
        shown(path)
    )]
    NoFormat {
        /// The image.
        path: PathBuf,
        /// The backing file.
        backing: String,
    },
    /// An image that was only recognised by its first bytes, and leads to another file.
    #[error(
        "{}: it looks like QCOW2 and leads to another file, {other:?}, which a guest may have written into its raw disk; say which it is: -f qcow2 or -f raw (of the second of two: -F qcow2 or -F raw)",
        shown(path)
    )]
    Guessed {
        /// The image.
        path: PathBuf,
        /// The backing or data file.
        other: String,
    },
    /// A backing file that this program does not read.
    #[error("{}: its backing file {backing:?}: {why}", shown(path))]
    Backing {
        /// The image.
        path: PathBuf,
        /// The backing file.
        backing: String,
        /// Why it is not read.
        why: String,
    },
    /// A file of a chain that is open cannot be read; the cause names it.
    #[error(transparent)]
    Disk(ReadError),
}

/// A path with nothing that could speak to a terminal: images name others as they like.
#[must_use]
pub fn shown(path: &Path) -> String {
    path.display().to_string().escape_debug().to_string()
}

/// Most layers of a chain (QEMU has no limit; nobody has so many).
const MOST_LAYERS: usize = 256;

/// A chain that is open: the disk, and the files it is made of, the image first.
#[derive(Debug)]
pub struct Chain {
    /// The disk.
    pub disk: Disk<File>,
    /// Its files, one for each layer.
    pub paths: Vec<PathBuf>,
    /// External data files of those.
    pub data: Vec<PathBuf>,
}

impl Chain {
    /// All files that are read.
    pub fn files(&self) -> impl Iterator<Item = &Path> {
        self.paths.iter().chain(&self.data).map(PathBuf::as_path)
    }
}

/// Opens `path` as `format`, or as what it looks like, with all below it; shows what
/// `snapshot` of the image, by its name or else its id, holds.
///
/// # Errors
/// If a file cannot be opened, or a chain must not be followed.
pub fn open(
    path: &Path,
    format: Option<Format>,
    snapshot: Option<&str>,
) -> Result<Chain, OpenError> {
    let mut paths = Vec::new();
    let mut data = Vec::new();
    let mut seen = Vec::new();
    let mut layers = Vec::new();
    let mut next = Some((path.to_owned(), format));
    while let Some((path, format)) = next {
        let (file, identity) = identified(&path)?;
        if seen.contains(&identity) || layers.len() == MOST_LAYERS {
            let why = "the chain comes back to it, or is too long".to_owned();
            let backing = path.display().to_string();
            return Err(OpenError::Backing { path, backing, why });
        }
        seen.push(identity);
        let is_guessed = format.is_none();
        let format = match format {
            Some(format) => format,
            None => Format::of(&file).map_err(|cause| failed(&path)(cause.into()))?,
        };
        let layer = match format {
            Format::Raw => Layer::Raw(file),
            Format::Qcow2 => {
                let snapshot = snapshot.filter(|_| layers.is_empty());
                let image = image(&path, file, snapshot, is_guessed)?;
                data.extend(image.1);
                Layer::Qcow2(Box::new(image.0))
            }
        };
        next = below(&path, &layer)?;
        layers.push((layer, shown(&path)));
        paths.push(path);
    }
    let top = paths.first().map_or(Path::new(""), PathBuf::as_path);
    let disk = Disk::named(layers).map_err(failed(top))?;
    Ok(Chain { disk, paths, data })
}

/// Opens QCOW2 at `path` as what lies over `below`, whatever the image itself says of that;
/// and tells which data file it has, if it has one.
///
/// # Errors
/// If it cannot be opened.
pub fn over(path: &Path, below: &Disk<File>) -> Result<(Disk<File>, Option<PathBuf>), OpenError> {
    let (image, data) = image(path, file(path)?, None, false)?;
    let layer = Layer::Qcow2(Box::new(image));
    let disk = below.with_over(layer, Some(shown(path)));
    Ok((disk.map_err(failed(path))?, data))
}

/// Bytes of level 1 tables of all snapshots that are held.
const MOST_TABLES: u64 = 512 << 20;

/// What every snapshot of the image holds, the oldest first, of the files that are open.
///
/// # Errors
/// If one cannot be read, or their tables of level 1 have more than 512 MiB.
pub fn versions(chain: &Chain) -> Result<Vec<Version<File>>, OpenError> {
    let (Some(path), Some(image)) = (chain.paths.first(), chain.disk.image()) else {
        return Ok(Vec::new());
    };
    let mut versions: Vec<Version<File>> = Vec::new();
    let mut bytes = 0;
    for snapshot in &image.snapshots().map_err(failed(path))? {
        let before = versions.last().and_then(|before| before.disk.image());
        let before = before.filter(|before| before.layout().l1 == snapshot.l1);
        if before.is_none() {
            bytes += snapshot.l1.bytes();
        }
        if bytes > MOST_TABLES {
            return Err(failed(path)(ReadError::TooLarge {
                what: "the level 1 tables of its snapshots",
                bytes,
                most: MOST_TABLES,
            }));
        }
        let then = image.then(snapshot, before).map_err(failed(path))?;
        let disk = chain.disk.with_top(Layer::Qcow2(Box::new(then)));
        versions.push(Version::new(snapshot, disk.map_err(failed(path))?));
    }
    Ok(versions)
}

fn failed(path: &Path) -> impl Fn(ReadError) -> OpenError + '_ {
    |cause| OpenError::Read {
        path: path.to_owned(),
        cause,
    }
}

/// Opens a file or block device for reading. Never waits: an image may name a FIFO.
///
/// # Errors
/// If it cannot be opened, or is something else.
pub fn file(path: &Path) -> Result<File, OpenError> {
    Ok(identified(path)?.0)
}

/// A file, and which it is.
fn identified(path: &Path) -> Result<(File, (u64, u64)), OpenError> {
    let flags = OFlags::NONBLOCK | OFlags::NOCTTY;
    let opened = OpenOptions::new()
        .read(true)
        .custom_flags(flags.bits().cast_signed())
        .open(path);
    let opened = opened.and_then(|file| {
        let there = file.metadata()?;
        Ok((file, there))
    });
    let (file, there) = opened.map_err(|cause| OpenError::Open {
        path: path.to_owned(),
        cause,
    })?;
    let kind = there.file_type();
    let what = match kind {
        kind if kind.is_file() || kind.is_block_device() => {
            return Ok((file, (there.dev(), there.ino())));
        }
        kind if kind.is_dir() => "directory",
        kind if kind.is_fifo() => "FIFO",
        _ => "device of characters or a socket",
    };
    let path = path.to_owned();
    Err(OpenError::Kind { path, what })
}

/// One image with its data file, and where that is.
fn image(
    path: &Path,
    file_: File,
    snapshot: Option<&str>,
    is_guessed: bool,
) -> Result<(Image<File>, Option<PathBuf>), OpenError> {
    let mut image = Image::open(file_).map_err(failed(path))?;
    if let Some(other) = other(&image).filter(|_| is_guessed) {
        return Err(OpenError::Guessed {
            path: path.to_owned(),
            other: other.to_owned(),
        });
    }
    if let Some(wanted) = snapshot {
        let all = image.snapshots().map_err(failed(path))?;
        let found = all.iter().find(|snapshot| snapshot.name == wanted);
        let found = found.or_else(|| all.iter().find(|snapshot| snapshot.id == wanted));
        let missing = || failed(path)(ReadError::NoSnapshot(wanted.to_owned()));
        let found = found.ok_or_else(missing)?;
        image.apply(found).map_err(failed(path))?;
    }
    if image.layout().has(Incompatible::ExternalData)
        && let Some(name) = image.extensions().data_file.clone()
    {
        // As QEMU does: not from where the image lies, "file:" or not.
        let name = name.strip_prefix("file:").unwrap_or(&name);
        let place = beside(Path::new(""), name)?;
        image = image.with_data(file(&place)?);
        return Ok((image, Some(place)));
    }
    Ok((image, None))
}

/// Another file that an image leads to.
fn other(image: &Image<File>) -> Option<&str> {
    let backing = image.backing().filter(|name| !name.is_empty());
    let has_data = image.layout().has(Incompatible::ExternalData);
    let data = || image.extensions().data_file.as_deref();
    backing.or_else(|| data().filter(|_| has_data))
}

/// What lies below, if anything.
fn below(path: &Path, layer: &Layer<File>) -> Result<Option<(PathBuf, Option<Format>)>, OpenError> {
    let Layer::Qcow2(image) = layer else {
        return Ok(None);
    };
    let Some(backing) = image.backing().filter(|name| !name.is_empty()) else {
        return Ok(None);
    };
    let Some(name) = image.extensions().backing_format.as_deref() else {
        return Err(OpenError::NoFormat {
            path: path.to_owned(),
            backing: backing.to_owned(),
        });
    };
    let format = Format::from_name(name).ok_or_else(|| OpenError::Backing {
        path: path.to_owned(),
        backing: backing.to_owned(),
        why: format!("its format {name:?} is not read here, only raw and qcow2"),
    })?;
    Ok(Some((beside(path, backing)?, Some(format))))
}

/// A file that an image at `path` names: from where the image itself lies.
///
/// # Errors
/// If the name is one of something else than a file.
pub fn beside(path: &Path, name: &str) -> Result<PathBuf, OpenError> {
    let file = file_name(name).map_err(|why| OpenError::Backing {
        path: path.to_owned(),
        backing: name.to_owned(),
        why: why.to_owned(),
    })?;
    let dir = path.parent().unwrap_or(Path::new(""));
    Ok(dir.join(file))
}

/// The path that the name of a backing file means to everybody.
///
/// # Errors
/// Why it means none.
pub(super) fn file_name(name: &str) -> Result<&str, &'static str> {
    let stripped = name.strip_prefix("file:");
    let file = stripped.unwrap_or(name);
    let scheme = file.split('/').next().unwrap_or_default();
    if scheme.contains(':') {
        return Err("only files are read here");
    }
    if stripped.is_some() && !file.starts_with('/') {
        return Err(
            "after \"file:\" QEMU takes a path from where it was started, not from where the image lies; name it without \"file:\" (in an image: qemu-img rebase -u)",
        );
    }
    Ok(file)
}
