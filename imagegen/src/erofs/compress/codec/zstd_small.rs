//! Zstandard into small clusters, as often as it takes to fill them: what several blocks in a
//! frame have besides their contents, and what they cannot know of each other, would be much
//! of a small cluster.

use zstd_safe::{CCtx, compress_bound};

use super::CodecError;
use super::search::{Search, Whole};
use super::zstd::{context, failed};

/// Bytes of the largest clusters that this is better for.
pub(super) const MOST: u32 = 8 << 10;

/// Makes one frame at a time.
pub(super) struct ZstdSmall {
    context: CCtx<'static>,
    frame: Vec<u8>,
}

impl ZstdSmall {
    /// For clusters of up to `cluster` bytes.
    pub(super) fn new(level: i32, cluster: u32) -> Result<Search<Self>, CodecError> {
        Ok(Search::new(Self {
            context: context(level, cluster)?,
            frame: Vec::new(),
        }))
    }
}

impl Whole for ZstdSmall {
    fn compress(&mut self, input: &[u8], out: &mut [u8]) -> Result<Option<usize>, CodecError> {
        // Room for all: the library's errors cannot be told from each other.
        self.frame.clear();
        self.frame.reserve(compress_bound(input.len()));
        let made = self.context.compress2(&mut self.frame, input);
        let size = made.map_err(failed)?;
        if let Some(place) = out.get_mut(..size) {
            place.copy_from_slice(&self.frame);
        }
        Ok(Some(size))
    }
}
