//! Every codec over every sort of data: what it says to have taken is what the library's
//! decoder gives back.

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use std::io::Read;

#[path = "../../../../tests/trees/mixture.rs"]
mod mixture;

use super::{Fit, Room, codec};
use mixture::{mixture, words};

use crate::erofs::compress::algorithm::{Algorithm, Family, lzma_dictionary};

const ALGORITHMS: [&str; 7] = [
    "lz4",
    "lz4hc",
    "deflate,1",
    "deflate,9",
    "zstd",
    "zstd,12",
    "lzma,1",
];

fn decoded(algorithm: Algorithm, cluster: u32, bytes: &[u8], length: usize) -> Vec<u8> {
    let mut out = vec![0; length];
    let size = match algorithm.family() {
        Family::Lz4 | Family::Lz4hc => lzzzz::lz4::decompress(bytes, &mut out).unwrap(),
        Family::Deflate => libdeflater::Decompressor::new()
            .deflate_decompress(bytes, &mut out)
            .unwrap(),
        Family::Zstd => zstd_safe::decompress(&mut out[..], bytes).unwrap(),
        Family::Lzma => {
            let (window, properties) = (lzma_dictionary(cluster), !bytes[0]);
            let stream = [&[0], &bytes[1..]].concat();
            let length = length as u64;
            let opened = lzma_rust2::LzmaReader::new_with_props(
                &stream[..],
                length,
                properties,
                window,
                None,
            );
            out.clear();
            opened.unwrap().read_to_end(&mut out).unwrap()
        }
    };
    assert_eq!(size, length);
    out
}

/// Compresses all of `data`, checks it, and says what it occupies.
fn through(algorithm: Algorithm, room: Room, data: &[u8]) -> usize {
    let cluster = room.bytes as u32;
    let mut codec = codec(algorithm, cluster).unwrap();
    let (mut at, mut occupied, mut out) = (0, 0, Vec::new());
    while at < data.len() {
        match codec.fit(&data[at..], room, &mut out).unwrap() {
            Fit::Compressed(taken) => {
                assert!(taken <= data.len() - at && out.len() <= room.bytes);
                assert!(room.occupied(out.len()) < taken);
                assert_ne!(out[0], 0, "{algorithm}: zeroes before it are skipped");
                let back = decoded(algorithm, cluster, &out, taken);
                assert!(
                    back == data[at..at + taken],
                    "{algorithm} at {at} of {}",
                    data.len()
                );
                occupied += room.occupied(out.len());
                at += taken;
            }
            Fit::Plain(taken) => {
                assert!((1..=data.len() - at).contains(&taken));
                assert!(taken == data.len() - at || taken.is_multiple_of(room.block));
                occupied += taken;
                at += taken;
            }
        }
    }
    occupied
}

#[test]
fn what_is_taken_comes_back() {
    let seed = rand::rng().next_u64();
    println!("seed {seed}");
    let random = &mut ChaCha8Rng::seed_from_u64(seed);
    for name in ALGORITHMS {
        let algorithm: Algorithm = name.parse().unwrap();
        for (bytes, block) in [
            (512, 512),
            (4096, 4096),
            (4096, 1),
            (65536, 4096),
            (1 << 20, 4096),
        ] {
            for size in [1, 100, block, bytes, bytes + 1, bytes + bytes / 2 + 777] {
                let data = mixture(random, size);
                through(algorithm, Room { bytes, block }, &data);
            }
        }
    }
}

#[test]
fn noise_stays_plain_and_zeroes_vanish() {
    let random = &mut ChaCha8Rng::seed_from_u64(3);
    let mut noise = vec![0; 300_000];
    random.fill_bytes(&mut noise);
    let room = Room {
        bytes: 65536,
        block: 4096,
    };
    for name in ALGORITHMS {
        let algorithm: Algorithm = name.parse().unwrap();
        assert_eq!(through(algorithm, room, &noise), noise.len(), "{name}");
        let zeroes = through(algorithm, room, &vec![0; 1 << 20]);
        assert!(zeroes <= 2 * 4096, "{name}: {zeroes}");
    }
}

/// Fixed rooms are filled: what is not used is a few percent.
#[test]
fn clusters_are_full() {
    let random = &mut ChaCha8Rng::seed_from_u64(4);
    let data = words(random, 2 << 20);
    for name in ALGORITHMS {
        let algorithm: Algorithm = name.parse().unwrap();
        for bytes in [4096, 16384, 65536] {
            let room = Room { bytes, block: 4096 };
            let mut codec = codec(algorithm, bytes as u32).unwrap();
            let (mut used, mut occupied) = (0, 0);
            let (mut at, mut out) = (0, Vec::new());
            // Not the end of the data, which fills nothing.
            while at + (1 << 20) < data.len() {
                let Fit::Compressed(taken) = codec.fit(&data[at..], room, &mut out).unwrap() else {
                    panic!("{name}: plain at {at}");
                };
                at += taken;
                used += out.len();
                occupied += room.occupied(out.len());
            }
            assert!(
                used * 100 >= occupied * 97,
                "{name} {bytes}: {used} of {occupied}"
            );
        }
    }
}

/// What compresses to nearly nothing says nothing of what comes after it.
#[test]
fn texts_after_zeroes_are_compressed() {
    let random = &mut ChaCha8Rng::seed_from_u64(6);
    let data = [vec![0; 1 << 20], words(random, 200_000)].concat();
    for name in ALGORITHMS {
        let algorithm: Algorithm = name.parse().unwrap();
        let mut codec = codec(algorithm, 4096).unwrap();
        let (bytes, block) = (4096, 4096);
        let (mut at, mut out) = (0, Vec::new());
        while at < data.len() - 20_000 {
            let fit = codec.fit(&data[at..], Room { bytes, block }, &mut out);
            let Fit::Compressed(taken) = fit.unwrap() else {
                panic!("{name}: plain at {at}");
            };
            at += taken;
        }
    }
}

#[test]
fn the_past_is_forgotten() {
    let random = &mut ChaCha8Rng::seed_from_u64(5);
    let data = mixture(random, 600_000);
    let room = Room {
        bytes: 16384,
        block: 4096,
    };
    for name in ALGORITHMS {
        let mut codec = codec(name.parse().unwrap(), 16384).unwrap();
        let (mut first, mut again) = (Vec::new(), Vec::new());
        let taken = codec.fit(&data, room, &mut first).unwrap();
        for at in [100_000, 250_000, 400_000] {
            codec.fit(&data[at..], room, &mut again).unwrap();
        }
        codec.forget();
        assert_eq!(codec.fit(&data, room, &mut again).unwrap(), taken, "{name}");
        assert!(first == again, "{name}");
    }
}
