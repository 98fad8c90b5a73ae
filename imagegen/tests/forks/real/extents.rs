//! Files whose blocks lie backwards, so that every block is an extent; and links.

use super::directory::{SPARE, image};
use super::{Placing, allocate, number};
use imagegen::xfs::write::symlink;
use std::fs;
use std::os::unix::fs::symlink as make_link;

/// The bytes of block `number` of a file.
fn contents(number: u64, size: usize) -> Vec<u8> {
    number.to_be_bytes().repeat(size / 8)
}

fn kernel_takes(test: &str, options: &[&str], count: u64) {
    let Some(image) = image(test, options) else {
        return;
    };
    let size = image.geometry.block_size();
    let in_order: Vec<u8> = (0..count)
        .flat_map(|number| contents(number, size))
        .collect();
    let (file, spare) = image.mounted(|root| {
        fs::write(root.join("file"), &in_order).unwrap();
        let spare = allocate(&root.join("blocks"), SPARE);
        (number(&root.join("file")), spare)
    });
    let mut blocks = image.take(file, count);
    blocks.reverse();
    Placing::at(&[(0, count)], &blocks).map(&image, file, false, spare);
    image.patch(file, |core, _| core.size = (in_order.len() as u64).into());
    image.judge();
    image.mounted(|root| {
        let found = fs::read(root.join("file")).unwrap();
        let expected = (0..count).rev().flat_map(|number| contents(number, size));
        assert!(expected.eq(found), "blocks are not where they should be");
        fs::write(root.join("more"), &in_order).unwrap();
        let file = fs::File::options()
            .write(true)
            .open(root.join("file"))
            .unwrap();
        file.set_len(in_order.len() as u64 / 2).unwrap();
    });
    image.judge();
}

#[test]
fn the_kernel_takes_a_list() {
    kernel_takes("the_kernel_takes_a_list", &[], 9);
}

#[test]
fn the_kernel_takes_a_tree() {
    kernel_takes("the_kernel_takes_a_tree", &[], 22);
    kernel_takes("the_kernel_takes_a_tree", &[], 1400);
}

#[test]
fn the_kernel_takes_a_tree_of_two_levels() {
    let test = "the_kernel_takes_a_tree_of_two_levels";
    kernel_takes(test, &["-b", "size=1024"], 3000);
}

/// The kernel makes links of many lengths; ours have the same form and the same blocks.
#[test]
fn links_are_as_the_kernel_makes_them() {
    let test = "links_are_as_the_kernel_makes_them";
    let Some(image) = image(test, &["-b", "size=1024"]) else {
        return;
    };
    let target = |length: usize| "t".repeat(length);
    let lengths = [1, 175, 192, 193, 336, 337, 500, 968, 969, 1023];
    let links: Vec<(usize, u64)> = image.mounted(|root| {
        let make = |length: usize| {
            let link = root.join(format!("link{length}"));
            make_link(target(length), &link).unwrap();
            (length, number(&link))
        };
        assert!(make_link(target(1024), root.join("long")).is_err());
        lengths.map(make).to_vec()
    });
    let mut remote = 0;
    for (length, ino) in links {
        let target = target(length).into_bytes();
        let inode = image.inode(ino);
        let (_, space) = image.fork(ino, false);
        assert_eq!(
            symlink::is_inline(&target, space),
            inode[5] == 1,
            "{length}"
        );
        if inode[5] == 1 {
            assert_eq!(inode[176..176 + length], target);
            continue;
        }
        remote += 1;
        let blocks: Vec<u64> = image
            .extents(ino)
            .iter()
            .flat_map(|extent| extent.block..extent.block + extent.count)
            .collect();
        assert_eq!(
            symlink::blocks_needed(&image.geometry, &target),
            blocks.len() as u64
        );
        let place = |offset: u64| blocks[offset as usize];
        let mut left = length;
        let mut compare = |fsblock: u64, bytes: &[u8]| {
            let count = bytes.len() / image.geometry.block_size();
            let theirs = (fsblock..).take(count).map(|block| image.read(block));
            let mut theirs = theirs.collect::<Vec<_>>().concat();
            // All but checksum, sequence of the log, and what lies behind the target.
            theirs[12..16].copy_from_slice(&bytes[12..16]);
            theirs[48..56].fill(0);
            let used = (56 + left).min(bytes.len());
            assert!(theirs[..used] == bytes[..used], "{length} differs");
            left -= used - 56;
            image.write(fsblock, bytes);
        };
        symlink::encode(&image.geometry, ino, &target, &place, &mut compare);
        assert_eq!(left, 0);
    }
    assert!(remote >= 5);
    image.judge();
    image.mounted(|root| {
        for length in lengths {
            let found = fs::read_link(root.join(format!("link{length}"))).unwrap();
            assert_eq!(found.to_str().unwrap(), target(length));
        }
    });
}
