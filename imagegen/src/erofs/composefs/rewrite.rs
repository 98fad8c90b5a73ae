//! A tree as it stands in an image: attributes that tell overlayfs where contents lie,
//! names and devices that overlayfs would take for its own escaped, and whiteouts for the
//! directories of the object store.

use super::limits::check;
use super::tree::{Body, Digest, Entry, Number, Object, ROOT, Tree, object_path};
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
