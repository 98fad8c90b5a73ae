//! From inodes to paths: up by parent pointers, or down through all directories.

use crate::xfs::format::dir::file_type;
use crate::xfs::read::{Place, Reader, Result, Source, shape};
use rustc_hash::{FxHashMap, FxHashSet};
use std::collections::BTreeSet;
use std::sync::Arc;

/// Bytes of paths of directories that are remembered.
const CACHE: usize = 8 << 20;

/// Finds paths by parent pointers, remembering those of directories.
pub(super) struct Climber<'r, S> {
    reader: &'r Reader<S>,
    known: FxHashMap<u64, Arc<[u8]>>,
    bytes: usize,
}

fn join(directory: &[u8], name: &[u8]) -> Vec<u8> {
    let mut path = Vec::with_capacity(directory.len() + 1 + name.len());
    path.extend_from_slice(directory);
    if !directory.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
    path
}

impl<'r, S: Source> Climber<'r, S> {
    pub(super) fn new(reader: &'r Reader<S>) -> Self {
        Self {
            reader,
            known: FxHashMap::default(),
            bytes: 0,
        }
    }

    pub(super) fn paths(&mut self, ino: u64, found: &mut dyn FnMut(&[u8])) -> Result<()> {
        if ino == self.reader.superblock().root_ino.get() {
            found(b"");
            return Ok(());
        }
        let inode = self.reader.inode(ino)?;
        for attribute in self.reader.attributes(&inode)? {
            if let Some(parent) = attribute?.parent() {
                let directory = self.directory(parent.ino, parent.generation)?;
                found(&join(&directory, &parent.name));
            }
        }
        Ok(())
    }

    /// The path of directory `ino`: climbs until one whose path is known, or the root.
    fn directory(&mut self, ino: u64, generation: u32) -> Result<Arc<[u8]>> {
        let root = self.reader.superblock().root_ino.get();
        let mut way: Vec<(u64, Vec<u8>)> = Vec::new();
        let mut seen = FxHashSet::default();
        let (mut at, mut generation) = (ino, generation);
        let mut path: Arc<[u8]> = loop {
            if at == root {
                break Arc::from(&b""[..]);
            }
            if let Some(known) = self.known.get(&at) {
                break known.clone();
            }
            let bad = |text: &str| shape("parent pointer", Place::Inode(at), text);
            if !seen.insert(at) {
                return Err(bad("directories form a ring"));
            }
            let inode = self.reader.inode(at)?;
            if inode.generation() != generation {
                return Err(bad("a child means another generation"));
            }
            let mut parents = self.reader.attributes(&inode)?;
            let parent =
                parents.find_map(|attribute| attribute.map(|one| one.parent()).transpose());
            let parent = parent.ok_or_else(|| bad("a directory without a parent pointer"))??;
            way.push((at, parent.name));
            (at, generation) = (parent.ino, parent.generation);
        };
        while let Some((ino, name)) = way.pop() {
            path = join(&path, &name).into();
            self.remember(ino, &path);
        }
        Ok(path)
    }

    fn remember(&mut self, ino: u64, path: &Arc<[u8]>) {
        if self.bytes > CACHE {
            self.known.clear();
            self.bytes = 0;
        }
        self.bytes += path.len() + 48;
        self.known.insert(ino, path.clone());
    }
}

/// Calls `found` with each path of each inode of `wanted`, in one walk through all
/// directories. Remembers the directories that were seen, 8 bytes each, and those still
/// to be entered.
pub(super) fn search<S: Source>(
    reader: &Reader<S>,
    wanted: &BTreeSet<u64>,
    found: &mut dyn FnMut(u64, &[u8]),
) -> Result<()> {
    let root = reader.superblock().root_ino.get();
    if wanted.contains(&root) {
        found(root, b"");
    }
    let mut seen: FxHashSet<u64> = [root].into_iter().collect();
    let mut todo: Vec<(u64, Arc<[u8]>)> = vec![(root, Arc::from(&b""[..]))];
    while let Some((ino, path)) = todo.pop() {
        let inode = reader.inode(ino)?;
        for entry in reader.directory(&inode)?.entries() {
            let entry = entry?;
            if entry.name == b"." || entry.name == b".." {
                continue;
            }
            let is_wanted = wanted.contains(&entry.ino);
            let enter = entry.file_type == file_type::DIRECTORY && seen.insert(entry.ino);
            if is_wanted || enter {
                let child = join(&path, &entry.name);
                if is_wanted {
                    found(entry.ino, &child);
                }
                if enter {
                    todo.push((entry.ino, child.into()));
                }
            }
        }
    }
    Ok(())
}
