//! What xfs_db reads in an image is what was meant: a sample of inodes, directory blocks
//! and B-tree records, of both suites.

use crate::db::{Answer, ask, question};
use crate::image::{Image, MIB, sized};
use crate::judge;
use crate::load::Draw;
use crate::model::{Id, ROOT, Tree, What};
use crate::tools::Suite;
use std::collections::{BTreeMap, BTreeSet};

fn tree() -> Tree {
    let mut tree = Tree::new();
    for (number, count) in [3, 30, 120, 700].into_iter().enumerate() {
        let dir = tree.dir(ROOT, format!("dir{number}"));
        for entry in 0..count {
            let file = tree.file(dir, format!("file{entry}"), entry * 100);
            if entry % 5 == 0 {
                tree.link(ROOT, format!("link{number}-{entry}"), file);
            }
        }
    }
    let ranges = (0..3000).map(|at| at * 8192..at * 8192 + 4096).collect();
    tree.sparse(ROOT, "holed", 3000 * 8192, ranges);
    tree.symlink(ROOT, "short", "target");
    tree.symlink(ROOT, "long", "t".repeat(1000));
    tree.special(ROOT, "pipe", What::Fifo);
    tree
}

fn kind(what: &What) -> u64 {
    match what {
        What::Directory(_) => 0o040_000,
        What::File(_) => 0o100_000,
        What::Symlink(_) => 0o120_000,
        What::Char(..) => 0o020_000,
        What::Block(..) => 0o060_000,
        What::Fifo => 0o010_000,
        What::Socket => 0o140_000,
    }
}

/// Every suite's view of an image.
fn each(image: &Image, check: impl Fn(Suite, &Image)) {
    [Suite::Stable, Suite::Newest]
        .into_iter()
        .for_each(|suite| check(suite, image));
}

#[test]
fn xfs_db_agrees_on_inodes() {
    let tree = tree();
    let image = judge(&tree, &sized(300 * MIB));
    let (paths, mut draw) = (tree.paths(), Draw(42));
    let mut names: BTreeMap<Id, u64> = BTreeMap::new();
    paths
        .iter()
        .for_each(|(_, id)| *names.entry(*id).or_insert(0) += 1);
    let root = [paths[0].clone()];
    let drawn = (0..60).map(|_| paths[1 + draw.below(paths.len() as u64 - 1) as usize].clone());
    let sample: Vec<(Vec<u8>, Id)> = root.into_iter().chain(drawn).collect();
    each(&image, |suite, image| {
        let path = |path: &[u8]| format!("path /{}", String::from_utf8_lossy(path));
        let questions: Vec<_> = sample
            .iter()
            .map(|(name, _)| question(&[&path(name), "print"]))
            .collect();
        let Some(answers) = ask(suite, image, &questions) else {
            return;
        };
        for ((path, id), answer) in sample.iter().zip(answers) {
            agrees(
                &tree,
                *id,
                names[id],
                &answer,
                &path.escape_ascii().to_string(),
            );
        }
    });
}

fn agrees(tree: &Tree, id: Id, names: u64, answer: &Answer, path: &str) {
    let object = &tree.objects[id];
    let meta = &object.meta;
    let links = match &object.what {
        What::Directory(entries) => {
            let below = entries
                .values()
                .filter(|id| matches!(tree.objects[**id].what, What::Directory(_)));
            2 + below.count() as u64
        }
        _ => names,
    };
    let mut meant = vec![
        ("core.magic", 0x494e),
        ("core.version", 3),
        ("core.mode", kind(&object.what) | u64::from(meta.mode)),
        ("core.uid", meta.uid.into()),
        ("core.gid", meta.gid.into()),
        ("core.nlinkv2", links),
        ("core.projid_lo", u64::from(meta.project & 0xffff)),
        ("core.projid_hi", u64::from(meta.project >> 16)),
        ("v3.bigtime", 1),
        ("v3.nrext64", 1),
        ("next_unlinked", u64::MAX),
    ];
    match &object.what {
        What::File(data) => {
            let blocks: u64 = data
                .ranges
                .iter()
                .map(|range| range.end.div_ceil(4096) - range.start / 4096)
                .sum();
            let map = if data.ranges.len() > 100 {
                blocks.div_ceil(251)
            } else {
                0
            };
            meant.extend([("core.size", data.size), ("core.nblocks", blocks + map)]);
        }
        What::Symlink(target) => meant.push(("core.size", target.len() as u64)),
        _ => {}
    }
    for (name, value) in meant {
        let said = match answer.fields().get(name) {
            Some(&"null") => u64::MAX,
            _ => answer.number(name),
        };
        assert_eq!(said, value, "{name} of {path}");
    }
    let nanoseconds = |name| answer.number(name) as u32;
    assert_eq!(
        nanoseconds("core.mtime.nsec"),
        meta.mtime.nanoseconds,
        "{path}"
    );
    assert_eq!(
        nanoseconds("core.ctime.nsec"),
        meta.ctime.nanoseconds,
        "{path}"
    );
}

/// Names in all blocks of directories, in data blocks and short form.
#[test]
fn xfs_db_agrees_on_directory_blocks() {
    let tree = tree();
    let image = judge(&tree, &sized(300 * MIB));
    each(&image, |suite, image| {
        for name in ["dir0", "dir1", "dir2", "dir3"] {
            let path = format!("path /{name}");
            let Some(extents) = ask(suite, image, &[question(&[&path, "bmap"])]) else {
                return;
            };
            let blocks: Vec<u64> = extents[0]
                .extents()
                .iter()
                .filter(|(offset, ..)| *offset < 8 << 20)
                .flat_map(|(offset, _, count)| *offset..offset + count)
                .collect();
            let mut questions = vec![question(&[&path, "print"])];
            questions.extend(
                blocks
                    .iter()
                    .map(|block| question(&[&path, &format!("dblock {block}"), "print"])),
            );
            let answers = ask(suite, image, &questions).unwrap();
            let mut seen = BTreeSet::new();
            for answer in &answers {
                let names = answer
                    .fields()
                    .into_iter()
                    .filter(|(field, _)| field.ends_with("].name") && !field.starts_with("a."));
                seen.extend(names.map(|(_, name)| name.trim_matches('"').to_owned()));
                assert!(!answer.0.contains("(bad"), "{}", answer.0);
            }
            seen.remove(".");
            seen.remove("..");
            let id = tree.entries(ROOT)[name.as_bytes()];
            let meant = tree
                .entries(id)
                .keys()
                .map(|name| String::from_utf8_lossy(name).into_owned());
            assert_eq!(seen, meant.collect(), "{name}");
        }
    });
}

/// Free space by block and by size, inodes, and reverse mappings say the same, and what the
/// headers and the superblock say.
#[test]
fn xfs_db_agrees_on_records_of_trees() {
    let tree = tree();
    let image = judge(&tree, &sized(300 * MIB));
    each(&image, |suite, image| {
        let groups = image.geometry.ag_count;
        let (mut inodes, mut free_inodes, mut free_blocks) = (0, 0, 0);
        for ag in 0..groups {
            let (agf, agi) = (format!("agf {ag}"), format!("agi {ag}"));
            let questions = [
                question(&[&agf, "print"]),
                question(&[&agi, "print"]),
                question(&[&agf, "addr bnoroot", "print"]),
                question(&[&agf, "addr cntroot", "print"]),
                question(&[&agi, "addr root", "print"]),
                question(&[&agi, "addr free_root", "print"]),
                question(&[&agf, "addr rmaproot", "print"]),
            ];
            let Some(answers) = ask(suite, image, &questions) else {
                return;
            };
            let [agf, agi, bno, cnt, ino, fino, rmap] = <[Answer; 7]>::try_from(answers).unwrap();
            let free = bno.records();
            let mut by_size = free.clone();
            by_size.sort_by_key(|record| (record[1], record[0]));
            assert_eq!(cnt.records(), by_size, "group {ag}");
            let sum: u64 = free.iter().map(|record| record[1]).sum();
            assert_eq!(agf.number("freeblks"), sum);
            assert_eq!(
                agf.number("longest"),
                by_size.last().map_or(0, |record| record[1])
            );
            free_blocks += sum + agf.number("flcount") + agf.number("btreeblks");
            // startino, holemask, count, freecount, free
            let chunks = ino.records();
            let count: u64 = chunks.iter().map(|record| record[2]).sum();
            let free_count: u64 = chunks.iter().map(|record| record[3]).sum();
            assert_eq!(
                (agi.number("count"), agi.number("freecount")),
                (count, free_count),
                "group {ag}"
            );
            let some_free: Vec<_> = chunks
                .iter()
                .filter(|record| record[3] > 0)
                .cloned()
                .collect();
            assert_eq!(fino.records(), some_free);
            (inodes, free_inodes) = (inodes + count, free_inodes + free_count);
            if agf.number("rmaplevel") == 1 {
                covered(&free, &rmap.records(), agf.number("length"));
            }
        }
        let superblock = ask(suite, image, &[question(&["sb 0", "print"])])
            .unwrap()
            .remove(0);
        let counters = ["icount", "ifree", "fdblocks"].map(|name| superblock.number(name));
        assert_eq!(counters, [inodes, free_inodes, free_blocks]);
        let used = tree.objects.len() as u64 + 2; // and two of a realtime device
        assert_eq!(inodes - free_inodes, used);
    });
}

/// Free extents and owned ones are a group, each block once (nothing is shared here).
fn covered(free: &[Vec<u64>], owned: &[Vec<u64>], length: u64) {
    let mut all: Vec<(u64, u64)> = free
        .iter()
        .chain(owned)
        .map(|record| (record[0], record[1]))
        .collect();
    all.sort_unstable();
    let mut at = 0;
    for (start, count) in all {
        assert_eq!(start, at, "{free:?} {owned:?}");
        at += count;
    }
    assert_eq!(at, length);
}

/// xfs_db's own walk through all of an image counts every block once.
#[test]
fn xfs_db_finds_every_block_once() {
    let image = judge(&tree(), &sized(300 * MIB));
    each(&image, |suite, image| {
        if let Some(said) = ask(suite, image, &[question(&["blockget -n"])]) {
            assert_eq!(said[0].0.trim(), "");
        }
    });
}
