//! From the names and values Linux shows to those on disk. POSIX ACLs differ: Linux shows
//! a little-endian form (`posix_acl_xattr.h`), XFS keeps its own (`xfs_acl.c`).

use crate::xfs::format::U32;
use crate::xfs::format::attr::{AclEntry, flags};
use crate::xfs::write::ForkError;
use zerocopy::byteorder::little_endian;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout, Unaligned};

/// Names of the access and the default ACL on disk, in the namespace ROOT.
pub(super) const DISK_NAMES: [&[u8]; 2] = [b"SGI_ACL_FILE", b"SGI_ACL_DEFAULT"];
/// The same as Linux names them, after `system.`.
const LINUX_NAMES: [&[u8]; 2] = [b"posix_acl_access", b"posix_acl_default"];

/// First part of a full name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Namespace {
    User,
    Trusted,
    Security,
    /// Holds only ACLs.
    System,
}

impl Namespace {
    /// Its bits on disk.
    pub(super) fn flags(self) -> u8 {
        match self {
            Self::User => 0,
            Self::Trusted | Self::System => flags::ROOT,
            Self::Security => flags::SECURE,
        }
    }
}

/// Namespace and rest of a full name.
pub(super) fn split(full: &[u8]) -> Result<(Namespace, &[u8]), ForkError> {
    [
        (&b"user."[..], Namespace::User),
        (b"trusted.", Namespace::Trusted),
        (b"security.", Namespace::Security),
        (b"system.", Namespace::System),
    ]
    .into_iter()
    .find_map(|(prefix, namespace)| Some((namespace, full.strip_prefix(prefix)?)))
    .filter(|(namespace, name)| *namespace != Namespace::System || LINUX_NAMES.contains(name))
    .ok_or_else(|| ForkError::Namespace {
        name: full.escape_ascii().to_string(),
    })
}

/// Whether it is an ACL, and which of [`DISK_NAMES`].
pub(super) fn which(namespace: Namespace, name: &[u8]) -> Option<usize> {
    let names = match namespace {
        Namespace::System => LINUX_NAMES,
        Namespace::Trusted => DISK_NAMES,
        _ => return None,
    };
    names.iter().position(|known| *known == name)
}

/// The value of an ACL as it is on disk; nothing if it has no entries.
pub(super) fn on_disk(namespace: Namespace, value: &[u8]) -> Result<Vec<u8>, ForkError> {
    let entries = if namespace == Namespace::System {
        from_linux(value)
    } else {
        from_disk(value)
    };
    let entries = entries.ok_or(ForkError::Acl {
        reason: "its size does not fit its contents",
    })?;
    check(&entries)?;
    if entries.is_empty() {
        return Ok(Vec::new());
    }
    let count = U32::new(entries.len() as u32);
    Ok([count.as_bytes(), entries.as_bytes()].concat())
}

/// Header of an ACL as Linux shows it, before its entries.
const LINUX_VERSION: u32 = 2;
/// Id of an entry that has none (`ACL_UNDEFINED_ID`).
const NO_ID: u32 = u32::MAX;

/// An entry as Linux shows it (`struct posix_acl_xattr_entry`).
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct LinuxEntry {
    tag: little_endian::U16,
    permissions: little_endian::U16,
    id: little_endian::U32,
}

fn from_linux(value: &[u8]) -> Option<Vec<AclEntry>> {
    let (version, rest) = little_endian::U32::read_from_prefix(value).ok()?;
    let entries = <[LinuxEntry]>::ref_from_bytes(rest).ok()?;
    (version.get() == LINUX_VERSION).then(|| entries.iter().map(converted).collect())
}

fn converted(entry: &LinuxEntry) -> AclEntry {
    let tag = u32::from(entry.tag.get());
    let named = matches!(tag, tag::USER | tag::GROUP);
    AclEntry {
        tag: tag.into(),
        id: if named { entry.id.get() } else { NO_ID }.into(),
        permissions: entry.permissions.get().into(),
        pad: 0.into(),
    }
}

/// Entries of an ACL that is already in the form of the disk: with its number in front.
fn from_disk(value: &[u8]) -> Option<Vec<AclEntry>> {
    let (count, rest) = U32::read_from_prefix(value).ok()?;
    let entries = <[AclEntry]>::ref_from_bytes(rest).ok()?;
    (u32::try_from(entries.len()) == Ok(count.get())).then(|| entries.to_vec())
}

/// Whom an entry is about (`ACL_USER_OBJ` and so on in `posix_acl.h`), in the order they
/// must have.
mod tag {
    pub(super) const USER_OBJ: u32 = 0x01;
    pub(super) const USER: u32 = 0x02;
    pub(super) const GROUP_OBJ: u32 = 0x04;
    pub(super) const GROUP: u32 = 0x08;
    pub(super) const MASK: u32 = 0x10;
    pub(super) const OTHER: u32 = 0x20;
}

/// Checks what the kernel checks when an ACL is set (`posix_acl_valid`).
fn check(entries: &[AclEntry]) -> Result<(), ForkError> {
    let invalid = |reason| Err(ForkError::Acl { reason });
    let count = |tag| {
        entries
            .iter()
            .filter(|entry| entry.tag.get() == tag)
            .count()
    };
    let known = [
        tag::USER_OBJ,
        tag::USER,
        tag::GROUP_OBJ,
        tag::GROUP,
        tag::MASK,
        tag::OTHER,
    ];
    if entries.is_empty() {
        return Ok(());
    }
    if entries
        .iter()
        .any(|entry| !known.contains(&entry.tag.get()))
    {
        return invalid("an entry's tag is unknown");
    }
    if entries.iter().any(|entry| entry.permissions.get() > 7) {
        return invalid("an entry's permissions are more than rwx");
    }
    if !entries.is_sorted_by_key(|entry| entry.tag.get()) {
        return invalid("its entries are not in order");
    }
    if [tag::USER_OBJ, tag::GROUP_OBJ, tag::OTHER]
        .into_iter()
        .any(|tag| count(tag) != 1)
    {
        return invalid("owner, group and others must have one entry each");
    }
    let needs_mask = count(tag::USER) + count(tag::GROUP) > 0;
    if count(tag::MASK) > 1 || needs_mask && count(tag::MASK) == 0 {
        return invalid("it must have one mask");
    }
    Ok(())
}
