//! A large file that is written to after it was looked at, and before it is copied, is an
//! error that names it: its holes and digests are those of other contents.
#![allow(clippy::unwrap_used, clippy::panic)]

use imagegen::target::{Overwrite, Target};
use imagegen::tree::{Detail, Directory, Event, Source, TreeError, Walk, WalkOptions};
use imagegen::xfs::geometry::Options;
use imagegen::xfs::make::{MakeError, Progress, Request, Size, make, plan};
use imagegen::xfs::write::WriteError;
use std::fs;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// A directory whose file is written to when its event has come.
#[derive(Debug)]
struct Meddled {
    inner: Directory,
    file: PathBuf,
}

impl Source for Meddled {
    fn walk(&self, detail: Detail) -> Result<Walk<'_>, TreeError> {
        let meddle = matches!(detail, Detail::Contents | Detail::Digests);
        let walk = self.inner.walk(detail)?;
        Ok(Box::new(walk.inspect(move |event| {
            if let Ok(Event::Node(node)) = event
                && meddle
                && *node.name == *b"large"
            {
                fs::write(&self.file, vec![2; 2 << 20]).unwrap();
            }
        })))
    }
}

fn made(dir: &Path, dedupe: bool) -> Result<(), MakeError> {
    let file = dir.join("large");
    fs::write(&file, vec![1; 2 << 20]).unwrap();
    let inner = Directory::open(dir, &WalkOptions::default())?;
    let source = Meddled { inner, file };
    let request = Request {
        options: Options::new(0, Uuid::nil()),
        size: Size::Exact(64 << 20),
        uuid: None,
        free_inodes: 0,
        dedupe,
        autofsck: true,
        threads: 0,
    };
    let plan = plan(&source, &request)?;
    let place = tempfile::tempdir().unwrap();
    let image = place.path().join("image");
    let target = Target::create(&image, plan.bytes(), Overwrite::Refuse).unwrap();
    make(&source, &request, &plan, &target, &Progress::default()).map(drop)
}

#[test]
fn a_file_changed_between_look_and_copy_is_named() {
    for dedupe in [false, true] {
        let dir = tempfile::tempdir().unwrap();
        match made(dir.path(), dedupe) {
            Err(MakeError::Write(WriteError::Tree(error))) => {
                let text = error.to_string();
                assert!(
                    text.contains("large") && text.contains("written to"),
                    "{text}"
                );
            }
            other => panic!("dedupe {dedupe}: {other:?}"),
        }
    }
}
