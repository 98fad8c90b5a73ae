//! Images that imagegen writes onto devices, and who judges them: imagegen's own checker,
//! the newest xfs_repair, the kernel's map of who owns what.
//!
//! The newest xfsprogs come with the guest's runner, beside their own loader and libraries.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use imagegen::target::{Overwrite, Target};
use imagegen::tree::{Directory, WalkOptions};
use imagegen::xfs::check::check;
use imagegen::xfs::fsmap::{Fsmap, Mapping, Owner};
use imagegen::xfs::geometry::{Kernel, Options};
use imagegen::xfs::make::{Progress, Request, Size, make, plan};
use imagegen::xfs::read::Reader;
use uuid::Uuid;

use super::disk::{Disk, RamOptions};
use super::view::{View, view};
use super::{Device, kernel, kinds};
use crate::e2e::fault::Trying;
use crate::e2e::{Fault, Outcome, tools};
use crate::ensure;

/// Smallest that Debian 12's mkfs.xfs makes, and some more.
const SOURCE_MIB: u64 = 320;

/// Mounts a device that holds XFS.
///
/// # Errors
/// If the kernel refuses.
pub fn mount(device: &Device, options: &str, dir: &Path) -> Outcome {
    mount_as("xfs", device, options, dir)
}

/// Mounts a device that holds this kind of file system.
///
/// # Errors
/// If the kernel refuses.
pub fn mount_as(kind: &str, device: &Device, options: &str, dir: &Path) -> Outcome {
    std::fs::create_dir_all(dir).trying(|| format!("make {}", dir.display()))?;
    let mut command = tools::program("mount");
    command.args(["-t", kind, "-o", options]);
    tools::run(command.arg(&device.path).arg(dir)).map(drop)
}

/// Unmounts when dropped: a test that failed leaves nothing mounted.
#[derive(Debug)]
pub struct Point(pub PathBuf);

impl Drop for Point {
    fn drop(&mut self) {
        // Where nothing is mounted any more this does nothing.
        let _ = tools::run(tools::program("umount").arg("-q").arg(&self.0));
    }
}

/// Unmounts, once nobody looks at it.
///
/// # Errors
/// If somebody keeps it.
pub fn umount(dir: &Path) -> Outcome {
    let what = format!("unmount {}", dir.display());
    kernel::eventually(&what, Duration::from_secs(20), || {
        tools::run(tools::program("umount").arg(dir)).map(drop)
    })
}

/// A tree with every kind of object, on an XFS that mkfs.xfs and the kernel made, mounted
/// read-only.
#[derive(Debug)]
pub struct Original {
    // Unmounted before the disk goes.
    dir: Point,
    disk: Disk,
    /// All that can be seen of it.
    pub view: View,
}

impl Original {
    /// Makes it; it is mounted at `dir`.
    ///
    /// # Errors
    /// If the kernel or a tool refuses.
    pub fn plant(dir: &Path, seed: u64) -> Outcome<Self> {
        let disk = Disk::ram(RamOptions::plain(SOURCE_MIB))?;
        let mut mkfs = tools::program("mkfs.xfs");
        tools::run(mkfs.arg("-q").arg(&disk.device().path))?;
        mount(disk.device(), "rw", dir)?;
        let mut original = Self {
            dir: Point(dir.to_path_buf()),
            disk,
            view: View::new(),
        };
        kinds::plant(dir, seed)?;
        umount(dir)?;
        mount(original.disk.device(), "ro", dir)?;
        original.view = view(dir)?;
        Ok(original)
    }

    /// Where it is mounted.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir.0
    }

    /// Writes an image of it.
    ///
    /// # Errors
    /// If imagegen refuses.
    pub fn write(&self, device: &Device, wanted: &Wanted, overwrite: Overwrite) -> Outcome {
        let source = Directory::open(&self.dir.0, &WalkOptions::default());
        let source = source.map_err(|error| failed("open the tree", &error))?;
        let request = wanted.request();
        let plan = plan(&source, &request).map_err(|error| failed("plan an image", &error))?;
        let target = Target::create(&device.path, plan.bytes(), overwrite);
        let target = target.map_err(|error| failed("begin an image", &error))?;
        make(&source, &request, &plan, &target, &Progress::default())
            .map_err(|error| failed("write an image", &error))?;
        let finished = target.finish(true);
        finished.map_err(|error| failed("finish an image", &error))
    }

    /// What an image of it must show.
    #[must_use]
    pub fn expected(&self, wanted: &Wanted) -> View {
        let mut view = self.view.clone();
        if wanted.request().options.features.autofsck() {
            let root = view.entry(PathBuf::new());
            root.and_modify(|root| {
                let name = b"trusted.xfs:autofsck".to_vec();
                root.xattrs.insert(name, b"repair".to_vec());
            });
        }
        view
    }

    /// Unmounts and removes it.
    ///
    /// # Errors
    /// If somebody has it still.
    pub fn remove(&self) -> Outcome {
        umount(&self.dir.0)?;
        self.disk.remove()
    }
}

/// What kind of image is made.
#[derive(Clone, Copy, Debug)]
pub struct Wanted {
    /// Whose features it has.
    pub kernel: Kernel,
    /// How large it is.
    pub size: Size,
}

impl Wanted {
    fn request(&self) -> Request {
        let mut options = Options::new(0, Uuid::nil());
        options.features = self.kernel.features();
        Request {
            options,
            size: self.size,
            uuid: None,
            free_inodes: 0,
            dedupe: false,
            autofsck: true,
            threads: 0,
        }
    }
}

pub(super) fn failed(what: &str, error: &dyn std::error::Error) -> Fault {
    Fault::wrong(format!("{what}: {error}"))
}

pub(super) fn opened(device: &Device) -> Outcome<File> {
    File::open(&device.path).trying(|| format!("open {}", device.path.display()))
}

/// Has everybody check an unmounted device: imagegen's checker and the newest xfs_repair.
///
/// # Errors
/// Shows what was found.
pub fn check_all(test: &str, device: &Device, when: &str) -> Outcome {
    let report = check(opened(device)?);
    let problems: Vec<String> = report.problems.iter().map(ToString::to_string).collect();
    ensure!(
        report.exit_code() == 0,
        "{when}: imagegen's checker finds {} problems, {:?}:\n{}",
        report.found,
        report.failure,
        problems.join("\n")
    );
    let Some(mut repair) = newest("xfs_repair") else {
        let reason = "the newest xfsprogs are not there; scripts/judges fetches them";
        return crate::e2e::skip(test, &format!("{when}, xfs_repair: {reason}"));
    };
    tools::run(repair.arg("-n").arg(&device.path)).map(drop)
}

/// A program of the newest xfsprogs, if the runner brought them.
fn newest(name: &str) -> Option<Command> {
    let dir = Path::new("/root/csnap/xfsprogs");
    let (loader, program) = (dir.join("ld.so"), dir.join(name));
    if !loader.is_file() || !program.is_file() {
        return None;
    }
    let mut command = tools::program(loader);
    command.arg("--library-path").arg(dir).arg(program);
    Some(command)
}

/// Demands that the kernel's map of the device, mounted at `dir` and at rest, is the one
/// that imagegen reads from the device. (xfs_io does not tell written from unwritten.)
///
/// # Errors
/// Shows the first record that differs.
pub fn same_map(device: &Device, dir: &Path) -> Outcome {
    let mut xfs_io = tools::program("xfs_io");
    let kernel = tools::run(xfs_io.args(["-r", "-c", "fsmap -m"]).arg(dir))?;
    let kernel = kernel.lines().skip(1).map(|line| {
        let fields: Vec<&str> = line.split(',').collect();
        // Number, major, minor; then places, owner, offsets, length.
        fields.get(3..).unwrap_or_default().join(",")
    });
    let kernel: Vec<String> = kernel.collect();
    let reader = Reader::open(opened(device)?).map_err(|error| failed("open it", &error))?;
    let fsmap = Fsmap::open(reader);
    let mut ours = Vec::new();
    for mapping in fsmap.query(0..fsmap.size()) {
        ours.push(row(&mapping.map_err(|error| failed("map it", &error))?));
    }
    let pairs = kernel.iter().zip(&ours).enumerate();
    for (number, (kernel, ours)) in pairs {
        ensure!(
            kernel == ours,
            "record {number} of fsmap: the kernel says {kernel}, imagegen {ours}"
        );
    }
    ensure!(
        kernel.len() == ours.len() && kernel.len() > 10,
        "records of fsmap: {} of the kernel, {} of imagegen",
        kernel.len(),
        ours.len()
    );
    Ok(())
}

/// A mapping as `xfs_io -c "fsmap -m"` writes it behind its device (`dump_map_machine` of
/// xfsprogs, numbers of special owners: linux/fsmap.h, xfs_fs.h).
fn row(mapping: &Mapping) -> String {
    let last = |at: u64, length: u64| (at + length) / 512 - 1;
    let special = |kind: u32, number: u32| format!("special_{kind}:{number},,");
    let xfs = |number| special(u32::from(b'X'), number);
    let owner = match mapping.owner {
        Owner::Free => special(0, 1),
        Owner::Unknown => special(0, 2),
        Owner::Headers => xfs(1),
        Owner::Log => xfs(2),
        Owner::Group => xfs(3),
        Owner::InodeTree => xfs(4),
        Owner::Inodes => xfs(5),
        Owner::RefcountTree => xfs(6),
        Owner::CopyOnWrite => xfs(7),
        Owner::Inode(ino) => {
            let attribute = mapping.flags.attribute_fork;
            let fork = if attribute { "attr" } else { "data" };
            if mapping.flags.extent_map {
                format!("inode_{ino}_{fork}_bmbt,,")
            } else {
                let end = last(mapping.offset, mapping.length);
                format!("inode_{ino}_{fork},{},{end}", mapping.offset / 512)
            }
        }
    };
    format!(
        "{},{},{owner},{}",
        mapping.start / 512,
        last(mapping.start, mapping.length),
        mapping.length / 512
    )
}
