//! What images hold, in the words of `composefs-info`.

use crate::dumps::{For, random};
use crate::judges::{equal, ours, succeed};
use crate::same::{V0, V1, seeds};
use crate::tools::composefs;
use imagegen::erofs::check::{Kind, check};
use imagegen::erofs::composefs::load;
use imagegen::medium::Source;
use imagegen::tree::Progress;
use proptest::prelude::*;
use std::io;

/// An image in memory.
struct Bytes<'a>(&'a [u8]);

impl Source for Bytes<'_> {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let end = io::ErrorKind::UnexpectedEof;
        let from = self.0.get(offset as usize..).ok_or(end)?;
        buffer.copy_from_slice(from.get(..buffer.len()).ok_or(end)?);
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.0.len() as u64)
    }
}

/// What we say of an image, by the name of the command.
fn said(image: &[u8], what: &str) -> String {
    let tree = load(Bytes(image), &[]).unwrap();
    let mut out = Vec::new();
    match what {
        "dump" => tree.dump(&mut out).unwrap(),
        "ls" => tree.list(&mut out).unwrap(),
        _ => tree.payloads().iter().for_each(|path| {
            out.extend_from_slice(path);
            out.push(b'\n');
        }),
    }
    String::from_utf8_lossy(&out).into_owned()
}

#[test]
fn it_says_what_composefs_info_says() {
    let dir = tempfile::tempdir().unwrap();
    let file = dir.path().join("image");
    for seed in seeds(12) {
        let dump = random(seed, For::Info);
        for format in [V0, V1] {
            let image = ours(&dump, format).unwrap();
            std::fs::write(&file, &image).unwrap();
            for what in ["dump", "ls", "objects"] {
                let Some(mut command) = composefs("composefs-info") else {
                    return;
                };
                let theirs = succeed(command.arg(what).arg(&file));
                let ours = said(&image, what);
                let what = format!("seed {seed}, {format:?}, {what}");
                equal(ours.as_bytes(), &theirs, &what);
            }
        }
    }
}

#[test]
fn of_a_dump_the_same_image_is_made() {
    for seed in seeds(12) {
        let dump = random(seed, For::Info);
        let image = ours(&dump, V0).unwrap();
        // Links, prefixes and sizes beyond all maps are what the dump says, whatever that is.
        let report = check(&image[..], Vec::new(), &Progress::default());
        let mut problems = report.problems.iter();
        let bad = problems.find(|one| one.kind == Kind::Inode);
        assert!(bad.is_none(), "seed {seed}: {bad:?}");
        let shown = said(&image, "dump");
        let again = ours(&shown, V0).unwrap();
        let what = format!("seed {seed}");
        // Which name of an object was its first an image does not tell, and it decides
        // where the inode lies.
        if dump.contains(" @") {
            equal(said(&again, "dump").as_bytes(), shown.as_bytes(), &what);
        } else {
            equal(&again, &image, &what);
        }
    }
}

#[test]
fn names_of_the_root_are_chosen() {
    let dump = "/ 0 40755 2 0 0 0 0.0 - - -\n\
                /a 0 40755 2 0 0 0 0.0 - - -\n\
                /a/b 1 100644 1 0 0 0 0.0 - x -\n\
                /b 0 40755 2 0 0 0 0.0 - - -\n\
                /b/a 1 100644 1 0 0 0 0.0 - x -\n";
    let image = ours(dump, V0).unwrap();
    let tree = load(Bytes(&image), &[b"b".to_vec(), b"c".to_vec()]).unwrap();
    let mut out = Vec::new();
    tree.list(&mut out).unwrap();
    assert_eq!(out, b"/b/\t\n/b/a\n");
}

#[test]
fn what_is_no_image_of_composefs_is_said_so() {
    let refused = |bytes: &[u8]| load(Bytes(bytes), &[]).unwrap_err().to_string();
    assert!(refused(b"short").contains("no image of composefs"));
    let mut image = ours("/ 0 40755 2 0 0 0 0.0 - - -\n", V0).unwrap();
    image[4] = 7;
    assert!(refused(&image).contains("version 7"));
    image[4] = 1;
    image[1024] = 0;
    assert!(refused(&image).contains("no EROFS"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]
    #[test]
    fn damaged_images_do_not_panic(
        seed in 0_u64..50,
        damages in proptest::collection::vec((0_usize..1 << 16, any::<u8>()), 1..8),
        length in 0_usize..1 << 17,
    ) {
        let mut image = ours(&random(seed, For::Info), V1).unwrap();
        image.truncate(length.max(4096));
        let end = image.len();
        for (at, byte) in damages {
            image[at % end] = byte;
        }
        if let Ok(tree) = load(Bytes(&image), &[]) {
            tree.dump(&mut io::sink()).unwrap();
        }
    }
}
