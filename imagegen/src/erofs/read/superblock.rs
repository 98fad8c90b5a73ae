//! The superblock with everything that it says directly: features, algorithms, devices.

use super::error::{ReadError, Result, damaged, unknown};
use super::{Device, Place, bytes_at};
use crate::erofs::format::superblock::{
    self as format, DeviceSlot, Slot0, Superblock as Raw, compat, incompat,
};
use crate::erofs::format::{U16, U32, directory, superblock};
use crate::medium::Source;
use zerocopy::FromBytes;

const NAME: &str = "superblock";
const PLACE: Place = Place::Byte(format::AT);

/// A verified superblock, its numbers joined from their halves.
#[derive(Debug, Clone)]
pub struct Superblock {
    /// As it lies on the disk.
    pub raw: Raw,
    /// Logarithm of the block size.
    pub block_bits: u8,
    /// Features that a reader may ignore.
    pub compat: u32,
    /// Features that a reader must know.
    pub incompat: u32,
    /// Blocks of the image itself.
    pub blocks: u64,
    /// Root directory.
    pub root: u64,
    /// Packed inode; none if there is none.
    pub packed: Option<u64>,
    /// Metabox inode.
    pub metabox: Option<u64>,
    /// Seconds of compact inodes count from here.
    pub epoch: i64,
    /// Bit per algorithm that files may use.
    pub algorithms: u16,
    /// Devices besides the image.
    pub devices: Vec<Slot>,
}

/// A device of the table.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slot {
    /// What it is called.
    pub tag: Vec<u8>,
    /// Its blocks.
    pub blocks: u64,
    /// Its first block in the space that all devices share; 0 for none.
    pub address: u64,
}

impl Slot {
    /// The tag for people.
    pub fn name(&self) -> String {
        let end = self.tag.iter().position(|byte| *byte == 0);
        let text = self.tag.get(..end.unwrap_or(self.tag.len()));
        text.unwrap_or_default().escape_ascii().to_string()
    }
}

impl Superblock {
    /// Reads and believes what can be believed; the checksum is a question of its own
    /// ([`Self::checksum_holds`]), because the format lets readers ignore it.
    ///
    /// # Errors
    /// If it cannot be read, is no EROFS, has features that are not known, or is damaged.
    pub(super) fn read<S: Source>(source: &S, size: u64) -> Result<Self> {
        let bytes = bytes_at(source, size, Device(0), format::AT, format::SIZE)?;
        let raw = Raw::read_from_bytes(&bytes)
            .map_err(|_| damaged(NAME, PLACE, "it ends before it is whole"))?;
        if raw.magic.get() != format::MAGIC {
            return Err(ReadError::Alien(raw.magic.get()));
        }
        if !(9..=16).contains(&raw.block_bits) {
            let flaw = format!("block size 2^{}, not 2^9 to 2^16", raw.block_bits);
            return Err(damaged(NAME, PLACE, flaw));
        }
        let features = raw.feature_incompat.get();
        if features & !incompat::ALL != 0 {
            let what = format!("features {:#x}", features & !incompat::ALL);
            return Err(unknown(NAME, PLACE, what));
        }
        if raw.directory_block_bits != 0 {
            return Err(unknown(NAME, PLACE, "directory blocks of another size"));
        }
        let mut this = Self {
            block_bits: raw.block_bits,
            compat: raw.feature_compat.get(),
            incompat: features,
            blocks: raw.blocks_low.get().into(),
            root: raw.root_nid_or_blocks_high.get().into(),
            packed: Some(raw.packed_nid.get()).filter(|nid| *nid != 0),
            metabox: None,
            epoch: raw.epoch.get() as i64,
            algorithms: 1,
            devices: Vec::new(),
            raw,
        };
        this.join(source, size)?;
        Ok(this)
    }

    fn join<S: Source>(&mut self, source: &S, size: u64) -> Result<()> {
        // The root's number stays where it was when 2 bytes hold it and no block number is
        // longer than 32 bits.
        if self.has(incompat::BIT48) && self.raw.root_nid.get() != 0 {
            self.root = self.raw.root_nid.get();
            let high = u64::from(self.raw.root_nid_or_blocks_high.get());
            self.blocks |= high << 32;
        }
        if self.has(incompat::METABOX) {
            if self.raw.extension_slots == 0 {
                return Err(damaged(NAME, PLACE, "a metabox, but no slot that names it"));
            }
            let at = format::AT + format::SIZE as u64;
            let slot = bytes_at(source, size, Device(0), at, format::SLOT)?;
            let slot = Slot0::read_from_bytes(&slot)
                .map_err(|_| damaged(NAME, PLACE, "slot 0 is not whole"))?;
            self.metabox = Some(slot.metabox_nid.get());
        }
        for (nid, what) in [(self.packed, "packed"), (self.metabox, "metabox")] {
            if nid.is_some_and(|nid| nid & directory::IN_METABOX != 0) {
                let flaw = format!("the {what} inode lies in the metabox");
                return Err(damaged(NAME, PLACE, flaw));
            }
        }
        if self.has(incompat::COMPRESSION_CONFIGS) {
            self.algorithms = self.raw.algorithms_or_lz4_distance.get();
            if self.algorithms >> 4 != 0 {
                let what = format!("algorithms {:#x}", self.algorithms);
                return Err(unknown(NAME, PLACE, what));
            }
        }
        // The bit means a second algorithm, too: then the count is 0.
        if self.has(incompat::DEVICE_TABLE) {
            self.devices = self.read_devices(source, size)?;
        }
        Ok(())
    }

    fn read_devices<S: Source>(&self, source: &S, size: u64) -> Result<Vec<Slot>> {
        let count = usize::from(self.raw.extra_devices.get());
        let at = u64::from(self.raw.device_table.get()) * size_of::<DeviceSlot>() as u64;
        let bytes = bytes_at(source, size, Device(0), at, count * size_of::<DeviceSlot>())?;
        let wide = self.has(incompat::BIT48);
        let join = |low: U32, high: U16| {
            u64::from(low.get()) | if wide { u64::from(high.get()) << 32 } else { 0 }
        };
        let slots = bytes.chunks_exact(size_of::<DeviceSlot>());
        let slots = slots.filter_map(|slot| DeviceSlot::read_from_bytes(slot).ok());
        Ok(slots
            .map(|slot| Slot {
                tag: slot.tag.to_vec(),
                blocks: join(slot.blocks_low, slot.blocks_high),
                address: join(slot.address_low, slot.address_high),
            })
            .collect())
    }

    /// Whether a feature that a reader must know is in use.
    pub fn has(&self, feature: u32) -> bool {
        self.incompat & feature != 0
    }

    /// Bytes of a block.
    pub fn block_size(&self) -> usize {
        1 << self.block_bits
    }

    /// Bytes that the superblock has with its slots.
    pub fn length(&self) -> u64 {
        superblock::SIZE as u64 + u64::from(self.raw.extension_slots) * superblock::SLOT as u64
    }

    /// Whether the checksum is that of the first block; none if there is no checksum.
    ///
    /// # Errors
    /// If the block cannot be read.
    pub(super) fn checksum_holds<S: Source>(&self, source: &S, size: u64) -> Result<Option<bool>> {
        if self.compat & compat::SB_CHKSUM == 0 {
            return Ok(None);
        }
        // From the superblock to the end of the first block, or one block if that is shorter.
        let block = self.block_size();
        let length = match block > format::AT as usize {
            true => block - format::AT as usize,
            false => block,
        };
        let mut bytes = bytes_at(source, size, Device(0), format::AT, length)?;
        if let Some(field) = bytes.get_mut(4..8) {
            field.fill(0);
        }
        let sum = !crc32c::crc32c(&bytes);
        Ok(Some(sum == self.raw.checksum.get()))
    }
}
