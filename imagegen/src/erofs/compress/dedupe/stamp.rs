//! Whether a file is still the one that the survey saw.

use std::hash::Hasher;

use twox_hash::XxHash3_64;

use crate::tree::{Bytes, Content, Time};

/// What tells: nothing that could be changed on the way from the source, as times are that
/// all become the same.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Stamp {
    size: u64,
    /// A hash of where data lies, and of the bytes if they came along. It finds changes, not
    /// forgeries: who can forge bytes here can as well set a file's time back.
    hash: u64,
    /// When what holds the bytes was last written to, for larger files.
    written: Option<Time>,
}

impl Stamp {
    /// That of a file.
    pub(crate) fn of(content: &Content) -> Self {
        let mut hash = XxHash3_64::new();
        for range in &content.data {
            hash.write_u64(range.start);
            hash.write_u64(range.end);
        }
        let written = match &content.bytes {
            Bytes::Unread => None,
            Bytes::Read(bytes) => {
                hash.write(bytes);
                None
            }
            Bytes::At {
                offsets, written, ..
            } => {
                offsets.iter().for_each(|offset| hash.write_u64(*offset));
                *written
            }
        };
        Self {
            size: content.size,
            hash: hash.finish(),
            written,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn other_bytes_or_other_holes_are_another_file() {
        let file = |size, data: std::ops::Range<u64>, bytes: &[u8]| {
            Stamp::of(&Content {
                size,
                data: vec![data; 1],
                bytes: Bytes::Read(bytes.to_vec()),
                digests: Vec::new(),
            })
        };
        let seen = file(9, 0..5, b"12345");
        assert_eq!(seen, file(9, 0..5, b"12345"));
        assert_ne!(seen, file(8, 0..5, b"12345"));
        assert_ne!(seen, file(9, 1..6, b"12345"));
        assert_ne!(seen, file(9, 0..5, b"12346"));
    }
}
