//! What lines of a dump may not say, of which the programs that read dumps have their own
//! opinions: `mkcomposefs` for versions 0 and 1 (`tools/mkcomposefs.c`), the crate
//! `composefs` for version 2 (`dumpfile_parse.rs`). What one of them refuses is no image of
//! its version, so it is refused here; what both refuse, or this program needs, is checked
//! where lines are read.

use super::dump::{INLINE_MAX, PATH_MAX};
use super::{Format, Version};
use crate::tree::dump::line::{Line, Object, What};
use rustix::fs::FileType;

/// Fields of a line before its attributes.
const FIXED: usize = 11;
/// Most bytes of a line's attributes as they are written, and of all their names
/// (`UINT16_MAX` in both programs).
const XATTRS_MAX: usize = u16::MAX as usize;
/// Longest path that the crate takes.
const PATH_MAX_CRATE: usize = 4096;

/// Whose opinion counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Dialect {
    /// That of `mkcomposefs`.
    C,
    /// The crate's.
    Crate,
}

impl Dialect {
    pub(super) fn of(format: Format) -> Self {
        match format {
            Format::Exactly(Version::V2) => Self::Crate,
            Format::Auto | Format::Exactly(Version::V0 | Version::V1) => Self::C,
        }
    }

    /// Refuses a line, whose bytes are `text`: why.
    pub(super) fn check(self, text: &[u8], line: &Line) -> Result<(), String> {
        match (self, &line.what) {
            (Self::C, What::Link(_)) => c_link(text),
            (Self::C, What::Object(object)) => c_object(text, object),
            (Self::Crate, What::Link(target)) => crate_link(text, &line.path, target),
            (Self::Crate, What::Object(object)) => crate_object(text, &line.path, object),
        }
    }
}

/// A field of a line as it is written.
fn field(text: &[u8], number: usize) -> &[u8] {
    let mut fields = text.split(|&byte| byte == b' ');
    fields.nth(number).unwrap_or_default()
}

fn c_link(text: &[u8]) -> Result<(), String> {
    c_line(text)?;
    let mode = field(text, 2).strip_prefix(b"@").unwrap_or_default();
    let mode = std::str::from_utf8(mode).ok();
    let mode = mode.and_then(|mode| u32::from_str_radix(mode, 8).ok());
    match mode.map(FileType::from_raw_mode) {
        None | Some(FileType::Unknown) => {
            Err("a hard link whose mode is of no kind of object".into())
        }
        Some(_) => Ok(()),
    }
}

fn c_object(text: &[u8], object: &Object) -> Result<(), String> {
    c_line(text)?;
    let (size, inline) = (object.size, object.content.as_ref().map(Vec::len));
    if let Some(length) = inline.filter(|length| *length as u64 != size) {
        return Err(format!("its size is {size}, but {length} bytes are inline"));
    }
    if let Some(length) = inline.filter(|length| *length > INLINE_MAX) {
        return Err(format!(
            "{length} bytes are inline, at most {INLINE_MAX} may be; put it into the object store"
        ));
    }
    if object.payload.as_ref().is_some_and(|p| p.len() > PATH_MAX) {
        return Err(format!(
            "its payload is no path of an object, nor a link's target: longer than {PATH_MAX} bytes"
        ));
    }
    let xattrs = text.splitn(FIXED + 1, |&byte| byte == b' ').nth(FIXED);
    let length = xattrs.map_or(0, <[u8]>::len);
    match length > XATTRS_MAX {
        true => Err(format!(
            "its attributes are written in {length} bytes, at most {XATTRS_MAX} may be; leave some out"
        )),
        false => Ok(()),
    }
}

fn c_line(text: &[u8]) -> Result<(), String> {
    match text.contains(&0) {
        true => Err("a zero byte in its line; write it as \\x00".into()),
        false => Ok(()),
    }
}

fn crate_link(text: &[u8], path: &[u8], target: &[u8]) -> Result<(), String> {
    crate_line(text, path)?;
    let size = std::str::from_utf8(field(text, 1)).ok();
    if size.is_none_or(|size| size.parse::<u64>().is_err()) {
        return Err("its size is not a number, or too large".into());
    }
    if !target.starts_with(b"/") {
        return Err("a hard link to a path that does not begin with a slash".into());
    }
    crate_path(target).map_err(|reason| format!("the path a hard link leads to {reason}"))
}

fn crate_line(text: &[u8], path: &[u8]) -> Result<(), String> {
    if std::str::from_utf8(text).is_err() {
        return Err(
            "bytes of its line are not UTF-8, as version 2 wants them; write them as \\xff".into(),
        );
    }
    crate_path(path).map_err(|reason| format!("its path {reason}"))
}

fn crate_path(path: &[u8]) -> Result<(), String> {
    let length = path.len();
    if length > PATH_MAX_CRATE {
        return Err(format!(
            "has {length} bytes, at most {PATH_MAX_CRATE} may be in version 2"
        ));
    }
    let doubled = path.windows(2).any(|pair| pair == b"//");
    match doubled || length > 1 && path.ends_with(b"/") {
        true => Err("has a slash too many for version 2; leave it out".into()),
        false => Ok(()),
    }
}

fn crate_object(text: &[u8], path: &[u8], object: &Object) -> Result<(), String> {
    crate_line(text, path)?;
    if field(text, 7).starts_with(b"-") {
        return Err("its time lies before 1970, which version 2 does not know".into());
    }
    // Behind it an attribute would begin.
    if text.ends_with(b" ") {
        return Err("its line ends with a space, which version 2 does not take".into());
    }
    let names: usize = object.xattrs.iter().map(|(name, _)| name.len()).sum();
    if names > XATTRS_MAX {
        return Err(format!(
            "the names of its attributes have {names} bytes, at most {XATTRS_MAX} may be"
        ));
    }
    let device = matches!(
        object.kind,
        FileType::CharacterDevice | FileType::BlockDevice
    );
    if object.rdev != 0 && !device {
        return Err("a device number, which version 2 takes for devices only; write 0".into());
    }
    match object.kind {
        FileType::RegularFile => crate_file(object),
        _ if object.content.is_some() => {
            Err("contents, which version 2 takes for files only; write -".into())
        }
        _ if object.digest.is_some() => {
            Err("a digest, which version 2 takes for files only; write -".into())
        }
        _ => Ok(()),
    }
}

fn crate_file(file: &Object) -> Result<(), String> {
    match (&file.payload, &file.digest) {
        (Some(payload), _) if payload.is_empty() => {
            Err("its payload is empty; write - for none".into())
        }
        (None, Some(_)) => Err("a digest without payload, which version 2 does not know".into()),
        _ => Ok(()),
    }
}
