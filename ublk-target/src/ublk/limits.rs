//! What a device below can do, as the kernel tells it.
//!
//! Block devices: `/sys/dev/block/MAJ:MIN/queue/`, of a partition its disk's.
//! Files of `/sys` that a kernel lacks leave the kernel's own default. Regular
//! files: `statx`, and the defaults of a disk without peculiarities.

use std::io;
use std::os::fd::AsFd;
use std::path::{Path, PathBuf};

use super::UblkError;
use crate::device::{Device, Identity, direct_memory_alignment, queue};

/// The driver takes logical blocks up to a page.
pub const LARGEST_BLOCK: u32 = 4096;

/// What a device can do. See the kernel's `Documentation/ABI/stable/sysfs-block`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Bytes every offset and length is a multiple of.
    pub logical_block: u32,
    /// Bytes the device writes without reading first.
    pub physical_block: u32,
    /// Bytes of the least good request.
    pub io_min: u32,
    /// Bytes of the best request; 0: none is best.
    pub io_opt: u32,
    /// Most sectors of 512 bytes in one request; larger ones are split by the kernel.
    pub max_sectors: u32,
    /// Memory begins and ends at multiples of this plus one.
    pub dma_alignment: u32,
    /// No piece of memory crosses multiples of this plus one.
    pub seg_boundary_mask: u64,
    /// Most bytes in one piece of memory.
    pub max_segment_size: u32,
    /// Most pieces in one request.
    pub max_segments: u16,
    /// Pieces but the first begin, and but the last end, at multiples of this
    /// plus one; 0: anywhere.
    pub virt_boundary_mask: u64,
    /// It seeks.
    pub rotational: bool,
    /// Most bytes of one discard; 0: it has none.
    pub max_discard_bytes: u64,
    /// Bytes a discard is useful in.
    pub discard_granularity: u32,
    /// Most bytes of one write of zeroes; 0: it has none.
    pub max_write_zeroes_bytes: u64,
}

/// The kernel's defaults (`blk_set_stacking_limits`, `BLK_SEG_BOUNDARY_MASK`),
/// and for a file what a file system takes.
const PLAIN: Limits = Limits {
    logical_block: 512,
    physical_block: 4096,
    io_min: 4096,
    io_opt: 0,
    max_sectors: 2560,
    dma_alignment: 511,
    seg_boundary_mask: 0xffff_ffff,
    max_segment_size: u32::MAX,
    max_segments: u16::MAX,
    virt_boundary_mask: 0,
    rotational: false,
    max_discard_bytes: 1 << 30,
    discard_granularity: 4096,
    max_write_zeroes_bytes: 1 << 30,
};

impl Limits {
    /// The limits of an open device or file.
    ///
    /// # Errors
    /// [`UblkError::Sysfs`]; [`UblkError::BlockSize`] for a device that no block
    /// device of ublk can stand for.
    pub fn of(device: &Device) -> Result<Self, UblkError> {
        let limits = match device.identity() {
            Identity::Block(number) => {
                let (major, minor) = (libc::major(number), libc::minor(number));
                let dir = PathBuf::from(format!("/sys/dev/block/{major}:{minor}"));
                Self::of_queue(&queue(&dir))
            }
            Identity::File { .. } => Self::of_file(device),
        };
        limits?.checked(device.path())
    }

    /// Smaller blocks than the device's own would promise requests it refuses.
    fn checked(self, path: &Path) -> Result<Self, UblkError> {
        if self.logical_block <= LARGEST_BLOCK {
            return Ok(self);
        }
        Err(UblkError::BlockSize {
            path: path.to_owned(),
            block: self.logical_block,
            limit: LARGEST_BLOCK,
        })
    }

    fn of_queue(queue: &Path) -> Result<Self, UblkError> {
        let read = |name: &str, default: u64| attribute(queue, name, default);
        let logical = u64::from(attribute_needed(queue, "logical_block_size")?);
        let kb = read("max_sectors_kb", u64::from(PLAIN.max_sectors) / 2)?;
        let clip = |value: u64| u32::try_from(value).unwrap_or(u32::MAX);
        let physical = read("physical_block_size", logical)?;
        Ok(Self {
            logical_block: clip(logical),
            physical_block: clip(physical),
            io_min: clip(read("minimum_io_size", physical)?),
            io_opt: clip(read("optimal_io_size", 0)?),
            max_sectors: clip(kb.saturating_mul(2)),
            dma_alignment: clip(read("dma_alignment", u64::from(PLAIN.dma_alignment))?),
            // No kernel tells it; requests that cross one are split below.
            seg_boundary_mask: PLAIN.seg_boundary_mask,
            max_segment_size: clip(read("max_segment_size", u64::from(u32::MAX))?),
            max_segments: u16::try_from(read("max_segments", 128)?).unwrap_or(u16::MAX),
            virt_boundary_mask: read("virt_boundary_mask", 0)?,
            rotational: read("rotational", 0)? != 0,
            max_discard_bytes: read("discard_max_bytes", 0)?,
            discard_granularity: clip(read("discard_granularity", 0)?),
            max_write_zeroes_bytes: read("write_zeroes_max_bytes", 0)?,
        })
    }

    fn of_file(device: &Device) -> Result<Self, UblkError> {
        let failed = |source| UblkError::Sysfs {
            path: device.path().to_owned(),
            source,
        };
        let memory = direct_memory_alignment(device.as_fd()).map_err(failed)?;
        let logical = device.logical_block();
        Ok(Self {
            logical_block: logical,
            physical_block: logical.max(PLAIN.physical_block),
            io_min: logical.max(PLAIN.io_min),
            dma_alignment: memory.map_or(PLAIN.dma_alignment, |memory| memory.max(1) - 1),
            ..PLAIN
        })
    }
}

fn attribute_needed(queue: &Path, name: &str) -> Result<u32, UblkError> {
    let path = queue.join(name);
    read_number(&path)
        .and_then(|value| u32::try_from(value).map_err(io::Error::other))
        .map_err(|source| UblkError::Sysfs { path, source })
}

fn attribute(queue: &Path, name: &str, default: u64) -> Result<u64, UblkError> {
    let path = queue.join(name);
    match read_number(&path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(default),
        other => other.map_err(|source| UblkError::Sysfs { path, source }),
    }
}

fn read_number(path: &Path) -> io::Result<u64> {
    let text = std::fs::read_to_string(path)?;
    text.trim().parse().map_err(io::Error::other)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn queue_with(files: &[(&str, &str)]) -> tempfile::TempDir {
        let dir = tempfile::tempdir().unwrap();
        for (name, text) in files {
            std::fs::write(dir.path().join(name), format!("{text}\n")).unwrap();
        }
        dir
    }

    #[test]
    fn a_queue_is_read_and_what_it_lacks_is_default() {
        let dir = queue_with(&[
            ("logical_block_size", "4096"),
            ("max_sectors_kb", "1280"),
            ("dma_alignment", "3"),
            ("discard_max_bytes", "2147450880"),
            ("rotational", "1"),
        ]);
        let limits = Limits::of_queue(dir.path()).unwrap();
        assert_eq!(limits.logical_block, 4096);
        assert_eq!(limits.physical_block, 4096);
        assert_eq!(limits.max_sectors, 2560);
        assert_eq!(limits.dma_alignment, 3);
        assert_eq!(limits.max_discard_bytes, 2_147_450_880);
        assert_eq!(limits.max_write_zeroes_bytes, 0);
        assert!(limits.rotational);
    }

    #[test]
    fn nonsense_is_an_error_that_names_the_file() {
        let dir = queue_with(&[("logical_block_size", "512"), ("max_segments", "many")]);
        let error = Limits::of_queue(dir.path()).unwrap_err().to_string();
        assert!(error.contains("max_segments"), "{error}");
        let error = Limits::of_queue(Path::new("/nowhere")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/logical_block_size"));
    }

    #[test]
    fn larger_blocks_than_the_drivers_are_refused_by_name_and_size() {
        let of = |block: &str| {
            let dir = queue_with(&[("logical_block_size", block)]);
            let limits = Limits::of_queue(dir.path()).unwrap();
            limits.checked(Path::new("/dev/large"))
        };
        assert_eq!(of("4096").unwrap().logical_block, 4096);
        let error = of("16384").unwrap_err().to_string();
        for part in ["/dev/large", "16384", "4096"] {
            assert!(error.contains(part), "{error}");
        }
    }

    #[test]
    fn a_partition_has_its_disks_queue() {
        let disk = tempfile::tempdir().unwrap();
        std::fs::create_dir(disk.path().join("queue")).unwrap();
        let part = disk.path().join("disk1");
        std::fs::create_dir(&part).unwrap();
        let found = queue(&part).canonicalize().unwrap();
        assert_eq!(found, disk.path().canonicalize().unwrap().join("queue"));
    }

    #[test]
    fn a_file_has_the_limits_of_its_file_system() {
        let file = tempfile::NamedTempFile::new().unwrap();
        file.as_file().set_len(1 << 20).unwrap();
        let device = crate::device::OriginDevice::open(file.path(), false).unwrap();
        let limits = Limits::of(&device).unwrap();
        assert_eq!(limits.logical_block, device.logical_block());
        assert!((limits.dma_alignment + 1).is_power_of_two());
    }
}
