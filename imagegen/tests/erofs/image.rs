//! An image made for a test, on a file that goes away with it.

use crate::tools::target_dir;
use imagegen::erofs::make::{Request, make, plan};
use imagegen::erofs::write::{Made, Options, WriteError};
use imagegen::target::{Overwrite, Target};
use imagegen::tree::{Progress, Source};
use std::path::{Path, PathBuf};
use tempfile::TempDir;

/// A file system in a file.
pub(crate) struct Image {
    pub(crate) options: Options,
    pub(crate) made: Made,
    dir: TempDir,
}

impl Image {
    /// An image of `tree`.
    pub(crate) fn make(tree: &dyn Source, options: &Options) -> Result<Self, WriteError> {
        let request = Request {
            options: options.clone(),
            uuid: None,
        };
        let plan = plan(tree, &request)?;
        let dir = scratch();
        let path = dir.path().join("image");
        let target = Target::growing(&path, plan.at_most(), Overwrite::Refuse).unwrap();
        let made = make(tree, &request, &plan, &target, &Progress::default())?;
        target.finish_at(made.bytes, false).unwrap();
        Ok(Self {
            options: options.clone(),
            made,
            dir,
        })
    }

    pub(crate) fn path(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    /// A directory beside it, for mounting and such.
    pub(crate) fn dir(&self) -> &Path {
        self.dir.path()
    }

    /// All of it.
    pub(crate) fn bytes(&self) -> Vec<u8> {
        let bytes = std::fs::read(self.path()).unwrap();
        assert_eq!(bytes.len() as u64, self.made.bytes);
        bytes
    }
}

/// A directory for one test's files, on the disk that holds the build.
pub(crate) fn scratch() -> TempDir {
    let parent = target_dir().join("e2e/erofs");
    std::fs::create_dir_all(&parent).unwrap();
    TempDir::new_in(parent.canonicalize().unwrap()).unwrap()
}

/// Options with other blocks than usual.
pub(crate) fn blocks_of(block_size: u32) -> Options {
    Options {
        block_size,
        ..Options::default()
    }
}
