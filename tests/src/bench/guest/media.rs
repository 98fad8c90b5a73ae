//! The devices below: RAM disks, and devices with a volatile cache.
//!
//! All devices of one kind have the same size, and only what is written takes
//! memory: a target uses the first bytes of the origin and what it needs of the
//! stores. Both are written once before anything is measured, because a RAM disk
//! finds memory for a page at its first write.
//!
//! Everything here reads and writes with direct I/O: device mapper and csnapd write
//! the devices past the page cache, which would go stale.

use std::fs::{File, OpenOptions};
use std::os::unix::fs::{FileExt, FileTypeExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::fcntl::OFlag;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::plan::{Medium, Plan};
use crate::bench::fio::{End, Job};
use crate::e2e::fault::Trying;
use crate::e2e::{Outcome, tools};
use crate::ensure;

/// Direct I/O wants buffers that begin at a multiple of this.
const ALIGN: usize = 4096;
/// Stores: dm-snapshot needs one for each snapshot.
const STORES: usize = 8;
/// Where the kernel's objects are configured.
const CONFIG: &str = "/sys/kernel/config";
/// Requests in flight in [`scatter`].
const WRITERS: u64 = 8;

/// An origin and stores.
#[derive(Clone, Debug)]
pub struct Media {
    /// The device that is snapshotted.
    pub origin: PathBuf,
    /// Devices for old data; the first is prepared for more of it.
    pub stores: Vec<PathBuf>,
    /// Bytes of the origin that are used.
    pub used: u64,
    /// Bytes of every device.
    pub size: u64,
    /// Appended to the names of the cases.
    pub suffix: &'static str,
}

impl Media {
    /// Makes RAM disks and writes them over.
    ///
    /// # Errors
    /// If the kernel does not make them.
    pub fn ram(plan: &Plan) -> Outcome<Self> {
        let size = plan.device();
        modprobe(&[
            "brd",
            &format!("rd_nr={}", STORES + 1),
            &format!("rd_size={}", size >> 10),
            "max_part=0",
        ])?;
        let device = |number: usize| PathBuf::from(format!("/dev/ram{number}"));
        let media = Self {
            origin: device(0),
            stores: (1..=STORES).map(device).collect(),
            used: plan.origin,
            size,
            suffix: Medium::Ram.suffix(),
        };
        media.write_over()?;
        Ok(media)
    }

    /// Gives the memory of the RAM disks back.
    ///
    /// # Errors
    /// If somebody still has one open.
    pub fn drop_ram(self) -> Outcome {
        tools::run(tools::program("modprobe").args(["-r", "brd"]))?;
        Ok(())
    }

    /// Makes devices with a volatile cache (null_blk, in memory) and writes them over.
    ///
    /// # Errors
    /// If the kernel does not make them.
    pub fn cached(plan: &Plan) -> Outcome<Self> {
        modprobe(&["configfs"])?;
        modprobe(&["null_blk", "nr_devices=0"])?;
        configfs()?;
        let device = |number: usize| null_device(&format!("nullb{number}"), plan.device());
        let media = Self {
            origin: device(0)?,
            stores: vec![device(1)?, device(2)?],
            used: plan.origin,
            size: plan.device(),
            suffix: Medium::Cache.suffix(),
        };
        media.write_over()?;
        Ok(media)
    }

    fn write_over(&self) -> Outcome {
        fill(&self.origin, self.used)?;
        for (number, store) in self.stores.iter().enumerate() {
            // Old data of one snapshot, and what describes it; the first holds
            // that of all.
            let bytes = if number == 0 {
                self.used * 4
            } else {
                self.used + self.used / 16
            };
            fill(store, bytes)?;
        }
        Ok(())
    }
}

/// Writes the first bytes of a device.
///
/// # Errors
/// If a write fails.
pub fn fill(device: &Path, bytes: u64) -> Outcome {
    ensure!(is_block(device), "{} is no block device", device.display());
    let job = Job {
        depth: 4,
        ..Job::device(device, bytes, "write", 1 << 20, End::Once)
    };
    job.run().map(|_| ())
}

/// Makes the first MiB of a device zero: no signature of what used it last.
///
/// # Errors
/// If a write fails.
pub fn wipe(device: &Path) -> Outcome {
    let zeroes = Aligned::of(1 << 20, 0);
    let file = direct(device)?;
    file.write_all_at(zeroes.bytes(), 0)
        .trying(|| format!("wipe {}", device.display()))
}

/// Overwrites `count` random chunks among the first `used` bytes, so that one
/// snapshot differs from the next.
///
/// # Errors
/// If a write fails.
pub fn scatter(device: &Path, used: u64, chunk: u64, count: u64, seed: u64) -> Outcome {
    let write = |writer: u64| -> Outcome {
        let mut random = ChaCha8Rng::seed_from_u64(seed * WRITERS + writer);
        let data = Aligned::of(chunk as usize, random.random());
        let file = direct(device)?;
        for _ in 0..count.div_ceil(WRITERS) {
            let at = random.random_range(0..used / chunk) * chunk;
            file.write_all_at(data.bytes(), at)
                .trying(|| format!("write {}", device.display()))?;
        }
        Ok(())
    };
    std::thread::scope(|scope| {
        let writers: Vec<_> = (0..WRITERS)
            .map(|writer| scope.spawn(move || write(writer)))
            .collect();
        writers.into_iter().try_for_each(|writer| {
            let panicked = |_| crate::e2e::Fault::wrong("a writer panicked");
            writer.join().map_err(panicked)?
        })
    })
}

/// Whether there is such a block device. Without udev a missing node is otherwise
/// silently made an ordinary file by whoever writes to it.
#[must_use]
pub fn is_block(path: &Path) -> bool {
    std::fs::metadata(path).is_ok_and(|meta| meta.file_type().is_block_device())
}

/// Waits until a device's node is there.
///
/// # Errors
/// If it does not come within some seconds.
pub fn wait_for(device: &Path) -> Outcome {
    let deadline = Instant::now() + Duration::from_secs(20);
    while !is_block(device) {
        ensure!(
            Instant::now() < deadline,
            "{} does not appear",
            device.display()
        );
        std::thread::sleep(Duration::from_millis(10));
    }
    Ok(())
}

/// Loads a module, with its parameters.
///
/// # Errors
/// If the kernel refuses it.
pub fn modprobe(words: &[&str]) -> Outcome {
    tools::run(tools::program("modprobe").args(words)).map(|_| ())
}

/// 512 bytes a sector, as device mapper counts.
#[must_use]
pub fn sectors(bytes: u64) -> u64 {
    bytes / 512
}

/// Mounts it where null_blk's devices are made, unless it is already.
fn configfs() -> Outcome {
    if Path::new(CONFIG).join("nullb").is_dir() {
        return Ok(());
    }
    let mut mount = tools::program("mount");
    mount.args(["-t", "configfs", "configfs", CONFIG]);
    tools::run(&mut mount).map(|_| ())
}

fn null_device(name: &str, bytes: u64) -> Outcome<PathBuf> {
    let config = Path::new(CONFIG).join("nullb").join(name);
    std::fs::create_dir_all(&config).trying(|| format!("make {}", config.display()))?;
    let megabytes = (bytes >> 20).to_string();
    for (attribute, value) in [
        ("size", megabytes.as_str()),
        ("memory_backed", "1"),
        ("cache_size", "64"),
        ("blocksize", "512"),
        ("submit_queues", "2"),
        // Completes at once, without a timer.
        ("irqmode", "0"),
        ("power", "1"),
    ] {
        let path = config.join(attribute);
        std::fs::write(&path, value).trying(|| format!("write {}", path.display()))?;
    }
    let device = Path::new("/dev").join(name);
    wait_for(&device)?;
    let cache = format!("/sys/block/{name}/queue/write_cache");
    let cache = std::fs::read_to_string(&cache).trying(|| format!("read {cache}"))?;
    ensure!(
        cache.trim() == "write back",
        "{name} has no volatile cache but {cache:?}"
    );
    Ok(device)
}

fn direct(device: &Path) -> Outcome<File> {
    ensure!(is_block(device), "{} is no block device", device.display());
    OpenOptions::new()
        .read(true)
        .write(true)
        .custom_flags(OFlag::O_DIRECT.bits())
        .open(device)
        .trying(|| format!("open {}", device.display()))
}

/// Bytes in memory where direct I/O wants them.
struct Aligned {
    memory: Vec<u8>,
    start: usize,
    length: usize,
}

impl Aligned {
    fn of(length: usize, byte: u8) -> Self {
        let memory = vec![byte; length + ALIGN];
        let start = memory.as_ptr().align_offset(ALIGN).min(ALIGN);
        Self {
            memory,
            start,
            length,
        }
    }

    fn bytes(&self) -> &[u8] {
        &self.memory[self.start..self.start + self.length]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn direct_buffers_are_aligned() {
        for length in [512, 4096, 100_000] {
            let buffer = Aligned::of(length, 7);
            assert_eq!(buffer.bytes().as_ptr() as usize % ALIGN, 0);
            assert!(buffer.bytes().iter().all(|&byte| byte == 7));
            assert_eq!(buffer.bytes().len(), length);
        }
    }

    #[test]
    fn a_file_is_no_device() {
        assert!(!is_block(Path::new("/etc/hostname")));
        assert!(!is_block(Path::new("/dev/no-such-device")));
        assert!(wipe(Path::new("/dev/null")).is_err());
    }
}
