//! Clusters made smaller, one at a time.

use super::{Compression, WriteError};
use crate::qcow2::format::CompressionType;
use flate2::{Compress, FlushCompress, Status};
use zstd_safe::{CCtx, CParameter};

/// Bits of deflate's window: QEMU opens no larger one.
const WINDOW_BITS: u8 = 12;

/// What compresses, of one thread.
pub(super) enum Codec {
    Deflate(Box<Compress>),
    Zstd(Box<CCtx<'static>>),
}

impl Codec {
    pub(super) fn new(compression: Compression) -> Result<Self, WriteError> {
        match compression.kind {
            CompressionType::Deflate => {
                let level = flate2::Compression::new(compression.level.clamp(0, 9) as u32);
                let made = Compress::new_with_window_bits(level, false, WINDOW_BITS);
                Ok(Self::Deflate(Box::new(made)))
            }
            CompressionType::Zstd => {
                let failed = |code| WriteError::Zstd(zstd_safe::get_error_name(code));
                let mut made = CCtx::try_create().ok_or(WriteError::Zstd("no memory"))?;
                let level = CParameter::CompressionLevel(compression.level);
                made.set_parameter(level).map_err(failed)?;
                Ok(Self::Zstd(Box::new(made)))
            }
        }
    }

    /// Appends `cluster`, compressed, to `packed`; how many bytes that were, none if it
    /// would not have become smaller.
    pub(super) fn pack(&mut self, cluster: &[u8], packed: &mut Vec<u8>) -> Option<usize> {
        let begin = packed.len();
        packed.resize(begin + self.room(cluster.len()), 0);
        let room = packed.get_mut(begin..).unwrap_or_default();
        let length = match self {
            Self::Deflate(stream) => deflate(stream, cluster, room),
            Self::Zstd(context) => context.compress2(room, cluster).ok(),
        };
        let length = length.filter(|length| *length < cluster.len());
        packed.truncate(begin + length.unwrap_or(0));
        length
    }

    /// Bytes into which a cluster is compressed.
    const fn room(&self, cluster: usize) -> usize {
        match self {
            // zlib-rs 0.6.8 panics where the room is too little.
            Self::Deflate(_) => 2 * cluster + 128,
            Self::Zstd(_) => cluster,
        }
    }
}

fn deflate(stream: &mut Compress, cluster: &[u8], room: &mut [u8]) -> Option<usize> {
    stream.reset();
    let done = stream.compress(cluster, room, FlushCompress::Finish);
    let whole = matches!(done, Ok(Status::StreamEnd));
    whole.then(|| stream.total_out() as usize)
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::Decompress;
    use rand::{Rng, RngExt, SeedableRng};

    /// Of whatever a cluster holds, at every level.
    #[test]
    fn deflated_clusters_come_back_through_a_small_window() {
        let mut random = rand_chacha::ChaCha8Rng::seed_from_u64(7);
        for bits in 9..=21 {
            let mut cluster = vec![0; 1 << bits];
            let noise = random.random_range(0..=cluster.len());
            random.fill_bytes(&mut cluster[..noise]);
            for (number, byte) in cluster[noise..].iter_mut().enumerate() {
                *byte = (number % 5000 % 7) as u8 * (number % 3) as u8;
            }
            for level in 0..=9 {
                let kind = CompressionType::Deflate;
                let mut codec = Codec::new(Compression { kind, level }).unwrap();
                let mut packed = vec![1];
                let Some(length) = codec.pack(&cluster, &mut packed) else {
                    assert_eq!(packed.len(), 1);
                    continue;
                };
                assert!(length < cluster.len());
                let mut back = vec![0; cluster.len()];
                let mut stream = Decompress::new_with_window_bits(false, WINDOW_BITS);
                let finish = flate2::FlushDecompress::Finish;
                let done = stream.decompress(&packed[1..], &mut back, finish);
                assert_eq!(done.unwrap(), Status::StreamEnd, "{bits} {level}");
                assert!(back == cluster, "{bits} {level}");
            }
        }
    }
}
