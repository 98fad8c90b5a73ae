//! LZ4, which fills a fixed room in one pass.

use super::{Codec, CodecError, Fit, Room, judged};

/// The quick one.
pub(super) struct Lz4;

impl Codec for Lz4 {
    fn fit(&mut self, input: &[u8], room: Room, out: &mut Vec<u8>) -> Result<Fit, CodecError> {
        out.resize(room.bytes, 0);
        let (taken, size) = lzzzz::lz4::compress_fill(input, out).map_err(failed)?;
        out.truncate(size);
        Ok(judged(taken, size, room, input.len()))
    }
}

/// The thorough one, whose output is of the same format.
pub(super) struct Lz4hc {
    level: i32,
}

impl Lz4hc {
    pub(super) fn new(level: i32) -> Self {
        Self { level }
    }
}

impl Codec for Lz4hc {
    fn fit(&mut self, input: &[u8], room: Room, out: &mut Vec<u8>) -> Result<Fit, CodecError> {
        out.resize(room.bytes, 0);
        let filled = lzzzz::lz4_hc::compress_fill(input, out, self.level);
        let (taken, size) = filled.map_err(failed)?;
        out.truncate(size);
        Ok(judged(taken, size, room, input.len()))
    }
}

fn failed(error: lzzzz::Error) -> CodecError {
    CodecError {
        library: "liblz4",
        cause: error.to_string(),
    }
}
