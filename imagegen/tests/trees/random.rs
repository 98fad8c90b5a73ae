//! Random trees, drawn so that numbers lie near where one form of a structure ends.

use super::model::{Id, ROOT, Tree, What};
use proptest::prelude::*;
use proptest::test_runner::{Config, RngSeed, TestRunner};

/// One thing of a tree, in the `parent`th of the directories there are, with attributes.
#[derive(Debug, Clone)]
pub(crate) struct Grown {
    parent: prop::sample::Index,
    what: Growth,
    attributes: Vec<(u8, usize)>,
}

#[derive(Debug, Clone)]
enum Growth {
    /// A directory of so many entries, each a name of so many bytes.
    Directory {
        entries: u32,
        name: usize,
    },
    /// A file of so many extents of so many bytes, holes of so many between.
    File {
        extents: u64,
        data: u64,
        hole: u64,
        end: u64,
    },
    Symlink(usize),
    Special(u32),
    /// So many names of one file.
    Links(u32),
}

/// Numbers up to `most`, most of them small or near one of these.
fn near(edges: &'static [u64], most: u64) -> BoxedStrategy<u64> {
    let edge = (prop::sample::select(edges), 0..5_u64)
        .prop_map(|(edge, off)| (edge + off).saturating_sub(2));
    prop_oneof![3 => 0..20_u64, 4 => edge, 1 => 0..=most]
        .prop_map(move |number| number.min(most))
        .boxed()
}

fn growth(hole: u64) -> impl Strategy<Value = Growth> {
    let entries = near(&[12, 20, 30, 90, 120, 130, 500, 504, 900], 1500);
    let extents = near(
        &[9, 15, 16, 17, 18, 19, 21, 50, 60, 250, 500, 1180, 1500],
        2000,
    );
    let bytes = near(&[512, 1024, 4096, 8192, 65_536], 100_000);
    let holes = near(&[1024, 4096, 65_536, 1 << 32], hole);
    let target = near(&[60, 150, 200, 336, 1000, 1023], 1023);
    prop_oneof![
        2 => (entries.clone(), near(&[8, 60, 255], 255)).prop_map(|(entries, name)| {
            let name = (name as usize).max(5);
            Growth::Directory { entries: entries as u32, name }
        }),
        4 => (extents, bytes.clone(), holes, bytes).prop_map(|(extents, data, hole, end)| {
            let data = if extents > 100 { data % 2000 } else { data };
            Growth::File { extents, data: data.max(1), hole: hole.max(1), end }
        }),
        1 => target.prop_map(|length| Growth::Symlink(length.max(1) as usize)),
        1 => any::<u32>().prop_map(Growth::Special),
        1 => entries.prop_map(|links| Growth::Links(links as u32)),
    ]
}

/// Something of a tree, with holes of so many bytes at most.
pub(crate) fn grown(hole: u64) -> impl Strategy<Value = Grown> {
    let length = near(
        &[100, 150, 200, 250, 336, 700, 1000, 3000, 4000, 8000, 65_534],
        65_536,
    );
    let attribute = (any::<u8>(), length.prop_map(|length| length as usize)).boxed();
    let attributes = prop_oneof![4 => prop::collection::vec(attribute.clone(), 0..3), 1 => prop::collection::vec(attribute, 0..60)];
    (any::<prop::sample::Index>(), growth(hole), attributes).prop_map(
        |(parent, what, attributes)| Grown {
            parent,
            what,
            attributes,
        },
    )
}

/// The tree that was drawn.
pub(crate) fn tree(grown: &[Grown]) -> Tree {
    let mut tree = Tree::new();
    let mut directories: Vec<Id> = vec![ROOT];
    for (number, grown) in grown.iter().enumerate() {
        let parent = *grown.parent.get(&directories);
        let name = format!("{number}");
        let id = match &grown.what {
            Growth::Directory {
                entries,
                name: length,
            } => {
                let dir = tree.dir(parent, name);
                directories.push(dir);
                for entry in 0..*entries {
                    tree.special(
                        dir,
                        format!("{entry:x>length$}", length = *length),
                        What::Fifo,
                    );
                }
                dir
            }
            Growth::File {
                extents,
                data,
                hole,
                end,
            } => {
                let ranges = (0..*extents).map(|at| at * (data + hole)..at * (data + hole) + data);
                let size = extents * (data + hole) + end;
                let file = tree.sparse(parent, name, size, ranges.collect());
                if let What::File(data) = &mut tree.objects[file].what {
                    data.seed = number as u64 % 3; // so that some are equal in parts
                }
                file
            }
            Growth::Symlink(length) => tree.symlink(parent, name, vec![b't'; *length]),
            Growth::Special(number) => {
                let (major, minor) = (number >> 18 & 0x1ff, number & 0x3_ffff);
                let kinds = [
                    What::Char(major, minor),
                    What::Block(major, minor),
                    What::Fifo,
                    What::Socket,
                ];
                tree.special(parent, name, kinds[*number as usize % 4].clone())
            }
            Growth::Links(count) => {
                let file = tree.file(parent, &name, 1);
                for link in 0..*count {
                    let dir = directories[link as usize * 7 % directories.len()];
                    tree.link(dir, format!("{name}-{link:05}"), file);
                }
                file
            }
        };
        for (which, length) in &grown.attributes {
            let space = ["user.", "trusted.", "security."][usize::from(*which) % 3];
            let plain = matches!(tree.objects[id].what, What::File(_) | What::Directory(_));
            let space = if plain { space } else { "trusted." };
            tree.xattr(id, format!("{space}{which}"), vec![*which; *length]);
        }
    }
    tree
}

/// Runs `cases` cases, or as many as the variable `asked` asks for.
pub(crate) fn runner(asked: &str, cases: u32) -> TestRunner {
    let number = |name: &str| std::env::var(name).ok().and_then(|text| text.parse().ok());
    let seed = number("PROPTEST_RNG_SEED").unwrap_or_else(|| {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
        now.unwrap().as_nanos() as u64
    });
    eprintln!("PROPTEST_RNG_SEED={seed}");
    TestRunner::new(Config {
        cases: number(asked).map_or(cases, |asked| asked as u32),
        rng_seed: RngSeed::Fixed(seed),
        failure_persistence: None,
        max_shrink_iters: 60,
        ..Config::default()
    })
}
