//! Compressed metadata: inodes in the metabox, read by the kernel, by fsck.erofs of the newest
//! suite and by our own checker.

use crate::fsck;
use crate::image::{Image, scratch};
use crate::judge;
use crate::kinds::all_kinds;
use crate::model::{ROOT, Tree, What};
use crate::mount::{self, run};
use crate::tools::{Suite, erofs_utils};
use crate::trees::observe::{assert_same, observe_bytes};
use imagegen::erofs::compress::choice::{Compression, Fragments, Method};
use imagegen::erofs::make::{Request, plan, rehearse};
use imagegen::erofs::read;
use imagegen::erofs::write::{DataIn, Metadata, Options};
use imagegen::tree::{Directory, WalkOptions};
use std::fs::{self, File};
use std::os::unix::fs::symlink;
use std::process::Command;

/// Inodes by `name`, in blocks and clusters of so many bytes.
fn by(name: &str, block: u32, cluster: u32) -> Options {
    Options {
        block_size: block,
        metadata: Some(Metadata {
            algorithm: name.parse().unwrap(),
            cluster,
        }),
        ..Options::default()
    }
}

/// One of everything, with attributes of one's own and such as several have.
fn with_attributes() -> Tree {
    let mut tree = all_kinds();
    tree.xattr(ROOT, "user.root", vec![b'r'; 700]);
    let dir = tree.dir(ROOT, "attributes");
    for number in 0..60_u32 {
        let file = match number % 3 {
            0 => tree.file(dir, format!("{number}"), u64::from(number) * 77),
            1 => tree.symlink(dir, format!("{number}"), "x".repeat(number as usize)),
            // In chunks, so not in the metabox.
            _ => tree.sparse(
                dir,
                format!("{number}"),
                9 << 20,
                vec![5 << 20..5 << 20 | 9],
            ),
        };
        tree.xattr(file, "security.selinux", b"system_u:object_r:bin_t:s0\0");
        tree.xattr(
            file,
            "trusted.some.long.prefix.of",
            format!("{}", number % 7),
        );
        tree.xattr(file, "trusted.own", vec![b'o'; number as usize]);
    }
    tree
}

#[test]
fn every_algorithm_and_size() {
    let tree = with_attributes();
    for (name, block, cluster) in [
        ("lz4", 4096, 4096),
        ("lz4hc,12", 4096, 65_536),
        ("zstd", 4096, 16_384),
        ("zstd,19", 512, 1024),
        ("deflate", 1024, 1024),
        ("lzma,1", 4096, 8192),
        ("zstd", 512, 65_536),
        ("lz4", 512, 512),
        ("lz4", 65_536, 65_536),
    ] {
        println!("{name} {block} {cluster}");
        judge(&tree, &by(name, block, cluster));
    }
}

#[test]
fn with_every_other_option() {
    let with = |change: fn(&mut Options)| {
        let mut options = by("zstd", 4096, 4096);
        change(&mut options);
        judge(&with_attributes(), &options)
    };
    let fragments = |fragments, cluster| {
        Some(Compression {
            fragments,
            cluster,
            ..Compression::new(Method::By("lz4".parse().unwrap()), 4096)
        })
    };
    with(|options| options.inline_tails = false);
    with(|options| options.xattr_filter = false);
    with(|options| options.xattr_prefixes = vec![b"trusted.some.long.prefix.".to_vec()]);
    with(|options| (options.chunk_size, options.dedupe) = (Some(4096), true));
    with(|options| {
        options.chunk_size = Some(1 << 16);
        let tag = b"the data".to_vec();
        options.data = DataIn::Blob { tag };
    });
    for (all, cluster, dedupe) in [
        (Fragments::None, 4096, false),
        (Fragments::Tails, 65_536, false),
        (Fragments::Tails, 16_384, true),
        (Fragments::All, 4096, false),
    ] {
        let options = Options {
            compression: fragments(all, cluster),
            dedupe,
            ..by("zstd", 4096, 16_384)
        };
        judge(&with_attributes(), &options);
    }
}

#[test]
fn nothing_but_a_root() {
    let image = judge(&Tree::new(), &by("zstd", 4096, 16_384));
    assert_eq!((image.made.counts.inodes, image.made.bytes), (1, 8192));
}

#[test]
fn inodes_take_less() {
    let mut tree = Tree::new();
    for directory in 0..20 {
        let dir = tree.dir(ROOT, format!("directory{directory}"));
        for number in 0..100 {
            tree.file(dir, format!("some-file-{number}"), 0);
        }
    }
    let plain = judge(&tree, &Options::default()).made.bytes;
    let boxed = judge(&tree, &by("zstd", 4096, 16_384));
    let bytes = boxed.made.bytes;
    assert!(bytes * 2 < plain, "{bytes} of {plain}");
    let image = read::Image::open(File::open(boxed.path()).unwrap()).unwrap();
    let metabox = image.metabox().unwrap();
    assert!(metabox.is_compressed() && metabox.size > u64::from(32_u32) * 2000);
    assert_eq!(image.root().unwrap().area, read::Area::Metabox);
}

/// What is deeper than parts of the metabox are held, and left long after.
fn deep() -> Tree {
    let mut tree = Tree::new();
    let (mut at, mut dirs) = (ROOT, Vec::new());
    for level in 0..30 {
        at = tree.dir(at, format!("{level}"));
        dirs.push(at);
        for number in 0..150 {
            tree.file(at, format!("file{number}"), 1300);
        }
    }
    tree.symlink(at, "link", "x".repeat(3000));
    for dir in dirs {
        tree.special(dir, "last", What::Fifo);
    }
    tree
}

#[test]
fn directories_that_wait_longer_than_others_are_held() {
    let image = judge(&deep(), &by("lz4", 4096, 16_384));
    let read = read::Image::open(File::open(image.path()).unwrap()).unwrap();
    assert!(read.metabox().unwrap().size > 5 << 20);
}

/// Ends of files make the metabox what it is, so a rehearsal has to read them.
#[test]
fn a_rehearsal_finds_the_size() {
    let options = by("zstd", 4096, 4096);
    let tree = deep();
    let request = Request {
        options: options.clone(),
        uuid: None,
    };
    let plan = plan(&tree, &request).unwrap();
    let rehearsed = rehearse(&tree, &request, &plan).unwrap();
    let image = Image::make(&tree, &options).unwrap();
    assert_eq!(rehearsed, image.made);
    assert!(image.made.bytes <= plan.at_most());
}

#[test]
fn the_number_of_threads_does_not_matter() {
    for (tree, options) in [
        (deep(), by("zstd", 512, 4096)),
        (with_attributes(), by("lz4", 4096, 4096)),
    ] {
        let make = |threads| {
            let options = Options {
                threads,
                ..options.clone()
            };
            Image::make(&tree, &options).unwrap().bytes()
        };
        let first = make(1);
        assert!(make(2) == first && make(5) == first);
    }
}

/// What fsck.erofs extracts and what the kernel shows is the directory it was made from: the
/// former without ends of files in the metabox, where it does not look for them.
#[test]
fn what_comes_out_is_what_went_in() {
    let source = scratch();
    let root = source.path().join("tree");
    for number in 0..400_usize {
        let dir = root.join(format!("{}/{}", number % 7, number % 13));
        fs::create_dir_all(&dir).unwrap();
        let text = format!("{number} ").repeat(number * 5);
        let path = dir.join(format!("file{number}"));
        fs::write(&path, text).unwrap();
        symlink(
            format!("../file{number}"),
            dir.join(format!("link{number}")),
        )
        .unwrap();
        if number % 5 == 0 {
            fs::hard_link(&path, root.join(format!("hard{number}"))).unwrap();
        }
    }
    let directory = Directory::open(&root, &WalkOptions::default()).unwrap();
    for (name, block, cluster, inline_tails) in [
        ("zstd", 4096, 16_384, false),
        ("lz4", 512, 4096, false),
        ("zstd", 4096, 16_384, true),
        ("lz4", 512, 4096, true),
    ] {
        let options = Options {
            inline_tails,
            ..by(name, block, cluster)
        };
        let image = Image::make(&directory, &options).unwrap();
        let fsck = erofs_utils(Suite::Newest, "fsck.erofs");
        if let Some(mut fsck) = fsck.filter(|_| !inline_tails) {
            let out = image.dir().join("out");
            fsck.arg(format!("--extract={}", out.display()));
            fsck::said(fsck.arg(image.path()));
            let mut diff = Command::new("diff");
            run(diff.args(["-r", "--no-dereference"]).args([&root, &out]));
        }
        if mount::possible("erofs") {
            let mut meant = observe_bytes(&root, 4096);
            let objects = meant.values_mut();
            objects.for_each(|object| object.ctime = object.mtime);
            assert_same(&meant, &crate::seen(&image));
        }
    }
}

#[test]
fn what_cannot_be_is_refused() {
    let refusal = |options: &Options| match Image::make(&Tree::new(), options) {
        Ok(_) => panic!("taken"),
        Err(error) => error.to_string(),
    };
    for cluster in [0, 5000, 2 << 20] {
        let text = refusal(&by("zstd", 4096, cluster));
        assert!(
            text.contains("--metadata-compress") && text.contains("1048576"),
            "{text}"
        );
    }
    let tails = Compression {
        inline_tails: true,
        ..Compression::new(Method::By("lz4".parse().unwrap()), 4096)
    };
    let text = refusal(&Options {
        compression: Some(tails),
        ..by("zstd", 4096, 4096)
    });
    assert!(
        text.contains("--ztailpacking with --metadata-compress"),
        "{text}"
    );
}
