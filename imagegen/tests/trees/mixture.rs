//! Contents that compress in parts well, in parts badly, in parts not at all.

use rand::{Rng, RngExt};
use rand_chacha::ChaCha8Rng;

/// Words, noise, zeroes and repetitions, in pieces of many sizes.
pub(crate) fn mixture(random: &mut ChaCha8Rng, size: usize) -> Vec<u8> {
    let mut data = Vec::with_capacity(size + 20_000);
    while data.len() < size {
        let length = random.random_range(1..20_000);
        match random.random_range(0..4) {
            0 => data.resize(data.len() + length, 0),
            1 => data.extend((0..length).map(|_| random.random::<u8>())),
            2 => {
                let word = random.random::<u64>().to_string();
                data.extend(word.bytes().cycle().take(length));
            }
            _ => data.extend(words(random, length)),
        }
    }
    data.truncate(size);
    data
}

/// About `size` bytes of what compresses as texts do.
pub(crate) fn words(random: &mut ChaCha8Rng, size: usize) -> Vec<u8> {
    (0..size / 4)
        .flat_map(|_| match random.random_range(0..6) {
            0 => *b"ing ",
            1 => *b"the ",
            2 => *b" of ",
            3 => *b"\n\tif",
            4 => *b"self",
            _ => random.next_u32().to_le_bytes(),
        })
        .collect()
}
