//! How each file system is mounted from a snapshot: read-only, beside another
//! with the same identity, and without replaying its log.

use std::fs::File;

use serde::Serialize;

use super::content::Part;

/// For every file system. `ro` first: no option after it may be what makes it so.
const ALWAYS: [&str; 3] = ["ro", "nodev", "nosuid"];

/// What is known of the log that a mount would otherwise replay.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub(super) enum Log {
    /// The file system has none.
    None,
    /// Nothing is in it that is not in its place.
    Clean,
    /// It holds changes that are left out.
    Dirty,
    /// It is left out, whatever it holds.
    Unknown,
}

/// The options for a file system of type `kind`, in order.
pub(super) fn options(kind: &str, log: Log, more: &[String]) -> Vec<String> {
    let own: &[&str] = match kind {
        // The origin, or another of its snapshots, may be mounted: same UUID.
        "xfs" => &["nouuid", "norecovery"],
        // Without a journal the option would be refused by some kernels.
        "ext4" | "ext3" if log != Log::None => &["noload"],
        "btrfs" => &["rescue=nologreplay"],
        "f2fs" | "nilfs2" => &["norecovery"],
        "bcachefs" => &["nochanges"],
        // Nobody else may be looking at it, so no cluster's locks are needed.
        "gfs2" => &["spectator", "lockproto=lock_nolock"],
        "ufs" => &["ufstype=ufs2"],
        _ => &[],
    };
    let more = more.iter().map(String::as_str).filter(|o| !o.is_empty());
    let all = ALWAYS
        .iter()
        .copied()
        .chain(own.iter().copied())
        .chain(more);
    all.map(str::to_owned).collect()
}

/// Looks at the superblock. Field places: `fs/ext4/ext4.h` (`struct
/// ext4_super_block`) and `include/uapi/linux/btrfs_tree.h` (`struct
/// btrfs_super_block`).
pub(super) fn log(kind: &str, device: &File, part: Part) -> Log {
    match kind {
        "ext4" | "ext3" | "ext2" => match superblock(device, part, 1024) {
            Some(block) => ext_log(&block),
            None => Log::Unknown,
        },
        "btrfs" => match superblock(device, part, 65536) {
            // The root of the log tree is a block's address, 0 without a log.
            Some(block) if block.get(96..104).is_some_and(|root| root == [0; 8]) => Log::Clean,
            Some(_) => Log::Dirty,
            None => Log::Unknown,
        },
        "xfs" | "f2fs" | "nilfs2" | "bcachefs" | "jfs" | "reiserfs" | "gfs2" | "ntfs3"
        | "hfsplus" => Log::Unknown,
        "erofs" | "squashfs" | "cramfs" | "romfs" | "iso9660" | "udf" | "vfat" | "exfat"
        | "ufs" => Log::None,
        _ => Log::Unknown,
    }
}

fn ext_log(block: &[u8]) -> Log {
    let bit = |byte: usize, bit: u8| block.get(byte).is_some_and(|b| b & bit != 0);
    // COMPAT_HAS_JOURNAL, INCOMPAT_RECOVER.
    match (bit(0x5c, 0x04), bit(0x60, 0x04)) {
        (false, _) => Log::None,
        (true, true) => Log::Dirty,
        (true, false) => Log::Clean,
    }
}

/// What of a btrfs decides whether it can be mounted beside another of its kind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Btrfs {
    /// Identity that it shares with its origin.
    pub(super) fsid: String,
    /// Devices it consists of.
    pub(super) devices: u64,
}

/// Reads it; `None` if it cannot be read.
pub(super) fn btrfs(device: &File, part: Part) -> Option<Btrfs> {
    let block = superblock(device, part, 65536)?;
    let fsid = block.get(32..48)?;
    let devices = block.get(136..144)?;
    Some(Btrfs {
        fsid: uuid::Uuid::from_slice(fsid).ok()?.to_string(),
        devices: u64::from_le_bytes(devices.try_into().ok()?),
    })
}

fn superblock(device: &File, part: Part, offset: u64) -> Option<[u8; 512]> {
    let mut block = [0; 512];
    part.read(device, offset, &mut block).ok()?;
    Some(block)
}

/// Why a btrfs cannot be mounted now, and what to do. `mounted` is whether one of
/// its identity is; `release` the kernel's, such as `6.12.0`.
pub(super) fn btrfs_obstacle(
    btrfs: &Btrfs,
    mounted: bool,
    release: &str,
) -> Option<(String, &'static str)> {
    if btrfs.devices > 1 {
        let why = format!(
            "it is a btrfs of {} devices; the kernel would take the others from the origin",
            btrfs.devices
        );
        return Some((
            why,
            "copy the snapshots of all of them out and mount the copies \
                           in a virtual machine",
        ));
    }
    // Linux 6.7 gives a device whose identity is mounted already one for the time
    // being; before, it returned what was mounted: the origin.
    if mounted && !at_least(release, (6, 7)) {
        let why = format!(
            "a btrfs with the same identity {} is mounted, and Linux {release} cannot tell them apart",
            btrfs.fsid
        );
        return Some((why, "unmount that one first, or use Linux 6.7 or newer"));
    }
    None
}

fn at_least(release: &str, wanted: (u32, u32)) -> bool {
    let mut numbers = release.split(|c: char| !c.is_ascii_digit()).map(str::parse);
    match (numbers.next(), numbers.next()) {
        (Some(Ok(major)), Some(Ok(minor))) => (major, minor) >= wanted,
        _ => false,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn joined(kind: &str, log: Log, more: &[&str]) -> String {
        let more: Vec<String> = more.iter().map(|&o| o.to_owned()).collect();
        options(kind, log, &more).join(",")
    }

    #[test]
    fn every_file_system_gets_what_it_needs() {
        for (kind, log, expected) in [
            ("xfs", Log::Unknown, "ro,nodev,nosuid,nouuid,norecovery"),
            ("ext4", Log::Dirty, "ro,nodev,nosuid,noload"),
            ("ext4", Log::Clean, "ro,nodev,nosuid,noload"),
            ("ext4", Log::None, "ro,nodev,nosuid"),
            ("btrfs", Log::Clean, "ro,nodev,nosuid,rescue=nologreplay"),
            ("f2fs", Log::Unknown, "ro,nodev,nosuid,norecovery"),
            ("nilfs2", Log::Unknown, "ro,nodev,nosuid,norecovery"),
            ("bcachefs", Log::Unknown, "ro,nodev,nosuid,nochanges"),
            ("erofs", Log::None, "ro,nodev,nosuid"),
            ("vfat", Log::None, "ro,nodev,nosuid"),
            ("something", Log::Unknown, "ro,nodev,nosuid"),
        ] {
            assert_eq!(joined(kind, log, &[]), expected, "{kind} {log:?}");
        }
        let more = ["suid", "", "noexec"];
        assert_eq!(
            joined("vfat", Log::None, &more),
            "ro,nodev,nosuid,suid,noexec"
        );
    }

    #[test]
    fn the_journal_of_ext_is_judged_by_its_two_bits() {
        let mut block = [0; 512];
        assert_eq!(ext_log(&block), Log::None);
        block[0x5c] = 0x04;
        assert_eq!(ext_log(&block), Log::Clean);
        block[0x60] = 0x04;
        assert_eq!(ext_log(&block), Log::Dirty);
    }

    #[test]
    fn a_btrfs_is_never_mixed_with_its_origin() {
        let one = Btrfs {
            fsid: "x".into(),
            devices: 1,
        };
        assert_eq!(btrfs_obstacle(&one, true, "6.12.0-1-amd64"), None);
        assert_eq!(btrfs_obstacle(&one, true, "7.2"), None);
        assert_eq!(btrfs_obstacle(&one, false, "6.1.0"), None);
        assert!(btrfs_obstacle(&one, true, "6.6.99").is_some());
        assert!(btrfs_obstacle(&one, true, "strange").is_some());
        let two = Btrfs { devices: 2, ..one };
        assert!(btrfs_obstacle(&two, false, "7.2").is_some());
    }
}
