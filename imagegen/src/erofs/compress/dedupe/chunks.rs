//! Content-defined chunks: the same bytes are cut at the same places, wherever they stand.

/// Bytes of a chunk at least, but the last of its input.
const LEAST: usize = 8 << 10;
/// Bytes of a chunk at most.
const MOST: usize = 128 << 10;
/// Bits of the hash that must be zero at a border: a chunk in 2^13 bytes after the least.
const MASK: u64 = ((1 << 13) - 1) << 40;
/// Bytes before a border that decide over it.
const WINDOW: usize = 64;

/// A word for every byte, mixed as by SplitMix64.
const GEAR: [u64; 256] = {
    let mut words = [0; 256];
    let mut number = 0;
    while number < words.len() {
        let mut word = (number as u64 + 1).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        word = (word ^ (word >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        word = (word ^ (word >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        words[number] = word ^ (word >> 31);
        number += 1;
    }
    words
};

/// The chunks of `input`, one after the other.
pub(super) fn chunks(input: &[u8]) -> impl Iterator<Item = &[u8]> {
    let mut rest = input;
    std::iter::from_fn(move || {
        let (chunk, later) = rest.split_at(first(rest));
        rest = later;
        (!chunk.is_empty()).then_some(chunk)
    })
}

/// Where the first chunk of `input` ends.
fn first(input: &[u8]) -> usize {
    let most = input.len().min(MOST);
    let Some(seen) = input.get(LEAST - WINDOW..most) else {
        return input.len();
    };
    let mut hash = 0u64;
    for (position, byte) in seen.iter().enumerate() {
        hash = (hash << 1).wrapping_add(GEAR[usize::from(*byte)]);
        if position >= WINDOW && hash & MASK == 0 {
            return LEAST - WINDOW + position + 1;
        }
    }
    most
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::{Rng, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn what_is_moved_is_cut_as_before() {
        let mut noise = vec![0; 1 << 20];
        ChaCha8Rng::seed_from_u64(1).fill_bytes(&mut noise);
        let before: Vec<&[u8]> = chunks(&noise).collect();
        assert_eq!(before.concat(), noise);
        let moved = [&[7; 1234], &noise[..]].concat();
        let after: Vec<&[u8]> = chunks(&moved).collect();
        assert!(after.ends_with(&before[before.len() / 2..]));
        let (last, others) = before.split_last().unwrap();
        assert!(others.iter().all(|c| (LEAST..=MOST).contains(&c.len())) && last.len() <= MOST);
        let average = noise.len() / before.len();
        assert!((12 << 10..24 << 10).contains(&average), "{average}");
    }

    #[test]
    fn short_and_uniform_inputs() {
        assert_eq!(chunks(&[]).count(), 0);
        assert_eq!(chunks(&[1; 100]).count(), 1);
        let lengths: Vec<usize> = chunks(&[0; 300 << 10]).map(<[u8]>::len).collect();
        assert_eq!(lengths, [MOST, MOST, 44 << 10]);
    }
}
