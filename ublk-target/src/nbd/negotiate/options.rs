//! The data of options, taken apart. Pure: bytes in, checked values out.

use super::super::wire::{BASE_ALLOCATION, DIRTY_BITMAP, MAX_STRING};

/// What is wrong with an option's data; told to the client.
pub(super) type Malformed = &'static str;

/// Most kinds of information, or queries, in one option.
const MAX_ITEMS: usize = 64;

/// The data of `INFO` and `GO`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct InfoRequest {
    pub(super) name: String,
    /// Kinds of information asked for.
    pub(super) kinds: Vec<u16>,
}

/// The data of `LIST_META_CONTEXT` and `SET_META_CONTEXT`.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct ContextRequest {
    pub(super) name: String,
    pub(super) queries: Vec<String>,
}

/// `EXPORT_NAME`: nothing but the name.
pub(super) fn export_name(data: &[u8]) -> Result<String, Malformed> {
    string(data)
}

/// Length (32 bits) and name, count (16 bits) and kinds (16 bits each).
pub(super) fn info_request(data: &[u8]) -> Result<InfoRequest, Malformed> {
    let mut data = Cursor(data);
    let name = data.string()?;
    let count = usize::from(data.u16()?);
    if count > MAX_ITEMS {
        return Err("too many kinds of information");
    }
    let kinds = (0..count).map(|_| data.u16()).collect::<Result<_, _>>()?;
    data.end()?;
    Ok(InfoRequest { name, kinds })
}

/// Length (32 bits) and name, count (32 bits) and queries (length and string each).
pub(super) fn context_request(data: &[u8]) -> Result<ContextRequest, Malformed> {
    let mut data = Cursor(data);
    let name = data.string()?;
    let count = data.u32()? as usize;
    if count > MAX_ITEMS {
        return Err("too many queries");
    }
    let queries = (0..count)
        .map(|_| data.string())
        .collect::<Result<_, _>>()?;
    data.end()?;
    Ok(ContextRequest { name, queries })
}

/// "Value types, Strings": UTF-8, no NUL, at most 4096 bytes.
fn string(bytes: &[u8]) -> Result<String, Malformed> {
    if bytes.len() > MAX_STRING {
        return Err("a string longer than 4096 bytes");
    }
    if bytes.contains(&0) {
        return Err("a string with a NUL");
    }
    std::str::from_utf8(bytes)
        .map(str::to_owned)
        .map_err(|_| "a string that is not UTF-8")
}

struct Cursor<'a>(&'a [u8]);

impl<'a> Cursor<'a> {
    fn take(&mut self, n: usize) -> Result<&'a [u8], Malformed> {
        let (taken, rest) = self
            .0
            .split_at_checked(n)
            .ok_or("the option ends too early")?;
        self.0 = rest;
        Ok(taken)
    }

    fn array<const N: usize>(&mut self) -> Result<[u8; N], Malformed> {
        let (taken, rest) = self
            .0
            .split_first_chunk()
            .ok_or("the option ends too early")?;
        self.0 = rest;
        Ok(*taken)
    }

    fn u16(&mut self) -> Result<u16, Malformed> {
        self.array().map(u16::from_be_bytes)
    }

    fn u32(&mut self) -> Result<u32, Malformed> {
        self.array().map(u32::from_be_bytes)
    }

    fn string(&mut self) -> Result<String, Malformed> {
        let len = self.u32()?;
        string(self.take(len as usize)?)
    }

    fn end(&self) -> Result<(), Malformed> {
        if self.0.is_empty() {
            Ok(())
        } else {
            Err("the option has bytes left over")
        }
    }
}

/// Queries for metadata contexts. The wildcards (no query at all, or a bare namespace)
/// list, but do not choose.
pub(super) struct Queries<'a>(&'a [String]);

impl<'a> Queries<'a> {
    pub(super) fn new(queries: &'a [String]) -> Self {
        Self(queries)
    }

    fn has(&self, one_of: &[&str]) -> bool {
        self.0.iter().any(|query| one_of.contains(&query.as_str()))
    }

    pub(super) fn list_allocation(&self) -> bool {
        self.0.is_empty() || self.has(&["base:", BASE_ALLOCATION])
    }

    pub(super) fn choose_allocation(&self) -> bool {
        self.has(&[BASE_ALLOCATION])
    }

    /// Whether snapshots are asked for at all.
    pub(super) fn want_older(&self) -> bool {
        self.0.is_empty() || self.0.iter().any(|query| query.starts_with("qemu:"))
    }

    pub(super) fn list_older(&self, name: &str) -> bool {
        self.0.is_empty() || self.has(&["qemu:", DIRTY_BITMAP]) || self.choose_older(name)
    }

    pub(super) fn choose_older(&self, name: &str) -> bool {
        let mut names = self.0.iter().filter_map(|q| q.strip_prefix(DIRTY_BITMAP));
        names.any(|wanted| wanted == name)
    }
}
