//! Raw DEFLATE by libdeflate, which compresses all it is given or fails.

use libdeflater::{CompressionLvl, Compressor};

use super::CodecError;
use super::search::{Search, Whole};

/// In a stored block's first byte, a bit that nobody reads: what makes it other than zero.
const UNREAD_BIT: u8 = 1 << 3;

pub(super) struct Deflate(Compressor);

impl Deflate {
    pub(super) fn new(level: i32) -> Result<Search<Self>, CodecError> {
        let level = CompressionLvl::new(level).map_err(|error| CodecError {
            library: "libdeflate",
            cause: format!("{error:?}"),
        })?;
        Ok(Search::new(Self(Compressor::new(level))))
    }
}

impl Whole for Deflate {
    fn compress(&mut self, input: &[u8], out: &mut [u8]) -> Result<Option<usize>, CodecError> {
        // The only error there is says that the output is too small.
        let Ok(size) = self.0.deflate_compress(input, out) else {
            return Ok(None);
        };
        if let Some(first @ 0) = out.first_mut() {
            *first = UNREAD_BIT;
        }
        Ok(Some(size))
    }
}
