//! Compressed images: every algorithm, block and cluster size with every feature, over
//! contents of all sorts, read by the kernel and by fsck.erofs.

use crate::fsck;
use crate::image::{Image, scratch};
use crate::mount;
use crate::trees::mixture::{mixture, words};
use crate::trees::observe::{View, assert_same, observe_bytes};
use imagegen::erofs::compress::choice::{Compression, Fragments, Method, Rule};
use imagegen::erofs::write::{Metadata, Options};
use imagegen::tree::{Directory, WalkOptions};
use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::{Duration, UNIX_EPOCH};
use tempfile::TempDir;

const ALGORITHMS: [&str; 6] = ["lz4", "lz4hc", "deflate,1", "zstd", "lzma,1", "auto"];
const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

/// A directory of the disk, and what it holds.
pub(crate) struct Source {
    dir: TempDir,
    meant: View,
    size: u64,
}

/// Gives all of a tree times of long ago, each another one: of the second in which mkfs.erofs
/// runs it leaves out the nanoseconds, and has smaller inodes.
fn age(root: &Path) {
    let mut pending = vec![root.to_owned()];
    let mut number = 0;
    while let Some(path) = pending.pop() {
        let there = fs::symlink_metadata(&path).unwrap();
        if there.is_dir() {
            let entries = fs::read_dir(&path).unwrap();
            pending.extend(entries.map(|entry| entry.unwrap().path()));
        }
        if there.is_dir() || there.is_file() {
            number += 1;
            let time = UNIX_EPOCH + Duration::new(1_700_000_000 + u64::from(number), number);
            File::open(&path).unwrap().set_modified(time).unwrap();
        }
    }
}

impl Source {
    /// With what `fill` puts into it.
    pub(crate) fn new(fill: impl FnOnce(&Path)) -> Self {
        let dir = scratch();
        let root = dir.path().join("tree");
        fs::create_dir(&root).unwrap();
        fill(&root);
        age(&root);
        let mut meant = observe_bytes(&root, 4096);
        let objects = meant.values_mut();
        objects.for_each(|object| object.ctime = object.mtime);
        let files = fs::read_dir(&root).unwrap();
        let size = files.map(|file| file.unwrap().metadata().unwrap().len());
        Self {
            size: size.sum(),
            meant,
            dir,
        }
    }

    pub(crate) fn root(&self) -> PathBuf {
        self.dir.path().join("tree")
    }

    pub(crate) fn image(&self, options: &Options) -> Image {
        let walk = WalkOptions {
            threads: options.threads,
            ..WalkOptions::default()
        };
        let source = Directory::open(&self.root(), &walk).unwrap();
        Image::make(&source, options).unwrap_or_else(|error| panic!("{options:?}: {error}"))
    }

    /// The image, which all judges find to hold the tree.
    pub(crate) fn judged(&self, options: &Options) -> Image {
        let image = self.image(options);
        fsck::assert_clean(&image.path(), None, options, self.size);
        crate::assert_checked(&image);
        if mount::possible("erofs") {
            assert_same(&self.meant, &crate::seen(&image));
        }
        image
    }
}

/// Contents of all sorts, of sizes around those of blocks and clusters.
fn mixed(root: &Path, random: &mut ChaCha8Rng) {
    for (number, size) in [
        0, 1, 511, 512, 513, 4095, 4096, 4097, 8191, 8193, 12_345, 65_535, 65_536, 65_537, 131_072,
        300_001,
    ]
    .into_iter()
    .enumerate()
    {
        fs::write(root.join(format!("mixture{number}")), mixture(random, size)).unwrap();
        fs::write(root.join(format!("words{number}.txt")), words(random, size)).unwrap();
    }
    let mut noise = vec![0; 100_000];
    random.fill_bytes(&mut noise);
    fs::write(root.join("noise"), &noise).unwrap();
    fs::write(root.join("noise again"), &noise).unwrap();
    fs::write(root.join("zeroes"), vec![0; 700_000]).unwrap();
    // Shared parts that begin anywhere, and noise between them.
    let common = mixture(random, 150_000);
    for number in 0..4 {
        let before = random.random_range(0..30_000);
        let begin = mixture(random, before);
        let parts = [
            &begin,
            &common[..],
            &noise[..number * 11_111],
            &common[50_000..],
        ];
        fs::write(root.join(format!("common{number}")), parts.concat()).unwrap();
    }
}

fn method(name: &str) -> Method {
    match name {
        "auto" => Method::Auto,
        name => Method::By(name.parse().unwrap()),
    }
}

/// By `name`, in blocks and clusters of so many bytes.
pub(crate) fn by(name: &str, block: u32, cluster: u32) -> Options {
    Options {
        block_size: block,
        compression: Some(Compression {
            cluster,
            ..Compression::new(method(name), block)
        }),
        ..Options::default()
    }
}

/// The ways in which ends and equal parts of files are kept.
const FEATURES: usize = 15;

/// `options` with one of the [`FEATURES`].
fn with_feature(options: &Options, feature: usize) -> Options {
    let mut options = options.clone();
    let compression = options.compression.as_mut().unwrap();
    match feature {
        0 => {}
        1 => compression.inline_tails = true,
        2 | 5 | 8..=13 => compression.fragments = Fragments::Tails,
        3 | 14 => compression.fragments = Fragments::All,
        7 => compression.inline_tails = true,
        _ => {}
    }
    compression.inline_tails |= feature >= 10;
    options.bit48 = [4, 5, 11].contains(&feature);
    options.dedupe = [6, 7, 8, 9, 12].contains(&feature);
    let usual = Metadata::new("zstd".parse().unwrap(), options.block_size);
    options.metadata = [9, 13].contains(&feature).then_some(usual);
    options
}

#[test]
fn every_algorithm_in_every_size() {
    let seed = rand::rng().next_u64();
    println!("seed {seed}");
    let source = Source::new(|root| mixed(root, &mut ChaCha8Rng::seed_from_u64(seed)));
    let plain = source.image(&Options::default()).made.bytes;
    let sizes = [
        (4096, 4096),
        (4096, 65_536),
        (512, 2048),
        (1024, 16_384),
        (4096, 1 << 20),
    ];
    let mut feature = seed as usize % FEATURES;
    for name in ALGORITHMS {
        for (block, cluster) in sizes {
            let options = with_feature(&by(name, block, cluster), feature);
            println!("{name} {block} {cluster} feature {feature}");
            let image = source.judged(&options);
            assert!(
                image.made.bytes < plain * 3 / 4,
                "{} of {plain}",
                image.made.bytes
            );
            feature = (feature + 1) % FEATURES;
        }
    }
}

#[test]
fn every_feature_with_files_of_several_segments() {
    let seed = rand::rng().next_u64();
    println!("seed {seed}");
    let random = &mut ChaCha8Rng::seed_from_u64(seed);
    let source = Source::new(|root| {
        let large = mixture(random, 9 * MIB + 777);
        fs::write(root.join("large"), &large).unwrap();
        fs::write(root.join("moved"), &large[3333..]).unwrap();
        fs::write(root.join("noise"), mixture(random, 20 * KIB)).unwrap();
    });
    for feature in 0..FEATURES {
        println!("feature {feature}");
        let options = with_feature(&by("lz4", 4096, 16_384), feature);
        let image = source.judged(&options);
        if options.dedupe {
            let bytes = image.made.bytes as usize;
            assert!(bytes < 7 * MIB, "what is there twice is kept once: {bytes}");
        }
    }
}

/// An index of many blocks, and a tail behind it.
#[test]
fn indexes_of_many_blocks() {
    let random = &mut ChaCha8Rng::seed_from_u64(8);
    let source = Source::new(|root| {
        for more in [0, 1, 77, 300, 510, 511] {
            let data = words(random, 700 * KIB + 4 * more);
            fs::write(root.join(format!("{more}")), data).unwrap();
        }
    });
    for name in ["lz4", "zstd"] {
        for feature in [1, 2, 6] {
            source.judged(&with_feature(&by(name, 512, 512), feature));
        }
    }
}

#[test]
fn the_number_of_threads_does_not_matter() {
    let random = &mut ChaCha8Rng::seed_from_u64(9);
    let source = Source::new(|root| {
        mixed(root, random);
        fs::write(root.join("large"), mixture(random, 9 * MIB)).unwrap();
    });
    for feature in [0, 2, 3, 6, 7, 10, 12, 13, 14] {
        let options = with_feature(&by("zstd", 4096, 65_536), feature);
        let make = |threads| {
            let options = Options {
                threads,
                ..options.clone()
            };
            source.image(&options).bytes()
        };
        assert!(make(1) == make(4), "feature {feature}");
    }
}

#[test]
fn what_does_not_compress_stays_as_it_is() {
    let random = &mut ChaCha8Rng::seed_from_u64(10);
    let source = Source::new(|root| {
        for (number, size) in [100, 4096, 5000, 70_000, 5 * MIB].into_iter().enumerate() {
            let mut noise = vec![0; size];
            random.fill_bytes(&mut noise);
            fs::write(root.join(format!("{number}")), &noise).unwrap();
        }
    });
    let plain = source.image(&Options::default()).made.bytes;
    for name in ALGORITHMS {
        let image = source.judged(&by(name, 4096, 65_536));
        let bytes = image.made.bytes;
        assert!(bytes <= plain + 4096, "{name}: {bytes} instead of {plain}");
    }
}

/// What is not compressed is read without an index, however many segments it has.
#[test]
fn what_does_not_compress_is_flat() {
    let random = &mut ChaCha8Rng::seed_from_u64(13);
    let source = Source::new(|root| {
        for size in [9 * MIB, 9 * MIB + 100, 9 * MIB + 4095] {
            let mut noise = vec![0; size];
            random.fill_bytes(&mut noise);
            fs::write(root.join(format!("{size}")), &noise).unwrap();
        }
    });
    for feature in [0, 1, 2, 3, 4, 6] {
        let image = source.judged(&with_feature(&by("lz4", 4096, 65_536), feature));
        let image = imagegen::erofs::read::Image::open(crate::open(image.path())).unwrap();
        let root = image.root().unwrap();
        let compressed: Vec<bool> = image
            .entries(&root)
            .unwrap()
            .map(Result::unwrap)
            .filter(|entry| !entry.is_dots())
            .map(|entry| image.inode(entry.nid).unwrap().is_compressed())
            .collect();
        // Ends that go to the packed inode, or all of the files, need an index to say so.
        let wanted = match feature {
            2 | 3 => [true; 3],
            _ => [false; 3],
        };
        assert_eq!(compressed, wanted, "feature {feature}");
    }
}

#[test]
fn equal_parts_are_compressed_once() {
    let random = &mut ChaCha8Rng::seed_from_u64(11);
    let common = words(random, 400_000);
    let source = Source::new(|root| {
        for number in 0..20 {
            let begin = words(random, 1000 + 900 * number);
            let data = [&begin, &common[..]].concat();
            fs::write(root.join(format!("moved{number:02}")), data).unwrap();
            fs::write(root.join(format!("same{number:02}")), &common).unwrap();
        }
    });
    let all = source.image(&by("lz4", 4096, 65_536)).made.bytes;
    for cluster in [4096, 65_536] {
        let options = Options {
            dedupe: true,
            ..by("lz4", 4096, cluster)
        };
        let bytes = source.judged(&options).made.bytes;
        assert!(bytes * 6 < all, "{bytes} of {all}");
    }
}

#[test]
fn rules_decide_for_the_files_they_match() {
    let random = &mut ChaCha8Rng::seed_from_u64(12);
    let source = Source::new(|root| {
        for name in ["a.txt", "b.so", "c"] {
            fs::write(root.join(name), words(random, 400_000)).unwrap();
        }
    });
    let with = |rules: &[(&str, Method)]| {
        let mut options = by("lz4", 4096, 65_536);
        let rule = |(pattern, method): &(&str, Method)| Rule {
            pattern: (*pattern).to_owned(),
            method: *method,
            cluster: Some(16_384),
        };
        options.compression.as_mut().unwrap().rules = rules.iter().map(rule).collect();
        source.judged(&options).made.bytes
    };
    let usual = with(&[]);
    let one_plain = with(&[("/*.txt", Method::Plain), ("*.txt", method("zstd"))]);
    let all_plain = with(&[("**", Method::Plain)]);
    assert!(usual < one_plain && one_plain < all_plain && all_plain > 1_200_000);
    let zstd = with(&[("*.so", method("zstd")), ("c", method("lzma,1"))]);
    assert!(zstd < usual, "{zstd} {usual}");
}

/// What is expected to lie beside inodes may compress, or go elsewhere: no room is kept for it.
#[test]
fn no_room_is_left_for_contents_that_went_elsewhere() {
    let random = &mut ChaCha8Rng::seed_from_u64(17);
    let source = Source::new(|root| {
        for number in 0..400 {
            let size = random.random_range(500..4000);
            fs::write(root.join(format!("{number}")), words(random, size)).unwrap();
        }
    });
    for feature in [0, 1, 2, 3] {
        let image = source.image(&with_feature(&by("zstd", 4096, 65_536), feature));
        let bytes = image.bytes();
        let empty = |block: &&[u8]| block.iter().all(|byte| *byte == 0);
        let unused = bytes.chunks(4096).filter(empty).count();
        assert!(
            unused <= 3,
            "{unused} blocks for nothing, feature {feature}"
        );
    }
}
