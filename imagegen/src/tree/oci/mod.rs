//! A container image as a source: an OCI image layout, its layers applied in order.
//!
//! Every file is checked against its digest before it is used. A layer's whiteouts
//! (`.wh.NAME`, and `.wh..wh..opq` for all of a directory) remove what the layers below
//! it put there, wherever in the layer they stand (layer.md of the OCI image
//! specification). Compressed layers are unpacked to temporary files.

mod layout;

#[cfg(test)]
mod tests;

use std::path::Path;
use std::sync::Arc;

use super::arena::{Arena, OnTheWay, Tree};
use super::spool::Archive;
use super::tar::{Reader, put};
use super::{Detail, Source, TreeError, Walk};
use layout::{Layout, invalid};

/// What begins the name of a whiteout.
const WHITEOUT: &[u8] = b".wh.";
/// What begins the names of what is about layers themselves.
const META: &[u8] = b".wh..wh.";
const OPAQUE: &[u8] = b".wh..wh..opq";

/// Which image of a layout is meant.
#[derive(Debug, Clone, Default)]
pub struct OciOptions {
    /// Its name (`org.opencontainers.image.ref.name`, often a tag alone); not needed if
    /// there is one.
    pub reference: Option<String>,
    /// For which machines, as `linux/arm64` or `linux/arm/v7`. If not given: this one, if
    /// there are images for several.
    pub platform: Option<String>,
}

/// An image, to be walked.
#[derive(Debug)]
pub struct Oci {
    tree: Tree,
}

impl Oci {
    /// The image that `options` names of the layout in the directory `path`.
    ///
    /// # Errors
    /// If it is none, not one image is meant, or a file of it is missing or not what its
    /// digest says.
    pub fn open(path: &Path, options: &OciOptions) -> Result<Self, TreeError> {
        let layout = Layout::new(path);
        let mut arena = Arena::new();
        for layer in layout.layers(options)? {
            let (file, path) = layout.blob(&layer)?;
            if layer.media_type.contains("encrypted") {
                return Err(invalid(
                    &path,
                    "the layer is encrypted; decrypt the image first",
                ));
            }
            let archive = Archive::open(file, path.as_os_str().as_encoded_bytes())?;
            apply(&mut arena, &archive)?;
        }
        let tree = arena.finish();
        Ok(Self { tree })
    }
}

impl Source for Oci {
    fn walk(&self, detail: Detail) -> Result<Walk<'_>, TreeError> {
        self.tree.walk(detail)
    }
}

/// Applies a layer: first what it removes, which is always of the layers below.
fn apply(arena: &mut Arena, layer: &Archive) -> Result<(), TreeError> {
    let mut reader = Reader::new(layer);
    while let Some(item) = reader.next() {
        let item = item?;
        if let Some((directory, name)) = whiteout(&item.path) {
            remove(arena, directory, name)
                .map_err(|reason| reader.invalid(item.at, &item.path, &reason))?;
        }
    }
    let number = arena.archive(Arc::clone(&layer.file), &layer.path);
    let mut reader = Reader::new(layer);
    while let Some(item) = reader.next() {
        let item = item?;
        if whiteout(&item.path).is_none() {
            let (at, path) = (item.at, item.path.clone());
            put(arena, number, item, OnTheWay::Replace)
                .map_err(|reason| reader.invalid(at, &path, &reason))?;
        }
    }
    Ok(())
}

/// Directory and name of a whiteout or of what else is about layers.
fn whiteout(path: &[u8]) -> Option<(&[u8], &[u8])> {
    let path = path.strip_suffix(b"/").unwrap_or(path);
    let (directory, name) = match path.iter().rposition(|&byte| byte == b'/') {
        Some(slash) => (&path[..slash], &path[slash + 1..]),
        None => (&b""[..], path),
    };
    // What lies in such a directory is no more part of the image than itself.
    let inside = directory
        .split(|&byte| byte == b'/')
        .any(|name| name.starts_with(META));
    (name.starts_with(WHITEOUT) || inside).then_some((directory, name))
}

fn remove(arena: &mut Arena, directory: &[u8], name: &[u8]) -> Result<(), String> {
    if name == OPAQUE {
        return arena.empty(directory);
    }
    match name.strip_prefix(WHITEOUT) {
        _ if name.starts_with(META) => Ok(()),
        Some(b"" | b"." | b"..") => Err("a whiteout of no name".into()),
        Some(name) => arena.remove(&[directory, b"/", name].concat()),
        None => Ok(()),
    }
}
