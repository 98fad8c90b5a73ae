//! An image made for a test, on a file that goes away with it.

use crate::tools::target_dir;
use imagegen::erofs::make::{Request, make, plan};
use imagegen::erofs::write::{DataIn, Made, Media, Options, WriteError};
use imagegen::medium::Medium;
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
        let blob = matches!(options.data, DataIn::Blob { .. });
        let blob = blob.then(|| Target::growing(&dir.path().join("blob"), 0, Overwrite::Refuse));
        let blob = blob.map(Result::unwrap);
        let media = Media {
            image: &target,
            blob: blob.as_ref().map(|blob| blob as &dyn Medium),
        };
        let made = make(tree, &request, &plan, media, &Progress::default())?;
        if let Some(blob) = blob {
            blob.finish_at(made.device_bytes, false).unwrap();
        }
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

    /// The file with its data, if that is another.
    pub(crate) fn device(&self) -> Option<PathBuf> {
        let blob = matches!(self.options.data, DataIn::Blob { .. });
        blob.then(|| self.dir.path().join("blob"))
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
