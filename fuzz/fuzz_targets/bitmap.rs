//! The allocation bitmap's blocks: an image that is accepted can be written anew,
//! and the new one says the same.
#![no_main]

use std::sync::LazyLock;

use csnap_fuzz::store::Patches;
use csnap_tests::memory::MemoryStore;
use libfuzzer_sys::fuzz_target;
use snapstore::BlockDevice;
use snapstore::alloc::{Allocator, load};
use snapstore::format::Ptr;

const STORE: u64 = 7;
/// Three pages, the last of them partial.
const BLOCKS: u64 = 70_001;
const CHUNK_BLOCKS: u32 = 4;

/// An image with something in every page.
static BASE: LazyLock<(MemoryStore, Ptr)> = LazyLock::new(|| {
    let mut alloc = Allocator::new(BLOCKS, CHUNK_BLOCKS);
    for (block, count) in [(0, 40), (32_000, 500), (64_600, 8), (BLOCKS - 1, 1)] {
        alloc.mark_used(block, count).expect("free");
        alloc.claim(block, count);
    }
    let image = alloc.image(STORE, 1).expect("room for it");
    let mut store = MemoryStore::new(BLOCKS);
    for (at, block) in image.writes {
        store.put(at, block);
    }
    (store, image.directory)
});

fuzz_target!(|data: &[u8]| {
    let (mut store, directory) = BASE.clone();
    Patches(data).apply(&mut store, true);
    let Ok(mut alloc) = load(&mut store, STORE, directory, BLOCKS, CHUNK_BLOCKS) else {
        return;
    };
    if !alloc.is_durable(0) {
        // Opening a store goes no further either: 0 is no address.
        return;
    }
    assert_eq!(alloc.fault(), None);
    assert!(alloc.free_chunks() * u64::from(CHUNK_BLOCKS) <= alloc.free_blocks());
    let Ok(image) = alloc.image(STORE, 2) else {
        return;
    };
    for (at, block) in image.writes {
        store
            .write(at, std::slice::from_ref(&*block))
            .expect("inside the store");
    }
    alloc.complete();
    assert_eq!(alloc.fault(), None);
    let again = load(&mut store, STORE, image.directory, BLOCKS, CHUNK_BLOCKS);
    let again = again.expect("an image just made");
    assert_eq!(again.free_blocks(), alloc.free_blocks());
    assert_eq!(again.free_chunks(), alloc.free_chunks());
});
