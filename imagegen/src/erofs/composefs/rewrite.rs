//! A tree as it stands in an image: attributes that tell overlayfs where contents lie,
//! names and devices that overlayfs would take for its own escaped, and whiteouts for the
//! directories of the object store.

use super::attributes::{self, MOST_SHARED_V2};
use super::tree::{Body, Digest, Entry, External, Number, Object, ROOT, Tree, object_path};
use super::{ComposefsError, Version};
use crate::tree::{Xattr, attributes as list};
use crate::verity::{Algorithm, fs};

const OVERLAY: &[u8] = b"trusted.overlay.";
const ESCAPED: &[u8] = b"trusted.overlay.overlay.";
const METACOPY: &[u8] = b"trusted.overlay.metacopy";
const REDIRECT: &[u8] = b"trusted.overlay.redirect";
const OPAQUE: &[u8] = b"trusted.overlay.opaque";
/// What an escaped whiteout has.
const WHITEOUT: [&[u8]; 2] = [
    b"trusted.overlay.overlay.whiteout",
    b"user.overlay.whiteout",
];
/// What the directory of one has.
const WHITEOUTS: [&[u8]; 2] = [
    b"trusted.overlay.overlay.whiteouts",
    b"user.overlay.whiteouts",
];
/// The same, from version 1 on.
const ESCAPED_OPAQUE: [&[u8]; 2] = [b"trusted.overlay.overlay.opaque", b"user.overlay.opaque"];
const SELINUX: &[u8] = b"security.selinux";

/// Bytes of attributes that libcomposefs takes from outside (`LCFS_INODE_EXTERNAL_XATTR_MAX`).
const XATTRS_MAX: usize = 32_767;
/// Most bytes of a file in an image of version 2.
const INLINE_MAX_V2: usize = 512;
/// Longest target of a symbolic link in version 2, as on XFS.
const SYMLINK_MAX_V2: usize = 1024;
/// Largest chunk, in bits, and how many a file may have at most.
const CHUNK_BITS_MAX: u32 = 43;
const CHUNKS_MAX: u64 = 1024;

/// Whether the tree holds whiteouts of its own.
pub(super) fn has_whiteouts(tree: &Tree) -> bool {
    tree.objects()
        .any(|object| matches!(object.body, Body::CharDevice(0)))
}

/// Rewrites a tree for an image of that version.
///
/// # Errors
/// If an object cannot be in one.
pub(super) fn rewrite(tree: &mut Tree, version: Version) -> Result<(), ComposefsError> {
    for number in 0..tree.len() as Number {
        let checked = match tree.object(number) {
            Some(object) => check(object, version),
            None => Ok(()),
        };
        checked.map_err(|reason| tree.forbidden(number, reason))?;
    }
    match version {
        Version::V0 | Version::V1 => layered(tree, version)?,
        Version::V2 => tree.objects_mut().for_each(point_out_first),
    }
    link_up(tree, version);
    Ok(())
}

/// What an image of that version cannot hold.
fn check(object: &Object, version: Version) -> Result<(), String> {
    let shown = |xattr: &Xattr| xattr.name.escape_ascii().to_string();
    for xattr in &object.xattrs {
        attributes::check(xattr)
            .map_err(|reason| format!("attribute {}: {reason}", shown(xattr)))?;
    }
    let chunks = match &object.body {
        Body::External(_) => object.size.div_ceil(1 << chunk_bits(object.size)),
        _ => 0,
    };
    match (version, &object.body) {
        (Version::V0 | Version::V1, _) => {
            // As libcomposefs counts: 7 bytes besides name and value, and a header.
            let each = object
                .xattrs
                .iter()
                .map(|x| 7 + x.name.len() + x.value.len());
            let all = each.sum::<usize>() + 12;
            if !object.xattrs.is_empty() && all > XATTRS_MAX {
                return Err(format!(
                    "its attributes take {all} bytes, at most {XATTRS_MAX} may"
                ));
            }
            if chunks > CHUNKS_MAX {
                let most = CHUNKS_MAX << CHUNK_BITS_MAX;
                return Err(format!("{} bytes, at most {most} may be", object.size));
            }
        }
        (_, Body::Inline(bytes)) if bytes.len() > INLINE_MAX_V2 => {
            return Err(format!(
                "{} bytes are inline, at most {INLINE_MAX_V2} may be in version 2; put it into the object store",
                bytes.len()
            ));
        }
        (_, Body::Symlink(target)) if target.len() > SYMLINK_MAX_V2 => {
            return Err(format!(
                "its target has {} bytes, at most {SYMLINK_MAX_V2} may be in version 2",
                target.len()
            ));
        }
        (_, Body::CharDevice(0)) if object.names > 1 => {
            return Err("a whiteout with several names, which version 2 does not know".into());
        }
        // The crate makes an image of such a file, but one without the file's chunk.
        (_, Body::External(External { digest: None, .. })) => {
            return Err("no digest, which version 2 needs; give the file's of fs-verity".into());
        }
        (
            _,
            Body::External(External {
                payload: None,
                by_digest: false,
                ..
            }),
        ) => {
            return Err("a digest without payload, which version 2 does not know".into());
        }
        (_, Body::External(_)) if chunks > 1 => {
            let most = 1_u64 << CHUNK_BITS_MAX;
            return Err(format!(
                "{} bytes, at most {most} may be in version 2",
                object.size
            ));
        }
        _ => {}
    }
    if version == Version::V2 && object.xattrs.len() > MOST_SHARED_V2 {
        return Err(format!(
            "{} attributes, at most {MOST_SHARED_V2} may be in version 2",
            object.xattrs.len()
        ));
    }
    Ok(())
}

/// Logarithm of the chunks a file of `size` bytes has: as few of them as can be.
pub(super) fn chunk_bits(size: u64) -> u32 {
    let bits = u64::BITS - size.saturating_sub(1).leading_zeros();
    bits.clamp(12, CHUNK_BITS_MAX)
}

/// Versions 0 and 1.
fn layered(tree: &mut Tree, version: Version) -> Result<(), ComposefsError> {
    let mut with_whiteouts = Vec::new();
    for number in 0..tree.len() as Number {
        for entry in tree.entries(number).into_iter().flat_map(|e| e.values()) {
            let object = tree.object(entry.object);
            if entry.first && object.is_some_and(|o| matches!(o.body, Body::CharDevice(0))) {
                with_whiteouts.push(number);
                break;
            }
        }
    }
    tree.objects_mut().for_each(point_out);
    for number in with_whiteouts {
        let Some(Object { xattrs, .. }) = tree.object_mut(number) else {
            continue;
        };
        WHITEOUTS
            .iter()
            .for_each(|name| list::set(xattrs, name, b""));
        if version == Version::V1 {
            ESCAPED_OPAQUE
                .iter()
                .for_each(|name| list::set(xattrs, name, b"x"));
        }
    }
    if let Some(root) = tree.object_mut(ROOT) {
        list::set(&mut root.xattrs, OPAQUE, b"y");
    }
    let stubs = stubs(tree);
    stubs.map_err(|reason| tree.forbidden(ROOT, reason))
}

/// Escapes an object, and says where its contents lie.
fn point_out(object: &mut Object) {
    for xattr in &mut object.xattrs {
        escape(xattr);
    }
    object.xattrs.sort_by(|a, b| a.name.cmp(&b.name));
    match &object.body {
        Body::External(_) if object.size == 0 => object.body = Body::Inline(Box::default()),
        Body::External(file) => {
            let metacopy = metacopy(file.digest.as_ref());
            list::set(&mut object.xattrs, METACOPY, &metacopy);
            if let Some(path) = file.path() {
                let redirect = [b"/", &*path].concat();
                list::set(&mut object.xattrs, REDIRECT, &redirect);
            }
        }
        Body::CharDevice(0) => {
            object.body = Body::Inline(Box::default());
            object.size = 0;
            for name in WHITEOUT {
                list::set(&mut object.xattrs, name, b"");
            }
        }
        _ => {}
    }
}

/// The same for version 2, which has these attributes first, whatever they are called.
fn point_out_first(object: &mut Object) {
    for xattr in &mut object.xattrs {
        escape(xattr);
    }
    let Body::External(file) = &object.body else {
        return;
    };
    let mut own = |name: &[u8], value: &[u8], at: usize| {
        let (name, value) = (name.into(), value.into());
        object.xattrs.insert(at, Xattr { name, value });
    };
    own(METACOPY, &metacopy(file.digest.as_ref()), 0);
    // Whatever the payload is: version 2 has no other place for an object.
    if let Some(digest) = &file.digest {
        let path = format!("/{}", object_path(digest));
        own(REDIRECT, path.as_bytes(), 1);
    }
}

fn escape(xattr: &mut Xattr) {
    if let Some(rest) = xattr.name.strip_prefix(OVERLAY) {
        xattr.name = [ESCAPED, rest].concat().into();
    }
}

/// `struct ovl_metacopy` of Linux: version, length, flags, hash function, digest.
fn metacopy(digest: Option<&Digest>) -> Vec<u8> {
    digest.map_or_else(Vec::new, |digest| {
        let head = [0, 36, 0, fs::number(Algorithm::Sha256)];
        [&head[..], digest].concat()
    })
}

/// Whiteouts for all directories that an object store may have, so that they do not show
/// where it is mounted below.
fn stubs(tree: &mut Tree) -> Result<(), String> {
    let Some(root) = tree.object(ROOT) else {
        return Ok(());
    };
    let label = root.xattrs.iter().find(|xattr| *xattr.name == *SELINUX);
    let stub = Object {
        mode: 0o644,
        uid: root.uid,
        gid: root.gid,
        mtime: root.mtime,
        nlink: 1,
        names: 0,
        size: 0,
        xattrs: label.cloned().into_iter().collect(),
        body: Body::CharDevice(0),
    };
    for number in 0..=u8::MAX {
        let name = format!("{number:02x}");
        if tree.find(&[name.as_bytes()]).is_some() {
            continue;
        }
        let object = tree.add(stub.clone())?;
        let first = true;
        tree.name(ROOT, name.as_bytes(), Entry { object, first })?;
    }
    Ok(())
}

/// Gives every directory names for itself and for the one above, and everything as many
/// links as an image of that version tells.
fn link_up(tree: &mut Tree, version: Version) {
    let mut parents = vec![ROOT; tree.len()];
    let mut directories = vec![2; tree.len()];
    for number in 0..tree.len() as Number {
        let entries = tree.entries(number).into_iter().flat_map(|e| e.values());
        for entry in entries.filter(|entry| tree.entries(entry.object).is_some()) {
            if let Some(parent) = parents.get_mut(entry.object as usize) {
                *parent = number;
            }
            if let Some(directories) = directories.get_mut(number as usize) {
                *directories += 1;
            }
        }
    }
    let counted = parents.into_iter().zip(directories);
    for (number, (object, (parent, links))) in tree.objects_mut().zip(counted).enumerate() {
        let to = |object| Entry {
            object,
            first: false,
        };
        match &mut object.body {
            Body::Directory(entries) => {
                entries.insert(Box::from(*b"."), to(number as Number));
                entries.insert(Box::from(*b".."), to(parent));
                object.nlink = links;
            }
            _ if version == Version::V2 => object.nlink = object.names,
            _ => {}
        }
    }
}
