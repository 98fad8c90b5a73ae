//! Whom objects shall belong to: all to one, or by a map of ranges of numbers.

use std::ops::RangeInclusive;
use std::path::Path;

use super::{Meta, TreeError};

/// How owners and groups are changed.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Owners {
    /// Not at all.
    #[default]
    Keep,
    /// All objects belong to this user and group.
    All {
        /// Number of the user.
        uid: u32,
        /// Number of the group.
        gid: u32,
    },
    /// By a map; numbers that it does not name are an error.
    Map(OwnerMap),
}

/// Which numbers become which.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct OwnerMap {
    users: Vec<(RangeInclusive<u32>, u32)>,
    groups: Vec<(RangeInclusive<u32>, u32)>,
}

impl OwnerMap {
    /// The map in the file at `path`: lines `uid FROM TO` or `uid FROM-LAST TO` (the range
    /// becomes as many numbers from TO on), the same with `gid`; the first line that fits
    /// counts. Empty lines and what follows a `#` mean nothing.
    ///
    /// # Errors
    /// If the file cannot be read, or a line is none of these: with its number.
    pub fn read(path: &Path) -> Result<Self, TreeError> {
        let name = path.as_os_str().as_encoded_bytes();
        let text = std::fs::read_to_string(path);
        let text = text.map_err(|cause| TreeError::io(name, "read", cause))?;
        Self::parse(&text).map_err(|reason| TreeError::invalid(name, reason))
    }

    fn parse(text: &str) -> Result<Self, String> {
        let mut map = Self::default();
        for (number, line) in text.lines().enumerate() {
            let line = line.split('#').next().unwrap_or(line);
            let words: Vec<&str> = line.split_whitespace().collect();
            if words.is_empty() {
                continue;
            }
            let wrong = || {
                let number = number + 1;
                format!(
                    "line {number} should be `uid FROM[-LAST] TO` or `gid FROM[-LAST] TO`, with numbers of 32 bits"
                )
            };
            let (list, entry) = match words[..] {
                ["uid", from, to] => (&mut map.users, Self::entry(from, to)),
                ["gid", from, to] => (&mut map.groups, Self::entry(from, to)),
                _ => return Err(wrong()),
            };
            list.push(entry.ok_or_else(wrong)?);
        }
        Ok(map)
    }

    fn entry(from: &str, to: &str) -> Option<(RangeInclusive<u32>, u32)> {
        let (first, last) = from.split_once('-').unwrap_or((from, from));
        let (first, last): (u32, u32) = (first.parse().ok()?, last.parse().ok()?);
        let to: u32 = to.parse().ok()?;
        to.checked_add(last.checked_sub(first)?)?;
        Some((first..=last, to))
    }
}

fn mapped(list: &[(RangeInclusive<u32>, u32)], number: u32) -> Option<u32> {
    let (from, to) = list.iter().find(|(from, _)| from.contains(&number))?;
    Some(to + (number - from.start()))
}

impl Owners {
    /// Changes the owner and group of an object.
    ///
    /// # Errors
    /// If the map does not name them: the reason.
    pub(super) fn apply(&self, meta: &mut Meta) -> Result<(), String> {
        match self {
            Self::Keep => {}
            Self::All { uid, gid } => (meta.uid, meta.gid) = (*uid, *gid),
            Self::Map(map) => {
                let unknown = |what, number| {
                    format!("it belongs to {what} {number}, which the map of owners does not name")
                };
                let (uid, gid) = (meta.uid, meta.gid);
                meta.uid = mapped(&map.users, uid).ok_or_else(|| unknown("user", uid))?;
                meta.gid = mapped(&map.groups, gid).ok_or_else(|| unknown("group", gid))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::arena::UNDESCRIBED;

    #[test]
    fn ranges_are_shifted_and_the_first_line_counts() {
        let text =
            "# a comment\nuid 5 50\nuid 0-999 100000 # root and others\n\ngid 7-7 8\ngid 0 0\n";
        let owners = Owners::Map(OwnerMap::parse(text).unwrap());
        for (uid, gid, wanted) in [
            (0, 7, Ok((100_000, 8))),
            (999, 0, Ok((100_999, 0))),
            (5, 0, Ok((50, 0))),
            (1000, 0, Err("user 1000")),
            (0, 8, Err("group 8")),
        ] {
            let mut meta = Meta {
                uid,
                gid,
                ..UNDESCRIBED
            };
            match (owners.apply(&mut meta), wanted) {
                (Ok(()), Ok(wanted)) => assert_eq!((meta.uid, meta.gid), wanted),
                (Err(reason), Err(wanted)) => assert!(reason.contains(wanted), "{reason}"),
                other => panic!("{uid} {gid}: {other:?}"),
            }
        }
    }

    #[test]
    fn what_is_no_line_is_refused_with_its_number() {
        for line in [
            "uid 1",
            "uid a b",
            "user 1 2",
            "gid 9-8 0",
            "uid 0-4294967295 1",
            "uid 1 -2",
            "uid 1 2 3",
        ] {
            let reason = OwnerMap::parse(&format!("uid 1 1\n{line}\n")).unwrap_err();
            assert!(reason.contains("line 2 "), "{reason}");
        }
        assert!(OwnerMap::parse("uid 0-4294967295 0").is_ok());
    }
}
