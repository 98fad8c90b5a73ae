//! The LZ4 block format, read to its end or as far as wanted.
//!
//! Sequences of literals and a copy of what came before; the last has literals only. The
//! lengths' lowest 4 bits stand in one token, more follows in bytes as long as these are
//! 255.

use super::{DecodeError, Decoded, Result};
use crate::erofs::read::Coding;

/// Shortest copy, which its length leaves out.
const COPY_MIN: usize = 4;

/// The first `wanted` bytes of a block.
pub(super) fn decode(block: &[u8], wanted: usize) -> Result<Decoded> {
    let mut input = block;
    let mut bytes = Vec::with_capacity(wanted);
    loop {
        let [token] = take(&mut input)?;
        let literals = length(token >> 4, &mut input)?;
        let room = wanted - bytes.len();
        let now = literals.min(room);
        let (part, rest) = input.split_at_checked(now).ok_or_else(cut_off)?;
        bytes.extend_from_slice(part);
        input = rest;
        if bytes.len() == wanted {
            let ended = now == literals && input.is_empty();
            return Ok(Decoded { bytes, ended });
        }
        if input.is_empty() {
            let got = bytes.len();
            return Err(DecodeError::Short { got, wanted });
        }
        let back = usize::from(u16::from_le_bytes(take(&mut input)?));
        let copied = length(token & 15, &mut input)? + COPY_MIN;
        let room = wanted - bytes.len();
        copy(&mut bytes, back, copied.min(room))?;
        if bytes.len() == wanted {
            // A block ends with literals, so something follows.
            return Ok(Decoded {
                bytes,
                ended: false,
            });
        }
    }
}

fn take<const N: usize>(input: &mut &[u8]) -> Result<[u8; N]> {
    let (bytes, rest) = input.split_first_chunk().ok_or_else(cut_off)?;
    *input = rest;
    Ok(*bytes)
}

/// A length whose lowest bits are `low`. It is no longer than the input times 255.
fn length(low: u8, input: &mut &[u8]) -> Result<usize> {
    let mut length = usize::from(low);
    if low == 15 {
        loop {
            let [more] = take(input)?;
            length += usize::from(more);
            if more != 255 {
                break;
            }
        }
    }
    Ok(length)
}

/// Appends `count` bytes from `back` before the end; what is appended may be copied on.
fn copy(bytes: &mut Vec<u8>, back: usize, count: usize) -> Result<()> {
    let from = bytes.len().checked_sub(back).filter(|_| back > 0);
    let Some(from) = from else {
        let text = format!(
            "a copy of what lies {back} bytes before byte {}",
            bytes.len()
        );
        return Err(DecodeError::Stream(Coding::Lz4, text));
    };
    let mut left = count;
    while left > 0 {
        let now = left.min(bytes.len() - from);
        bytes.extend_from_within(from..from + now);
        left -= now;
    }
    Ok(())
}

fn cut_off() -> DecodeError {
    DecodeError::Stream(Coding::Lz4, "it is cut off".into())
}

#[cfg(test)]
mod tests {
    use super::*;

    /// `abcd`, 7 more by copying 4 back, `xyzzy`.
    const BLOCK: &[u8] = b"\x43abcd\x04\0\x50xyzzy";

    #[test]
    fn sequences_are_followed() {
        let decoded = decode(BLOCK, 16).unwrap();
        assert_eq!(decoded.bytes, b"abcdabcdabcxyzzy");
        assert!(decoded.ended);
    }

    #[test]
    fn any_beginning_can_be_had_and_no_more_than_all() {
        for wanted in 0..16 {
            let decoded = decode(BLOCK, wanted).unwrap();
            assert_eq!(decoded.bytes, b"abcdabcdabcxyzzy"[..wanted]);
            assert!(!decoded.ended);
        }
        let short = decode(BLOCK, 17).unwrap_err();
        assert_eq!(
            short,
            DecodeError::Short {
                got: 16,
                wanted: 17
            }
        );
    }

    #[test]
    fn long_lengths_go_on_in_bytes() {
        let literals = [7; 15 + 255 + 3];
        let block = [&[0xf0, 255, 3][..], &literals].concat();
        assert_eq!(decode(&block, literals.len()).unwrap().bytes, literals);
        let block = [&b"\x1fa\x01\0\xff\xff\x05"[..], b"\x10b"].concat();
        let decoded = decode(&block, 1 + 4 + 15 + 255 + 255 + 5 + 1).unwrap();
        assert!(decoded.ended && decoded.bytes.starts_with(b"aaaa"));
        assert_eq!(decoded.bytes.last(), Some(&b'b'));
    }

    #[test]
    fn broken_blocks_are_refused() {
        for block in [
            &b""[..],
            b"\xf0",
            b"\x40ab",
            b"\x10a\x02\0\0",
            b"\x10a\0\0\0",
            b"\x10a\x01",
            b"\x1fa\x01\0\xff",
        ] {
            assert!(decode(block, 1000).is_err(), "{block:?}");
        }
    }
}
