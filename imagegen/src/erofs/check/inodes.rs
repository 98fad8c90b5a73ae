//! Single inodes: fields, attributes, symbolic links, and where their contents lie.

use super::problem::{Kind, Problems};
use super::space::{Piece, Space, Use};
use crate::erofs::format::inode::NO_BLOCK;
use crate::erofs::format::superblock::{compat, incompat};
use crate::erofs::read::{Area, Device, Extent, Image, Inode, Layout, Where};
use crate::medium::Source;
use crate::tree::Progress;
use std::sync::atomic::Ordering;

/// Checks inodes and notes what they use.
pub(super) struct Inodes<'a, S> {
    image: &'a Image<S>,
    space: &'a mut Space,
    progress: &'a Progress,
    /// Extents that may still come, however many inodes share what describes them.
    left: u64,
    /// More came, which was said.
    over: bool,
}

/// No form of a map has less than 2 bytes for an extent.
const EXTENT_LEAST: u64 = 2;
/// A flat inode has up to 2 extents without a byte for them.
const FREE: u64 = 4;
/// A metabox of this many times the image's size counts whole: maps compress well.
const METABOX: u64 = 8;
/// Bytes of a page, on most machines.
const PAGE: u64 = 4096;

impl<'a, S: Source> Inodes<'a, S> {
    pub(super) fn new(image: &'a Image<S>, space: &'a mut Space, progress: &'a Progress) -> Self {
        let size = image.area_size(Area::Image);
        let metabox = image.area_size(Area::Metabox);
        let metabox = metabox.min(size.saturating_mul(METABOX));
        Self {
            image,
            space,
            progress,
            left: size.saturating_add(metabox) / EXTENT_LEAST,
            over: false,
        }
    }

    /// Checks an inode; to be called once for each.
    pub(super) fn check(&mut self, inode: &Inode, problems: &mut Problems) {
        self.progress.objects.fetch_add(1, Ordering::Relaxed);
        self.left = self.left.saturating_add(FREE);
        self.fields(inode, problems);
        self.xattrs(inode, problems);
        if inode.is_symlink()
            && let Err(error) = self.image.link(inode)
        {
            problems.read(Kind::Symlink, inode.nid, &error);
        }
        let end = match inode.is_file() || inode.is_directory() || inode.is_symlink() {
            true => self.map(inode, problems),
            false => None,
        };
        self.space.add(Piece {
            device: device_of(inode.area),
            begin: inode.at,
            end: end.unwrap_or(inode.body_end()),
            used: Use::Metadata,
            nid: inode.nid,
            offset: 0,
        });
    }

    fn fields(&self, inode: &Inode, problems: &mut Problems) {
        let mut bad = |text: String| problems.inode(Kind::Inode, inode.nid, text);
        if inode.reserved {
            bad("reserved fields are not zero".into());
        }
        if inode.links == 0 {
            bad("no links".into());
        }
        let superblock = self.image.superblock();
        let special = !inode.is_file() && !inode.is_directory() && !inode.is_symlink();
        if special && (inode.size != 0 || inode.layout != Layout::Plain) {
            let (size, layout) = (inode.size, inode.layout);
            bad(format!("a special file with {size} bytes, {layout:?}"));
        }
        if inode.layout == Layout::Chunks && !inode.is_file() {
            bad("in chunks, which only files may be".into());
        }
        if inode.dot_omitted && !superblock.has(incompat::BIT48) {
            bad("no `.`, of which the superblock says nothing".into());
        }
        if !inode.is_compressed() && inode.data >> 32 != 0 && !superblock.has(incompat::BIT48) {
            let hole = inode.data as u32 == NO_BLOCK;
            if !hole && !special {
                bad("a block number of 48 bits, of which the superblock says nothing".into());
            }
        }
    }

    fn xattrs(&self, inode: &Inode, problems: &mut Problems) {
        let all = match self.image.xattrs(inode) {
            Ok(all) => all,
            Err(error) => return problems.read(Kind::Attributes, inode.nid, &error),
        };
        let mut bad = |text: String| problems.inode(Kind::Attributes, inode.nid, text);
        if all.reserved {
            bad("reserved bytes of its attributes are not zero".into());
        }
        let superblock = self.image.superblock();
        let filtered = superblock.compat & compat::XATTR_FILTER != 0
            && superblock.raw.xattr_filter_reserved == 0;
        let mut keys = Vec::with_capacity(all.list.len());
        for xattr in &all.list {
            let (index, name) = &xattr.key;
            if xattr.name.is_none() && !known(self.image, *index) && (*index, name.len()) != (0, 0)
            {
                bad(format!("an attribute whose prefix {index} is not known"));
            }
            if filtered && all.filter & xattr.filter_bit() != 0 {
                let name = name.escape_ascii();
                bad(format!("the name filter says that \"{name}\" is not there"));
            }
            keys.push(&xattr.key);
        }
        keys.sort_unstable();
        for pair in keys.windows(2) {
            if let [one, other] = pair
                && one == other
                && **one != (0, Vec::new())
            {
                bad(format!("the attribute \"{}\" twice", one.1.escape_ascii()));
            }
        }
    }

    /// Notes all that its contents use; where its metadata ends.
    fn map(&mut self, inode: &Inode, problems: &mut Problems) -> Option<u64> {
        let map = match self.image.map(inode) {
            Ok(map) => map,
            Err(error) => {
                problems.read(Kind::Map, inode.nid, &error);
                return None;
            }
        };
        let end = map.metadata_end();
        for extent in map.extents() {
            if !self.may_have_more(inode, problems) {
                break;
            }
            match extent {
                Ok(extent) => self.extent(inode, &extent, problems),
                Err(error) => {
                    problems.read(Kind::Map, inode.nid, &error);
                    break;
                }
            }
        }
        Some(end)
    }

    /// Whether an image of this size can have one more extent; if not, that is said once.
    fn may_have_more(&mut self, inode: &Inode, problems: &mut Problems) -> bool {
        match self.left.checked_sub(1) {
            Some(left) => self.left = left,
            None if self.over => return false,
            None => {
                self.over = true;
                let text = "more extents up to it than an image of this size can hold; \
                            those that follow are not looked at";
                problems.inode(Kind::Space, inode.nid, text);
            }
        }
        !self.over
    }

    fn extent(&mut self, inode: &Inode, extent: &Extent, problems: &mut Problems) {
        let (device, begin, length) = match extent.place {
            Where::Hole => return,
            Where::Packed(at) => return self.fragment(inode, extent, at, problems),
            Where::Metadata(area, at, length) => {
                self.seen(inode, extent, at, problems);
                (device_of(area), at, length)
            }
            Where::Device(device, at, length) => (Some(device), at, length),
        };
        let place = device.filter(|_| !matches!(extent.place, Where::Metadata(..)));
        if let Some(device) = place {
            if self.image.device_size(device).is_none() && self.is_named(device) {
                self.space.unseen += 1;
                return;
            }
            if let Err(error) = self.image.reachable(inode, extent) {
                return problems.read(Kind::Map, inode.nid, &error);
            }
            self.within(inode, device, begin, length, problems);
        }
        let used = match (extent.coding.is_compressed(), inode.layout) {
            (true, _) => Use::Cluster {
                coding: extent.coding,
                length: extent.length,
                partial: extent.partial,
            },
            (false, Layout::Full | Layout::Compact) => Use::Stored,
            (false, Layout::Chunks) => Use::Chunk,
            (false, _) => Use::Blocks,
        };
        self.space.add(Piece {
            device,
            begin,
            end: begin.saturating_add(length),
            used,
            nid: inode.nid,
            offset: extent.offset,
        });
    }

    /// Linux (6.18) looks for the first byte of compressed data beside an inode up to where
    /// the first block of a page ends: where data begins just there, it cannot be read. On
    /// machines whose pages are larger than [`PAGE`], images with larger blocks have such
    /// places as well; they are good on the others.
    fn seen(&self, inode: &Inode, extent: &Extent, at: u64, problems: &mut Problems) {
        let block = self.image.superblock().block_size() as u64;
        if extent.coding.is_compressed() && block < PAGE && at % PAGE == block {
            let text = format!(
                "a compressed tail at byte {at}, where the second block of a page begins: \
                 Linux does not read it"
            );
            problems.inode(Kind::Map, inode.nid, text);
        }
    }

    fn is_named(&self, device: Device) -> bool {
        usize::from(device.0) <= self.image.superblock().devices.len()
    }

    /// Data must lie where the superblock or the table says that the device has blocks.
    fn within(&self, inode: &Inode, device: Device, at: u64, length: u64, problems: &mut Problems) {
        let superblock = self.image.superblock();
        let blocks = match device.0.checked_sub(1) {
            None => superblock.blocks,
            Some(index) => match superblock.devices.get(usize::from(index)) {
                Some(slot) => slot.blocks,
                None => return,
            },
        };
        if at.saturating_add(length) > blocks << superblock.block_bits {
            let text =
                format!("{length} bytes at byte {at} of {device}, which has {blocks} blocks");
            problems.inode(Kind::Map, inode.nid, text);
        }
    }

    fn fragment(&self, inode: &Inode, extent: &Extent, at: u64, problems: &mut Problems) {
        let size = self.image.packed().map_or(0, |packed| packed.size);
        let length = extent.length;
        if at.checked_add(length).is_none_or(|end| end > size) {
            let text = format!("a fragment of {length} bytes at byte {at} of {size}");
            problems.inode(Kind::Map, inode.nid, text);
        }
    }
}

/// Whether an index of a prefix stands for one, shown or hidden.
fn known<S: Source>(image: &Image<S>, index: u8) -> bool {
    // Names without any prefix are hidden ones; so only long prefixes begin.
    index == 0 && image.prefixes().iter().any(|prefix| prefix.base == 0)
}

/// Where the pieces of an area are noted: none for the metabox, which is no device.
fn device_of(area: Area) -> Option<Device> {
    match area {
        Area::Image => Some(Device(0)),
        Area::Metabox => None,
    }
}
