//! A geometry read from a superblock: every field is checked, so that no arithmetic on
//! the geometry can overflow, whatever the disk said (`xfs_validate_sb_common` and
//! `xfs_sb_validate_v5_features` in `xfs_sb.c`).
//!
//! What csnap does not know is refused by name: version 4, realtime devices, external
//! logs, metadata directories, features that are newer than this code.

use super::{Features, Geometry};
use crate::xfs::format::superblock::{MAGIC, Superblock, features2, incompat, ro_compat, version};
use uuid::Uuid;

/// Why a superblock gives no geometry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Refusal {
    /// There is no XFS file system.
    #[error("no XFS file system: magic number {0:#010x} instead of \"XFSB\"")]
    NotXfs(u32),
    /// A valid file system that csnap cannot read.
    #[error("{0} is not supported")]
    Unsupported(String),
    /// A value that cannot be.
    #[error("superblock: {field} is {value}, {rule}")]
    Field {
        /// Which field, as `xfs_db` calls it.
        field: &'static str,
        /// What it holds.
        value: u64,
        /// What it should be.
        rule: &'static str,
    },
}

/// Smallest group in blocks (`XFS_MIN_AG_BLOCKS`).
const MIN_AG_BLOCKS: u32 = 64;
/// Largest group in bytes (`XFS_AG_MAX_BYTES`).
const MAX_AG_BYTES: u64 = 1 << 40;
/// Largest log in bytes (`XFS_MAX_LOG_BYTES`), rounded up.
const MAX_LOG_BYTES: u64 = 1 << 31;
/// Largest stripe width in bytes that anybody has.
const MAX_STRIPE_BYTES: u64 = 1 << 31;

/// Names of incompatible features which csnap does not read.
const FOREIGN: [(u32, &str); 4] = [
    (
        incompat::NEEDS_REPAIR,
        "a file system marked as needing repair (run xfs_repair)",
    ),
    (incompat::METADIR, "the metadata directory tree (metadir)"),
    (incompat::ZONED, "a zoned realtime device (zoned)"),
    (
        incompat::ZONE_GAPS,
        "gaps between realtime zones (zone_gaps)",
    ),
];
const KNOWN: u32 = incompat::FTYPE
    | incompat::SPARSE_INODES
    | incompat::META_UUID
    | incompat::BIGTIME
    | incompat::NREXT64
    | incompat::EXCHANGE
    | incompat::PARENT;

impl Geometry {
    /// The geometry that superblock `sb` describes. Magic and version come first, so that
    /// what is no XFS, or an old one, is called so. The checksum is the caller's matter.
    ///
    /// # Errors
    /// [`Refusal`], naming the field or the feature.
    pub fn from_superblock(sb: &Superblock) -> Result<Self, Refusal> {
        if sb.magic.get() != MAGIC {
            return Err(Refusal::NotXfs(sb.magic.get()));
        }
        refuse_foreign(sb)?;
        check_sizes(sb)?;
        check_groups(sb)?;
        let geometry = build(sb);
        check_layout(sb, &geometry)?;
        Ok(geometry)
    }
}

fn unsupported<T>(what: impl Into<String>) -> Result<T, Refusal> {
    Err(Refusal::Unsupported(what.into()))
}

fn rule(
    holds: bool,
    field: &'static str,
    value: impl Into<u64>,
    rule: &'static str,
) -> Result<(), Refusal> {
    let value = value.into();
    if holds {
        Ok(())
    } else {
        Err(Refusal::Field { field, value, rule })
    }
}

fn refuse_foreign(sb: &Superblock) -> Result<(), Refusal> {
    let number = sb.version.get() & 0xf;
    if number != version::FIVE {
        return unsupported(format!("XFS version {number} (only version 5 is)"));
    }
    let bits = sb.features_incompat.get();
    if let Some((_, name)) = FOREIGN.iter().find(|(bit, _)| bits & bit != 0) {
        return unsupported(*name);
    }
    if bits & !KNOWN != 0 {
        let unknown = bits & !KNOWN;
        return unsupported(format!(
            "an incompatible feature newer than csnap ({unknown:#x})"
        ));
    }
    if bits & incompat::FTYPE == 0 {
        return unsupported("version 5 without the kind of file in directories (ftype=0)");
    }
    if sb.rblocks.get() != 0 || sb.rextents.get() != 0 {
        return unsupported("a realtime device");
    }
    if sb.log_start.get() == 0 {
        return unsupported("an external log");
    }
    let needed = version::NLINK | version::LOG_V2 | version::EXTFLG | version::DIR_V2;
    let all = needed | version::MORE;
    let value = sb.version.get();
    rule(
        value & all == all,
        "versionnum",
        value,
        "without what version 5 always has",
    )?;
    let value = sb.features2.get();
    rule(
        value & features2::CRC != 0,
        "features2",
        value,
        "without checksums",
    )
}

fn check_sizes(sb: &Superblock) -> Result<(), Refusal> {
    let power =
        |size: u32, log: u8, from: u8, to: u8| (from..=to).contains(&log) && size == 1 << log;
    let (block, sector) = (sb.block_size.get(), u32::from(sb.sector_size.get()));
    let inode = u32::from(sb.inode_size.get());
    let (blog, slog, ilog) = (sb.block_log, sb.sector_log, sb.inode_log);
    rule(
        power(block, blog, 10, 16),
        "blocksize",
        block,
        "not 2^blocklog of 1024 to 65536",
    )?;
    rule(
        power(sector, slog, 9, 15),
        "sectsize",
        sector,
        "not 2^sectlog of 512 to 32768",
    )?;
    rule(slog <= blog, "sectsize", sector, "larger than a block")?;
    rule(
        power(inode, ilog, 9, 11),
        "inodesize",
        inode,
        "not 2^inodelog of 512 to 2048",
    )?;
    rule(ilog < blog, "inodesize", inode, "larger than half a block")?;
    let per_block = u32::from(sb.inodes_per_block.get());
    let log = sb.inopb_log;
    let right = log == blog - ilog && power(per_block, log, 0, 16);
    rule(right, "inopblock", per_block, "not the inodes of a block")?;
    let dir = sb.dir_block_log;
    rule(
        dir <= 16 - blog,
        "dirblklog",
        dir,
        "directory blocks above 65536 bytes",
    )?;
    let busy = sb.in_progress;
    rule(
        busy == 0,
        "inprogress",
        busy,
        "mkfs.xfs or a copy has not finished",
    )?;
    rule(
        sb.imax_percent <= 100,
        "imax_pct",
        sb.imax_percent,
        "above 100 percent",
    )
}

fn check_groups(sb: &Superblock) -> Result<(), Refusal> {
    let (size, count, blog) = (sb.ag_blocks.get(), sb.ag_count.get(), sb.block_log);
    let blocks = sb.dblocks.get();
    rule(size >= MIN_AG_BLOCKS, "agblocks", size, "below 64")?;
    let bytes = u64::from(size) << blog;
    rule(bytes <= MAX_AG_BYTES, "agblocks", size, "more than 1 TiB")?;
    let bits = (u32::BITS - (size - 1).leading_zeros()) as u8;
    rule(
        sb.ag_block_log == bits,
        "agblklog",
        sb.ag_block_log,
        "not log2 of agblocks",
    )?;
    rule(count > 0, "agcount", count, "no group")?;
    let last = u64::from(count - 1) * u64::from(size);
    let (least, most) = (last + u64::from(MIN_AG_BLOCKS), last + u64::from(size));
    let fits = (least..=most).contains(&blocks);
    rule(
        fits,
        "dblocks",
        blocks,
        "not what agcount groups of agblocks hold",
    )?;
    rule(
        blocks <= i64::MAX as u64 >> blog,
        "dblocks",
        blocks,
        "beyond 2^63 bytes",
    )?;
    let inode_bits = 32 - count.leading_zeros() + u32::from(bits + sb.inopb_log);
    rule(
        inode_bits <= 56,
        "agcount",
        count,
        "inode numbers beyond 2^56",
    )
}

fn check_layout(sb: &Superblock, geometry: &Geometry) -> Result<(), Refusal> {
    let (start, length) = (geometry.log_start, u64::from(geometry.log_blocks));
    let held = length > 0 && geometry.holds(start, length);
    rule(held, "logstart", start, "a log outside its group")?;
    let bytes = length << geometry.block_log;
    rule(
        bytes <= MAX_LOG_BYTES,
        "logblocks",
        length,
        "more than 2 GiB",
    )?;
    let unit = geometry.log_unit;
    rule(unit <= 256 * 1024, "logsunit", unit, "more than 256 KiB")?;
    let most = MAX_STRIPE_BYTES >> geometry.block_log;
    let (unit, width) = (geometry.stripe_unit, geometry.stripe_width);
    rule(u64::from(width) <= most, "width", width, "more than 2 GiB")?;
    let multiple = match unit {
        0 => width == 0,
        unit => width % unit == 0 && width >= unit,
    };
    rule(multiple, "width", width, "no multiple of unit")?;
    for (field, value) in [
        ("inoalignmt", sb.inode_align),
        ("spino_align", sb.sparse_align),
    ] {
        rule(
            value.get() <= geometry.ag_blocks,
            field,
            value.get(),
            "more than a group",
        )?;
    }
    Ok(())
}

fn build(sb: &Superblock) -> Geometry {
    let (ro, inc) = (sb.features_ro_compat.get(), sb.features_incompat.get());
    Geometry {
        features: Features {
            finobt: ro & ro_compat::FINOBT != 0,
            inobtcount: ro & ro_compat::INOBT_COUNT != 0,
            sparse: inc & incompat::SPARSE_INODES != 0,
            rmapbt: ro & ro_compat::RMAPBT != 0,
            reflink: ro & ro_compat::REFLINK != 0,
            bigtime: inc & incompat::BIGTIME != 0,
            nrext64: inc & incompat::NREXT64 != 0,
            exchange: inc & incompat::EXCHANGE != 0,
            parent: inc & incompat::PARENT != 0,
            ascii_ci: sb.version.get() & version::BORG != 0,
        },
        uuid: Uuid::from_bytes(sb.uuid),
        label: sb.label,
        sector_log: sb.sector_log,
        block_log: sb.block_log,
        inode_log: sb.inode_log,
        dir_block_log: sb.dir_block_log,
        blocks: sb.dblocks.get(),
        ag_count: sb.ag_count.get(),
        ag_blocks: sb.ag_blocks.get(),
        log_start: sb.log_start.get(),
        log_blocks: sb.log_blocks.get(),
        log_unit: sb.log_unit.get(),
        stripe_unit: sb.unit.get(),
        stripe_width: sb.width.get(),
        imax_percent: sb.imax_percent,
        inode_align: sb.inode_align.get(),
        sparse_align: sb.sparse_align.get(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn sample() -> Superblock {
        let geometry = Geometry {
            features: Features {
                finobt: true,
                inobtcount: true,
                sparse: true,
                rmapbt: true,
                reflink: true,
                bigtime: true,
                nrext64: true,
                exchange: true,
                parent: true,
                ascii_ci: false,
            },
            uuid: Uuid::from_bytes([7; 16]),
            label: [0; 12],
            sector_log: 9,
            block_log: 12,
            inode_log: 9,
            dir_block_log: 0,
            blocks: 262_144,
            ag_count: 4,
            ag_blocks: 65_536,
            log_start: (2 << 16) + 16,
            log_blocks: 16_384,
            log_unit: 1,
            stripe_unit: 0,
            stripe_width: 0,
            imax_percent: 25,
            inode_align: 8,
            sparse_align: 4,
        };
        geometry.superblock()
    }

    #[test]
    fn a_geometry_comes_back_from_its_superblock() {
        let sb = sample();
        let geometry = Geometry::from_superblock(&sb).unwrap();
        assert_eq!(geometry.superblock(), sb);
    }

    #[test]
    fn what_is_not_known_is_refused_by_name() {
        let refused = |patch: &dyn Fn(&mut Superblock)| {
            let mut sb = sample();
            patch(&mut sb);
            Geometry::from_superblock(&sb).unwrap_err().to_string()
        };
        let set = |bit: u32| move |sb: &mut Superblock| sb.features_incompat |= bit;
        assert!(refused(&|sb| sb.magic = 7.into()).contains("no XFS"));
        assert!(refused(&|sb| sb.version -= 1).contains("version 4"));
        assert!(refused(&set(incompat::METADIR)).contains("metadir"));
        assert!(refused(&set(incompat::ZONED)).contains("zoned"));
        assert!(refused(&set(incompat::NEEDS_REPAIR)).contains("repair"));
        assert!(refused(&set(1 << 20)).contains("0x100000"));
        assert!(refused(&|sb| sb.rblocks = 9.into()).contains("realtime"));
        assert!(refused(&|sb| sb.log_start = 0.into()).contains("external log"));
    }

    /// Any single field set to extremes: refused, or arithmetic that holds.
    #[test]
    fn no_superblock_makes_the_arithmetic_overflow() {
        use zerocopy::{FromBytes, IntoBytes};
        let sb = sample();
        for at in 4..size_of::<Superblock>() {
            for value in [0, 1, 0x7f, 0x80, 0xff] {
                let mut bytes = sb.as_bytes().to_vec();
                bytes[at] = value;
                let sb = Superblock::read_from_bytes(&bytes).unwrap();
                let Ok(geometry) = Geometry::from_superblock(&sb) else {
                    continue;
                };
                let last = geometry.ag_count - 1;
                let block = geometry.group_blocks(last) - 1;
                assert!(geometry.byte(last, block) < geometry.blocks << geometry.block_log);
                geometry.inode_byte(geometry.inode(last, block << geometry.inodes_per_block_log()));
                geometry.first_chunk_block();
                geometry.daddr(geometry.fsblock(last, block));
            }
        }
    }
}
