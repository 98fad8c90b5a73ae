//! Images of terabytes, of which little more is kept than what describes them: numbers of
//! blocks and inodes that outgrow the fields they have in smaller ones.

use crate::image::{Image as Made, blocks_of};
use crate::model::{Data, Id, LONGEST, ROOT, Tree, What};
use imagegen::erofs::check::check;
use imagegen::erofs::compress::choice::{Compression, Fragments, Method, Rule};
use imagegen::erofs::make::{Request, make, plan, rehearse};
use imagegen::erofs::read::{Form, Image, Inode};
use imagegen::erofs::write::{Media, Options};
use imagegen::medium::{Medium, Source};
use imagegen::tree::{Progress, Time};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::sync::Mutex;

const BLOCK: u64 = 512;
const GIB: u64 = 1 << 30;
/// Bytes of 2^32 blocks.
const FAR: u64 = BLOCK << 32;
/// Keeps what is written, but not what is copied of very long files.
#[derive(Debug, Default)]
struct Sparse {
    blocks: Mutex<HashMap<u64, Vec<u8>>>,
    size: u64,
}

impl Medium for Sparse {
    fn write(&self, at: u64, bytes: &[u8]) -> io::Result<()> {
        assert!(at.is_multiple_of(BLOCK) && bytes.len().is_multiple_of(BLOCK as usize));
        let mut blocks = self.blocks.lock().unwrap();
        for (number, block) in (at / BLOCK..).zip(bytes.chunks(BLOCK as usize)) {
            blocks.insert(number, block.to_vec());
        }
        Ok(())
    }

    fn read(&self, at: u64, bytes: &mut [u8]) -> io::Result<()> {
        self.read_at(at, bytes)
    }

    fn share(&self, _: &File, from: u64, _: u64, length: u64) -> io::Result<u64> {
        let long = length >= 1 << 20 || from >= LONGEST;
        Ok(if long { length } else { 0 })
    }

    fn zero(&self, _: u64, _: u64) -> io::Result<()> {
        Ok(())
    }
}

impl Source for Sparse {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let blocks = self.blocks.lock().unwrap();
        for (at, byte) in (offset..).zip(buffer) {
            let block = blocks.get(&(at / BLOCK));
            *byte = block.map_or(0, |block| block[(at % BLOCK) as usize]);
        }
        Ok(())
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }
}

/// The image of `tree`, which our checker finds to be whole.
fn image(tree: &Tree, options: &Options) -> Image<Sparse> {
    let request = Request {
        options: options.clone(),
        uuid: None,
    };
    let plan = plan(tree, &request).unwrap();
    let mut medium = Sparse::default();
    let media = Media {
        image: &medium,
        blob: None,
    };
    let made = make(tree, &request, &plan, media, &Progress::default());
    medium.size = made.unwrap_or_else(|error| panic!("{error}")).bytes;
    let blocks = medium.blocks.lock().unwrap().clone();
    let copy = Sparse {
        blocks: Mutex::new(blocks),
        ..medium
    };
    let report = check(copy, Vec::new(), &Progress::default());
    let (problems, failure) = (&report.problems, &report.failure);
    assert!(report.exit_code() == 0, "{failure:?} {problems:?}");
    Image::open(medium).unwrap()
}

fn inode<S: Source>(image: &Image<S>, name: &str) -> Inode {
    let root = image.root().unwrap();
    let entry = image.lookup(&root, name.as_bytes()).unwrap().unwrap();
    image.inode(entry.nid).unwrap()
}

fn assert_holds(image: &Image<Sparse>, name: &str, tree: &Tree, id: Id) {
    let What::File(data) = &tree.objects[id].what else {
        panic!("{name} is no file")
    };
    let (mut meant, mut found) = (Vec::new(), vec![0xaa; data.size as usize]);
    data.bytes(0..data.size, &mut meant);
    let inode = inode(image, name);
    let mut contents = image.contents(&inode).unwrap();
    contents.read_exact_at(0, &mut found).unwrap();
    assert!(meant == found, "{name} holds something else");
}

/// A tree whose objects may all have short inodes, but for a first file of so many bytes.
fn tree(first: u64) -> Tree {
    let mut tree = Tree::new();
    let id = tree.file(ROOT, "a first", 0);
    tree.objects[id].what = What::File(Data {
        size: first,
        ranges: vec![0..first],
        seed: 1,
    });
    tree
}

fn even(tree: &mut Tree) {
    for object in &mut tree.objects {
        let meta = &mut object.meta;
        (meta.uid, meta.gid) = (1, 2);
        meta.mtime = Time {
            seconds: 1_700_000_000,
            nanoseconds: 5,
        };
    }
}

/// The place of the root has 16 bits in the superblock of a usual image.
#[test]
fn the_root_comes_before_its_entries() {
    let mut options = blocks_of(512);
    for last in [0, 120, 300, 400, 450, 500] {
        let mut tree = Tree::new();
        for number in 0..100_000 - last / 10 {
            tree.special(ROOT, format!("{number:0>10}"), What::Socket);
        }
        tree.special(
            ROOT,
            format!("z{:0<width$}", 0, width = last % 10 + 1),
            What::Fifo,
        );
        options.block_size = 512;
        assert_root(&tree, &options);
    }
    let mut tree = Tree::new();
    for number in 0..40_000 {
        tree.special(ROOT, format!("{number:0>60}"), What::Socket);
    }
    tree.xattr(ROOT, "user.large", vec![b'v'; 5000]);
    options.block_size = 4096;
    assert_root(&tree, &options);
}

fn assert_root(tree: &Tree, options: &Options) {
    let made = Made::make(tree, options).unwrap();
    crate::assert_checked(&made);
    let image = Image::open(File::open(made.path()).unwrap()).unwrap();
    let root = image.root().unwrap();
    assert!(root.nid <= u16::MAX.into(), "{}", root.nid);
    let entries = image.entries(&root).unwrap().map(Result::unwrap);
    let entries = entries.filter(|entry| !entry.is_dots()).count();
    assert_eq!(entries, tree.objects.len() - 1);
}

/// Without the option for 48 bits, too: it has what it needs.
#[test]
fn compressed_files_beyond_32_bits() {
    for (inline_tails, fragments, dedupe) in [
        (false, Fragments::None, false),
        (true, Fragments::None, false),
        (false, Fragments::Tails, false),
        (true, Fragments::Tails, false),
        (true, Fragments::None, true),
    ] {
        let mut tree = tree(FAR);
        let files: Vec<(String, Id)> = [700, 5000, 70_000, 300_001]
            .into_iter()
            .map(|size| (format!("{size}"), tree.file(ROOT, format!("z{size}"), size)))
            .collect();
        even(&mut tree);
        let options = Options {
            block_size: BLOCK as u32,
            dedupe,
            compression: Some(Compression {
                cluster: 8192,
                inline_tails,
                fragments,
                rules: vec![Rule {
                    pattern: "/a*".to_owned(),
                    method: Method::Plain,
                    cluster: None,
                }],
                ..Compression::new(Method::By("zstd".parse().unwrap()), BLOCK as u32)
            }),
            ..Options::default()
        };
        let image = image(&tree, &options);
        for (name, id) in &files {
            assert_holds(&image, &format!("z{name}"), &tree, *id);
        }
        assert!(inode(&image, "z300001").is_compressed());
    }
}

/// Blocks around the one whose lower half stands for none.
#[test]
fn flat_files_around_32_bits() {
    let meant = |first: u64| {
        let mut tree = tree(first);
        let id = tree.file(ROOT, "z", 10 * BLOCK);
        even(&mut tree);
        (tree, id)
    };
    let options = blocks_of(BLOCK as u32);
    let (near, _) = meant(FAR - 100 * BLOCK);
    let place = inode(&image(&near, &options), "z").data;
    for block in u64::from(u32::MAX) - 1..=(1 << 32) + 1 {
        let (tree, id) = meant(FAR - 100 * BLOCK + (block - place) * BLOCK);
        let image = image(&tree, &options);
        let inode = inode(&image, "z");
        assert_eq!((inode.data, inode.form), (block, Form::Compact));
        assert_holds(&image, "z", &tree, id);
    }
}

/// Attributes have a place of their own only where their numbers reach.
#[test]
fn attributes_beyond_their_numbers_take_no_room() {
    let size = |value: usize| {
        let mut tree = tree(17 * GIB);
        for number in 0..1000 {
            let file = tree.file(ROOT, format!("z{number}"), 0);
            let value: Vec<u8> = (0..value).map(|_| (number / 4) as u8).collect();
            tree.xattr(file, "user.same", value);
        }
        let image = image(&tree, &blocks_of(4096));
        let shared = image.xattrs(&inode(&image, "z7")).unwrap().list;
        assert_eq!(shared[0].value.len(), value);
        image.superblock().blocks * 4096 - 17 * GIB
    };
    let grown = size(1000) - size(0);
    assert!(
        grown < 1_300_000,
        "{grown} bytes for 1,000,000 of attributes"
    );
}

/// Chunks in holes are not looked at block by block: that would take minutes.
#[test]
fn equal_chunks_in_holes_without_end() {
    let mut tree = Tree::new();
    tree.sparse(ROOT, "far", 1 << 45, vec![(1 << 44) - 4096..1 << 44]);
    let options = Options {
        chunk_size: Some(4096),
        dedupe: true,
        ..Options::default()
    };
    let request = Request {
        options,
        uuid: None,
    };
    let plan = plan(&tree, &request).unwrap();
    let made = rehearse(&tree, &request, &plan).unwrap();
    assert!(made.bytes < 64 << 20, "{made:?}");
}

/// More than all blocks there can be is no image that wraps around.
#[test]
fn more_blocks_than_numbers_are_refused() {
    let mut tree = tree(1 << 58);
    even(&mut tree);
    let request = Request {
        options: blocks_of(BLOCK as u32),
        uuid: None,
    };
    let plan = plan(&tree, &request).unwrap();
    let medium = Sparse::default();
    let media = Media {
        image: &medium,
        blob: None,
    };
    let made = make(&tree, &request, &plan, media, &Progress::default());
    let said = made.unwrap_err().to_string();
    assert!(
        said.contains("first") && said.contains("--block-size"),
        "{said}"
    );
}
