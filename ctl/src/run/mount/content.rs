//! What is on a snapshot's device, and whether it can be mounted.
//!
//! The magic numbers are those that keep `store create` off a device that holds
//! something ([`signature`]); here each gets its meaning. A device may carry
//! several: some file systems begin with a boot sector, and what was there before
//! leaves traces. What is not plain is refused, with the ways to decide it.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;

use snapstore::IoError;
use ublk_target::control::protocol::{ErrorCode, Failure};
use ublk_target::daemon::signature;

use crate::Done;

/// What a magic number stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Meaning {
    /// A file system, by its type for mount(8).
    FileSystem(&'static str),
    /// A partition table.
    Partitions,
    /// Two bytes that partition tables and many file systems begin with.
    BootSector,
    /// Something else that has to be opened first; how, with `%` for the device.
    Inside(&'static str),
    /// Nothing that can be mounted on Linux.
    Nothing,
}

const LVM: &str = "make the volume group's copy visible: vgimportclone -i --basevgname NEW % \
                   (it writes: on a copy of the snapshot), then mount its volumes";
const LUKS: &str = "open it: cryptsetup open --readonly % NAME; then \
                    mount -o ro,nouuid,norecovery (XFS) or ro,noload (ext4) /dev/mapper/NAME";
const RAID: &str = "assemble it read-only under another name: mdadm --assemble --readonly \
                    /dev/md/NAME %; with --fs TYPE it is mounted as if it were no member";
const COPY: &str = "this needs to write: copy the snapshot out and open the copy";

/// The meaning of a signature's name; every one of [`signature::names`] has one.
pub(super) fn meaning(name: &str) -> Option<Meaning> {
    use Meaning::{BootSector, FileSystem, Inside, Nothing, Partitions};
    Some(match name {
        "an XFS file system" => FileSystem("xfs"),
        "an ext2, ext3 or ext4 file system" => FileSystem("ext4"),
        "a btrfs file system" => FileSystem("btrfs"),
        "a bcachefs file system" => FileSystem("bcachefs"),
        "an F2FS file system" => FileSystem("f2fs"),
        "a NILFS2 file system" => FileSystem("nilfs2"),
        "a JFS file system" => FileSystem("jfs"),
        "a ReiserFS file system" => FileSystem("reiserfs"),
        "a GFS2 file system" => FileSystem("gfs2"),
        "an OCFS2 file system" => FileSystem("ocfs2"),
        "an NTFS file system" => FileSystem("ntfs3"),
        "an exFAT file system" => FileSystem("exfat"),
        "a FAT file system" => FileSystem("vfat"),
        "an HFS+ file system" => FileSystem("hfsplus"),
        "an EROFS file system" => FileSystem("erofs"),
        "a SquashFS file system" => FileSystem("squashfs"),
        "a cramfs file system" => FileSystem("cramfs"),
        "a romfs file system" => FileSystem("romfs"),
        "an ISO 9660 file system" => FileSystem("iso9660"),
        "a UDF file system" => FileSystem("udf"),
        "a UFS file system" | "a UFS2 file system" => FileSystem("ufs"),
        "a GUID partition table" | "a GUID partition table (backup)" | "an Apple partition map" => {
            Partitions
        }
        "a DOS partition table or boot sector" => BootSector,
        "an LVM physical volume" => Inside(LVM),
        "a LUKS volume" | "a LUKS2 backup header" | "a BitLocker volume" => Inside(LUKS),
        "a Linux RAID member (0.90)"
        | "a Linux RAID member (1.0)"
        | "a Linux RAID member (1.1)"
        | "a Linux RAID member (1.2)" => Inside(RAID),
        "a bcache device"
        | "a ZFS pool member"
        | "a device-mapper snapshot store"
        | "a device-mapper thin-pool's metadata"
        | "a VDO volume"
        | "a Stratis pool member"
        | "a Ceph OSD"
        | "a DRBD device"
        | "a csnap store"
        | "a qcow2 image"
        | "a VMDK image"
        | "a VHDX image"
        | "a VDI image" => Inside(COPY),
        "an APFS container" | "a swap area" | "a suspended system's image" => Nothing,
        _ => return None,
    })
}

/// A part of a device: all of it, or a partition.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Part {
    /// Where it begins, in bytes.
    pub(super) start: u64,
    /// Its length in bytes.
    pub(super) len: u64,
}

impl Part {
    /// Reads inside the part, at a byte offset of it.
    pub(super) fn read(self, device: &File, offset: u64, out: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(out.len() as u64);
        let at = self.start.checked_add(offset);
        match (end.is_some_and(|end| end <= self.len), at) {
            (true, Some(at)) => device.read_exact_at(out, at),
            _ => Err(io::ErrorKind::UnexpectedEof.into()),
        }
    }
}

/// The type of the file system in `part`; `name` is the device's, for a person.
///
/// # Errors
/// When it cannot be read, or there is no single file system.
pub(super) fn file_system(device: &File, part: Part, name: &str) -> Done<&'static str> {
    let read = |offset: u64, out: &mut [u8]| {
        let done = part.read(device, offset, out);
        done.map_err(|error| IoError::Errno(error.raw_os_error().unwrap_or(0)))
    };
    let found = signature::find(part.len, read).map_err(|error| {
        Failure::new(ErrorCode::Error, format!("{name} cannot be read: {error}"))
            .next("look at the log of csnapd for the reason")
    })?;
    let names: Vec<&str> = found.iter().map(|found| found.name).collect();
    decide(&names).map_err(|(why, next)| {
        Failure::new(ErrorCode::Error, format!("{name} {why}")).next(next.replace('%', name))
    })
}

/// The one file system among signatures, or why there is none and what to do.
fn decide(names: &[&'static str]) -> Result<&'static str, (String, &'static str)> {
    let all = names.iter().filter_map(|name| meaning(name));
    let mut plain: Vec<Meaning> = all.clone().filter(|&m| m != Meaning::BootSector).collect();
    plain.dedup();
    match plain.as_slice() {
        [Meaning::FileSystem(kind)] => return Ok(kind),
        [Meaning::Inside(next)] => {
            return Err((format!("holds {}, no file system", names.join(", ")), next));
        }
        [Meaning::Nothing] => {
            let why = format!("holds {}, which cannot be mounted", names.join(", "));
            return Err((why, "copy the snapshot out to use it elsewhere"));
        }
        [] if all.count() == 0 => {
            let why = "holds nothing that csnapctl recognises".to_owned();
            return Err((why, "name the file system's type with --fs TYPE"));
        }
        _ => {}
    }
    if plain.iter().all(|&m| m == Meaning::Partitions) {
        let why = "holds a partition table".to_owned();
        let next = "choose a partition: --partition N (fdisk -l % lists them)";
        return Err((why, next));
    }
    let why = format!("carries several signatures: {}", names.join(", "));
    let next = "say which is right: --fs TYPE for the whole device, or --partition N";
    Err((why, next))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_signature_has_a_meaning() {
        for name in signature::names() {
            assert!(meaning(name).is_some(), "{name} has no meaning");
        }
    }

    #[test]
    fn boot_sectors_and_repeated_marks_do_not_confuse() {
        let boot = "a DOS partition table or boot sector";
        let fat = "a FAT file system";
        assert_eq!(decide(&[fat, boot]), Ok("vfat"));
        assert_eq!(decide(&["an XFS file system"]), Ok("xfs"));
        assert_eq!(
            decide(&["a UFS file system", "a UFS2 file system"]),
            Ok("ufs")
        );
        let next = |names: &[&'static str]| decide(names).unwrap_err().1;
        assert!(next(&[boot]).contains("--partition"));
        assert!(next(&["a GUID partition table", boot]).contains("--partition"));
        assert!(next(&[]).contains("--fs"));
        assert!(next(&["an XFS file system", "a GUID partition table"]).contains("--fs"));
        assert!(next(&["a LUKS volume"]).contains("cryptsetup"));
        assert!(next(&["an LVM physical volume"]).contains("vgimportclone"));
        assert!(next(&["an XFS file system", "a Linux RAID member (1.0)"]).contains("--fs"));
    }

    #[test]
    fn a_part_is_never_read_beyond() {
        let file = tempfile::tempfile().unwrap();
        file.write_all_at(&[7; 100], 0).unwrap();
        let part = Part { start: 10, len: 20 };
        let mut out = [0; 20];
        part.read(&file, 0, &mut out).unwrap();
        assert!(part.read(&file, 1, &mut out).is_err());
        assert!(part.read(&file, u64::MAX, &mut out).is_err());
    }
}
