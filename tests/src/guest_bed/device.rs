//! A block device as its user sees it: direct I/O past the page cache, whole images
//! kept in memory and compared byte for byte, attributes from sysfs.

use std::fs::File;
use std::os::unix::fs::{FileExt, MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use nix::fcntl::OFlag;
use nix::sys::stat::{major, minor};

use super::{kernel, text};
use crate::e2e::fault::Trying;
use crate::e2e::ledger::{BLOCK, stamped};
use crate::e2e::{Fault, Outcome};
use crate::ensure;

/// Bytes of one direct request, and alignment of its buffer.
const STEP: usize = 1 << 20;
const ALIGN: usize = 4096;

/// A buffer that starts where direct I/O may start.
#[derive(Debug)]
pub struct Aligned {
    room: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    /// Zeroes.
    #[must_use]
    pub fn new(length: usize) -> Self {
        let room = vec![0; length + ALIGN];
        let start = room.as_ptr().align_offset(ALIGN);
        Self {
            room,
            start,
            length,
        }
    }

    /// The bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.room[self.start..self.start + self.length]
    }

    /// The bytes, to be changed.
    pub fn bytes_mut(&mut self) -> &mut [u8] {
        &mut self.room[self.start..self.start + self.length]
    }
}

/// Everything a device held at some moment.
#[derive(Clone, PartialEq, Eq)]
pub struct Image(Vec<u8>);

impl std::fmt::Debug for Image {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Image of {} bytes", self.0.len())
    }
}

impl Image {
    /// Bytes.
    #[must_use]
    pub fn bytes(&self) -> &[u8] {
        &self.0
    }

    /// Demands that the other is the same, byte for byte.
    ///
    /// # Errors
    /// Names `what`, and the first and the number of the sectors that differ.
    pub fn same(&self, other: &Self, what: &str) -> Outcome {
        ensure!(
            self.0.len() == other.0.len(),
            "{what}: {} bytes became {}",
            self.0.len(),
            other.0.len()
        );
        if self == other {
            return Ok(());
        }
        let pairs = self.0.chunks(512).zip(other.0.chunks(512));
        let differ: Vec<usize> = pairs
            .enumerate()
            .filter(|(_, (a, b))| a != b)
            .map(|(sector, _)| sector)
            .collect();
        let first = differ.first().copied().unwrap_or(0) * 512;
        Err(Fault::wrong(format!(
            "{what}: {} sectors differ, the first at byte {first}: {:02x?} became {:02x?}",
            differ.len(),
            &self.0[first..first + 16],
            &other.0[first..first + 16]
        )))
    }
}

/// A block device.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Device {
    /// Its node.
    pub path: PathBuf,
}

impl Device {
    /// The device with this node, which must be one.
    ///
    /// # Errors
    /// If there is no such block device.
    pub fn new(path: impl Into<PathBuf>) -> Outcome<Self> {
        let path = path.into();
        let seen = std::fs::metadata(&path).trying(|| format!("look at {}", path.display()))?;
        let is_block = std::os::unix::fs::FileTypeExt::is_block_device(&seen.file_type());
        ensure!(is_block, "{} is no block device", path.display());
        Ok(Self { path })
    }

    /// Its name in sysfs, whatever its node is called.
    ///
    /// # Errors
    /// If it is gone.
    pub fn name(&self) -> Outcome<String> {
        let story = || format!("follow {}", self.path.display());
        let number = std::fs::metadata(&self.path).trying(story)?.rdev();
        let number = format!("{}:{}", major(number), minor(number));
        let real = Path::new("/sys/dev/block").join(number).canonicalize();
        let real = real.trying(story)?;
        let name = real.file_name().unwrap_or_default();
        Ok(name.to_string_lossy().into_owned())
    }

    /// A file of its directory in sysfs.
    ///
    /// # Errors
    /// If there is no such attribute.
    pub fn attribute(&self, name: &str) -> Outcome<String> {
        text(Path::new("/sys/class/block").join(self.name()?).join(name))
    }

    /// The same as a number.
    ///
    /// # Errors
    /// If there is no such attribute or it is no number.
    pub fn number(&self, name: &str) -> Outcome<u64> {
        let text = self.attribute(name)?;
        let odd = |_| Fault::wrong(format!("{name} of {}: {text:?}", self.path.display()));
        text.parse().map_err(odd)
    }

    /// One of the counters of `stat`, by its place (Documentation/block/stat.rst).
    ///
    /// # Errors
    /// If the kernel has no such counter.
    pub fn counter(&self, place: usize) -> Outcome<u64> {
        let stat = self.attribute("stat")?;
        let field = stat.split_whitespace().nth(place);
        let number = field.and_then(|field| field.parse().ok());
        number.ok_or_else(|| Fault::wrong(format!("no field {place} in stat: {stat}")))
    }

    /// Size in bytes.
    ///
    /// # Errors
    /// If it is gone.
    pub fn size(&self) -> Outcome<u64> {
        Ok(self.number("size")? * 512)
    }

    /// Opens it for direct I/O.
    ///
    /// # Errors
    /// If it is gone, or may not be opened so.
    pub fn open(&self, write: bool) -> Outcome<File> {
        let mut options = File::options();
        options.read(true).write(write);
        options
            .custom_flags(OFlag::O_DIRECT.bits())
            .open(&self.path)
            .trying(|| format!("open {}", self.path.display()))
    }

    /// Reads everything.
    ///
    /// # Errors
    /// If a part cannot be read.
    pub fn image(&self) -> Outcome<Image> {
        let (file, size) = (self.open(false)?, self.size()? as usize);
        let mut step = Aligned::new(STEP);
        let mut all = Vec::with_capacity(size);
        while all.len() < size {
            let part = STEP.min(size - all.len());
            let at = all.len() as u64;
            let story = || format!("read {part} bytes at {at} of {}", self.path.display());
            let buffer = &mut step.bytes_mut()[..part];
            file.read_exact_at(buffer, at).trying(story)?;
            all.extend_from_slice(buffer);
        }
        Ok(Image(all))
    }

    /// Reads a part.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn read(&self, at: u64, length: usize) -> Outcome<Vec<u8>> {
        let mut buffer = Aligned::new(length);
        let story = || format!("read {length} bytes at {at} of {}", self.path.display());
        let file = self.open(false)?;
        file.read_exact_at(buffer.bytes_mut(), at).trying(story)?;
        Ok(buffer.bytes().to_vec())
    }

    /// Writes a part.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn write(&self, at: u64, bytes: &[u8]) -> Outcome {
        let mut buffer = Aligned::new(bytes.len());
        buffer.bytes_mut().copy_from_slice(bytes);
        let story = || {
            format!(
                "write {} bytes at {at} of {}",
                bytes.len(),
                self.path.display()
            )
        };
        let file = self.open(true)?;
        file.write_all_at(buffer.bytes(), at).trying(story)
    }

    /// Makes durable what was written.
    ///
    /// # Errors
    /// If that fails.
    pub fn flush(&self) -> Outcome {
        let story = || format!("flush {}", self.path.display());
        self.open(true)?.sync_data().trying(story)
    }

    /// Fills it so that every block names itself and `number`.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn fill(&self, number: u64) -> Outcome {
        let (file, size) = (self.open(true)?, self.size()? as usize);
        let mut step = Aligned::new(STEP);
        for at in (0..size).step_by(STEP) {
            let part = STEP.min(size - at);
            let buffer = &mut step.bytes_mut()[..part];
            for (index, block) in buffer.chunks_mut(BLOCK).enumerate() {
                let whole = stamped(at / BLOCK + index, number);
                block.copy_from_slice(&whole[..block.len()]);
            }
            let story = || format!("write {part} bytes at {at} of {}", self.path.display());
            file.write_all_at(buffer, at as u64).trying(story)?;
        }
        file.sync_all()
            .trying(|| format!("flush {}", self.path.display()))
    }

    /// Waits until nothing is under way on it.
    ///
    /// # Errors
    /// If it never comes to rest.
    pub fn rest(&self) -> Outcome {
        let name = self.path.display().to_string();
        let patience = Duration::from_secs(30);
        kernel::eventually(&format!("{name} comes to rest"), patience, || {
            let inflight = self.attribute("inflight")?;
            let idle = inflight.split_whitespace().all(|count| count == "0");
            ensure!(idle, "in flight: {inflight}");
            Ok(())
        })
    }
}
