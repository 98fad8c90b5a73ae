//! Extended attributes: those of an inode behind it, those of several inodes once.
//!
//! The first inode with an attribute has it for itself; when a second has the same, it gets
//! a place of its own, to which this and all later inodes refer. So nothing has to be known
//! beforehand, and nothing of an attribute is kept but a digest.

use super::super::format::xattr::{
    ALIGN, ENTRY, Entry, FILTER_SEED, HEADER, Header, LONG_PREFIX, PREFIXES,
};
use super::options::OptionError;
use crate::digest;
use crate::tree::{Xattr, show};
use rustc_hash::FxHashMap;
use twox_hash::XxHash32;
use zerocopy::IntoBytes;

/// Attributes in the attributes' room an inode counts: 65,535 units with one for the header.
const MOST_BYTES: usize = HEADER + (u16::MAX as usize - 1) * ALIGN;
/// References to shared attributes an inode can have.
const MOST_SHARED: usize = u8::MAX as usize;
/// Long prefixes there can be: their numbers have 7 bits.
const MOST_PREFIXES: usize = 128;

/// What of a name its index stands for.
#[derive(Debug, Clone, Copy)]
struct Split<'a> {
    /// Index on disk, perhaps of a long prefix.
    index: u8,
    /// The rest of the name.
    rest: &'a [u8],
    /// The same for the short prefix, by which a kernel looks for it.
    base: (u8, &'a [u8]),
}

/// Long prefixes of names, by their numbers.
#[derive(Debug, Clone, Default)]
pub(crate) struct Prefixes {
    all: Vec<Vec<u8>>,
}

impl Prefixes {
    /// Those that were asked for.
    ///
    /// # Errors
    /// If one cannot be kept, or there are too many.
    pub(crate) fn new(asked: &[Vec<u8>]) -> Result<Self, OptionError> {
        const OPTION: &str = "--xattr-prefix";
        let mut all = asked.to_vec();
        // The longest that fits is the one to be found first.
        all.sort_by(|a, b| b.len().cmp(&a.len()).then(a.cmp(b)));
        all.dedup();
        if all.len() > MOST_PREFIXES {
            let reason = format!("{} of them where {MOST_PREFIXES} fit", all.len());
            return Err(OptionError::new(OPTION, "...", reason));
        }
        for prefix in &all {
            let reason = match base(prefix) {
                None | Some((_, [])) => {
                    "must begin with user., trusted. or security., and say more than that"
                }
                Some(_) if prefix.len() > 255 => "is longer than a name",
                Some(_) => continue,
            };
            return Err(OptionError::new(OPTION, show(prefix), reason));
        }
        Ok(Self { all })
    }

    /// How many there are.
    pub(crate) fn count(&self) -> usize {
        self.all.len()
    }

    /// All of them as they lie in the image: length, index of the short prefix, the rest.
    pub(crate) fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::new();
        for prefix in &self.all {
            if let Some((index, infix)) = base(prefix) {
                bytes.extend_from_slice(&(infix.len() as u16 + 1).to_le_bytes());
                bytes.push(index);
                bytes.extend_from_slice(infix);
                bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
            }
        }
        bytes
    }

    fn split<'a>(&self, name: &'a [u8]) -> Option<Split<'a>> {
        let base = base(name)?;
        let long = self.all.iter().enumerate();
        let mut found = long.filter_map(|(number, prefix)| {
            let rest = name.strip_prefix(prefix.as_slice())?;
            Some((LONG_PREFIX | number as u8, rest))
        });
        let (index, rest) = found.next().unwrap_or(base);
        Some(Split { index, rest, base })
    }
}

/// Index of the short prefix of a name, and the rest.
fn base(name: &[u8]) -> Option<(u8, &[u8])> {
    PREFIXES.iter().find_map(|(index, prefix)| {
        let rest = name.strip_prefix(*prefix)?;
        // A whole name has no rest, all others have.
        (prefix.ends_with(b".") != rest.is_empty()).then_some((*index, rest))
    })
}

/// Where an attribute was seen.
#[derive(Debug, Clone, Copy)]
enum Seen {
    /// In one inode.
    Once,
    /// In several: its number.
    Shared(u32),
}

/// What becomes of the attributes of one inode.
#[derive(Debug, Default)]
pub(crate) struct Sorted {
    shared: Vec<u32>,
    own: Vec<u8>,
    filter: u32,
}

/// Attributes on their way into the image.
#[derive(Debug)]
pub(crate) struct Xattrs {
    prefixes: Prefixes,
    filter: bool,
    seen: FxHashMap<digest::Long, Seen>,
    any: bool,
}

impl Xattrs {
    /// With none seen.
    pub(crate) fn new(prefixes: Prefixes, filter: bool) -> Self {
        Self {
            prefixes,
            filter,
            seen: FxHashMap::default(),
            any: false,
        }
    }

    /// The bytes behind an inode with these attributes, all of them its own unless `sharing`.
    /// `share` gives bytes a place of their own, aligned to 4, and returns its number, or none
    /// if it lies too far.
    ///
    /// # Errors
    /// What cannot be kept, or what `share` says.
    pub(crate) fn encode<E: From<String>>(
        &mut self,
        xattrs: &[Xattr],
        sharing: bool,
        mut share: impl FnMut(&[u8]) -> Result<Option<u32>, E>,
    ) -> Result<Vec<u8>, E> {
        if xattrs.is_empty() {
            return Ok(Vec::new());
        }
        let mut sorted = Sorted::default();
        for xattr in xattrs {
            let (entry, bit) = self.entry(xattr)?;
            sorted.filter |= 1 << bit;
            let room = match sharing {
                true => MOST_SHARED - sorted.shared.len(),
                false => 0,
            };
            match self.number(&entry, room, &mut share)? {
                Some(number) => sorted.shared.push(number),
                None => sorted.own.extend_from_slice(&entry),
            }
        }
        let bytes = sorted.finish(self.filter);
        if bytes.len() > MOST_BYTES {
            let reason = format!(
                "its attributes take {} bytes, at most {MOST_BYTES} fit; leave some out (--drop-xattr)",
                bytes.len()
            );
            return Err(reason.into());
        }
        Ok(bytes)
    }

    /// The number under which an entry is shared, if it is, by an inode with room for so many
    /// numbers.
    fn number<E>(
        &mut self,
        entry: &[u8],
        room: usize,
        share: &mut impl FnMut(&[u8]) -> Result<Option<u32>, E>,
    ) -> Result<Option<u32>, E> {
        self.any = true;
        if room == 0 {
            return Ok(None);
        }
        let key = digest::long(entry);
        match self.seen.get(&key) {
            Some(Seen::Shared(number)) => Ok(Some(*number)),
            Some(Seen::Once) => {
                let number = share(entry)?;
                if let Some(number) = number {
                    self.seen.insert(key, Seen::Shared(number));
                }
                Ok(number)
            }
            None => {
                self.seen.insert(key, Seen::Once);
                Ok(None)
            }
        }
    }

    /// An attribute as an entry, filled up, and its bit of the filter.
    fn entry(&self, xattr: &Xattr) -> Result<(Vec<u8>, u32), String> {
        let name = || show(&xattr.name);
        let Some(split) = self.prefixes.split(&xattr.name) else {
            return Err(format!(
                "attribute {}: EROFS keeps user.*, trusted.*, security.* and POSIX ACLs only; leave it out (--drop-xattr)",
                name()
            ));
        };
        let length = u8::try_from(split.rest.len());
        let size = u16::try_from(xattr.value.len());
        let (Ok(name_length), Ok(value_size)) = (length, size) else {
            return Err(format!(
                "attribute {}: name and value have {} and {} bytes, at most 255 and 65535 fit; leave it out (--drop-xattr)",
                name(),
                split.rest.len(),
                xattr.value.len()
            ));
        };
        let entry = Entry {
            name_length,
            index: split.index,
            value_size: value_size.into(),
        };
        let mut bytes = Vec::with_capacity(ENTRY + split.rest.len() + xattr.value.len() + ALIGN);
        bytes.extend_from_slice(entry.as_bytes());
        bytes.extend_from_slice(split.rest);
        bytes.extend_from_slice(&xattr.value);
        bytes.resize(bytes.len().next_multiple_of(ALIGN), 0);
        let (index, rest) = split.base;
        let hash = XxHash32::oneshot(FILTER_SEED.wrapping_add(index.into()), rest);
        Ok((bytes, hash % 32))
    }

    /// Whether there are any.
    pub(crate) fn any(&self) -> bool {
        self.any
    }
}

impl Sorted {
    fn finish(self, filter: bool) -> Vec<u8> {
        let header = Header {
            name_filter: if filter { !self.filter } else { 0 }.into(),
            shared: self.shared.len() as u8,
            reserved: [0; 7],
        };
        let mut bytes = header.as_bytes().to_vec();
        for number in self.shared {
            bytes.extend_from_slice(&number.to_le_bytes());
        }
        bytes.extend_from_slice(&self.own);
        bytes
    }
}

/// What an inode says of `bytes` bytes of attributes.
pub(crate) fn count(bytes: usize) -> u16 {
    match bytes.checked_sub(HEADER) {
        None => 0,
        Some(after) => (after / ALIGN + 1) as u16,
    }
}
