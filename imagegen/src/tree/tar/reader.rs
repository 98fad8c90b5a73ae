//! The entries of an archive, one after the other.

use std::fs::File;
use std::io::ErrorKind;
use std::ops::Range;
use std::os::unix::fs::FileExt;

use super::header::{BLOCK, Block, Header};
use super::pax::Extra;
use super::sparse;
use crate::tree::spool::Archive;
use crate::tree::{Device, Meta, Time, TreeError, Xattr};

/// Bytes read at a time while headers are looked for.
const WINDOW: usize = 64 << 10;
/// Longest pax header and longest long name.
const LONGEST: u64 = 16 << 20;

/// An object or a further name, as the archive has it.
#[derive(Debug)]
pub(in crate::tree) struct Item {
    /// Where its header stands.
    pub(in crate::tree) at: u64,
    pub(in crate::tree) path: Vec<u8>,
    pub(in crate::tree) meta: Meta,
    pub(in crate::tree) xattrs: Vec<Xattr>,
    pub(in crate::tree) what: What,
}

/// What an item is.
#[derive(Debug)]
pub(in crate::tree) enum What {
    Directory,
    /// Bytes of the file, and where they begin in the archive.
    File(u64, u64),
    /// Size and pieces.
    Sparse(u64, Vec<(Range<u64>, u64)>),
    HardLink(Vec<u8>),
    Symlink(Vec<u8>),
    CharDevice(Device),
    BlockDevice(Device),
    Fifo,
}

/// Reads blocks in ascending order with few system calls.
pub(in crate::tree) struct Blocks<'a> {
    file: &'a File,
    size: u64,
    window: Vec<u8>,
    begin: u64,
}

impl Blocks<'_> {
    /// The block at `at`; `None` at the end of the archive.
    pub(in crate::tree) fn block(&mut self, at: u64) -> Result<Option<Block>, String> {
        if at >= self.size {
            return Ok(None);
        }
        if self.size - at < BLOCK {
            return Err("the archive ends within a block".into());
        }
        let held = self.begin..self.begin + self.window.len() as u64;
        if at < held.start || at + BLOCK > held.end {
            let length = (self.size - at).min(WINDOW as u64) as usize;
            self.window.resize(length, 0);
            self.begin = at;
            read(self.file, &mut self.window, at)?;
        }
        let from = (at - self.begin) as usize;
        let mut block = [0; BLOCK as usize];
        block.copy_from_slice(&self.window[from..from + BLOCK as usize]);
        Ok(Some(block))
    }

    /// The bytes of a pax header or a long name.
    fn text(&self, at: u64, length: u64) -> Result<Vec<u8>, String> {
        if length > LONGEST {
            return Err(format!(
                "a header of {length} bytes, at most {LONGEST} are read"
            ));
        }
        let mut bytes = vec![0; length as usize];
        read(self.file, &mut bytes, at)?;
        Ok(bytes)
    }
}

fn read(file: &File, buffer: &mut [u8], at: u64) -> Result<(), String> {
    file.read_exact_at(buffer, at)
        .map_err(|cause| match cause.kind() {
            ErrorKind::UnexpectedEof => "the archive ends within it".into(),
            _ => format!("cannot read the archive: {cause}"),
        })
}

/// What is read.
pub(in crate::tree) struct Reader<'a> {
    archive: &'a Archive,
    blocks: Blocks<'a>,
    at: u64,
    /// From global pax headers.
    global: Extra,
    ended: bool,
}

impl<'a> Reader<'a> {
    pub(in crate::tree) fn new(archive: &'a Archive) -> Self {
        let blocks = Blocks {
            file: &archive.file,
            size: archive.size,
            window: Vec::new(),
            begin: 0,
        };
        let (at, global, ended) = (0, Extra::default(), false);
        Self {
            archive,
            blocks,
            at,
            global,
            ended,
        }
    }

    /// An error about `path`, whose header stands at `at`.
    pub(in crate::tree) fn invalid(&self, at: u64, path: &[u8], reason: &str) -> TreeError {
        invalid(&self.archive.path, at, path, reason)
    }

    /// The next item.
    fn step(&mut self) -> Result<Option<Item>, TreeError> {
        let mut extra = self.global.clone();
        loop {
            let at = self.at;
            let place = &self.archive.path;
            let nameless = |reason: String| invalid(place, at, b"", &reason);
            let Some(block) = self.blocks.block(at).map_err(nameless)? else {
                return Ok(None);
            };
            if block == [0; BLOCK as usize] {
                return Ok(None);
            }
            let header = Header::new(block).ok_or_else(|| {
                let begin = "not a tar archive: no header stands at its beginning";
                let later = "the archive is damaged: what should be a header has a wrong checksum";
                nameless(if at == 0 { begin } else { later }.into())
            })?;
            if self.about_the_next(&header, &mut extra).map_err(nameless)? {
                continue;
            }
            let path = extra.sparse.name.take().or(extra.path.take());
            let path = path.unwrap_or_else(|| header.path());
            let item = self.item(&header, extra, path.clone());
            return item
                .map_err(|reason| self.invalid(at, &path, &reason))
                .map(Some);
        }
    }

    /// Takes a header that says something about others. Tells if it was one.
    fn about_the_next(&mut self, header: &Header, extra: &mut Extra) -> Result<bool, String> {
        let kind = header.kind();
        if !b"xXgLKV".contains(&kind) {
            return Ok(false);
        }
        let length = length(header)?;
        let begin = self.at + BLOCK;
        let text = || self.blocks.text(begin, length);
        let name = || Ok::<_, String>(until_zero(text()?));
        match kind {
            b'x' | b'X' => extra.take(&text()?)?,
            b'g' => {
                let records = text()?;
                self.global.take(&records)?;
                extra.take(&records)?;
            }
            b'L' => extra.path = Some(name()?),
            b'K' => extra.link = Some(name()?),
            _ => {} // the archive's own label
        }
        self.skip(begin, length)?;
        Ok(true)
    }

    /// Goes on after contents of `length` bytes at `begin`.
    fn skip(&mut self, begin: u64, length: u64) -> Result<(), String> {
        let end = begin
            .checked_add(length)
            .filter(|end| *end <= self.blocks.size);
        let end = end.ok_or_else(|| {
            let there = self.blocks.size.saturating_sub(begin);
            format!("the archive ends within it: {length} bytes should follow, {there} do")
        })?;
        // Archives cut at the last byte are read by others too.
        self.at = end.next_multiple_of(BLOCK);
        Ok(())
    }

    fn item(&mut self, header: &Header, extra: Extra, path: Vec<u8>) -> Result<Item, String> {
        let at = self.at;
        let begin = at + BLOCK;
        let xattrs = extra.xattrs.clone();
        let meta = meta(header, &extra)?;
        let link = extra.link.clone().unwrap_or_else(|| header.link());
        let mut skip = 0;
        let what = match header.kind() {
            b'0' | 0 | b'7' | b'S' if !path.ends_with(b"/") => {
                let size = match extra.size {
                    Some(size) => size,
                    None => length(header)?,
                };
                skip = size;
                self.file(header, &extra, begin, &mut skip)?
            }
            b'0' | 0 | b'7' | b'5' => What::Directory,
            b'D' => {
                skip = length(header)?; // a list of names, of incremental backups
                What::Directory
            }
            b'1' => {
                skip = extra.size.unwrap_or(0); // contents again, as pax may write
                What::HardLink(link)
            }
            b'2' if link.is_empty() || link.len() > 4095 || link.contains(&0) => {
                return Err("a symbolic link whose target cannot be one".into());
            }
            b'2' => What::Symlink(link),
            b'3' => What::CharDevice(device(header, &extra)?),
            b'4' => What::BlockDevice(device(header, &extra)?),
            b'6' => What::Fifo,
            b'M' => {
                return Err("it continues a file of another volume; join the volumes first".into());
            }
            other => {
                let letter = other.escape_ascii();
                return Err(format!(
                    "entries of type `{letter}` are not known; leave it out of the archive"
                ));
            }
        };
        self.skip(begin, skip)?;
        Ok(Item {
            at,
            path,
            meta,
            xattrs,
            what,
        })
    }

    /// A regular file of `stored` bytes at `begin`; extensions of its header are added.
    fn file(
        &mut self,
        header: &Header,
        extra: &Extra,
        begin: u64,
        stored: &mut u64,
    ) -> Result<What, String> {
        let length = *stored;
        let end = begin.checked_add(length).ok_or("its size is impossible")?;
        let records = &extra.sparse;
        let (map, size, at, stored) = if header.kind() == b'S' {
            let (map, size, at) = sparse::old(header.block(), &mut self.blocks, begin)?;
            *stored = length
                .checked_add(at - begin)
                .ok_or("its size is impossible")?;
            (map, size, at, length)
        } else if let (Some(1), Some(size)) = (records.major, records.size) {
            let (map, at) = sparse::before(&mut self.blocks, begin, end)?;
            let left = end
                .checked_sub(at)
                .ok_or("its map of holes is longer than itself")?;
            (map, size, at, left)
        } else if let Some(size) = records.size {
            (records.map.clone(), size, begin, length)
        } else {
            return Ok(What::File(length, begin));
        };
        if size > i64::MAX as u64 {
            return Err("its size is impossible".into());
        }
        Ok(What::Sparse(size, sparse::pieces(&map, size, stored, at)?))
    }
}

impl Iterator for Reader<'_> {
    type Item = Result<Item, TreeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let step = self.step().transpose();
        self.ended = !matches!(step, Some(Ok(_)));
        step
    }
}

fn invalid(archive: &[u8], at: u64, path: &[u8], reason: &str) -> TreeError {
    let mut place = archive.to_vec();
    if !path.is_empty() {
        place.extend_from_slice(b": ");
        place.extend_from_slice(path);
    }
    TreeError::invalid(&place, format!("{reason} (at byte {at} of the archive)"))
}

fn until_zero(mut text: Vec<u8>) -> Vec<u8> {
    let length = text
        .iter()
        .position(|&byte| byte == 0)
        .unwrap_or(text.len());
    text.truncate(length);
    text
}

fn length(header: &Header) -> Result<u64, String> {
    u64::try_from(header.size()?).map_err(|_| "its size is negative".into())
}

fn meta(header: &Header, extra: &Extra) -> Result<Meta, String> {
    let id = |what, given: Option<u32>, number: Result<i64, String>| match given {
        Some(id) => Ok(id),
        None => u32::try_from(number?).map_err(|_| format!("its {what} is beyond 32 bits")),
    };
    let mtime = match extra.mtime {
        Some(time) => time,
        None => Time {
            seconds: header.mtime()?,
            nanoseconds: 0,
        },
    };
    Ok(Meta {
        mode: (header.mode()? & 0o7777) as u16,
        uid: id("owner", extra.uid, header.uid())?,
        gid: id("group", extra.gid, header.gid())?,
        project: 0,
        mtime,
        ctime: extra.ctime.unwrap_or(mtime),
    })
}

fn device(header: &Header, extra: &Extra) -> Result<Device, String> {
    let (major, minor) = header.device()?;
    let pick = |given: Option<u32>, number: i64, below: u32| {
        let number = given.or(u32::try_from(number).ok());
        number.filter(|number| *number < below)
    };
    match (
        pick(extra.device.0, major, 1 << 12),
        pick(extra.device.1, minor, 1 << 20),
    ) {
        (Some(major), Some(minor)) => Ok(Device { major, minor }),
        _ => Err(format!("device {major}:{minor}, at most 4095:1048575 fit")),
    }
}
