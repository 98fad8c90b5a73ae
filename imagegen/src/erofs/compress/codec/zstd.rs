//! Zstandard into a fixed room in little more than one pass: a frame is written block by
//! block, and ends after the last block that fits.
//!
//! After each block the encoder is flushed, so that it is known how much room is left; the
//! next block's input is what should nearly fill it. A block too many costs nothing but its
//! own time, because a frame may be cut after any block: an empty last block of 3 bytes
//! ends it.

use zstd_safe::zstd_sys::ZSTD_EndDirective::{self, ZSTD_e_end, ZSTD_e_flush};
use zstd_safe::{CCtx, CParameter, InBuffer, OutBuffer, ResetDirective, get_error_name};

use super::search::{Pace, slack};
use super::{Codec, CodecError, Fit, Room, judged, plain};
use crate::erofs::compress::algorithm::zstd_window_log;

/// Bytes that a block holds at most (`ZSTD_BLOCKSIZE_MAX`).
const BLOCK_MAX: usize = 128 << 10;
/// An empty raw block that is the last.
const LAST_BLOCK: [u8; 3] = [1, 0, 0];
/// Bytes of a frame's header as the encoder writes it: magic, descriptor, window.
const HEADER: usize = 6;
/// Bytes that it grows by when the size of the contents is put into it.
const CONTENT_SIZE: usize = 4;
/// In the header's descriptor: the size of the contents follows in 4 bytes.
const HAS_CONTENT_SIZE: u8 = 2 << 6;
/// Bytes of the room that are needed for more than blocks.
const RESERVED: usize = CONTENT_SIZE + LAST_BLOCK.len();
/// What a block may grow by, and the frame's header.
const GROWTH: usize = 1 << 10;
/// Frames begun again for one cluster before a half-filled one is taken.
const ATTEMPTS: usize = 3;

pub(super) struct Zstd {
    context: CCtx<'static>,
    pace: Pace,
    written: Vec<u8>,
    /// Where the cluster's blocks end, in bytes of input.
    cuts: Vec<usize>,
}

/// Where a frame may be cut.
#[derive(Debug, Clone, Copy, Default)]
struct Cut {
    taken: usize,
    size: usize,
}

/// How an attempt ended.
enum End {
    /// At the input's end: the frame is complete.
    Whole(Cut),
    /// With little room left.
    Full(Cut),
    /// Its last block, up to `over`, did not fit.
    Over { cut: Cut, over: Cut },
}

impl Zstd {
    /// For clusters of up to `cluster` bytes.
    pub(super) fn new(level: i32, cluster: u32) -> Result<Self, CodecError> {
        let mut context = context(level, cluster)?;
        let parameter = CParameter::ContentSizeFlag(false);
        context.set_parameter(parameter).map_err(failed)?;
        Ok(Self {
            context,
            pace: Pace::default(),
            written: Vec::new(),
            cuts: Vec::new(),
        })
    }

    /// Writes a frame of `input` up to the room's end: first the blocks that end where
    /// `cuts` says, then others, which are added to it.
    fn attempt(&mut self, input: &[u8], room: Room) -> Result<End, CodecError> {
        let session = ResetDirective::SessionOnly;
        self.context.reset(session).map_err(failed)?;
        self.written.resize(room.bytes + BLOCK_MAX + GROWTH, 0);
        let mut cut = Cut::default();
        for known in 0.. {
            let end = match self.cuts.get(known) {
                Some(&end) => end,
                None => (cut.taken + self.step(cut, room)).min(input.len()),
            };
            let (ending, most) = match end == input.len() {
                true => (ZSTD_e_end, room.bytes - CONTENT_SIZE),
                false => (ZSTD_e_flush, room.bytes - RESERVED),
            };
            let over = self.block(input, cut, end, ending)?;
            if over.size > most {
                return Ok(End::Over { cut, over });
            }
            if known >= self.cuts.len() {
                self.cuts.push(end);
                self.pace.note(over.taken - cut.taken, over.size - cut.size);
            }
            cut = over;
            if end == input.len() {
                return Ok(End::Whole(cut));
            }
            if most - cut.size <= slack(room) {
                break;
            }
        }
        Ok(End::Full(cut))
    }

    /// Input that should nearly fill what is left after `cut`.
    fn step(&self, cut: Cut, room: Room) -> usize {
        let left = room.bytes - RESERVED - cut.size;
        // A short rest is hard to predict, and little is lost with it.
        let wanted = match left * 8 > room.bytes {
            true => left * 15 / 16,
            false => left * 3 / 4,
        };
        self.pace.input_for(wanted).min(BLOCK_MAX)
    }

    /// What was written up to `cut`, and `end`, are the frame. Its header gets the size of
    /// the contents, which nobody knew when it was written: erofs-utils up to 1.8 need it.
    fn keep(&self, cut: Cut, end: &[u8], out: &mut Vec<u8>) {
        out.clear();
        let written = self.written.get(..cut.size).unwrap_or_default();
        if let (Some((header, blocks)), Ok(size)) =
            (written.split_at_checked(HEADER), u32::try_from(cut.taken))
            && let [magic @ .., 0, window] = header
        {
            out.extend_from_slice(magic);
            out.extend_from_slice(&[HAS_CONTENT_SIZE, *window]);
            out.extend_from_slice(&size.to_le_bytes());
            out.extend_from_slice(blocks);
        } else {
            out.extend_from_slice(written);
        }
        out.extend_from_slice(end);
    }

    /// Writes input from the cut up to `end` as a block; where the output ends then.
    fn block(
        &mut self,
        input: &[u8],
        cut: Cut,
        end: usize,
        ending: ZSTD_EndDirective,
    ) -> Result<Cut, CodecError> {
        let fresh = input.get(cut.taken..end).unwrap_or_default();
        let mut source = InBuffer::around(fresh);
        let mut sink = OutBuffer::around_pos(&mut self.written[..], cut.size);
        loop {
            let rest = self
                .context
                .compress_stream2(&mut sink, &mut source, ending);
            // When the output is full, it is more than the room takes.
            if rest.map_err(failed)? == 0 || sink.pos() == sink.capacity() {
                let size = sink.pos();
                return Ok(Cut { taken: end, size });
            }
        }
    }
}

impl Codec for Zstd {
    fn fit(&mut self, input: &[u8], room: Room, out: &mut Vec<u8>) -> Result<Fit, CodecError> {
        self.cuts.clear();
        let mut kept = Cut::default();
        for _ in 0..ATTEMPTS {
            match self.attempt(input, room)? {
                End::Whole(cut) => {
                    self.keep(cut, &[], out);
                    return Ok(judged(cut.taken, out.len(), room, input.len()));
                }
                End::Full(cut) => {
                    kept = cut;
                    break;
                }
                End::Over { cut, over } => {
                    let (taken, size) = (over.taken - cut.taken, over.size - cut.size);
                    if cut.taken == 0 && size >= taken {
                        return Ok(plain(taken.max(room.bytes), room, input.len()));
                    }
                    self.pace.note(taken, size);
                    kept = cut;
                    if (room.bytes - cut.size) * 16 < room.bytes {
                        break;
                    }
                }
            }
        }
        self.keep(kept, &LAST_BLOCK, out);
        Ok(judged(kept.taken, out.len(), room, input.len()))
    }

    fn forget(&mut self) {
        self.pace = Pace::default();
    }
}

/// What makes frames for clusters of up to `cluster` bytes.
pub(super) fn context(level: i32, cluster: u32) -> Result<CCtx<'static>, CodecError> {
    let mut context = CCtx::try_create().ok_or_else(|| CodecError {
        library: "libzstd",
        cause: "no memory".into(),
    })?;
    for parameter in [
        CParameter::CompressionLevel(level),
        CParameter::WindowLog(zstd_window_log(cluster)),
        CParameter::ChecksumFlag(false),
    ] {
        context.set_parameter(parameter).map_err(failed)?;
    }
    Ok(context)
}

pub(super) fn failed(code: usize) -> CodecError {
    CodecError {
        library: "libzstd",
        cause: get_error_name(code).into(),
    }
}
