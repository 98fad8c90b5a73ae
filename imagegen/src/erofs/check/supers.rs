//! The superblock, the table of devices, and the sums.

use super::problem::{Kind, Problems};
use crate::erofs::format::directory::IN_METABOX;
use crate::erofs::format::superblock::{compat, incompat};
use crate::erofs::read::{Device, Image};
use crate::medium::Source;

/// Everything but what needs the inodes.
pub(super) fn check<S: Source>(image: &Image<S>, problems: &mut Problems) {
    let superblock = image.superblock();
    let raw = &superblock.raw;
    let mut bad = |text: String| problems.add(Kind::Superblock, format!("superblock: {text}"));
    if raw.reserved != [0; 2] || raw.reserved2.get() != 0 {
        bad("reserved fields are not zero".into());
    }
    if raw.fixed_nanoseconds.get() >= 1_000_000_000 {
        bad(format!("{} nanoseconds", raw.fixed_nanoseconds.get()));
    }
    for (block, what) in [
        (raw.meta_block.get(), "metadata"),
        (raw.xattr_block.get(), "shared attributes"),
    ] {
        let elsewhere = what == "shared attributes"
            && superblock.compat & compat::SHARED_XATTRS_IN_METABOX != 0;
        if u64::from(block) > superblock.blocks && !elsewhere {
            let blocks = superblock.blocks;
            bad(format!("{what} from block {block} on, of {blocks}"));
        }
    }
    if superblock.compat & compat::ISHARE_XATTRS != 0
        && raw.share_xattr_prefix >= raw.xattr_prefixes
    {
        bad(format!("no long prefix {}", raw.share_xattr_prefix));
    }
    if superblock.root & IN_METABOX != 0 && !superblock.has(incompat::METABOX) {
        bad("the root lies in a metabox, of which there is none".into());
    }
    devices(image, problems);
    match image.checksum_holds() {
        Ok(Some(false)) => problems.add(Kind::Checksum, "superblock: the checksum does not hold"),
        Ok(_) => {}
        Err(error) => problems.add(Kind::Checksum, error.to_string()),
    }
}

/// Whether all that the image says to have is there, and no device lies over another.
fn devices<S: Source>(image: &Image<S>, problems: &mut Problems) {
    let superblock = image.superblock();
    let bits = superblock.block_bits;
    let slots = superblock.devices.iter().map(|slot| slot.blocks);
    for (number, blocks) in std::iter::once(superblock.blocks).chain(slots).enumerate() {
        let device = Device(u16::try_from(number).unwrap_or(u16::MAX));
        let wanted = blocks << bits;
        match image.device_size(device) {
            Some(size) if size < wanted => {
                let text = format!("{device} has {size} bytes, and should have {wanted}");
                problems.add(Kind::Device, text);
            }
            _ => {}
        }
    }
    let mut ranges: Vec<_> = superblock.devices.iter().collect();
    ranges.retain(|slot| slot.address != 0);
    ranges.sort_by_key(|slot| slot.address);
    for pair in ranges.windows(2) {
        if let [one, other] = pair
            && one.address.saturating_add(one.blocks) > other.address
        {
            let text = format!(
                "superblock: the devices {} and {}",
                one.name(),
                other.name()
            );
            problems.add(Kind::Superblock, format!("{text} share addresses"));
        }
    }
}

/// The count of inodes. What writes images may count more than the root leads to (the
/// packed inode, inodes of earlier states), but not fewer.
pub(super) fn check_sums<S: Source>(image: &Image<S>, inodes: u64, problems: &mut Problems) {
    let said = image.superblock().raw.inodes.get();
    if said < inodes {
        let text = format!("superblock: {said} inodes, but the root leads to {inodes}");
        problems.add(Kind::Sums, text);
    }
}
