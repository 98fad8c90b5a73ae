//! The headers of a group: superblock copy, AGF, AGI, AGFL.

use super::block::Wanted;
use super::{Label, Place, Reader, Result, Source, shape, take};
use crate::xfs::format::group::{self, Agf, Agfl, Agi};
use crate::xfs::format::superblock::{self, Superblock};
use crate::xfs::format::{NULL_AG_BLOCK, U32};
use zerocopy::FromBytes;

/// Most levels a B-tree of a group may have (`XFS_BTREE_MAXLEVELS`).
pub(crate) const MAX_LEVELS: u32 = 9;

impl<S: Source> Reader<S> {
    /// Sector `index` of group `ag`: 0 superblock, 1 AGF, 2 AGI, 3 AGFL.
    fn header(&self, ag: u32, index: u64) -> Result<Vec<u8>> {
        let sector = self.geometry.sector_size();
        self.bytes(self.geometry.byte(ag, 0) + index * sector as u64, sector)
    }

    fn wanted<'a>(
        &self,
        structure: &'static str,
        ag: u32,
        index: u64,
        magic: &'a [u32],
        crc_at: usize,
    ) -> Wanted<'a> {
        let byte = self.geometry.byte(ag, 0) + (index << self.geometry.sector_log);
        Wanted {
            structure,
            place: Place::Group(ag),
            magic,
            crc_at,
            daddr: byte >> 9,
            owner: ag.into(),
        }
    }

    /// The copy of the superblock in group `ag`. Its identity is compared by `check`:
    /// `label` and others tell what may differ.
    ///
    /// # Errors
    /// If it cannot be read or its magic number or checksum is wrong.
    pub fn superblock_copy(&self, ag: u32) -> Result<Superblock> {
        let bytes = self.header(ag, 0)?;
        let found: Superblock = take("superblock copy", Place::Group(ag), &bytes, 0)?;
        let magic = [superblock::MAGIC];
        let wanted = self.wanted("superblock copy", ag, 0, &magic, superblock::CRC_AT);
        let label = Label {
            magic: found.magic.get(),
            uuid: self.meta_uuid,
            daddr: None,
            owner: None,
            lsn: found.lsn.get(),
        };
        self.verify(&bytes, &label, &wanted)?;
        Ok(found)
    }

    /// The AGF of group `ag`, with roots inside the group and levels that can be.
    ///
    /// # Errors
    /// If it cannot be read or is damaged.
    pub fn agf(&self, ag: u32) -> Result<Agf> {
        let (name, place) = ("AGF", Place::Group(ag));
        let bytes = self.header(ag, 1)?;
        let agf: Agf = take(name, place, &bytes, 0)?;
        let magic = [group::AGF_MAGIC];
        let wanted = self.wanted(name, ag, 1, &magic, group::AGF_CRC_AT);
        let label = Label {
            magic: agf.magic.get(),
            uuid: agf.uuid,
            daddr: None,
            owner: Some(agf.seqno.get().into()),
            lsn: agf.lsn.get(),
        };
        self.verify(&bytes, &label, &wanted)?;
        self.version(name, place, agf.version.get())?;
        let features = &self.geometry.features;
        let blocks = self.geometry.group_blocks(ag);
        if agf.length.get() != blocks {
            let text = format!("length {} of {blocks} blocks", agf.length);
            return Err(shape(name, place, text));
        }
        let root = |which, root, level| self.root(name, ag, which, root, level);
        root("bno", agf.bno_root, agf.bno_level)?;
        root("cnt", agf.cnt_root, agf.cnt_level)?;
        if features.rmapbt {
            root("rmap", agf.rmap_root, agf.rmap_level)?;
        }
        if features.reflink {
            root("refcount", agf.refcount_root, agf.refcount_level)?;
        }
        let slots = self.geometry.agfl_slots();
        let (first, last, count) = (agf.fl_first.get(), agf.fl_last.get(), agf.fl_count.get());
        if first >= slots || last >= slots || count > slots {
            let text = format!("AGFL slots {first}..{last}, {count} of {slots}");
            return Err(shape(name, place, text));
        }
        Ok(agf)
    }

    fn version(&self, name: &'static str, place: Place, found: u32) -> Result<()> {
        match found {
            group::VERSION => Ok(()),
            found => Err(shape(name, place, format!("version {found}"))),
        }
    }

    /// The AGI of group `ag`, with roots inside the group and levels that can be.
    ///
    /// # Errors
    /// If it cannot be read or is damaged.
    pub fn agi(&self, ag: u32) -> Result<Agi> {
        let (name, place) = ("AGI", Place::Group(ag));
        let bytes = self.header(ag, 2)?;
        let agi: Agi = take(name, place, &bytes, 0)?;
        let magic = [group::AGI_MAGIC];
        let wanted = self.wanted(name, ag, 2, &magic, group::AGI_CRC_AT);
        let label = Label {
            magic: agi.magic.get(),
            uuid: agi.uuid,
            daddr: None,
            owner: Some(agi.seqno.get().into()),
            lsn: agi.lsn.get(),
        };
        self.verify(&bytes, &label, &wanted)?;
        self.version(name, place, agi.version.get())?;
        let blocks = self.geometry.group_blocks(ag);
        if agi.length.get() != blocks {
            let text = format!("length {} of {blocks} blocks", agi.length);
            return Err(shape(name, place, text));
        }
        self.root(name, ag, "inode", agi.root, agi.level)?;
        if self.geometry.features.finobt {
            self.root(name, ag, "free inode", agi.free_root, agi.free_level)?;
        }
        Ok(agi)
    }

    fn root(&self, name: &'static str, ag: u32, which: &str, root: U32, level: U32) -> Result<()> {
        let inside = root.get() > 0 && root.get() < self.geometry.group_blocks(ag);
        if inside && (1..=MAX_LEVELS).contains(&level.get()) {
            return Ok(());
        }
        let text = format!("{which} B-tree at block {root} with {level} levels");
        Err(shape(name, Place::Group(ag), text))
    }

    /// The blocks in the AGFL of group `ag`, in the order they will be used.
    ///
    /// # Errors
    /// If AGFL or `agf` disagree, or a slot in use names no block of the group.
    pub fn agfl(&self, ag: u32, agf: &Agf) -> Result<Vec<u32>> {
        let (name, place) = ("AGFL", Place::Group(ag));
        let bytes = self.header(ag, 3)?;
        let agfl: Agfl = take(name, place, &bytes, 0)?;
        let magic = [group::AGFL_MAGIC];
        let wanted = self.wanted(name, ag, 3, &magic, group::AGFL_CRC_AT);
        let label = Label {
            magic: agfl.magic.get(),
            uuid: agfl.uuid,
            daddr: None,
            owner: Some(agfl.seqno.get().into()),
            lsn: agfl.lsn.get(),
        };
        self.verify(&bytes, &label, &wanted)?;
        let slots = self.geometry.agfl_slots();
        let (first, count) = (agf.fl_first.get(), agf.fl_count.get());
        let used = (0..count).map(|index| (first + index) % slots);
        if count > 0 && used.clone().next_back() != Some(agf.fl_last.get()) {
            let text = format!("{count} blocks do not end at slot {}", agf.fl_last);
            return Err(shape(name, place, text));
        }
        let group = self.geometry.group_blocks(ag);
        used.map(|slot| {
            let at = size_of::<Agfl>() + 4 * slot as usize;
            let block = bytes
                .get(at..at + 4)
                .and_then(|b| U32::read_from_bytes(b).ok());
            let block = block.map_or(NULL_AG_BLOCK, U32::get);
            if block == 0 || block >= group {
                return Err(shape(
                    name,
                    place,
                    format!("slot {slot} holds block {block}"),
                ));
            }
            Ok(block)
        })
        .collect()
    }
}
