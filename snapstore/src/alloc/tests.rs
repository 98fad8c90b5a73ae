//! Hostile images, contradictions and sizes.

use std::sync::Arc;

use super::oracle::{STORE, World};
use super::*;
use crate::block::Block;
use crate::device::IoError;
use crate::format::bitmap::PAGE_BITS;
use crate::format::{Damage, Kind, Ptr, seal};

/// Changes a block of the disk in place.
fn edit(world: &mut World, at: u64, change: impl FnOnce(&mut Block)) {
    change(Arc::make_mut(world.disk.blocks.get_mut(&at).unwrap()));
}

/// A store of three pages with an image: for the hostile tests.
fn with_image() -> (World, Ptr) {
    let mut world = World::new(3 * PAGE_BITS - 7, 4);
    world.own.alloc_chunks(9).unwrap();
    world.make_image();
    world.finish();
    let directory = world.complete.clone().unwrap().directory;
    (world, directory)
}

fn try_load(world: &mut World, directory: Ptr) -> Result<Allocator, LoadError> {
    load(&mut world.disk, STORE, directory, world.own.blocks(), 4)
}

#[test]
fn every_damaged_byte_of_an_image_is_refused() {
    let (mut world, directory) = with_image();
    for at in world.image.clone() {
        for byte in (0..4096).step_by(13) {
            edit(&mut world, at, |block| block.0[byte] ^= 0x40);
            let error = try_load(&mut world, directory).unwrap_err();
            assert_eq!(
                error,
                LoadError::Damaged {
                    block: at,
                    damage: Damage::Checksum
                }
            );
            edit(&mut world, at, |block| block.0[byte] ^= 0x40);
        }
    }
    try_load(&mut world, directory).unwrap();
}

#[test]
fn other_generations_stores_and_addresses_are_refused() {
    let (mut world, directory) = with_image();
    let wrong = Ptr {
        generation: 2,
        ..directory
    };
    let damage = |result: Result<Allocator, LoadError>| match result.unwrap_err() {
        LoadError::Damaged { damage, .. } => damage,
        LoadError::Read { error, .. } => panic!("unexpected {error}"),
    };
    assert_eq!(damage(try_load(&mut world, wrong)), Damage::Generation);
    for block in [0, world.own.blocks(), u64::MAX] {
        let outside = Ptr {
            block,
            generation: 1,
        };
        assert!(matches!(
            damage(try_load(&mut world, outside)),
            Damage::Field(_)
        ));
    }
    let other = load(&mut world.disk, STORE + 1, directory, world.own.blocks(), 4);
    assert_eq!(damage(other), Damage::Store);
    world.disk.fail_at = Some(directory.block);
    let failed = LoadError::Read {
        block: directory.block,
        error: IoError::Errno(5),
    };
    assert_eq!(try_load(&mut world, directory).unwrap_err(), failed);
}

/// Sealed again after every change, so that only the meaning is wrong.
#[test]
fn well_sealed_nonsense_is_refused() {
    let (mut world, directory) = with_image();
    let page = world.own.durable.copies().next().unwrap();
    let cases: [(u64, usize, &[u8]); 8] = [
        (directory.block, 32, &[9]),       // a chain longer than the store needs
        (directory.block, 48, &[1]),       // out of order
        (directory.block, 52, &[2]),       // fewer entries
        (directory.block, 64, &[0xff; 8]), // a page outside the store
        (directory.block, 72, &[7]),       // a page of another generation
        (page, 32, &[1]),                  // a page of another part
        (page, 64, &[0; 4032]),            // the image's own blocks are free
        (directory.block, 64, &world_page(&world)), // an entry of another page
    ];
    for (at, offset, bytes) in cases {
        let saved = world.disk.blocks[&at].clone();
        let kind = if at == page {
            Kind::BitmapPage
        } else {
            Kind::BitmapDirectory
        };
        edit(&mut world, at, |block| {
            block.0[offset..offset + bytes.len()].copy_from_slice(bytes);
            seal(block, kind, at, STORE, directory.generation);
        });
        let result = try_load(&mut world, directory);
        assert!(result.is_err(), "block {at} offset {offset} was believed");
        world.disk.blocks.insert(at, saved);
    }
    try_load(&mut world, directory).unwrap();
}

/// The address of the last page, in little-endian bytes.
fn world_page(world: &World) -> [u8; 8] {
    world.own.durable.copies().last().unwrap().to_le_bytes()
}

#[test]
fn bits_beyond_the_end_are_refused() {
    let (mut world, directory) = with_image();
    let last = world.own.durable.copies().last().unwrap();
    edit(&mut world, last, |block| {
        block.0[4095] |= 0x80;
        seal(block, Kind::BitmapPage, last, STORE, directory.generation);
    });
    let damage = Damage::Field("bits beyond the end of the store");
    let error = LoadError::Damaged {
        block: last,
        damage,
    };
    assert_eq!(try_load(&mut world, directory).unwrap_err(), error);
}

#[test]
fn contradictions_latch_and_change_nothing() {
    type Call = fn(&mut Allocator);
    let calls: [(Call, &str); 7] = [
        (|own| own.release(50, 1), "release"),
        (|own| own.claim(50, 1), "claim"),
        (|own| own.claim(0, 1), "claim"),
        (|own| own.give_back(50, 1), "give back"),
        (|own| own.give_back(0, 1), "give back"),
        (|own| own.release(u64::MAX, 2), "release"),
        (|own| own.claim(999, 2), "claim"),
    ];
    for (call, operation) in calls {
        let mut own = World::new(1000, 4).own;
        let free = own.free_blocks();
        call(&mut own);
        let fault = own.fault().unwrap();
        assert_eq!(fault.operation, operation);
        assert_eq!(own.free_blocks(), free);
        assert_eq!(own.image(STORE, 1).unwrap_err(), ImageError::Fault(fault));
    }
}

#[test]
fn an_unchanged_bitmap_writes_little() {
    // 40 pages; the image's own moves stay in the lowest.
    let mut own = Allocator::new(40 * PAGE_BITS, 4);
    own.mark_used(0, 1).unwrap();
    own.claim(0, 1);
    for generation in 1..50 {
        let image = own.image(STORE, generation).unwrap();
        assert_eq!((image.pages, image.writes.len()), (1, 2));
        own.complete();
    }
}

#[test]
fn a_tib_is_filled_in_runs_and_has_a_chained_directory() {
    let blocks = 1u64 << 28;
    let mut own = Allocator::new(blocks, 4);
    own.mark_used(0, 1).unwrap();
    own.claim(0, 1);
    assert_eq!(own.worst_case_image_blocks(), 8323 + 34);
    let image = own.image(STORE, 1).unwrap();
    assert_eq!((image.pages, image.writes.len()), (1, 35));
    own.complete();
    let mut got = 0;
    while let Some((_, chunks)) = own.alloc_chunks(1 << 20) {
        got += u64::from(chunks);
    }
    // One block in a chunk is taken by block 0, 35 by the image.
    assert_eq!(got, blocks / 4 - 9);
    assert_eq!((own.free_chunks(), own.free_blocks()), (0, 0));
}

#[test]
fn a_full_store_grows_to_a_tib_with_room_for_its_bitmap() {
    let mut world = World::new(300, 4);
    world.make_image();
    world.finish();
    let mut own = world.own;
    while own.alloc_block().is_some() {}
    let blocks = 1u64 << 28;
    own.reserve(blocks).unwrap();
    own.grow(blocks);
    let image = own.image(STORE, 2).unwrap();
    // The first page and the last one, and a directory of 34 blocks.
    assert_eq!((image.pages, image.writes.len()), (2, 36));
    let fresh = |(at, _): &(u64, Arc<Block>)| (300..blocks - 1).contains(at);
    assert!(image.writes.iter().all(fresh));
    assert_eq!(own.alloc_block(), None, "not before that is complete");
    assert_eq!(own.alloc_chunks(1), None);
    own.complete();
    while own.open_some() {}
    // Less what the image took, plus where the last superblock lay, and the image before.
    assert_eq!(own.free_blocks(), blocks - 300 - 1 - 36 + 1 + 2);
    assert!(own.is_durable(blocks - 1) && !own.is_used(299));
    assert_eq!(own.fault(), None);
    world.disk.blocks.extend(image.writes);
    let read = load(&mut world.disk, STORE, image.directory, blocks, 4).unwrap();
    assert!(read.is_durable(blocks - 1) && !read.is_durable(299));
}

#[test]
fn a_store_grows_in_pieces() {
    let (small, large) = (4096u64, 1 << 28);
    let mut own = Allocator::new(small, 4);
    own.mark_used(0, 1).unwrap();
    own.mark_used(small - 1, 1).unwrap();
    own.claim(0, 1);
    own.claim(small - 1, 1);
    own.reserve(large).unwrap();
    let (free, image) = (own.free_blocks(), own.worst_case_image_blocks());
    let mut pieces = 1;
    while !own.prepare(large) {
        pieces += 1;
        assert_eq!(
            (own.free_blocks(), own.worst_case_image_blocks()),
            (free, image)
        );
    }
    assert!(
        (large / grow::PIECE..large / grow::PIECE + 9).contains(&pieces),
        "{pieces}"
    );
    // Called off and tried again with less: nothing is left of it.
    assert!(own.prepare(small + 512));
    own.grow(large);
    own.image(7, 1).unwrap();
    let before = own.free_blocks();
    own.complete();
    let mut opened = own.free_blocks() - before;
    assert!(opened <= grow::PIECE + small, "{opened}");
    while own.open_some() {
        let more = own.free_blocks() - before - opened;
        assert!(more <= grow::PIECE, "{more}");
        opened += more;
    }
    let image = own.image_blocks().count() as u64;
    assert_eq!(own.free_blocks(), large - 2 - image);
    assert_eq!(own.fault(), None);
}
