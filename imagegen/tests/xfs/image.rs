//! An image made for a test, on a file that goes away with it.

use crate::tools::target_dir;
use imagegen::target::{Overwrite, Target};
use imagegen::tree::{Detail, Source, Xattr};
use imagegen::xfs::geometry::{Geometry, Options};
use imagegen::xfs::make::{MakeError, Progress, Request, Size, make, plan};
use imagegen::xfs::write::{Made, WriteError, WriteOptions, write};
use std::path::{Path, PathBuf};
use tempfile::TempDir;
use uuid::Uuid;

pub(crate) const MIB: u64 = 1 << 20;
pub(crate) const GIB: u64 = 1 << 30;
pub(crate) const TIB: u64 = 1 << 40;

/// A file system in a file.
pub(crate) struct Image {
    pub(crate) geometry: Geometry,
    pub(crate) made: Made,
    /// Attributes its root has besides the tree's.
    pub(crate) root_xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    dir: TempDir,
}

/// Defaults for `size` bytes; the identity comes from the running test and its process,
/// because no two file systems with the same can be mounted at once.
pub(crate) fn sized(size: u64) -> Options {
    let test = std::thread::current().name().unwrap_or("").to_owned();
    let half = |salt: &str| {
        let process = std::process::id().to_le_bytes();
        let all = test.bytes().chain(salt.bytes()).chain(process);
        all.fold(0xcbf2_9ce4_8422_2325_u64, |hash, byte| {
            (hash ^ u64::from(byte)).wrapping_mul(0x100_0000_01b3)
        })
    };
    Options::new(size, Uuid::from_u64_pair(half("a"), half("b")))
}

impl Image {
    /// An image of `tree`.
    pub(crate) fn make(tree: &dyn Source, options: &Options) -> Result<Self, WriteError> {
        Self::with(tree, options, WriteOptions::default())
    }

    pub(crate) fn with(
        tree: &dyn Source,
        options: &Options,
        write_options: WriteOptions,
    ) -> Result<Self, WriteError> {
        let geometry = options
            .geometry()
            .unwrap_or_else(|error| panic!("{options:?}: {error}"));
        let dir = scratch();
        let target = target(&dir, options.size);
        let mut write_options = write_options;
        if geometry.features.autofsck() {
            write_options.root_xattrs.push(Xattr {
                name: b"trusted.xfs:autofsck".as_slice().into(),
                value: b"repair".as_slice().into(),
            });
        }
        let root_xattrs = pairs(&write_options.root_xattrs);
        let detail = if write_options.dedupe {
            Detail::Digests
        } else {
            Detail::Contents
        };
        let mut events = tree.walk(detail)?;
        let made = write(&geometry, &mut events, &target, &write_options)?;
        target.finish(false).unwrap();
        Ok(Self {
            geometry,
            made,
            root_xattrs,
            dir,
        })
    }

    /// An image as the command makes it, of the size that is found for the tree.
    pub(crate) fn of_size(
        tree: &dyn Source,
        size: Size,
        options: &Options,
        dedupe: bool,
    ) -> Result<Self, MakeError> {
        let request = Request {
            uuid: Some(options.uuid),
            options: options.clone(),
            size,
            free_inodes: 0,
            dedupe,
            autofsck: false,
            threads: 0,
        };
        let plan = plan(tree, &request)?;
        let dir = scratch();
        let target = target(&dir, plan.bytes());
        let made = make(tree, &request, &plan, &target, &Progress::default())?;
        target.finish(false).unwrap();
        Ok(Self {
            geometry: plan.geometry,
            made,
            root_xattrs: Vec::new(),
            dir,
        })
    }

    /// Bytes of it.
    pub(crate) fn size(&self) -> u64 {
        self.geometry.blocks << self.geometry.block_log
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    /// A directory beside it, for mounting and such.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }
}

/// A directory for one test's files, on the disk that holds the build.
pub(crate) fn scratch() -> TempDir {
    let parent = target_dir().join("e2e/xfs");
    std::fs::create_dir_all(&parent).unwrap();
    TempDir::new_in(parent.canonicalize().unwrap()).unwrap()
}

/// Where an image is made, without waiting for the disk.
fn target(dir: &TempDir, size: u64) -> Target {
    Target::create(&dir.path().join("image"), size, Overwrite::Refuse).unwrap()
}

fn pairs(xattrs: &[Xattr]) -> Vec<(Vec<u8>, Vec<u8>)> {
    let pair = |xattr: &Xattr| (xattr.name.to_vec(), xattr.value.to_vec());
    xattrs.iter().map(pair).collect()
}
