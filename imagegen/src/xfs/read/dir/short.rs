//! The short form of a directory, inside its inode (`xfs_dir2_sf.c`).

use super::Entry;
use crate::xfs::format::dir::{FIRST_OFFSET, ShortHeader, file_type};
use crate::xfs::geometry::Geometry;
use crate::xfs::read::{Inode, Place, Result, Which, shape, take};

/// What the short form holds.
#[derive(Debug)]
pub(crate) struct ShortDir {
    pub(crate) parent: u64,
    /// Without `.` and `..`.
    pub(crate) children: Vec<Entry>,
    /// What it says about numbers of 8 bytes.
    pub(crate) big: u8,
}

const NAME: &str = "short directory";

impl ShortDir {
    pub(crate) fn parse(geometry: &Geometry, inode: &Inode) -> Result<Self> {
        let place = Place::Inode(inode.ino);
        let size = inode.core.size.get() as usize;
        let bad = |text: String| shape(NAME, place, text);
        let fork = inode.fork(Which::Data);
        let fork = fork
            .get(..size)
            .ok_or_else(|| bad("it is cut off".into()))?;
        let header: ShortHeader = take(NAME, place, fork, 0)?;
        let number = if header.big > 0 { 8 } else { 4 };
        let mut at = size_of::<ShortHeader>();
        let parent = read_number(fork, at, number).ok_or_else(|| bad("no parent".into()))?;
        at += number;
        let mut children = Vec::new();
        let mut least = u64::from(FIRST_OFFSET);
        for _ in 0..header.count {
            let (entry, length) = read_entry(fork, at, number)
                .ok_or_else(|| bad(format!("the entry at byte {at} is cut off")))?;
            let address = u64::from(entry.address) * 8;
            let flaw = super::block::bad_entry(geometry, &entry);
            if let Some(flaw) = flaw {
                return Err(bad(format!(
                    "entry \"{}\": {flaw}",
                    entry.name.escape_ascii()
                )));
            }
            if address < least {
                let name = entry.name.escape_ascii();
                return Err(bad(format!("entry \"{name}\" at offset {address}")));
            }
            least = address + super::block::entry_size(entry.name.len()) as u64;
            children.push(entry);
            at += length;
        }
        if at != size {
            return Err(bad(format!("{at} of {size} bytes hold entries")));
        }
        // What would be too much for one block is never short (`xfs_dir2_sf_verify`).
        let leaf = 8 * (u64::from(header.count) + 2) + 8;
        if least + leaf > geometry.dir_block_size() as u64 {
            return Err(bad(format!(
                "entries to offset {least} fill more than a block"
            )));
        }
        Ok(Self {
            parent,
            children,
            big: header.big,
        })
    }

    pub(crate) fn entries(&self, ino: u64) -> Vec<Entry> {
        let made_up = |name: &[u8], ino, address| Entry {
            name: name.to_vec(),
            ino,
            file_type: file_type::DIRECTORY,
            address,
        };
        let first = u32::from(FIRST_OFFSET) / 8;
        let mut all = vec![
            made_up(b".", ino, first - 4),
            made_up(b"..", self.parent, first - 2),
        ];
        all.extend(self.children.iter().cloned());
        all
    }
}

fn read_number(bytes: &[u8], at: usize, size: usize) -> Option<u64> {
    let bytes = bytes.get(at..at + size)?;
    Some(
        bytes
            .iter()
            .fold(0, |value, byte| value << 8 | u64::from(*byte)),
    )
}

/// The entry at byte `at`, and its length.
fn read_entry(fork: &[u8], at: usize, number: usize) -> Option<(Entry, usize)> {
    let length = usize::from(*fork.get(at)?);
    let offset = read_number(fork, at + 1, 2)?;
    let name = fork.get(at + 3..at + 3 + length)?;
    let file_type = *fork.get(at + 3 + length)?;
    let ino = read_number(fork, at + 4 + length, number)?;
    if offset % 8 != 0 {
        return None;
    }
    let entry = Entry {
        name: name.to_vec(),
        ino,
        file_type,
        address: (offset / 8) as u32,
    };
    Some((entry, 4 + length + number))
}
