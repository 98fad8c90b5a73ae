//! What this machine's kernel reserves of a mounted file system.

use super::mkfs::arguments;
use super::tools::{self, Suite, xfsprogs};
use super::{Change, GIB, MIB, UUID};
use imagegen::xfs::format::superblock::Superblock;
use imagegen::xfs::geometry::{Groups, Options, Used};
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::process::Command;
use zerocopy::FromBytes;

/// A mounted image, unmounted when dropped.
struct Mounted(PathBuf);

impl Mounted {
    /// None, and the test noted as skipped, where nothing can be mounted.
    fn new(image: &Path, dir: &Path) -> Option<Self> {
        let place = dir.join("mounted");
        std::fs::create_dir_all(&place).unwrap();
        let mut mount = Command::new("mount");
        let output = mount
            .args(["-t", "xfs", "-o", "loop"])
            .arg(image)
            .arg(&place)
            .output();
        let output = output.unwrap();
        if !output.status.success() {
            let why = String::from_utf8_lossy(&output.stderr)
                .trim()
                .replace('\n', "; ");
            tools::skip(&format!("cannot mount an XFS image: {why}"));
            return None;
        }
        Some(Self(place))
    }

    /// Free blocks, as the kernel counts them.
    fn free(&self) -> u64 {
        let mut stat = Command::new("stat");
        let output = stat.args(["-f", "-c", "%f"]).arg(&self.0).output().unwrap();
        String::from_utf8(output.stdout)
            .unwrap()
            .trim()
            .parse()
            .unwrap()
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg(&self.0).status();
    }
}

/// Blocks the kernel keeps for its own use once mounted (`xfs_default_resblks`).
const POOL: u64 = 8192;

#[test]
fn kernel_reserves_what_we_compute() {
    let dir = tempfile::tempdir().unwrap();
    let image = dir.path().join("image");
    let cases: [(u64, Change); 6] = [
        (GIB, |_| {}),
        (20 * GIB, |o| o.groups = Groups::Count(9)),
        (64 * MIB, |_| {}),
        (3 * GIB, |o| o.features.rmapbt = false),
        (3 * GIB, |o| {
            o.features.reflink = false;
            o.block_size = 1024;
        }),
        (2 * GIB, |o| o.features.finobt = false),
    ];
    for (size, change) in cases {
        let Some(mut mkfs) = xfsprogs(Suite::Newest, "mkfs.xfs") else {
            return;
        };
        let mut options = Options::new(size, UUID);
        change(&mut options);
        options.features.inobtcount &= options.features.finobt;
        let geometry = options.geometry().unwrap();
        let _ = std::fs::remove_file(&image);
        let made = mkfs.arg("-q").args(arguments(&options, &image)).output();
        assert!(made.unwrap().status.success());
        let mut bytes = [0; size_of::<Superblock>()];
        File::open(&image).unwrap().read_exact(&mut bytes).unwrap();
        let written = Superblock::read_from_bytes(&bytes).unwrap();
        let features = &geometry.features;
        let used = Used {
            reverse: features.rmapbt.into(),
            refcounts: features.reflink.into(),
            free_inodes: features.finobt.into(),
        };
        // Blocks of the tree of reverse mappings count as free.
        let reserved: u64 = (0..geometry.ag_count)
            .map(|ag| u64::from(geometry.reserve(ag, used) + used.reverse))
            .sum();
        let pool = POOL.min(geometry.blocks / 20);
        let ours = written.fdblocks.get() - reserved - geometry.set_aside() - pool;
        let Some(mounted) = Mounted::new(&image, dir.path()) else {
            return;
        };
        assert_eq!(mounted.free(), ours, "of {size} bytes");
    }
}
