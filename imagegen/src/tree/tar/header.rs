//! A header of 512 bytes, as POSIX (`ustar`), GNU tar and the tars before them write it
//! (POSIX.1-2017, pax, "ustar Interchange Format"; GNU tar's manual, "Basic Tar Format").

use std::ops::Range;

/// Bytes of a header, and what everything is padded to.
pub(super) const BLOCK: u64 = 512;

/// A block of an archive.
pub(super) type Block = [u8; BLOCK as usize];

const NAME: Range<usize> = 0..100;
const MODE: Range<usize> = 100..108;
const UID: Range<usize> = 108..116;
const GID: Range<usize> = 116..124;
const SIZE: Range<usize> = 124..136;
const MTIME: Range<usize> = 136..148;
const CHECKSUM: Range<usize> = 148..156;
const KIND: usize = 156;
const LINK: Range<usize> = 157..257;
const MAGIC: Range<usize> = 257..265;
const MAJOR: Range<usize> = 329..337;
const MINOR: Range<usize> = 337..345;
const PREFIX: Range<usize> = 345..500;

/// Which dialect a header is of.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Dialect {
    Old,
    Posix,
    Gnu,
}

/// A header whose checksum is right.
#[derive(Debug)]
pub(super) struct Header {
    block: Block,
    dialect: Dialect,
}

impl Header {
    /// `None` if the checksum is not that of the block.
    pub(super) fn new(block: Block) -> Option<Self> {
        let stored = number(&block[CHECKSUM]).ok()?;
        let counted = |(at, byte): (usize, &u8)| if CHECKSUM.contains(&at) { b' ' } else { *byte };
        let bytes = || block.iter().enumerate().map(counted);
        let unsigned: i64 = bytes().map(i64::from).sum();
        // Some old programs took bytes for signed.
        let signed: i64 = bytes().map(|byte| i64::from(byte as i8)).sum();
        let dialect = match &block[MAGIC] {
            b"ustar  \0" => Dialect::Gnu,
            magic if magic.starts_with(b"ustar") => Dialect::Posix,
            _ => Dialect::Old,
        };
        (stored == unsigned || stored == signed).then_some(Self { block, dialect })
    }

    pub(super) fn kind(&self) -> u8 {
        self.block[KIND]
    }

    pub(super) fn path(&self) -> Vec<u8> {
        let name = text(&self.block[NAME]);
        let prefix = match self.dialect {
            Dialect::Posix => text(&self.block[PREFIX]),
            _ => b"",
        };
        match prefix {
            b"" => name.to_vec(),
            _ => [prefix, b"/", name].concat(),
        }
    }

    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.block[LINK]).to_vec()
    }

    pub(super) fn mode(&self) -> Result<i64, String> {
        self.number("mode", MODE)
    }

    pub(super) fn uid(&self) -> Result<i64, String> {
        self.number("owner", UID)
    }

    pub(super) fn gid(&self) -> Result<i64, String> {
        self.number("group", GID)
    }

    pub(super) fn size(&self) -> Result<i64, String> {
        self.number("size", SIZE)
    }

    pub(super) fn mtime(&self) -> Result<i64, String> {
        self.number("time", MTIME)
    }

    pub(super) fn device(&self) -> Result<(i64, i64), String> {
        let (major, minor) = (self.number("major", MAJOR)?, self.number("minor", MINOR)?);
        Ok((major, minor))
    }

    pub(super) fn block(&self) -> &Block {
        &self.block
    }

    fn number(&self, what: &str, at: Range<usize>) -> Result<i64, String> {
        number(&self.block[at]).map_err(|()| format!("its {what} is not a number"))
    }
}

/// Up to the first zero byte.
fn text(field: &[u8]) -> &[u8] {
    field.split(|&byte| byte == 0).next().unwrap_or(field)
}

/// Octal digits between spaces and zeroes, or, marked by the highest bit, two's complement
/// of the bits after that one, highest byte first.
pub(super) fn number(field: &[u8]) -> Result<i64, ()> {
    let (&first, rest) = field.split_first().ok_or(())?;
    if first & 0x80 != 0 {
        let sign = if first & 0x40 != 0 { -1 } else { 0 };
        let begin = (sign << 6) | i64::from(first & 0x3f);
        return rest.iter().try_fold(begin, |number, &byte| {
            let shifted = number.checked_mul(256).ok_or(())?;
            Ok(shifted | i64::from(byte))
        });
    }
    let digits = text(field).trim_ascii();
    digits.iter().try_fold(0i64, |number, &digit| match digit {
        b'0'..=b'7' => {
            let shifted = number.checked_mul(8).ok_or(())?;
            Ok(shifted + i64::from(digit - b'0'))
        }
        _ => Err(()),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_in_both_notations() {
        assert_eq!(number(b"0000644\0"), Ok(0o644));
        assert_eq!(number(b"   644 \0"), Ok(0o644));
        assert_eq!(number(b"\0\0\0\0"), Ok(0));
        assert_eq!(number(b"0000648\0"), Err(()));
        assert_eq!(number(&[0x80, 0, 0, 1, 0]), Ok(256));
        assert_eq!(number(&[0xff; 12]), Ok(-1));
        assert_eq!(number(&[0xff, 0xff, 0xff, 0xfe]), Ok(-2));
        assert_eq!(
            number(&[0x80, 0x7f, 255, 255, 255, 255, 255, 255, 255]),
            Ok(i64::MAX)
        );
        assert_eq!(number(&[0x81, 0, 0, 0, 0, 0, 0, 0, 0, 0]), Err(()));
        assert_eq!(number(b"7777777777777777777777777"), Err(()));
    }
}
