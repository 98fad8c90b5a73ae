//! Zstandard into small clusters, as often as it takes to fill them: what several blocks in a
//! frame have besides their contents, and what they cannot know of each other, would be much
//! of a small cluster.

use zstd_safe::{CCtx, compress_bound};

use super::search::{Search, Whole};
use super::zstd::{context, failed};
use super::{Codec, CodecError, Fit, Room};

/// Bytes of the largest clusters that this is better for.
pub(super) const MOST: u32 = 8 << 10;

pub(super) struct ZstdSmall {
    frames: Frames,
    search: Search,
}

/// Makes one frame at a time.
struct Frames {
    context: CCtx<'static>,
    frame: Vec<u8>,
}

impl ZstdSmall {
    /// For clusters of up to `cluster` bytes.
    pub(super) fn new(level: i32, cluster: u32) -> Result<Self, CodecError> {
        let frames = Frames {
            context: context(level, cluster)?,
            frame: Vec::new(),
        };
        Ok(Self {
            frames,
            search: Search::default(),
        })
    }
}

impl Codec for ZstdSmall {
    fn fit(&mut self, input: &[u8], room: Room, out: &mut Vec<u8>) -> Result<Fit, CodecError> {
        self.search.fit(&mut self.frames, input, room, out)
    }

    fn forget(&mut self) {
        self.search.forget();
    }
}

impl Whole for Frames {
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
