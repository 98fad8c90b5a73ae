//! Short form: the directory inside its inode (`xfs_dir2_sf.c`).

use super::data::Data;
use crate::xfs::format::dir::ShortHeader;
use zerocopy::IntoBytes;

/// How large the short form is.
#[derive(Debug)]
pub(super) struct Size {
    /// Entries, without `.` and `..`.
    count: usize,
    /// Bytes of their names.
    names: usize,
    /// Entries, and the parent, whose numbers need 8 bytes.
    big: usize,
}

/// Whether a number does not fit into 4 bytes (`XFS_DIR2_MAX_SHORT_INUM`).
fn is_big(ino: u64) -> bool {
    ino > u32::MAX.into()
}

impl Size {
    pub(super) fn new(parent: u64) -> Self {
        Self {
            count: 0,
            names: 0,
            big: usize::from(is_big(parent)),
        }
    }

    pub(super) fn add(&mut self, name: &[u8], ino: u64) {
        self.count += 1;
        self.names += name.len();
        self.big += usize::from(is_big(ino));
    }

    /// Bytes of a number.
    fn number(&self) -> usize {
        if self.big > 0 { 8 } else { 4 }
    }

    /// Bytes in all: per entry length, offset, name, kind, number.
    pub(super) fn bytes(&self) -> usize {
        let fixed = 1 + 2 + 1 + self.number();
        size_of::<ShortHeader>() + self.number() + self.count * fixed + self.names
    }

    /// Whether it can be in `space` bytes.
    pub(super) fn fits(&self, space: usize) -> bool {
        let limit = usize::from(u8::MAX);
        self.bytes() <= space && self.count <= limit && self.big <= limit
    }
}

/// The short form of a directory whose data fit into one block: offsets are those the
/// entries have in that block.
pub(super) fn encode(data: &Data, parent: u64, size: &Size) -> Vec<u8> {
    let header = ShortHeader {
        count: size.count as u8,
        big: size.big as u8,
    };
    let unused = 8 - size.number();
    let mut bytes = Vec::with_capacity(size.bytes());
    bytes.extend(header.as_bytes());
    bytes.extend(&parent.to_be_bytes()[unused..]);
    for entry in data.entries(0).skip(2) {
        bytes.push(entry.name.len() as u8);
        bytes.extend((entry.at as u16).to_be_bytes());
        bytes.extend(entry.name);
        bytes.push(entry.file_type);
        bytes.extend(&entry.ino.to_be_bytes()[unused..]);
    }
    bytes
}
