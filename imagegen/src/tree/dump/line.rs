//! A line of a dump (composefs-dump(5)): its fields, unescaped, and nothing that asks what
//! they are good for.

use std::io::{BufRead, BufReader, Read};

use rustix::fs::FileType;

use crate::tree::{Time, TreeError};

/// Longest line.
const LONGEST: u64 = 16 << 20;

/// A line.
#[derive(Debug)]
pub(crate) struct Line {
    /// Of the object, from the root; begins with a slash.
    pub(crate) path: Vec<u8>,
    pub(crate) what: What,
}

/// What a line tells about its path.
#[derive(Debug)]
pub(crate) enum What {
    /// It is a further name of the object at this path.
    Link(Vec<u8>),
    Object(Object),
}

/// All that is told of an object.
#[derive(Debug)]
pub(crate) struct Object {
    /// The size, whatever it is; for links and directories it means nothing.
    pub(crate) size: u64,
    pub(crate) kind: FileType,
    /// Permission bits.
    pub(crate) mode: u16,
    pub(crate) nlink: u32,
    pub(crate) uid: u32,
    pub(crate) gid: u32,
    /// As `st_rdev`.
    pub(crate) rdev: u64,
    pub(crate) mtime: Time,
    pub(crate) payload: Option<Vec<u8>>,
    pub(crate) content: Option<Vec<u8>>,
    /// In hexadecimal.
    pub(crate) digest: Option<Vec<u8>>,
    /// Names and values in the order of the line, any names.
    pub(crate) xattrs: Vec<(Vec<u8>, Vec<u8>)>,
}

/// Gives `take` every line of `stream`, which errors call `name`: its bytes and what they say.
///
/// # Errors
/// If it cannot be read, or a line is malformed or not taken: with the line's number.
pub(crate) fn each(
    stream: impl Read,
    name: &[u8],
    mut take: impl FnMut(&[u8], Line) -> Result<(), String>,
) -> Result<(), TreeError> {
    let mut stream = BufReader::with_capacity(256 << 10, stream);
    let mut bytes = Vec::new();
    for number in 1u64.. {
        bytes.clear();
        let length = stream
            .by_ref()
            .take(LONGEST)
            .read_until(b'\n', &mut bytes)
            .map_err(|cause| TreeError::io(name, "read", cause))?;
        if length == 0 {
            break;
        }
        let text = bytes.strip_suffix(b"\n").unwrap_or(&bytes);
        let taken = match length as u64 == LONGEST {
            true => Err(format!("longer than {LONGEST} bytes")),
            false => Line::parse(text).and_then(|line| {
                let path = line.path.clone();
                take(text, line).map_err(|reason| about(&path, &reason))
            }),
        };
        taken.map_err(|reason| TreeError::invalid(name, format!("line {number}: {reason}")))?;
    }
    Ok(())
}

fn about(path: &[u8], reason: &str) -> String {
    format!("{}: {reason}", path.escape_ascii())
}

impl Line {
    /// # Errors
    /// If it is none: why.
    pub(crate) fn parse(line: &[u8]) -> Result<Self, String> {
        let fields: Vec<&[u8]> = line.split(|&byte| byte == b' ').collect();
        let Some((fixed, xattrs)) = fields.split_first_chunk::<11>() else {
            return Err("fewer than the 11 fields of a composefs dump".into());
        };
        let path = unescape(fixed[0])?;
        if !path.starts_with(b"/") {
            return Err("a path that does not begin with a slash".into());
        }
        // As mkcomposefs has it.
        if path.len() > 1 && path.ends_with(b"/") {
            return Err(about(&path, "its path ends with a slash"));
        }
        if has_dot(&path) {
            return Err(about(&path, "its path holds a `.`; leave it out"));
        }
        let what = match fixed[2].strip_prefix(b"@") {
            Some(mode) => link(mode, fixed[8]).map(What::Link),
            None => object(fixed, xattrs).map(What::Object),
        };
        let what = what.map_err(|reason| about(&path, &reason))?;
        Ok(Self { path, what })
    }
}

/// Whether one of the names is `.`, which no program that reads dumps takes.
fn has_dot(path: &[u8]) -> bool {
    path.split(|&byte| byte == b'/').any(|name| name == b".")
}

fn link(mode: &[u8], payload: &[u8]) -> Result<Vec<u8>, String> {
    let mode = octal(mode).ok_or("its mode is not an octal number")?;
    if FileType::from_raw_mode(mode) == FileType::Directory {
        return Err("a hard link whose mode is a directory's; these have one name".into());
    }
    let target = optional(payload)?.ok_or("a hard link without payload")?;
    match has_dot(&target) {
        true => Err("a hard link to a path that holds a `.`; leave it out".into()),
        false => Ok(target),
    }
}

fn object(fixed: &[&[u8]; 11], xattrs: &[&[u8]]) -> Result<Object, String> {
    let [
        _,
        size,
        mode,
        nlink,
        uid,
        gid,
        rdev,
        mtime,
        payload,
        content,
        digest,
    ] = fixed;
    let mode = octal(mode).ok_or("its mode is not an octal number")?;
    let kind = FileType::from_raw_mode(mode);
    if kind == FileType::Unknown {
        return Err(format!("its mode {mode:o} is of no kind of object"));
    }
    let mtime = time(mtime).ok_or("its time is not SECONDS.NANOSECONDS")?;
    // A space at the end is followed by nothing.
    let xattrs = match xattrs {
        [xattrs @ .., b""] => xattrs,
        xattrs => xattrs,
    };
    Ok(Object {
        size: number(size, "size")?,
        kind,
        mode: (mode & 0o7777) as u16,
        nlink: number(nlink, "number of links")?,
        uid: number(uid, "owner")?,
        gid: number(gid, "group")?,
        rdev: number(rdev, "device")?,
        mtime,
        payload: optional(payload)?,
        content: optional(content)?,
        digest: optional(digest)?,
        xattrs: xattrs
            .iter()
            .map(|field| xattr(field))
            .collect::<Result<_, _>>()?,
    })
}

fn optional(field: &[u8]) -> Result<Option<Vec<u8>>, String> {
    match field {
        b"-" => Ok(None),
        _ => unescape(field).map(Some),
    }
}

/// Undoes `\\`, `\n`, `\r`, `\t` and `\x41`.
fn unescape(field: &[u8]) -> Result<Vec<u8>, String> {
    let mut found = Vec::with_capacity(field.len());
    let mut rest = field;
    while let [first, after @ ..] = rest {
        let (byte, after) = match (first, after) {
            (b'\\', [b'\\', after @ ..]) => (b'\\', after),
            (b'\\', [b'n', after @ ..]) => (b'\n', after),
            (b'\\', [b'r', after @ ..]) => (b'\r', after),
            (b'\\', [b't', after @ ..]) => (b'\t', after),
            (b'\\', [b'x', high, low, after @ ..]) => {
                let digit = |digit: &u8| char::from(*digit).to_digit(16);
                let (high, low) = digit(high)
                    .zip(digit(low))
                    .ok_or("an escape that is none")?;
                ((high * 16 + low) as u8, after)
            }
            (b'\\', _) => return Err("an escape that is none".into()),
            (byte, after) => (*byte, after),
        };
        found.push(byte);
        rest = after;
    }
    Ok(found)
}

fn number<T: std::str::FromStr>(field: &[u8], what: &str) -> Result<T, String> {
    let text = std::str::from_utf8(field)
        .ok()
        .filter(|text| !text.starts_with('+'));
    let number = text.and_then(|text| text.parse().ok());
    number.ok_or_else(|| format!("its {what} is not a number, or too large"))
}

fn octal(field: &[u8]) -> Option<u32> {
    u32::from_str_radix(std::str::from_utf8(field).ok()?, 8).ok()
}

/// `1.1` is one second and one nanosecond; seconds before 1970 are negative, or what a C
/// program makes of them without a sign.
fn time(field: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(field).ok()?;
    let (seconds, nanoseconds) = text.split_once('.')?;
    let unsigned = || Some(seconds.parse::<u64>().ok()? as i64);
    let time = Time {
        seconds: seconds.parse().ok().or_else(unsigned)?,
        nanoseconds: nanoseconds.parse().ok()?,
    };
    (time.nanoseconds < 1_000_000_000).then_some(time)
}

fn xattr(field: &[u8]) -> Result<(Vec<u8>, Vec<u8>), String> {
    let equals = field.iter().position(|&byte| byte == b'=');
    let (name, value) = equals
        .and_then(|at| Some((field.get(..at)?, field.get(at + 1..)?)))
        .ok_or("an attribute without `=`")?;
    Ok((unescape(name)?, unescape(value)?))
}
