//! What a device seems to hold, by the magic numbers that file systems, volume
//! managers, partition tables and image formats leave at fixed places.
//!
//! Whoever is to write over a device asks first (`store create`, `imagegen`) and refuses
//! one on which something is found. Being too careful costs a `--force`, missing something costs someone's data: so the
//! table is long, and a DOS boot signature alone counts.

use crate::format::Kind;

/// Where a magic number is.
#[derive(Clone, Copy, Debug)]
enum At {
    /// Bytes from the beginning.
    Start(u64),
    /// Bytes back from the end rounded down to a unit of bytes.
    End { back: u64, unit: u64 },
}

/// One magic number.
struct Magic {
    name: &'static str,
    at: At,
    bytes: &'static [u8],
}

const fn start(name: &'static str, offset: u64, bytes: &'static [u8]) -> Magic {
    Magic {
        name,
        at: At::Start(offset),
        bytes,
    }
}

const fn end(name: &'static str, back: u64, bytes: &'static [u8]) -> Magic {
    end_of(name, back, 1, bytes)
}

const fn end_of(name: &'static str, back: u64, unit: u64, bytes: &'static [u8]) -> Magic {
    Magic {
        name,
        at: At::End { back, unit },
        bytes,
    }
}

const CSNAP: &[u8] = &(Kind::Superblock as u32).to_le_bytes();
const MD: &[u8] = &[0xfc, 0x4e, 0x2b, 0xa9];
const ZFS: &[u8] = &[0x0c, 0xb1, 0xba, 0x00];
const BCACHE: &[u8] = &[
    0xc6, 0x85, 0x73, 0xf6, 0x4e, 0x1a, 0x45, 0xca, 0x82, 0x65, 0xf5, 0x7f, 0x48, 0xba, 0x6d, 0x81,
];
const BCACHEFS: &[u8] = &[
    0xc6, 0x85, 0x73, 0xf6, 0x66, 0xce, 0x90, 0xa9, 0xd9, 0x6a, 0x60, 0xcf, 0x80, 0x3d, 0xf7, 0xef,
];

/// Every magic number looked for. Numbers are as they lie on the device.
const TABLE: &[Magic] = &[
    start("a csnap store", 4, CSNAP),
    end_of("a csnap store", 4096 - 4, 4096, CSNAP),
    start("an XFS file system", 0, b"XFSB"),
    start("an ext2, ext3 or ext4 file system", 1080, &[0x53, 0xef]),
    start("a btrfs file system", 65536 + 64, b"_BHRfS_M"),
    start("a bcachefs file system", 4096 + 24, BCACHEFS),
    start("an F2FS file system", 1024, &[0x10, 0x20, 0xf5, 0xf2]),
    start("a NILFS2 file system", 1024 + 6, &[0x34, 0x34]),
    start("a JFS file system", 32768, b"JFS1"),
    start("a ReiserFS file system", 65536 + 52, b"ReIsEr"),
    start(
        "a GFS2 file system",
        65536,
        &[0x01, 0x16, 0x19, 0x70, 0, 0, 0, 1],
    ),
    start("an OCFS2 file system", 8192, b"OCFSV2"),
    start("an NTFS file system", 3, b"NTFS    "),
    start("an exFAT file system", 3, b"EXFAT   "),
    start("a FAT file system", 54, b"FAT1"),
    start("a FAT file system", 82, b"FAT32   "),
    start("an HFS+ file system", 1024, b"H+"),
    start("an APFS container", 32, b"NXSB"),
    start("an EROFS file system", 1024, &[0xe2, 0xe1, 0xf5, 0xe0]),
    start("a SquashFS file system", 0, b"hsqs"),
    start("a cramfs file system", 0, &[0x45, 0x3d, 0xcd, 0x28]),
    start("a romfs file system", 0, b"-rom1fs-"),
    start("an ISO 9660 file system", 32769, b"CD001"),
    start("a UDF file system", 32769, b"BEA01"),
    start("a UFS file system", 8192 + 1372, &[0x54, 0x19, 0x01, 0x00]),
    start(
        "a UFS2 file system",
        65536 + 1372,
        &[0x19, 0x01, 0x54, 0x19],
    ),
    start("a swap area", 4096 - 10, b"SWAPSPACE2"),
    start("a swap area", 65536 - 10, b"SWAPSPACE2"),
    start("a suspended system's image", 4096 - 10, b"S1SUSPEND"),
    start("an LVM physical volume", 24, b"LVM2 001"),
    start("an LVM physical volume", 512 + 24, b"LVM2 001"),
    start("an LVM physical volume", 1024 + 24, b"LVM2 001"),
    start("an LVM physical volume", 1536 + 24, b"LVM2 001"),
    start("a LUKS volume", 0, b"LUKS\xba\xbe"),
    start("a LUKS2 backup header", 16384, b"SKUL\xba\xbe"),
    start("a BitLocker volume", 3, b"-FVE-FS-"),
    start("a Linux RAID member (1.1)", 0, MD),
    start("a Linux RAID member (1.2)", 4096, MD),
    end_of("a Linux RAID member (0.90)", 65536, 65536, MD),
    end_of("a Linux RAID member (1.0)", 8192, 4096, MD),
    start("a bcache device", 4096 + 24, BCACHE),
    start("a ZFS pool member", 128 * 1024, ZFS),
    start("a ZFS pool member", 129 * 1024, ZFS),
    start("a ZFS pool member", 132 * 1024, ZFS),
    start("a ZFS pool member", 136 * 1024, ZFS),
    start("a device-mapper snapshot store", 0, b"SnAp"),
    start(
        "a device-mapper thin-pool's metadata",
        32,
        &[0x42, 0xcc, 0xa2, 0x01],
    ),
    start("a VDO volume", 0, b"dmvdo001"),
    start(
        "a Stratis pool member",
        512 + 4,
        b"!Stra0tis\x86\xff\x02^Arh",
    ),
    start("a Ceph OSD", 0, b"bluestore block device"),
    start("a DRBD device", 0, &[0x83, 0x74, 0x02, 0x6b]),
    end("a DRBD device", 4096 - 60, &[0x83, 0x74, 0x02]),
    start("a GUID partition table", 512, b"EFI PART"),
    start("a GUID partition table", 4096, b"EFI PART"),
    end("a GUID partition table (backup)", 512, b"EFI PART"),
    start("an Apple partition map", 512, b"PM\0\0"),
    start("a DOS partition table or boot sector", 510, &[0x55, 0xaa]),
    start("a qcow2 image", 0, b"QFI\xfb"),
    start("a VMDK image", 0, b"KDMV"),
    start("a VHDX image", 0, b"vhdxfile"),
    start("a VDI image", 64, &[0x7f, 0x10, 0xda, 0xbe]),
];

/// Something that was found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// What it is, with its article.
    pub name: &'static str,
    /// Where its magic number is, in bytes.
    pub offset: u64,
}

impl std::fmt::Display for Found {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} (signature at byte {})", self.name, self.offset)
    }
}

/// Looks for signatures on a device of `size` bytes. `read` fills a buffer from a
/// byte offset; it is never asked beyond the end.
///
/// # Errors
/// What `read` reported: a device that cannot be read may hold anything.
pub fn find<E>(
    size: u64,
    mut read: impl FnMut(u64, &mut [u8]) -> Result<(), E>,
) -> Result<Vec<Found>, E> {
    let mut found = Vec::new();
    let mut buffer = [0u8; 32];
    for magic in TABLE {
        let Some(offset) = magic.at.offset(size, magic.bytes.len() as u64) else {
            continue;
        };
        let Some(bytes) = buffer.get_mut(..magic.bytes.len()) else {
            continue;
        };
        read(offset, bytes)?;
        let this = Found {
            name: magic.name,
            offset,
        };
        if *bytes == *magic.bytes && !found.contains(&this) {
            found.push(this);
        }
    }
    Ok(found)
}

/// The name of everything that is looked for, some more than once.
pub fn names() -> impl Iterator<Item = &'static str> {
    TABLE.iter().map(|magic| magic.name)
}

impl At {
    /// The byte offset on a device of `size` bytes, if `length` bytes fit there.
    fn offset(self, size: u64, length: u64) -> Option<u64> {
        let offset = match self {
            Self::Start(offset) => Some(offset),
            Self::End { back, unit } => (size - size % unit).checked_sub(back),
        }?;
        (offset.checked_add(length)? <= size).then_some(offset)
    }
}

#[cfg(test)]
mod tests {
    use std::convert::Infallible;

    use super::*;

    fn names_on(image: &[u8]) -> Vec<&'static str> {
        let read = |offset: u64, out: &mut [u8]| {
            let at = offset as usize;
            out.copy_from_slice(&image[at..at + out.len()]);
            Ok::<(), Infallible>(())
        };
        find(image.len() as u64, read)
            .unwrap()
            .into_iter()
            .map(|found| found.name)
            .collect()
    }

    #[test]
    fn every_entry_is_found_where_it_says_and_nothing_on_an_empty_device() {
        let size = 4 << 20;
        assert_eq!(names_on(&vec![0; size]), Vec::<&str>::new());
        for magic in TABLE {
            let mut image = vec![0; size];
            let at = magic
                .at
                .offset(size as u64, magic.bytes.len() as u64)
                .unwrap() as usize;
            image[at..at + magic.bytes.len()].copy_from_slice(magic.bytes);
            assert!(
                names_on(&image).contains(&magic.name),
                "{} was not found",
                magic.name
            );
        }
    }

    #[test]
    fn small_devices_are_never_read_beyond_their_end() {
        for size in (0..5000).chain(65_000..66_000) {
            names_on(&vec![0xff; size]);
        }
    }
}
