//! The checksum of 4 KiB: with the processor's instruction (what csnap uses) and
//! with tables (what a processor without it would run).

use std::hint::black_box;
use std::time::Instant;

const BYTES: usize = 4096;
/// Different pieces, so that the branch predictor and the cache help as in use.
const PIECES: usize = 256;
const PASSES: usize = 40;

/// What each way is called in the rows, and its nanoseconds per 4 KiB.
#[must_use]
pub fn measure() -> [(&'static str, f64); 2] {
    let tables = tables();
    [
        ("instruction", nanoseconds(crc32c::crc32c)),
        ("table", nanoseconds(|bytes| by_table(&tables, bytes))),
    ]
}

fn nanoseconds(checksum: impl Fn(&[u8]) -> u32) -> f64 {
    let data: Vec<u8> = (0..BYTES * PIECES).map(|i| ((i * 31) >> 3) as u8).collect();
    let clock = Instant::now();
    for _ in 0..PASSES {
        for piece in data.chunks_exact(BYTES) {
            black_box(checksum(black_box(piece)));
        }
    }
    clock.elapsed().as_nanos() as f64 / (PASSES * PIECES) as f64
}

/// The reversed polynomial of CRC32C.
const POLYNOMIAL: u32 = 0x82f6_3b78;

type Tables = [[u32; 256]; 8];

/// `tables[k][b]` is the effect of byte `b` followed by `k` zero bytes.
fn tables() -> Tables {
    let mut tables = [[0; 256]; 8];
    for (byte, entry) in tables[0].iter_mut().enumerate() {
        *entry = (0..8).fold(byte as u32, |crc, _| {
            crc >> 1 ^ if crc & 1 == 1 { POLYNOMIAL } else { 0 }
        });
    }
    for k in 1..8 {
        for byte in 0..256 {
            let crc: u32 = tables[k - 1][byte];
            tables[k][byte] = crc >> 8 ^ tables[0][(crc & 0xff) as usize];
        }
    }
    tables
}

/// Eight bytes a turn ("slicing by eight").
fn by_table(tables: &Tables, bytes: &[u8]) -> u32 {
    let (words, rest) = bytes.as_chunks::<8>();
    let crc = words.iter().fold(u32::MAX, |crc, word| {
        let word = u64::from_le_bytes(*word) ^ u64::from(crc);
        let byte = |k: usize| tables[7 - k][(word >> (8 * k) & 0xff) as usize];
        (0..8).fold(0, |sum, k| sum ^ byte(k))
    });
    let crc = rest.iter().fold(crc, |crc, byte| {
        crc >> 8 ^ tables[0][((crc ^ u32::from(*byte)) & 0xff) as usize]
    });
    !crc
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_ways_agree() {
        let tables = tables();
        assert_eq!(by_table(&tables, b"123456789"), 0xe306_9283);
        let bytes: Vec<u8> = (0..5000u32)
            .map(|i| (i.wrapping_mul(0x9e37_79b1) >> 24) as u8)
            .collect();
        for end in [0, 1, 7, 8, 9, 4095, 4096, 5000] {
            assert_eq!(
                by_table(&tables, &bytes[..end]),
                crc32c::crc32c(&bytes[..end])
            );
        }
    }
}
