//! Values of options, from text. Errors say what is expected; clap adds the option.

use std::str::FromStr;

/// Bytes: a number, or one with k, m, g, t or p in powers of 1024 (`64m`, `20GiB`).
pub(crate) fn size(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no size; write bytes, or a number with k, m, g, t or p");
    let digits = text.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let unit = text
        .get(digits.len()..)
        .unwrap_or_default()
        .to_ascii_lowercase();
    let unit = unit.strip_suffix("ib").unwrap_or(&unit);
    let shift = match unit {
        "" | "b" => 0,
        "k" => 10,
        "m" => 20,
        "g" => 30,
        "t" => 40,
        "p" => 50,
        _ => return Err(wrong()),
    };
    if digits.is_empty() || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return Err(wrong());
    }
    let number: u64 = digits.parse().map_err(|_| wrong())?;
    number
        .checked_mul(1 << shift)
        .filter(|bytes| *bytes <= i64::MAX as u64)
        .ok_or_else(|| format!("{text:?} is more than any file can have"))
}

/// A size of at most 32 bits.
pub(crate) fn small_size(text: &str) -> Result<u32, String> {
    let bytes = size(text)?;
    u32::try_from(bytes).map_err(|_| format!("{text:?} is far too much here"))
}

/// How much shall be free.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Free {
    /// Bytes.
    Bytes(u64),
    /// Percent of the image, at most 90.
    Percent(u8),
}

impl FromStr for Free {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let Some(number) = text.strip_suffix('%') else {
            return size(text).map(Self::Bytes);
        };
        match number.parse() {
            Ok(percent) if percent <= 90 => Ok(Self::Percent(percent)),
            _ => Err(format!(
                "{text:?} is no share of the image; write 0% to 90%"
            )),
        }
    }
}

/// Whom all objects shall belong to: `UID`, which is the group too, or `UID:GID`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Owner {
    pub(crate) uid: u32,
    pub(crate) gid: u32,
}

impl FromStr for Owner {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (uid, gid) = text.split_once(':').unwrap_or((text, text));
        match (uid.parse(), gid.parse()) {
            (Ok(uid), Ok(gid)) => Ok(Self { uid, gid }),
            _ => Err(format!(
                "{text:?} is no owner; write UID or UID:GID, as numbers"
            )),
        }
    }
}

/// A feature switched on or off: `rmapbt=off`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Switch {
    pub(crate) feature: String,
    pub(crate) on: bool,
}

impl FromStr for Switch {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let wrong = || format!("{text:?} is no switch; write NAME=on or NAME=off");
        let (feature, value) = text.split_once('=').ok_or_else(wrong)?;
        let on = match value {
            "on" | "1" => true,
            "off" | "0" => false,
            _ => return Err(wrong()),
        };
        Ok(Self {
            feature: feature.to_owned(),
            on,
        })
    }
}

/// What becomes of times.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Times {
    /// They stay.
    Keep,
    /// None is later, in seconds since 1970.
    Clamp(i64),
    /// All are this.
    Fixed(i64),
}

impl FromStr for Times {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let seconds = |text: &str| text.parse::<i64>().ok();
        let parsed = match text.split_once(':') {
            None if text == "keep" => Some(Self::Keep),
            None => seconds(text).map(Self::Fixed),
            Some(("clamp", latest)) => seconds(latest).map(Self::Clamp),
            Some(_) => None,
        };
        let wrong = || {
            format!(
                "{text:?} says nothing of times; write keep, clamp:SECONDS or SECONDS since 1970"
            )
        };
        parsed.ok_or_else(wrong)
    }
}

/// A range of bytes: `FROM-TO`, the latter not included, or `FROM+LENGTH`.
pub(crate) fn range(text: &str) -> Result<std::ops::Range<u64>, String> {
    let wrong = || format!("{text:?} is no range; write FROM-TO or FROM+LENGTH, as sizes");
    let parsed = match (text.split_once('-'), text.split_once('+')) {
        (Some((from, to)), None) => (size(from)?, Some(size(to)?)),
        (None, Some((from, length))) => {
            let from = size(from)?;
            (from, from.checked_add(size(length)?))
        }
        _ => return Err(wrong()),
    };
    match parsed {
        (from, Some(to)) if from < to => Ok(from..to),
        _ => Err(format!("{text:?} holds no byte")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes() {
        for (text, bytes) in [
            ("0", 0),
            ("4096", 4096),
            ("4096b", 4096),
            ("64k", 64 << 10),
            ("64K", 64 << 10),
            ("64KiB", 64 << 10),
            ("20G", 20 << 30),
            ("3t", 3 << 40),
            ("7p", 7 << 50),
        ] {
            assert_eq!(size(text), Ok(bytes), "{text}");
        }
        for text in [
            "", "k", "1.5g", "-1", "+1", "1 g", "1x", "0x10", "1gg", "1kb", "١k",
        ] {
            let error = size(text).unwrap_err();
            assert!(error.contains("no size"), "{text}: {error}");
        }
        assert!(size("8192p").unwrap_err().contains("more than any file"));
        assert!(size("99999999999999999999").is_err());
        assert_eq!(small_size("64k"), Ok(65536));
        assert!(small_size("4g").is_err());
    }

    #[test]
    fn shares() {
        assert_eq!("2G".parse(), Ok(Free::Bytes(2 << 30)));
        assert_eq!("10%".parse(), Ok(Free::Percent(10)));
        for text in ["91%", "-1%", "%", "x%", "300%"] {
            assert!(
                text.parse::<Free>().unwrap_err().contains("share"),
                "{text}"
            );
        }
    }

    #[test]
    fn owners_switches_times() {
        assert_eq!("7".parse(), Ok(Owner { uid: 7, gid: 7 }));
        assert_eq!("7:8".parse(), Ok(Owner { uid: 7, gid: 8 }));
        for text in ["", "root", "1:", ":1", "1:2:3", "4294967296"] {
            assert!(text.parse::<Owner>().is_err(), "{text}");
        }
        let switch: Switch = "rmapbt=off".parse().unwrap();
        assert_eq!((switch.feature.as_str(), switch.on), ("rmapbt", false));
        assert!("rmapbt=1".parse::<Switch>().unwrap().on);
        for text in ["rmapbt", "rmapbt=", "rmapbt=no"] {
            assert!(text.parse::<Switch>().is_err(), "{text}");
        }
        assert_eq!("keep".parse(), Ok(Times::Keep));
        assert_eq!("clamp:5".parse(), Ok(Times::Clamp(5)));
        assert_eq!("-5".parse(), Ok(Times::Fixed(-5)));
        for text in ["", "now", "clamp", "clamp:", "keep:1"] {
            assert!(text.parse::<Times>().is_err(), "{text}");
        }
    }

    #[test]
    fn ranges() {
        assert_eq!(range("0-4k"), Ok(0..4096));
        assert_eq!(range("1m+4k"), Ok(1 << 20..(1 << 20) + 4096));
        for text in ["", "1", "5-5", "6-5", "1+0", "1-2+3", "a-b"] {
            assert!(range(text).is_err(), "{text}");
        }
    }
}
