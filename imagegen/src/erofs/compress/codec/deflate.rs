//! Raw DEFLATE by libdeflate, which compresses all it is given or fails.

use libdeflater::{CompressionLvl, Compressor};

use super::search::{Search, Whole};
use super::{Codec, CodecError, Fit, Room};

/// In a stored block's first byte, a bit that nobody reads: what makes it other than zero.
const UNREAD_BIT: u8 = 1 << 3;

pub(super) struct Deflate {
    compressor: Library,
    search: Search,
}

struct Library(Compressor);

impl Deflate {
    pub(super) fn new(level: i32) -> Result<Self, CodecError> {
        let level = CompressionLvl::new(level).map_err(|error| CodecError {
            library: "libdeflate",
            cause: format!("{error:?}"),
        })?;
        Ok(Self {
            compressor: Library(Compressor::new(level)),
            search: Search::default(),
        })
    }
}

impl Codec for Deflate {
    fn fit(&mut self, input: &[u8], room: Room, out: &mut Vec<u8>) -> Result<Fit, CodecError> {
        self.search.fit(&mut self.compressor, input, room, out)
    }

    fn forget(&mut self) {
        self.search.forget();
    }
}

impl Whole for Library {
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
