//! What a superblock says of compression: which algorithms there are, how far they look
//! back, how large clusters are.

use zerocopy::IntoBytes;

use super::algorithm::{
    Algorithm, DEFLATE_WINDOW_BITS, LZ4_DISTANCE, lzma_dictionary, zstd_window_log,
};
use crate::erofs::format::superblock::{
    DeflateConfig, Lz4Config, LzmaConfig, ZstdConfig, algorithm, incompat,
};

/// Configurations of the algorithms of an image.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Configurations {
    /// Bits of `feature_incompat`.
    pub incompat: u32,
    /// `algorithms_or_lz4_distance`.
    pub word: u16,
    /// What lies behind the superblock.
    pub bytes: Vec<u8>,
}

impl Configurations {
    /// For `algorithms`, none of them if there is none, in clusters of up to `cluster`
    /// bytes.
    pub fn new(algorithms: &[Algorithm], cluster: u32, block: u32) -> Self {
        let mut numbers: Vec<u8> = algorithms.iter().map(|a| a.number()).collect();
        numbers.sort_unstable();
        numbers.dedup();
        match &numbers[..] {
            [] => Self::default(),
            // What the first kernels know, and all later ones.
            [algorithm::LZ4] if cluster <= block => Self {
                incompat: incompat::LZ4_0PADDING,
                word: LZ4_DISTANCE,
                bytes: Vec::new(),
            },
            numbers => Self {
                incompat: incompat::LZ4_0PADDING | incompat::COMPRESSION_CONFIGS,
                word: numbers.iter().fold(0, |bits, number| bits | 1 << number),
                bytes: numbers
                    .iter()
                    .flat_map(|number| one(*number, cluster, block))
                    .collect(),
            },
        }
    }
}

/// One of them, after its length.
fn one(number: u8, cluster: u32, block: u32) -> Vec<u8> {
    let config = match number {
        algorithm::LZ4 => Lz4Config {
            max_distance: LZ4_DISTANCE.into(),
            max_cluster_blocks: ((cluster / block.max(1)) as u16).into(), // at most 2047
            ..Lz4Config::default()
        }
        .as_bytes()
        .to_vec(),
        algorithm::LZMA => LzmaConfig {
            dictionary: lzma_dictionary(cluster).into(),
            ..LzmaConfig::default()
        }
        .as_bytes()
        .to_vec(),
        algorithm::DEFLATE => DeflateConfig {
            window_bits: DEFLATE_WINDOW_BITS,
            ..DeflateConfig::default()
        }
        .as_bytes()
        .to_vec(),
        _ => ZstdConfig {
            window_log: (zstd_window_log(cluster) - 10) as u8, // 5 to 10
            ..ZstdConfig::default()
        }
        .as_bytes()
        .to_vec(),
    };
    let length = config.len() as u16; // 6 or 14
    [&length.to_le_bytes()[..], &config].concat()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(names: &[&str], cluster: u32) -> Configurations {
        let algorithms: Vec<Algorithm> = names.iter().map(|name| name.parse().unwrap()).collect();
        Configurations::new(&algorithms, cluster, 4096)
    }

    #[test]
    fn what_old_kernels_know_stays_as_they_know_it() {
        let plain = of(&["lz4", "lz4hc,12"], 4096);
        assert_eq!((plain.incompat, plain.word), (1, 65535));
        assert!(plain.bytes.is_empty());
        assert_eq!(of(&[], 65536), Configurations::default());
    }

    #[test]
    fn configurations_follow_in_the_order_of_their_numbers() {
        let all = of(&["zstd", "lzma", "lz4hc", "deflate"], 65536);
        assert_eq!((all.incompat, all.word), (3, 15));
        let mut expected = vec![14, 0, 255, 255, 16, 0];
        expected.resize(16, 0);
        expected.extend([14, 0, 0, 0, 4, 0]); // 256 KiB
        expected.resize(32, 0);
        expected.extend([6, 0, 15, 0, 0, 0, 0, 0]);
        expected.extend([6, 0, 0, 9, 0, 0, 0, 0]); // 512 KiB
        assert_eq!(all.bytes, expected);
    }
}
