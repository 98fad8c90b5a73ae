//! From stored bytes to contents.
//!
//! Compressed data stands at the end of its cluster, zeroes before it. Every decoder gives
//! as many bytes as it is asked for or fails, and says whether the data ended there; it
//! never allocates more than that and its algorithm's window.

mod lz4;

use super::Coding;
use flate2::{Decompress, FlushDecompress, Status};
use lzma_rust2::LzmaReader;
use std::io::Read;
use zstd_safe::{DCtx, DParameter, InBuffer, OutBuffer};

/// Why stored bytes give no contents.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum DecodeError {
    /// Nothing but zeroes.
    #[error("the cluster holds nothing but zeroes")]
    Empty,
    /// The stream ended before there were enough bytes.
    #[error("it gives {got} bytes of {wanted}")]
    Short {
        /// What there were.
        got: usize,
        /// What should be.
        wanted: usize,
    },
    /// The stream breaks the rules of its algorithm.
    #[error("no {0:?} stream: {1}")]
    Stream(Coding, String),
}

type Result<T> = std::result::Result<T, DecodeError>;

/// What a decoder gave.
#[derive(Debug)]
pub(crate) struct Decoded {
    /// The contents.
    pub(crate) bytes: Vec<u8>,
    /// The stored data gives these and no more.
    pub(crate) ended: bool,
}

/// How to decode.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Request {
    /// By what.
    pub(crate) coding: Coding,
    /// How many bytes are wanted.
    pub(crate) wanted: usize,
    /// Bytes of a block, and where in one the contents begin.
    pub(crate) block: (usize, usize),
}

/// Decodes `stored`.
pub(crate) fn decode(stored: &[u8], request: Request) -> Result<Decoded> {
    let wanted = request.wanted;
    if !request.coding.is_compressed() {
        let bytes = match request.coding {
            Coding::Interlaced => interlaced(stored, request),
            _ => stored.get(..wanted).map(<[u8]>::to_vec),
        };
        let got = stored.len();
        let bytes = bytes.ok_or(DecodeError::Short { got, wanted })?;
        return Ok(Decoded { bytes, ended: true });
    }
    let margin = stored.iter().position(|byte| *byte != 0);
    let stored = stored.get(margin.ok_or(DecodeError::Empty)?..);
    let stored = stored.unwrap_or_default();
    match request.coding {
        Coding::Lzma => lzma(stored, wanted),
        Coding::Deflate => deflate(stored, wanted),
        Coding::Zstd => zstd(stored, wanted),
        _ => lz4::decode(stored, wanted),
    }
}

/// Up to the end of the block in which the contents begin they stand at the cluster's end,
/// the others at its beginning. A cluster that is shorter than a block, beside its inode,
/// is not turned.
fn interlaced(stored: &[u8], request: Request) -> Option<Vec<u8>> {
    let (block, at) = request.block;
    let head = block - at;
    let Some(begin) = stored.len().checked_sub(head) else {
        return stored.get(..request.wanted).map(<[u8]>::to_vec);
    };
    let first = head.min(request.wanted);
    let mut bytes = stored.get(begin..begin + first)?.to_vec();
    bytes.extend_from_slice(stored.get(..request.wanted - first)?);
    Some(bytes)
}

fn deflate(stored: &[u8], wanted: usize) -> Result<Decoded> {
    let bad = |text: String| DecodeError::Stream(Coding::Deflate, text);
    let mut bytes = vec![0; wanted];
    let mut stream = Decompress::new(false);
    let finish = FlushDecompress::Finish;
    let status = stream
        .decompress(stored, &mut bytes, finish)
        .map_err(|error| bad(error.to_string()))?;
    let got = stream.total_out() as usize;
    if got != wanted {
        return Err(DecodeError::Short { got, wanted });
    }
    // A full buffer says nothing of the end, which may be all that is left.
    let rest = stored.get(stream.total_in() as usize..).unwrap_or_default();
    let ended = status == Status::StreamEnd
        || matches!(
            stream.decompress(rest, &mut [0], finish),
            Ok(Status::StreamEnd)
        ) && stream.total_out() as usize == wanted;
    Ok(Decoded { bytes, ended })
}

/// Frames with windows beyond this are refused: a cluster gives no more.
const WINDOW_MAX: u64 = super::DECODED_MAX;

/// Logarithm of a window that holds [`WINDOW_MAX`] bytes.
const WINDOW_LOG_MAX: u32 = 24;

fn zstd(stored: &[u8], wanted: usize) -> Result<Decoded> {
    let bad = |text: String| DecodeError::Stream(Coding::Zstd, text);
    let failed = |code| bad(zstd_safe::get_error_name(code).into());
    if window(stored).is_none_or(|window| window > WINDOW_MAX) {
        return Err(bad("its header, or its window".into()));
    }
    let mut context = DCtx::try_create().ok_or_else(|| bad("no memory to decode it".into()))?;
    let most = DParameter::WindowLogMax(WINDOW_LOG_MAX);
    context.set_parameter(most).map_err(failed)?;
    let mut input = InBuffer::around(stored);
    let mut bytes = vec![0; wanted];
    let (got, ended) = zstd_step(&mut context, &mut input, &mut bytes).map_err(failed)?;
    if got != wanted {
        return Err(DecodeError::Short { got, wanted });
    }
    // A full buffer says nothing of the end, which may be all that is left.
    let ended = ended || matches!(zstd_step(&mut context, &mut input, &mut [0]), Ok((0, true)));
    Ok(Decoded { bytes, ended })
}

/// Decodes until `out` is full or the input is used up: how many bytes there are, and
/// whether the frame ended.
fn zstd_step(
    context: &mut DCtx<'_>,
    input: &mut InBuffer<'_>,
    out: &mut [u8],
) -> std::result::Result<(usize, bool), usize> {
    let wanted = out.len();
    let mut output = OutBuffer::around(out);
    loop {
        let before = (input.pos(), output.pos());
        let ended = context.decompress_stream(&mut output, input)? == 0;
        let stuck = (input.pos(), output.pos()) == before;
        if ended || stuck || output.pos() == wanted {
            return Ok((output.pos(), ended));
        }
    }
}

/// The window that a frame asks for, in bytes (RFC 8878, 3.1.1.1).
fn window(frame: &[u8]) -> Option<u64> {
    let descriptor = *frame.get(4)?;
    if descriptor & 0x20 == 0 {
        let byte = *frame.get(5)?;
        let base = 1u64 << (10 + (byte >> 3));
        return Some(base + base / 8 * u64::from(byte & 7));
    }
    // One segment: as much as the contents.
    let dictionary = [0, 1, 2, 4][usize::from(descriptor & 3)];
    let length = [1, 2, 4, 8][usize::from(descriptor >> 6)];
    let field = frame.get(5 + dictionary..)?.get(..length)?;
    let mut bytes = [0; 8];
    bytes.get_mut(..length)?.copy_from_slice(field);
    Some(u64::from_le_bytes(bytes) + if length == 2 { 256 } else { 0 })
}

/// "MicroLZMA": the first byte, which would be 0, holds the properties, inverted, and
/// there is no end marker.
fn lzma(stored: &[u8], wanted: usize) -> Result<Decoded> {
    let bad = |text: String| DecodeError::Stream(Coding::Lzma, text);
    let Some((properties, rest)) = stored.split_first() else {
        return Err(DecodeError::Empty);
    };
    let source = [0].as_slice().chain(rest);
    let window = crate::erofs::format::superblock::LZMA_DICTIONARY_MAX;
    let mut stream = LzmaReader::new_with_props(source, wanted as u64, !properties, window, None)
        .map_err(|error| bad(error.to_string()))?;
    let mut bytes = vec![0; wanted];
    stream
        .read_exact(&mut bytes)
        .map_err(|error| bad(error.to_string()))?;
    let ((_, unread), unused) = {
        let (source, unused) = stream.into_parts();
        (source.into_inner(), unused)
    };
    let ended = unread.is_empty() && unused.is_empty();
    Ok(Decoded { bytes, ended })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn request(coding: Coding, wanted: usize) -> Request {
        Request {
            coding,
            wanted,
            block: (16, 12),
        }
    }

    #[test]
    fn interlaced_contents_begin_at_the_end() {
        let stored: Vec<u8> = (0..16).collect();
        let decoded = decode(&stored, request(Coding::Interlaced, 7)).unwrap();
        assert_eq!(decoded.bytes, [12, 13, 14, 15, 0, 1, 2]);
        let decoded = decode(&stored, request(Coding::Interlaced, 2)).unwrap();
        assert_eq!(decoded.bytes, [12, 13]);
        assert!(decode(&stored, request(Coding::Interlaced, 21)).is_err());
    }

    #[test]
    fn windows_are_read_as_the_standard_says() {
        let frame = |rest: &[u8]| window(&[&[0x28, 0xb5, 0x2f, 0xfd], rest].concat());
        assert_eq!(frame(&[0, 0]), Some(1024));
        assert_eq!(frame(&[0, 0xff]), Some((1 << 41) + (7 << 38)));
        assert_eq!(frame(&[0x20, 9]), Some(9));
        assert_eq!(frame(&[0x60, 1, 0]), Some(257));
        assert_eq!(frame(&[0xa3, 0, 0, 0, 0, 1, 2, 0, 0]), Some(513));
        assert_eq!(frame(&[0x20]), None);
    }

    #[test]
    fn a_frame_with_too_large_a_window_is_refused() {
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0, 0xf8, 1, 0, 0];
        assert!(decode(&frame, request(Coding::Zstd, 0)).is_err());
    }

    /// One block of many sequences, each a long match, gives far more than any block may.
    #[test]
    fn a_frame_that_gives_gigabytes_is_refused_at_once() {
        let mut frame = vec![0x28, 0xb5, 0x2f, 0xfd, 0, 0];
        frame.extend_from_slice(&[8 << 3, 0, 0]);
        frame.extend_from_slice(b"contents");
        // No literals; 32,768 sequences, all of the same three codes.
        let mut block = vec![0, 0xff, 0, 1, 0x54, 0, 0, 52];
        block.extend_from_slice(&[0xff; 65_536]);
        block.push(1);
        let header = (block.len() as u32) << 3 | 2 << 1 | 1;
        frame.extend_from_slice(&header.to_le_bytes()[..3]);
        frame.extend_from_slice(&block);
        let refused = decode(&frame, request(Coding::Zstd, 4096)).unwrap_err();
        assert!(
            matches!(refused, DecodeError::Stream(Coding::Zstd, _)),
            "{refused}"
        );
        // The window may be as large as it likes.
        frame[5] = 0x68;
        decode(&frame, request(Coding::Zstd, 4096)).unwrap_err();
    }

    #[test]
    fn zstd_says_whether_there_is_more() {
        let bytes: Vec<u8> = (0..300_000u32).map(|at| (at / 7) as u8).collect();
        let mut frame = vec![0; 300_000];
        let length = zstd_safe::compress(&mut frame[..], &bytes, 3).unwrap();
        frame.truncate(length);
        for wanted in [1, 131_072, bytes.len() - 1, bytes.len()] {
            let decoded = decode(&frame, request(Coding::Zstd, wanted)).unwrap();
            assert!(decoded.bytes == bytes[..wanted]);
            assert_eq!(decoded.ended, wanted == bytes.len());
        }
        let short = decode(&frame, request(Coding::Zstd, bytes.len() + 1)).unwrap_err();
        assert!(
            matches!(short, DecodeError::Short { got: 300_000, .. }),
            "{short}"
        );
        frame.truncate(length / 2);
        decode(&frame, request(Coding::Zstd, bytes.len())).unwrap_err();
    }
}
