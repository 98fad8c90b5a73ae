//! Numbers of bytes as people type them.

use std::fmt;
use std::str::FromStr;

/// A number of bytes: `4096`, `16K`, `1MiB`, `20G`; units are powers of 1024.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);

/// Text that is no size.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is not a size: write a whole number, with K, M, G or T for powers of 1024")]
pub struct BadSize(pub String);

const UNITS: [(char, u32); 4] = [('T', 40), ('G', 30), ('M', 20), ('K', 10)];

impl FromStr for ByteSize {
    type Err = BadSize;

    fn from_str(text: &str) -> Result<Self, BadSize> {
        let bad = || BadSize(text.to_owned());
        let digits = text
            .find(|c: char| !c.is_ascii_digit())
            .unwrap_or(text.len());
        let (number, unit) = text.split_at(digits);
        let shift = match unit.trim().to_ascii_uppercase().as_str() {
            "" | "B" => 0,
            "K" | "KIB" => 10,
            "M" | "MIB" => 20,
            "G" | "GIB" => 30,
            "T" | "TIB" => 40,
            _ => return Err(bad()),
        };
        let number: u64 = number.parse().map_err(|_| bad())?;
        number.checked_mul(1 << shift).map(Self).ok_or_else(bad)
    }
}

impl fmt::Display for ByteSize {
    /// In the largest unit that leaves a whole number, as [`FromStr`] reads it.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let whole = |(_, shift): &&(char, u32)| self.0 != 0 && self.0.is_multiple_of(1 << shift);
        match UNITS.iter().find(whole) {
            Some((unit, shift)) => write!(f, "{}{unit}", self.0 >> shift),
            None => write!(f, "{}", self.0),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_powers_of_1024_and_do_not_overflow() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("16K", 16384),
            ("16k", 16384),
            ("1MiB", 1 << 20),
            ("3 T", 3 << 40),
        ] {
            assert_eq!(text.parse(), Ok(ByteSize(bytes)), "{text}");
        }
        for bad in [
            "",
            "K",
            "-1",
            "1.5G",
            "12Q",
            "99999999999T",
            "18446744073709551616",
            "1KB",
        ] {
            assert!(bad.parse::<ByteSize>().is_err(), "{bad} was accepted");
        }
    }

    #[test]
    fn what_is_written_is_read_again() {
        for text in ["0", "1", "1000", "16K", "256M", "1G", "1025M", "8T"] {
            assert_eq!(
                text.parse::<ByteSize>().map(|s| s.to_string()),
                Ok(text.to_owned())
            );
        }
    }
}
