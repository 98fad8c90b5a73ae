//! Inodes as bytes, and which of the two forms one has.

use super::super::format::inode::{COMPACT, Compact, EXTENDED, Extended, NO_BLOCK, format};
use super::options::InodeForm;
use crate::tree::{Device, Kind, Meta, Time};
use rustix::fs::FileType;
use zerocopy::IntoBytes;

/// What short inodes can say of times.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Clock {
    /// Their time, or what their seconds begin at.
    pub(crate) epoch: i64,
    pub(crate) nanoseconds: u32,
    /// Whether they have seconds of their own.
    pub(crate) counts: bool,
}

impl Clock {
    /// Seconds since the epoch, if a short inode can say this time.
    fn since(&self, time: Time) -> Option<u32> {
        let seconds = time.seconds.checked_sub(self.epoch)?;
        let seconds = u32::try_from(seconds).ok()?;
        let exact = time.nanoseconds == self.nanoseconds && (self.counts || seconds == 0);
        exact.then_some(seconds)
    }
}

/// What decides over an inode's form.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Status {
    /// Kind, as in `st_mode`.
    pub(crate) kind: u16,
    pub(crate) meta: Meta,
    pub(crate) links: u32,
    pub(crate) size: u64,
    /// First block of flat contents; 0 if there is none.
    pub(crate) block: u64,
}

/// Form of an inode.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Compact {
        /// Seconds since the epoch.
        mtime: u32,
    },
    Extended,
}

impl Form {
    /// The form an object gets.
    ///
    /// # Errors
    /// What does not fit into the form that was asked for.
    pub(crate) fn of(status: &Status, asked: InodeForm, clock: &Clock) -> Result<Self, String> {
        let mtime = clock.since(status.meta.mtime);
        let too_large = status.too_large();
        match (asked, too_large, mtime) {
            (InodeForm::Extended, ..) => Ok(Self::Extended),
            (InodeForm::Auto, None, Some(mtime)) => Ok(Self::Compact { mtime }),
            (InodeForm::Auto, ..) => Ok(Self::Extended),
            (InodeForm::Compact, None, mtime) => Ok(Self::Compact {
                mtime: mtime.unwrap_or(0),
            }),
            (InodeForm::Compact, Some(what), _) => Err(format!(
                "its {what} does not fit into a short inode; leave out --inodes compact"
            )),
        }
    }

    /// Bytes of an inode of this form.
    pub(crate) fn bytes(self) -> usize {
        match self {
            Self::Compact { .. } => COMPACT,
            Self::Extended => EXTENDED,
        }
    }
}

impl Status {
    /// What of it does not fit into a short inode.
    fn too_large(&self) -> Option<&'static str> {
        let narrow = |number: u32| u16::try_from(number).is_ok();
        let directory = self.kind == kind_of(FileType::Directory);
        // Its upper half lies where the links are.
        let far = self.block > u64::from(u32::MAX) && (self.links != 1 || directory);
        let checks = [
            (narrow(self.meta.uid), "owner"),
            (narrow(self.meta.gid), "group"),
            (narrow(self.links), "number of links"),
            (u32::try_from(self.size).is_ok(), "size"),
            (!far, "place"),
        ];
        checks
            .into_iter()
            .find_map(|(fits, what)| (!fits).then_some(what))
    }
}

/// How contents lie.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Lying {
    /// [`super::super::format::inode::layout`].
    pub(crate) layout: u16,
    /// The inode's data word.
    pub(crate) data: u32,
    /// Upper half of a block number, or of a count of blocks.
    pub(crate) high: u16,
    /// Both are the number of a block, the first of flat contents.
    pub(crate) numbers_block: bool,
}

impl Lying {
    /// Whether a short inode needs its upper half, which it has in place of its links: also
    /// if the lower one alone would say that there is no block.
    fn is_far(self) -> bool {
        self.numbers_block && (self.high != 0 || self.data == NO_BLOCK)
    }
}

/// An inode as bytes; `xattrs` are those of its attributes.
pub(crate) fn encode(
    form: Form,
    status: &Status,
    lying: Lying,
    xattrs: usize,
    number: u32,
) -> Vec<u8> {
    let (meta, lying_bits) = (&status.meta, lying.layout << format::LAYOUT_SHIFT);
    let mode = status.kind | meta.mode;
    let xattr_count = super::xattrs::count(xattrs);
    match form {
        Form::Compact { mtime } => {
            let (format, links_or_high) = match lying.is_far() {
                false => (lying_bits, status.links as u16),
                true => (lying_bits | format::NLINK_1, lying.high),
            };
            let inode = Compact {
                format: format.into(),
                xattr_count: xattr_count.into(),
                mode: mode.into(),
                nlink_or_high: links_or_high.into(),
                size: (status.size as u32).into(),
                mtime: mtime.into(),
                data: lying.data.into(),
                ino: number.into(),
                uid: (meta.uid as u16).into(),
                gid: (meta.gid as u16).into(),
                reserved: 0.into(),
            };
            inode.as_bytes().to_vec()
        }
        Form::Extended => {
            let inode = Extended {
                format: (lying_bits | format::EXTENDED).into(),
                xattr_count: xattr_count.into(),
                mode: mode.into(),
                high: lying.high.into(),
                size: status.size.into(),
                data: lying.data.into(),
                ino: number.into(),
                uid: meta.uid.into(),
                gid: meta.gid.into(),
                mtime: (meta.mtime.seconds as u64).into(),
                mtime_nanoseconds: meta.mtime.nanoseconds.into(),
                nlink: status.links.into(),
                reserved: [0; 16],
            };
            inode.as_bytes().to_vec()
        }
    }
}

/// A kind as `st_mode` has it.
pub(crate) fn kind_of(kind: FileType) -> u16 {
    kind.as_raw_mode() as u16
}

/// Kind of an object in its mode, and in directory entries.
pub(crate) fn kinds(what: &Kind) -> (u16, u8) {
    use super::super::format::directory::kind;
    let (file_type, entry) = match what {
        Kind::Directory => (FileType::Directory, kind::DIRECTORY),
        Kind::File(_) => (FileType::RegularFile, kind::FILE),
        Kind::Symlink(_) => (FileType::Symlink, kind::SYMLINK),
        Kind::CharDevice(_) => (FileType::CharacterDevice, kind::CHARACTER),
        Kind::BlockDevice(_) => (FileType::BlockDevice, kind::BLOCK),
        Kind::Fifo => (FileType::Fifo, kind::FIFO),
        Kind::Socket => (FileType::Socket, kind::SOCKET),
    };
    (kind_of(file_type), entry)
}

/// A device number as the data word has it (`new_encode_dev` of Linux).
pub(crate) fn device(device: Device) -> Option<u32> {
    let Device { major, minor } = device;
    let fits = major < 1 << 12 && minor < 1 << 20;
    fits.then_some((minor & 0xff) | (major << 8) | ((minor & !0xff) << 12))
}

#[cfg(test)]
#[allow(clippy::unwrap_used)]
mod tests {
    use super::*;
    use zerocopy::FromBytes;

    const FAR: u64 = 0x12_3456_789a;

    fn status(links: u32, kind: FileType) -> Status {
        let time = Time {
            seconds: 1000,
            nanoseconds: 7,
        };
        Status {
            kind: kind_of(kind),
            meta: Meta {
                mode: 0o640,
                uid: 1,
                gid: 2,
                project: 0,
                mtime: time,
                ctime: time,
            },
            links,
            size: 5000,
            block: FAR,
        }
    }

    fn clock(counts: bool) -> Clock {
        Clock {
            epoch: 400,
            nanoseconds: 7,
            counts,
        }
    }

    fn lying() -> Lying {
        Lying {
            layout: 0,
            data: FAR as u32,
            high: (FAR >> 32) as u16,
            numbers_block: true,
        }
    }

    #[test]
    fn blocks_beyond_32_bits_take_the_place_of_a_single_link() {
        let one = status(1, FileType::RegularFile);
        let form = Form::of(&one, InodeForm::Auto, &clock(true)).unwrap();
        assert_eq!(form, Form::Compact { mtime: 600 });
        let bytes = encode(form, &one, lying(), 0, 3);
        let inode = Compact::read_from_bytes(&bytes).unwrap();
        assert_eq!(inode.format.get(), format::NLINK_1);
        assert_eq!(u64::from(inode.nlink_or_high.get()), FAR >> 32);
        assert_eq!(inode.data.get(), FAR as u32);

        for (links, kind) in [(2, FileType::RegularFile), (1, FileType::Directory)] {
            let other = status(links, kind);
            let form = Form::of(&other, InodeForm::Auto, &clock(true)).unwrap();
            assert_eq!(form, Form::Extended);
            let bytes = encode(form, &other, lying(), 0, 3);
            let inode = Extended::read_from_bytes(&bytes).unwrap();
            assert_eq!(u64::from(inode.high.get()), FAR >> 32);
            assert_eq!(inode.nlink.get(), links);
            let refused = Form::of(&other, InodeForm::Compact, &clock(true)).unwrap_err();
            assert!(refused.contains("place"), "{refused}");
        }
    }

    #[test]
    fn the_block_whose_lower_half_is_that_of_none_is_told_in_full() {
        let file = Status {
            block: 1 << 32,
            ..status(1, FileType::RegularFile)
        };
        let form = Form::of(&file, InodeForm::Auto, &clock(true)).unwrap();
        let nowhere = Lying {
            data: NO_BLOCK,
            ..Lying::default()
        };
        let there = Lying {
            numbers_block: true,
            ..nowhere
        };
        for (lying, bits, links_or_high) in [(there, format::NLINK_1, 0), (nowhere, 0, 1)] {
            let bytes = encode(form, &file, lying, 0, 3);
            let inode = Compact::read_from_bytes(&bytes).unwrap();
            assert_eq!(inode.format.get(), bits);
            assert_eq!(inode.nlink_or_high.get(), links_or_high);
        }
    }

    #[test]
    fn short_inodes_say_only_what_they_can() {
        let file = Status {
            block: 5,
            ..status(1, FileType::RegularFile)
        };
        // Without seconds of their own the time must be the epoch.
        let auto = |counts| Form::of(&file, InodeForm::Auto, &clock(counts)).unwrap();
        assert_eq!(auto(true), Form::Compact { mtime: 600 });
        assert_eq!(auto(false), Form::Extended);
        let forced = Form::of(&file, InodeForm::Compact, &clock(false)).unwrap();
        assert_eq!(forced, Form::Compact { mtime: 0 });
    }

    #[test]
    fn device_numbers_as_linux_packs_them() {
        let number = |major, minor| device(Device { major, minor });
        assert_eq!(number(8, 1), Some(0x801));
        assert_eq!(number(0xfff, 0xf_ffff), Some(0xffff_ffff));
        assert_eq!(number(1, 0x12345), Some(0x1230_0145));
        assert_eq!(number(0x1000, 0), None);
        assert_eq!(number(0, 0x10_0000), None);
    }
}
