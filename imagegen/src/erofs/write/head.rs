//! What an image begins with: the superblock, the table of devices, long prefixes of
//! names. Made last, because it says how much there is.

use super::super::compress::config::Configurations;
use super::super::format::superblock::{
    AT, DeviceSlot, MAGIC, SIZE, SLOT, Slot0, Superblock, compat, incompat,
};
use super::inode::Clock;
use super::options::Options;
use super::xattrs::Prefixes;
use uuid::Uuid;
use zerocopy::IntoBytes;

/// Bytes of a device's slot, which is also the unit of their place.
const DEVICE_SLOT: usize = size_of::<DeviceSlot>();

/// Where extension slots lie, in bytes.
const SLOTS_AT: usize = AT as usize + SIZE;

/// Where the parts of the head lie, in bytes of the image.
#[derive(Debug)]
pub(crate) struct Head<'a> {
    options: &'a Options,
    prefixes: &'a Prefixes,
    configurations: &'a Configurations,
    /// Extension slots of the superblock.
    slots: usize,
    configurations_at: usize,
    devices_at: usize,
    devices: usize,
    prefixes_at: usize,
    /// Where it ends.
    pub(crate) end: usize,
}

/// What the superblock says of what was written.
#[derive(Debug)]
pub(crate) struct Totals {
    pub(crate) uuid: Uuid,
    pub(crate) clock: Clock,
    /// Devices besides the primary one.
    pub(crate) devices: Vec<Device>,
    pub(crate) blocks: u64,
    pub(crate) inodes: u64,
    pub(crate) root_nid: u64,
    /// The packed inode; 0 for none.
    pub(crate) packed_nid: u64,
    /// The metabox; 0 for none.
    pub(crate) metabox_nid: u64,
    pub(crate) compat: u32,
    pub(crate) incompat: u32,
    /// Seconds since the epoch.
    pub(crate) build_time: u32,
}

/// A device besides the primary one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Device {
    /// What it is called, at most 64 bytes.
    pub(crate) tag: Vec<u8>,
    pub(crate) blocks: u64,
}

impl Totals {
    /// Whether a number has more bits than its field has without [`incompat::BIT48`].
    pub(crate) fn needs_bit48(&self) -> bool {
        let devices = self.devices.iter().map(|device| device.blocks);
        let most = devices.fold(self.blocks, u64::max);
        most > u64::from(u32::MAX) || self.root_nid > u64::from(u16::MAX)
    }
}

impl<'a> Head<'a> {
    /// Of an image with so many devices besides the primary one.
    pub(crate) fn new(
        options: &'a Options,
        devices: usize,
        prefixes: &'a Prefixes,
        configurations: &'a Configurations,
    ) -> Self {
        let slots = usize::from(options.metadata.is_some());
        let configurations_at = SLOTS_AT + slots * SLOT;
        let after = configurations_at + configurations.bytes.len();
        let first = match devices {
            0 => after.next_multiple_of(4),
            _ => after.next_multiple_of(DEVICE_SLOT),
        };
        let after = first + devices * DEVICE_SLOT;
        Self {
            options,
            prefixes,
            configurations,
            slots,
            configurations_at,
            devices_at: first,
            devices,
            prefixes_at: after,
            end: after + prefixes.encode().len(),
        }
    }

    /// Writes the head into `bytes`, the image's first blocks with what else they hold, and
    /// seals it.
    pub(crate) fn write(&self, bytes: &mut [u8], totals: &Totals) {
        let mut superblock = self.superblock(totals);
        put(bytes, AT as usize, superblock.as_bytes());
        if self.slots > 0 {
            let slot = Slot0 {
                metabox_nid: totals.metabox_nid.into(),
                ..Slot0::default()
            };
            put(bytes, SLOTS_AT, slot.as_bytes());
        }
        put(bytes, self.configurations_at, &self.configurations.bytes);
        let mut address = totals.blocks;
        for (number, device) in totals.devices.iter().enumerate() {
            let at = self.devices_at + number * DEVICE_SLOT;
            put(bytes, at, slot(device, address).as_bytes());
            address += device.blocks;
        }
        put(bytes, self.prefixes_at, &self.prefixes.encode());
        let block = self.options.block_size as usize;
        let sealed = match block > AT as usize {
            true => AT as usize..block,
            false => AT as usize..AT as usize + block,
        };
        // The format's sum is not inverted at the end, that of the crate is.
        superblock.checksum = (!crc32c::crc32c(&bytes[sealed])).into();
        put(bytes, AT as usize, superblock.as_bytes());
    }

    fn superblock(&self, totals: &Totals) -> Superblock {
        let (options, prefixes, clock) = (self.options, self.prefixes, &totals.clock);
        let mut label = [0; 16];
        label[..options.label.len()].copy_from_slice(&options.label);
        let mut superblock = Superblock {
            magic: MAGIC.into(),
            feature_compat: (totals.compat | compat::SB_CHKSUM | compat::MTIME).into(),
            block_bits: options.block_bits() as u8,
            extension_slots: self.slots as u8,
            inodes: totals.inodes.into(),
            epoch: (clock.epoch as u64).into(),
            fixed_nanoseconds: clock.nanoseconds.into(),
            blocks_low: (totals.blocks as u32).into(),
            uuid: *totals.uuid.as_bytes(),
            label,
            feature_incompat: (totals.incompat | self.configurations.incompat).into(),
            algorithms_or_lz4_distance: self.configurations.word.into(),
            packed_nid: totals.packed_nid.into(),
            build_time: totals.build_time.into(),
            ..Superblock::default()
        };
        if totals.incompat & incompat::BIT48 != 0 {
            superblock.root_nid_or_blocks_high = ((totals.blocks >> 32) as u16).into();
            superblock.root_nid = totals.root_nid.into();
        } else {
            superblock.root_nid_or_blocks_high = (totals.root_nid as u16).into();
        }
        if self.devices > 0 {
            superblock.extra_devices = (self.devices as u16).into();
            superblock.device_table = ((self.devices_at / DEVICE_SLOT) as u16).into();
            let incompat = superblock.feature_incompat.get() | incompat::DEVICE_TABLE;
            superblock.feature_incompat = incompat.into();
        }
        if prefixes.count() > 0 {
            superblock.xattr_prefixes = prefixes.count() as u8;
            superblock.xattr_prefix_at = ((self.prefixes_at / 4) as u32).into();
            let compat = superblock.feature_compat.get() | compat::PLAIN_XATTR_PREFIXES;
            superblock.feature_compat = compat.into();
            let incompat = superblock.feature_incompat.get() | incompat::XATTR_PREFIXES;
            superblock.feature_incompat = incompat.into();
        }
        superblock
    }
}

fn slot(device: &Device, address: u64) -> DeviceSlot {
    let mut tag = [0; 64];
    let length = device.tag.len().min(tag.len());
    tag[..length].copy_from_slice(&device.tag[..length]);
    DeviceSlot {
        tag,
        blocks_low: (device.blocks as u32).into(),
        blocks_high: ((device.blocks >> 32) as u16).into(),
        address_low: (address as u32).into(),
        address_high: ((address >> 32) as u16).into(),
        reserved: [0; 52],
    }
}

fn put(bytes: &mut [u8], at: usize, part: &[u8]) {
    bytes[at..at + part.len()].copy_from_slice(part);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_too_large_for_its_field_needs_more_bits() {
        let needs = |blocks, device: Option<u64>, root_nid| {
            let device = device.map(|blocks| Device {
                tag: Vec::new(),
                blocks,
            });
            let totals = Totals {
                metabox_nid: 0,
                uuid: Uuid::nil(),
                clock: Clock {
                    epoch: 0,
                    nanoseconds: 0,
                    counts: false,
                },
                devices: Vec::from_iter(device),
                blocks,
                inodes: 1,
                root_nid,
                packed_nid: 0,
                compat: 0,
                incompat: 0,
                build_time: 0,
            };
            totals.needs_bit48()
        };
        let (block, nid) = (u64::from(u32::MAX), u64::from(u16::MAX));
        assert!(!needs(block, Some(block), nid));
        assert!(needs(block + 1, None, 1));
        assert!(needs(1, Some(block + 1), 1));
        assert!(needs(1, None, nid + 1));
    }
}
