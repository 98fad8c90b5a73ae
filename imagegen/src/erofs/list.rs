//! What directories hold, as lines of text or JSON.

use super::MOST_FINDINGS;
use super::read::{Image, Inode, ReadError, Step, brief, kind};
use crate::medium::Source;
use crate::shown;
use crate::tree::Time;
use serde::Serialize;
use std::io::{self, Write};

/// What is wanted of a list.
#[derive(Debug, Clone, Copy, Default)]
pub struct Options {
    /// With all that is known of each object.
    pub long: bool,
    /// With what lies below, by path.
    pub recursive: bool,
    /// JSON, an object a line.
    pub json: bool,
}

/// What a list leaves out.
#[derive(Debug, thiserror::Error)]
#[error("{path}: {cause}")]
pub struct ListError {
    /// Which object, for people.
    pub path: String,
    /// What is wrong.
    pub cause: ReadError,
}

/// What came of a list.
#[derive(Debug)]
pub struct Listed {
    /// What could not be read; the first 10,000.
    pub damaged: Vec<ListError>,
    /// How many there were in all.
    pub found: u64,
    /// Whether the output took all of it; the list ends where it did not.
    pub output: io::Result<()>,
}

/// An object in JSON: sizes in bytes, times since 1970; what is not UTF-8 in names is
/// escaped as `\xNN`, a backslash as `\\`.
#[derive(Debug, Serialize)]
pub(crate) struct Row {
    pub(crate) path: String,
    pub(crate) nid: u64,
    pub(crate) kind: &'static str,
    pub(crate) mode: u16,
    pub(crate) links: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    pub(crate) size: u64,
    pub(crate) mtime: i64,
    pub(crate) mtime_nanoseconds: u32,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) device: Option<(u32, u32)>,
    #[serde(skip_serializing_if = "Option::is_none")]
    pub(crate) target: Option<String>,
}

impl Row {
    pub(crate) fn new<S: Source>(
        image: &Image<S>,
        path: String,
        inode: &Inode,
    ) -> Result<Self, ReadError> {
        let mut row = Self::without_target(path, inode);
        if inode.is_symlink() {
            row.target = Some(shown::name(&image.link(inode)?));
        }
        Ok(row)
    }

    pub(crate) fn without_target(path: String, inode: &Inode) -> Self {
        Self {
            path,
            nid: inode.nid,
            kind: word(inode.kind()),
            mode: inode.mode & 0o7777,
            links: inode.links,
            uid: inode.uid,
            gid: inode.gid,
            size: inode.size,
            mtime: inode.mtime.seconds,
            mtime_nanoseconds: inode.mtime.nanoseconds,
            device: inode.device().map(|device| (device.major, device.minor)),
            target: None,
        }
    }
}

/// Lists what `inode` holds, or `inode` itself under `name` if it is no directory. What is
/// damaged is left out and comes back, with its path, once all else was listed.
pub fn list<S: Source>(
    image: &Image<S>,
    inode: Inode,
    name: &[u8],
    options: Options,
    out: &mut dyn Write,
) -> Listed {
    let mut list = List {
        image,
        options,
        out,
        damaged: Vec::new(),
        found: 0,
    };
    let output = match inode.is_directory() {
        true => list.directory(inode),
        false => list.object(name, &inode),
    };
    Listed {
        damaged: list.damaged,
        found: list.found,
        output,
    }
}

struct List<'a, S> {
    image: &'a Image<S>,
    options: Options,
    out: &'a mut dyn Write,
    damaged: Vec<ListError>,
    found: u64,
}

impl<S: Source> List<'_, S> {
    fn directory(&mut self, inode: Inode) -> io::Result<()> {
        let mut walk = self.image.walk(inode);
        while let Some(step) = walk.next() {
            let path = walk.path();
            match step {
                Step::Enter(_) if path.is_empty() => {}
                Step::Enter(inode) => {
                    self.object(path, &inode)?;
                    if !self.options.recursive {
                        walk.skip();
                    }
                }
                Step::Node(inode) => self.object(path, &inode)?,
                Step::Leave => {}
                Step::Broken(cause) => self.broken(path, cause),
            }
        }
        Ok(())
    }

    fn broken(&mut self, path: &[u8], cause: ReadError) {
        self.found += 1;
        if self.damaged.len() < MOST_FINDINGS {
            let path = brief(path);
            self.damaged.push(ListError { path, cause });
        }
    }

    fn object(&mut self, path: &[u8], inode: &Inode) -> io::Result<()> {
        let name = shown::name(path);
        if !self.options.long && !self.options.json {
            return writeln!(self.out, "{name}");
        }
        let row = match Row::new(self.image, name, inode) {
            Ok(row) => row,
            Err(cause) => {
                self.broken(path, cause);
                return Ok(());
            }
        };
        if self.options.json {
            serde_json::to_writer(&mut *self.out, &row).map_err(io::Error::from)?;
            return writeln!(self.out);
        }
        let size = match row.device {
            Some((major, minor)) => format!("{major}, {minor}"),
            None => row.size.to_string(),
        };
        let target = row.target.map(|target| format!(" -> {target}"));
        writeln!(
            self.out,
            "{} {:>3} {:>5} {:>5} {size:>12} {} {}{}",
            mode(inode.mode),
            row.links,
            row.uid,
            row.gid,
            time(inode.mtime),
            row.path,
            target.unwrap_or_default()
        )?;
        Ok(())
    }
}

/// A kind in a word.
pub(crate) fn word(kind: u16) -> &'static str {
    match kind {
        kind::FILE => "file",
        kind::DIRECTORY => "directory",
        kind::SYMLINK => "symlink",
        kind::CHARACTER => "character-device",
        kind::BLOCK => "block-device",
        kind::FIFO => "fifo",
        kind::SOCKET => "socket",
        _ => "unknown",
    }
}

/// Kind and permissions as `ls -l` shows them.
pub(crate) fn mode(mode: u16) -> String {
    let kind = match mode & kind::MASK {
        kind::DIRECTORY => 'd',
        kind::SYMLINK => 'l',
        kind::CHARACTER => 'c',
        kind::BLOCK => 'b',
        kind::FIFO => 'p',
        kind::SOCKET => 's',
        _ => '-',
    };
    let mut text = String::from(kind);
    for (shift, special, lower, upper) in [
        (6, 0o4000, 's', 'S'),
        (3, 0o2000, 's', 'S'),
        (0, 0o1000, 't', 'T'),
    ] {
        let bits = mode >> shift;
        text.push(if bits & 4 != 0 { 'r' } else { '-' });
        text.push(if bits & 2 != 0 { 'w' } else { '-' });
        text.push(match (mode & special != 0, bits & 1 != 0) {
            (true, true) => lower,
            (true, false) => upper,
            (false, true) => 'x',
            (false, false) => '-',
        });
    }
    text
}

/// A time in UTC; in seconds since 1970 if no calendar has it.
pub(crate) fn time(time: Time) -> String {
    let nanoseconds = i32::try_from(time.nanoseconds).unwrap_or(0);
    match jiff::Timestamp::new(time.seconds, nanoseconds) {
        Ok(time) => format!("{time:.9}"),
        Err(_) => format!("@{}.{:09}", time.seconds, time.nanoseconds),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_shown_as_everywhere() {
        assert_eq!(mode(0o100_644), "-rw-r--r--");
        assert_eq!(mode(0o041_777), "drwxrwxrwt");
        assert_eq!(mode(0o104_754), "-rwsr-xr--");
        assert_eq!(mode(0o022_060), "c---rwS---");
    }

    #[test]
    fn times_are_shown_in_utc() {
        let at = |seconds, nanoseconds| {
            time(Time {
                seconds,
                nanoseconds,
            })
        };
        assert_eq!(at(0, 5), "1970-01-01T00:00:00.000000005Z");
        assert_eq!(at(-1, 500_000_000), "1969-12-31T23:59:59.500000000Z");
        assert_eq!(at(1_700_000_000, 0), "2023-11-14T22:13:20.000000000Z");
        assert_eq!(at(i64::MAX, 7), "@9223372036854775807.000000007");
    }
}
