//! Trees that change while an image is made of them: an error, and no image of both.

use crate::image::scratch;
use crate::model::{ROOT, Tree, What};
use crate::trees::mixture::words;
use imagegen::erofs::compress::choice::{Compression, Method};
use imagegen::erofs::make::{Request, make, plan};
use imagegen::erofs::write::{Media, Options, WriteError};
use imagegen::medium::Nowhere;
use imagegen::tree::{
    Adjust, Adjusted, Detail, Directory, Progress, Source, Time, Times, TreeError, Walk,
    WalkOptions,
};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use std::fs;
use std::path::Path;
use std::sync::atomic::{AtomicU32, Ordering};

/// A directory that changes before its contents are read the second time.
struct Meddled<F> {
    inner: Directory,
    reads: AtomicU32,
    change: F,
}

impl<F: Fn() + Sync> Source for Meddled<F> {
    fn walk(&self, detail: Detail) -> Result<Walk<'_>, TreeError> {
        if detail == Detail::Contents && self.reads.fetch_add(1, Ordering::Relaxed) == 1 {
            (self.change)();
        }
        self.inner.walk(detail)
    }
}

fn nowhere() -> Media<'static> {
    Media {
        image: &Nowhere,
        blob: None,
    }
}

/// What is said of a tree of two equal files `a` and `b`, with the same time each, that
/// changes after it was looked at for what they share.
fn said_of(size: usize, change: impl Fn(&Path) + Sync) -> Option<String> {
    let dir = scratch();
    let root = dir.path().to_owned();
    let bytes = words(&mut ChaCha8Rng::seed_from_u64(3), size);
    fs::write(root.join("a"), &bytes).unwrap();
    fs::write(root.join("b"), &bytes).unwrap();
    let source = Meddled {
        inner: Directory::open(&root, &WalkOptions::default()).unwrap(),
        reads: AtomicU32::new(0),
        change: || change(&root),
    };
    let adjust = Adjust {
        times: Times::Fixed(Time::default()),
        ..Adjust::default()
    };
    let source = Adjusted::new(source, adjust);
    let options = Options {
        dedupe: true,
        compression: Some(Compression::new(Method::By("zstd".parse().unwrap()), 4096)),
        ..Options::default()
    };
    let request = Request {
        options,
        uuid: None,
    };
    let plan = plan(&source, &request).unwrap();
    let made = make(&source, &request, &plan, nowhere(), &Progress::default());
    made.err().map(|error| error.to_string())
}

#[test]
fn a_file_that_changes_after_the_survey_is_named() {
    for size in [100_000, 1_000_000] {
        assert_eq!(said_of(size, |_| {}), None);
        let said = said_of(size, |root| {
            let mut bytes = fs::read(root.join("b")).unwrap();
            bytes[size / 2] ^= 1;
            fs::write(root.join("b"), bytes).unwrap();
        });
        let said = said.unwrap_or_else(|| panic!("nothing, of {size} bytes"));
        assert!(
            said.contains("/b") && said.contains("written to"),
            "{size}: {said}"
        );
    }
}

#[test]
fn a_file_that_goes_after_the_survey_is_noticed() {
    let said = said_of(100_000, |root| {
        fs::remove_file(root.join("b")).unwrap();
        std::os::unix::fs::symlink("a", root.join("b")).unwrap();
    });
    let said = said.unwrap();
    assert!(said.contains("files were added or removed"), "{said}");
}

/// Names, and so sizes of directories, stay the same; links of the directory would not.
#[test]
fn a_directory_that_becomes_something_else_is_noticed() {
    let tree = |kinds: [bool; 2]| {
        let mut tree = Tree::new();
        let parent = tree.dir(ROOT, "parent");
        for (name, directory) in ["a", "b"].into_iter().zip(kinds) {
            match directory {
                true => drop(tree.dir(parent, name)),
                false => drop(tree.special(parent, name, What::Fifo)),
            }
        }
        tree
    };
    let request = Request::default();
    let make = |before: &Tree, after: &Tree| {
        let plan = plan(before, &request).unwrap();
        make(after, &request, &plan, nowhere(), &Progress::default())
    };
    let (both, one, other) = (tree([true; 2]), tree([true, false]), tree([false; 2]));
    assert!(make(&both, &both).is_ok());
    for (before, after) in [(&both, &one), (&one, &other), (&one, &both)] {
        let Err(WriteError::Tree(error)) = make(before, after) else {
            panic!("it went unnoticed");
        };
        let said = error.to_string();
        assert!(said.contains("directories were added"), "{said}");
    }
}
