//! "MicroLZMA": a stream of LZMA without header and end marker whose first byte, always
//! zero, holds the inverted properties instead. Its encoder stops by itself when the room
//! is used up.

use lzma_rust2::{LzmaOptions, MicroLzmaEncoder};

use super::{Codec, CodecError, Fit, Room, judged};
use crate::erofs::compress::algorithm::lzma_dictionary;

/// What of an input can matter: the encoder copies it before it begins, and no data of
/// any use is compressed further.
const RATIO_MAX: usize = 32;

pub(super) struct Lzma {
    encoder: MicroLzmaEncoder,
}

impl Lzma {
    /// For clusters of up to `cluster` bytes.
    pub(super) fn new(level: i32, cluster: u32) -> Result<Self, CodecError> {
        let mut options = LzmaOptions::with_preset(level.unsigned_abs());
        options.dict_size = lzma_dictionary(cluster);
        let encoder = MicroLzmaEncoder::new(&options).map_err(failed)?;
        Ok(Self { encoder })
    }
}

impl Codec for Lzma {
    fn fit(&mut self, input: &[u8], room: Room, out: &mut Vec<u8>) -> Result<Fit, CodecError> {
        let most = room.bytes.saturating_mul(RATIO_MAX).min(input.len());
        let seen = input.get(..most).unwrap_or(input);
        out.resize(room.bytes, 0);
        let (taken, size) = self.encoder.compress_prefix(seen, out).map_err(failed)?;
        out.truncate(size);
        Ok(judged(taken, size, room, input.len()))
    }
}

fn failed(error: impl std::fmt::Display) -> CodecError {
    CodecError {
        library: "the LZMA encoder",
        cause: error.to_string(),
    }
}
