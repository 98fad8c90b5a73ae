//! Ranges of bits in a slice of 64-bit words.
//!
//! Callers have checked that a range lies inside the slice.

/// The words that `first .. first + count` touches, each with the mask of the
/// bits touched.
pub(super) fn pieces(first: u64, count: u64) -> impl Iterator<Item = (usize, u64)> {
    let end = first + count;
    let mut at = first;
    std::iter::from_fn(move || {
        if at >= end {
            return None;
        }
        let (word, low) = (at / 64, at % 64);
        let len = (64 - low).min(end - at);
        at += len;
        Some((word as usize, (u64::MAX >> (64 - len)) << low))
    })
}

/// Whether every bit is 1.
pub(super) fn all_ones(words: &[u64], first: u64, count: u64) -> bool {
    pieces(first, count).all(|(word, mask)| words[word] & mask == mask)
}

/// Whether every bit is 0.
pub(super) fn all_zeroes(words: &[u64], first: u64, count: u64) -> bool {
    pieces(first, count).all(|(word, mask)| words[word] & mask == 0)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pieces_cover_each_bit_once() {
        for first in 0..130u64 {
            for count in 0..200u64 {
                let mut seen = [0u64; 8];
                for (word, mask) in pieces(first, count) {
                    assert_ne!(mask, 0);
                    assert_eq!(seen[word] & mask, 0);
                    seen[word] |= mask;
                }
                let ones: u64 = seen.iter().map(|word| u64::from(word.count_ones())).sum();
                assert_eq!(ones, count);
                assert!(all_ones(&seen, first, count));
            }
        }
    }
}
