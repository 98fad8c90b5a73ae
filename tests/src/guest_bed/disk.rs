//! Disks in memory that come and go with a test.
//!
//! null_blk, memory backed, made through configfs: any size, 512 or 4096 byte
//! sectors, with or without a volatile cache, with discard. A fresh one is zeroes.

use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use super::{Device, kernel, set, text};
use crate::e2e::fault::Trying;
use crate::e2e::{Fault, Outcome, tools};
use crate::ensure;

const CONFIG: &str = "/sys/kernel/config/nullb";
static NEXT: AtomicU32 = AtomicU32::new(0);

/// What a disk in memory is like.
#[derive(Clone, Copy, Debug)]
pub struct RamOptions {
    /// Size.
    pub mib: u64,
    /// Bytes of a logical block.
    pub sector: u32,
    /// Whether it has a volatile write cache (so that flushes arrive).
    pub cached: bool,
}

impl RamOptions {
    /// 512-byte sectors, no cache.
    #[must_use]
    pub fn plain(mib: u64) -> Self {
        Self {
            mib,
            sector: 512,
            cached: false,
        }
    }
}

/// A disk a test made. Dropping it removes it.
#[derive(Debug)]
pub enum Disk {
    /// null_blk.
    Ram {
        /// The device.
        device: Device,
        /// Its directory in configfs.
        config: PathBuf,
    },
    /// scsi_debug: the only one while it lives.
    Scsi {
        /// The device.
        device: Device,
    },
    /// Device mapper over another disk.
    Mapped {
        /// The device.
        device: Device,
        /// Its name for `dmsetup`.
        name: String,
        /// What lies below.
        below: Box<Disk>,
    },
}

impl Disk {
    /// A disk in memory.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn ram(options: RamOptions) -> Outcome<Self> {
        kernel::inside()?;
        if !Path::new(CONFIG).is_dir() {
            kernel::load("configfs")?;
            if !mounted("/sys/kernel/config")? {
                let mut mount = tools::program("mount");
                tools::run(mount.args(["-t", "configfs", "none", "/sys/kernel/config"]))?;
            }
            kernel::load("null_blk nr_devices=0")?;
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        // Not a name that a program killed before may have left.
        let name = format!("csnap{}x{number}", std::process::id());
        let config = Path::new(CONFIG).join(name);
        std::fs::create_dir(&config).trying(|| format!("make {}", config.display()))?;
        let settings = [
            ("size", options.mib.to_string()),
            ("blocksize", options.sector.to_string()),
            ("memory_backed", "1".into()),
            ("queue_mode", "2".into()),
            ("submit_queues", "2".into()),
            ("irqmode", "0".into()),
            ("discard", "1".into()),
            ("cache_size", if options.cached { "8" } else { "0" }.into()),
        ];
        for (name, value) in settings {
            set(config.join(name), &value)?;
        }
        // A FUA write is then a write and a flush, which the disk counts.
        if options.cached && config.join("fua").exists() {
            set(config.join("fua"), "0")?;
        }
        set(config.join("power"), "1")?;
        let path = node_of(&config)?;
        kernel::settle()?;
        Ok(Self::Ram {
            device: await_node(&path)?,
            config,
        })
    }

    /// A disk of scsi_debug with further options of the module.
    ///
    /// # Errors
    /// If the kernel refuses or has one already.
    pub fn scsi(mib: u64, options: &str) -> Outcome<Self> {
        kernel::inside()?;
        kernel::load(&format!(
            "scsi_debug dev_size_mb={mib} num_tgts=1 max_luns=1 ndelay=0 delay=0 {options}"
        ))?;
        let disks = Path::new("/sys/bus/pseudo/drivers/scsi_debug");
        let patience = Duration::from_secs(30);
        let path = kernel::eventually("scsi_debug has a disk", patience, || scsi_node(disks))?;
        kernel::settle()?;
        Ok(Self::Scsi {
            device: await_node(&path)?,
        })
    }

    /// Takes a disk of scsi_debug away, whoever has it; what it holds stays.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn pull(&self) -> Outcome {
        let name = self.device().name()?;
        set(format!("/sys/block/{name}/device/delete"), "1")
    }

    /// Cuts a disk of scsi_debug off, or has it answer again: it stays where it is.
    ///
    /// # Errors
    /// If the kernel refuses.
    pub fn answers(&self, answers: bool) -> Outcome {
        let name = self.device().name()?;
        // Without the end of the line the kernel does not know the word.
        let state = if answers { "running\n" } else { "offline\n" };
        set(format!("/sys/block/{name}/device/state"), state)
    }

    /// Connects it again. It has another name if somebody still holds the old one.
    ///
    /// # Errors
    /// If it does not come.
    pub fn plug(&mut self) -> Outcome {
        let Self::Scsi { device } = self else {
            return Err(Fault::wrong("only a disk of scsi_debug can be pulled"));
        };
        let hosts = std::fs::read_dir("/sys/class/scsi_host").trying(|| "list hosts".into())?;
        for host in hosts.flatten() {
            set(host.path().join("scan"), "- - -")?;
        }
        let disks = Path::new("/sys/bus/pseudo/drivers/scsi_debug");
        let patience = Duration::from_secs(30);
        let path = kernel::eventually("the disk is back", patience, || scsi_node(disks))?;
        kernel::settle()?;
        *device = await_node(&path)?;
        Ok(())
    }

    /// A linear mapping of all of `below`, to be changed with [`Self::retable`].
    ///
    /// # Errors
    /// If device mapper refuses.
    pub fn mapped(below: Self) -> Outcome<Self> {
        kernel::load("dm_mod")?;
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("csnap{number}");
        let table = format!(
            "0 {} linear {} 0",
            below.device().size()? / 512,
            below.device().path.display()
        );
        dmsetup(&["create", &name, "--table", &table])?;
        let path = PathBuf::from(format!("/dev/mapper/{name}"));
        Ok(Self::Mapped {
            device: await_node(&path)?,
            name,
            below: Box::new(below),
        })
    }

    /// Puts another table in place, without waiting for what is under way. `%d`
    /// stands for the disk below, `%s` for its sectors.
    ///
    /// # Errors
    /// If this is no mapping or device mapper refuses.
    pub fn retable(&self, table: &str) -> Outcome {
        let Self::Mapped { name, below, .. } = self else {
            return Err(Fault::wrong("only a mapping has a table"));
        };
        let sectors = (below.device().size()? / 512).to_string();
        let path = below.device().path.display().to_string();
        let table = table.replace("%d", &path).replace("%s", &sectors);
        dmsetup(&["load", name, "--table", &table])?;
        dmsetup(&["suspend", "--noflush", "--nolockfs", name])?;
        dmsetup(&["resume", name])
    }

    /// The device.
    #[must_use]
    pub fn device(&self) -> &Device {
        match self {
            Self::Ram { device, .. } | Self::Scsi { device } | Self::Mapped { device, .. } => {
                device
            }
        }
    }

    /// Removes it; a second time does nothing.
    ///
    /// # Errors
    /// If somebody still has it.
    pub fn remove(&self) -> Outcome {
        kernel::settle()?;
        match self {
            Self::Ram { config, .. } if config.is_dir() => {
                set(config.join("power"), "0")?;
                std::fs::remove_dir(config).trying(|| format!("remove {}", config.display()))
            }
            Self::Ram { .. } => Ok(()),
            Self::Scsi { .. } if Path::new("/sys/module/scsi_debug").is_dir() => {
                kernel::unload("scsi_debug")
            }
            Self::Scsi { .. } => Ok(()),
            Self::Mapped {
                device,
                name,
                below,
            } => {
                if device.path.exists() {
                    dmsetup(&["remove", "--retry", name])?;
                }
                below.remove()
            }
        }
    }
}

impl Drop for Disk {
    fn drop(&mut self) {
        // After a failed test somebody may hold it still: the next one makes another.
        let _ = self.remove();
    }
}

/// One command of `dmsetup`.
///
/// # Errors
/// If device mapper refuses.
pub fn dmsetup(words: &[&str]) -> Outcome {
    let mut command = tools::program("dmsetup");
    // Nodes are made by dmsetup itself, not by udev at some time later.
    command.env("DM_DISABLE_UDEV", "1").args(words);
    tools::run(&mut command).map(drop)
}

fn mounted(dir: &str) -> Outcome<bool> {
    let mounts = text("/proc/mounts")?;
    Ok(mounts
        .lines()
        .any(|line| line.split(' ').nth(1) == Some(dir)))
}

/// The node of a null_blk disk: 7.2 names it after its directory, 6.12 by number.
fn node_of(config: &Path) -> Outcome<PathBuf> {
    let named = config.file_name().unwrap_or_default();
    let index = text(config.join("index"))?;
    let names = [
        named.to_string_lossy().into_owned(),
        format!("nullb{index}"),
    ];
    let found = names
        .iter()
        .find(|name| Path::new("/sys/class/block").join(name).exists());
    let found = found.ok_or_else(|| Fault::wrong(format!("no disk for {}", config.display())))?;
    Ok(Path::new("/dev").join(found))
}

/// The device of this node, once it is there.
///
/// # Errors
/// If it does not come.
pub fn await_node(path: &Path) -> Outcome<Device> {
    let patience = Duration::from_secs(20);
    kernel::eventually(&format!("{} appears", path.display()), patience, || {
        Device::new(path)
    })
}

/// `/dev/sdX` of the one disk scsi_debug has.
fn scsi_node(driver: &Path) -> Outcome<PathBuf> {
    let found = tools::run(tools::program("find").arg(driver.join("adapter0/")).args([
        "-maxdepth",
        "6",
        "-path",
        "*/block/sd*",
        "-name",
        "sd*",
        "-prune",
    ]))?;
    let name = found
        .lines()
        .next()
        .and_then(|line| line.rsplit('/').next());
    let name = name.ok_or_else(|| Fault::wrong("no disk yet"))?;
    ensure!(name.starts_with("sd"), "an odd disk: {name}");
    Ok(Path::new("/dev").join(name))
}
