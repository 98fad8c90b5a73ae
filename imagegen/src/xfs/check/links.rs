//! Counts of links against entries, parent pointers against entries, and every directory
//! on its way to the root.

use super::inode_trees::InodeTrees;
use super::inodes::Scan;
use super::problem::{Kind, Problems};
use super::table::mark;
use crate::xfs::read::attr::Parent;
use crate::xfs::read::{Inode, Place, Reader, Source, existing};

pub(super) fn check<S: Source>(
    reader: &Reader<S>,
    trees: &InodeTrees,
    scan: &Scan<'_, S>,
    problems: &mut Problems,
) {
    check_ways(reader, scan, problems);
    if !scan.entries_known {
        // What is missing would be called wrong again for each inode it would count for.
        return;
    }
    let geometry = reader.geometry();
    let root = reader.superblock().root_ino.get();
    for (ag, group) in trees.groups.iter().enumerate() {
        for chunk in &group.chunks {
            let first = geometry.inode(ag as u32, chunk.start.get());
            let bits = existing(chunk);
            for ino in (0..64)
                .filter(|bit| bits >> bit & 1 == 1)
                .map(|bit| first + bit)
            {
                check_inode(reader, scan, ino, root, problems);
            }
        }
    }
}

fn check_inode<S: Source>(
    reader: &Reader<S>,
    scan: &Scan<'_, S>,
    ino: u64,
    root: u64,
    problems: &mut Problems,
) {
    let marks = scan.marks(ino);
    let own = marks & mark::OWN != 0;
    if matches!(marks & mark::KIND, 0 | mark::DAMAGED) || own {
        return;
    }
    let Some(index) = scan.index(ino) else {
        return;
    };
    let place = Place::Inode(ino);
    let left = scan.table.links.get(index).copied().unwrap_or(0) as i32;
    if left != 0 {
        let text = match marks & mark::NAMED {
            0 if ino != root => "no entry names it".to_owned(),
            _ if left > 0 => format!("its count of links is {left} too high"),
            _ => format!("its count of links is {} too low", left.unsigned_abs()),
        };
        let kind = if marks & mark::NAMED == 0 && ino != root {
            Kind::Connectivity
        } else {
            Kind::Links
        };
        problems.add(kind, place, text);
    }
    if scan.table.parents.get(index).is_some_and(|sum| *sum != 0) {
        let text = explain(reader, ino);
        problems.add(Kind::ParentPointer, place, text);
    }
}

/// Which of the parent pointers of `ino` is wrong; if all are right, one is missing.
fn explain<S: Source>(reader: &Reader<S>, ino: u64) -> String {
    let wrong = || -> Result<Option<Parent>, crate::xfs::read::ReadError> {
        let inode: Inode = reader.inode(ino)?;
        for attribute in reader.attributes(&inode)? {
            let Some(parent) = attribute?.parent() else {
                continue;
            };
            let Ok(directory) = reader.inode(parent.ino) else {
                return Ok(Some(parent));
            };
            let entry = match reader.directory(&directory) {
                Ok(open) => open.lookup(&parent.name)?,
                Err(_) => None,
            };
            let right = directory.generation() == parent.generation
                && entry.is_some_and(|entry| entry.ino == ino);
            if !right {
                return Ok(Some(parent));
            }
        }
        Ok(None)
    };
    match wrong() {
        Ok(Some(parent)) => format!(
            "parent pointer \"{}\" in directory {} of generation {} is no entry",
            parent.name.escape_ascii(),
            parent.ino,
            parent.generation
        ),
        Ok(None) => "an entry that names it has no parent pointer".to_owned(),
        Err(_) => "parent pointers and entries differ".to_owned(),
    }
}

/// `..` leads where the entry is, and at last to the root.
fn check_ways<S: Source>(reader: &Reader<S>, scan: &Scan<'_, S>, problems: &mut Problems) {
    let root = reader.superblock().root_ino.get();
    let all = &scan.directories;
    let find = |ino: u64| {
        all.binary_search_by_key(&ino, |directory| directory.ino)
            .ok()
    };
    // 0: not known; 1: on the way at hand; 2: leads to the root, or was reported.
    let mut state = vec![0_u8; all.len()];
    for (at, directory) in all.iter().enumerate() {
        let place = Place::Inode(directory.ino);
        if directory.dotdot == 0 {
            continue;
        }
        let wanted = if directory.ino == root {
            root
        } else {
            directory.parent
        };
        let known = scan.entries_known || directory.parent != 0 || directory.ino == root;
        if known && wanted != 0 && directory.dotdot != wanted {
            let dotdot = directory.dotdot;
            let text = format!("\"..\" is {dotdot}, but its entry lies in {wanted}");
            problems.add(Kind::Connectivity, place, text);
        }
        let mut way = Vec::new();
        let mut next = Some(at);
        while let Some(here) = next.filter(|here| state[*here] == 0) {
            state[here] = 1;
            way.push(here);
            let up = all[here].dotdot;
            next = if all[here].ino == root {
                None
            } else {
                find(up)
            };
            if next.is_some_and(|next| state[next] == 1) {
                let text = "directories form a ring that does not lead to the root";
                problems.add(Kind::Connectivity, Place::Inode(all[here].ino), text);
                break;
            }
        }
        for here in way {
            state[here] = 2;
        }
    }
}
