//! The superblock: its fields, its copies, its sums.

use super::groups::Sums;
use super::inode_trees::InodeTrees;
use super::problem::{Kind, Problems};
use crate::xfs::format::superblock::{Superblock, features2, ro_compat, version};
use crate::xfs::read::{Place, Reader, Source};

const KNOWN_RO: u32 =
    ro_compat::FINOBT | ro_compat::RMAPBT | ro_compat::REFLINK | ro_compat::INOBT_COUNT;

/// A feature that can be read past, but not checked.
pub(super) fn unknown<S: Source>(reader: &Reader<S>) -> Option<String> {
    let bits = reader.superblock().features_ro_compat.get() & !KNOWN_RO;
    (bits != 0).then(|| format!("features newer than csnap ({bits:#x} of ro_compat)"))
}

pub(super) fn check<S: Source>(reader: &Reader<S>, newest: Option<u64>, problems: &mut Problems) {
    let (geometry, first) = (reader.geometry(), reader.superblock());
    let root = first.root_ino.get();
    let place = Place::Group(0);
    let text = || format!("superblock: root inode {root}");
    let (ag, _) = geometry.inode_group(root);
    problems.expect(ag < geometry.ag_count.into(), Kind::Superblock, place, text);
    let twice = first.features2 == first.bad_features2;
    let text = || "superblock: features2 and bad_features2 differ".to_owned();
    problems.expect(twice, Kind::Superblock, place, text);
    let lsn = first.lsn.get();
    let newer = newest.is_some_and(|newest| lsn > newest && lsn != u64::MAX);
    let text = || format!("superblock: changed at {lsn:#x}, after the end of the log");
    problems.expect(!newer, Kind::Log, place, text);
    let quota = quota_inodes(first);
    let unused = first.version.get() & version::QUOTA != 0 || quota.into_iter().all(is_null);
    let text = || "superblock: inodes for quota, which was never used".to_owned();
    problems.expect(unused, Kind::Superblock, place, text);
    for ag in 1..geometry.ag_count {
        let Some(copy) = problems.ok(Kind::BackupSuperblock, reader.superblock_copy(ag)) else {
            continue;
        };
        for field in differences(first, &copy) {
            let text = format!("superblock copy: {field} differs from the first");
            problems.add(Kind::BackupSuperblock, Place::Group(ag), text);
        }
    }
}

fn quota_inodes(sb: &Superblock) -> [u64; 3] {
    [sb.uquota_ino, sb.gquota_ino, sb.pquota_ino].map(|ino| ino.get())
}

fn is_null(ino: u64) -> bool {
    ino == 0 || ino == u64::MAX
}

/// Names of the fields in which a copy may not differ but does. Counters, quota, label,
/// the mark of an unfinished mkfs, log sequence and the bits that the kernel sets when
/// first needed are those of the first superblock alone (`xchk_superblock` in
/// `scrub/agheader.c`); counters of a realtime device that is not there are not.
fn differences(first: &Superblock, copy: &Superblock) -> Vec<&'static str> {
    let lazy = version::ATTR | version::QUOTA;
    let bits = |sb: &Superblock| sb.version.get() & !lazy;
    let more = |sb: &Superblock| sb.features2.get() & !features2::ATTR2;
    let mut names = Vec::new();
    // mkfs.xfs writes the copies before it knows the inodes, and mends only some of them.
    let root = copy.root_ino.get();
    if root != first.root_ino.get() && root != u64::MAX && root != 0 {
        names.push("root_ino");
    }
    let pairs = quota_inodes(copy).into_iter().zip(quota_inodes(first));
    if pairs
        .into_iter()
        .any(|(copy, first)| copy != first && !is_null(copy))
    {
        names.push("quota inodes");
    }
    let mut same = |name, equal: bool| {
        if !equal {
            names.push(name);
        }
    };
    same("versionnum", bits(first) == bits(copy));
    same("features2", more(first) == more(copy));
    macro_rules! fields {
        ($($field:ident)*) => { $(same(stringify!($field), first.$field == copy.$field);)* };
    }
    fields!(
        block_size dblocks rblocks rextents uuid log_start rext_size
        ag_blocks ag_count rbm_blocks log_blocks sector_size inode_size inodes_per_block
        block_log sector_log inode_log inopb_log ag_block_log rext_log
        inode_align unit width dir_block_log log_sector_log log_sector_size log_unit frextents
        features_compat features_ro_compat features_incompat sparse_align meta_uuid
    );
    names
}

/// Whether the sums in the superblock are those of the groups.
pub(super) fn check_sums<S: Source>(
    reader: &Reader<S>,
    trees: &InodeTrees,
    sums: &Sums,
    problems: &mut Problems,
) {
    let sb = reader.superblock();
    let mut compare = |name: &str, known: bool, said: u64, found: u64| {
        let text = || format!("superblock: {name} is {said}, but the groups have {found}");
        problems.expect(!known || said == found, Kind::Sums, Place::Group(0), text);
    };
    compare("icount", trees.complete, sb.icount.get(), trees.count);
    compare("ifree", trees.complete, sb.ifree.get(), trees.free);
    compare("fdblocks", !sums.incomplete, sb.fdblocks.get(), sums.free);
}
