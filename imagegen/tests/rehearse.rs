//! Whether a tree fits is known before anything is written.
#![allow(clippy::unwrap_used, clippy::panic)]

use imagegen::target::{Overwrite, Present};
use imagegen::tree::{Directory, WalkOptions};
use imagegen::xfs::geometry::Options;
use imagegen::xfs::make::{MakeError, Progress, Request, Size, make, plan, rehearse};
use imagegen::xfs::write::WriteError;
use std::fs;
use std::path::Path;
use uuid::Uuid;

fn request(mib: u64, dedupe: bool) -> Request {
    Request {
        options: Options::new(0, Uuid::nil()),
        size: Size::Exact(mib << 20),
        uuid: None,
        free_inodes: 0,
        dedupe,
        autofsck: true,
        threads: 0,
    }
}

/// Four files of 12 MiB with the same contents.
fn tree(dir: &Path) -> Directory {
    let bytes: Vec<u8> = (0..3_u32 << 20).flat_map(u32::to_le_bytes).collect();
    for name in ["a", "b", "c", "d"] {
        fs::write(dir.join(name), &bytes).unwrap();
    }
    Directory::open(dir, &WalkOptions::default()).unwrap()
}

#[test]
fn a_rehearsal_says_what_the_writing_would() {
    let dir = tempfile::tempdir().unwrap();
    let source = tree(dir.path());
    for (mib, dedupe, fits) in [(40, false, false), (40, true, true), (96, false, true)] {
        let request = request(mib, dedupe);
        let plan = plan(&source, &request).unwrap();
        let rehearsed = rehearse(&source, &request, &plan);
        let image = tempfile::NamedTempFile::new().unwrap();
        image.as_file().set_len(mib << 20).unwrap();
        let target = Present::open(image.path(), Overwrite::Refuse).unwrap();
        let target = target.begin(plan.bytes()).unwrap();
        let made = make(&source, &request, &plan, &target, &Progress::default());
        match (rehearsed, made) {
            (Ok(rehearsed), Ok(made)) => {
                assert!(fits, "{mib} MiB, dedupe {dedupe}");
                assert_eq!(rehearsed.counts.files, made.counts.files);
            }
            (
                Err(MakeError::Write(WriteError::Full { path })),
                Err(MakeError::Write(WriteError::Full { path: there })),
            ) => {
                assert!(!fits, "{mib} MiB, dedupe {dedupe}");
                assert_eq!(path, there);
            }
            (rehearsed, made) => panic!("{rehearsed:?}, but {made:?}"),
        }
    }
}
