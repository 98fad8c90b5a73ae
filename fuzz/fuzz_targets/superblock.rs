//! A superblock: what is decoded encodes to the same and makes sense together.
#![no_main]

use csnap_fuzz::blocks::sealed;
use libfuzzer_sys::fuzz_target;
use snapstore::format::HEADER_LEN;
use snapstore::format::superblock::Superblock;

fuzz_target!(|data: &[u8]| {
    let (block, header) = sealed(data);
    let at = header.block.get();
    let Ok((superblock, generation)) = Superblock::decode(&block, at) else {
        return;
    };
    let again = superblock.encode(at, generation);
    assert_eq!(Superblock::decode(&again, at), Ok((superblock, generation)));
    let body = 4..HEADER_LEN + size_of::<Superblock>();
    assert_eq!(again.0[body.clone()], block.0[body]);

    let blocks = superblock.blocks.get();
    assert!(superblock.address(generation) < blocks);
    assert!(superblock.journal_first.get() + superblock.journal_blocks.get() < blocks);
    assert!((1..=256).contains(&superblock.chunk_blocks()));
    assert_eq!(superblock.data_checksum().id(), superblock.checksum.get());
});
