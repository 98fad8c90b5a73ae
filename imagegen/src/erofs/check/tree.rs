//! Every name from the root on: directories, links, circles.

use super::inodes::Inodes;
use super::problem::{Kind, Problems};
use crate::erofs::format::directory::kind::{DIRECTORY, UNKNOWN};
use crate::erofs::read::{Entry, Image, Inode, Nid, ReadError, Step, brief};
use crate::medium::Source;
use hashbrown::{HashMap, HashSet};
use rustc_hash::FxBuildHasher;

/// Names found and links claimed.
type Names = HashMap<u64, (u32, u32), FxBuildHasher>;

/// Checks everything below `root`; returns how many inodes there are.
pub(super) fn check<S: Source>(
    image: &Image<S>,
    root: Inode,
    inodes: &mut Inodes<'_, S>,
    problems: &mut Problems,
) -> u64 {
    let mut names = Names::default();
    // The directories that are open, the nearest last, with the directories in each.
    let mut open: Vec<(Inode, u32)> = Vec::new();
    let mut count = 0;
    let mut left = image.most_names();
    if !root.is_directory() {
        problems.inode(Kind::Directory, root.nid, "the root is no directory");
    }
    let mut walk = image.walk(root);
    while let Some(step) = walk.next() {
        let entry = walk.entry();
        match step {
            Step::Enter(inode) => {
                kind_agrees(entry, &inode, problems);
                let above = open.last_mut().map(|(above, below)| {
                    *below += 1;
                    above.nid
                });
                let above = above.unwrap_or(inode.nid);
                directory(image, &inode, above, &mut left, problems);
                inodes.check(&inode, problems);
                count += 1;
                open.push((inode, 0));
            }
            Step::Node(inode) => {
                kind_agrees(entry, &inode, problems);
                let seen = names.entry(inode.nid).or_insert((0, inode.links));
                seen.0 = seen.0.saturating_add(1);
                if seen.0 == 1 {
                    inodes.check(&inode, problems);
                    count += 1;
                }
            }
            Step::Leave => {
                if let Some((inode, below)) = open.pop() {
                    directory_links(&inode, below, problems);
                }
            }
            Step::Broken(error) => {
                if let (Some((_, below)), Some(DIRECTORY)) =
                    (open.last_mut(), entry.map(|entry| entry.kind))
                {
                    *below += 1;
                }
                let path = brief(walk.path());
                problems.at(broken_kind(&error, entry), path, &error);
            }
        }
    }
    links(&names, problems);
    count
}

/// An entry that leads nowhere, or a directory that cannot be read.
fn broken_kind(error: &ReadError, entry: Option<&Entry>) -> Kind {
    match error {
        ReadError::Damaged { structure, .. } if *structure == "directory" && entry.is_some() => {
            Kind::Connectivity
        }
        ReadError::Damaged { structure, .. } if *structure == "directories" => Kind::Connectivity,
        ReadError::Damaged { structure, .. } if *structure == "map of contents" => Kind::Map,
        _ if entry.is_some() => Kind::Inode,
        _ => Kind::Directory,
    }
}

fn kind_agrees(entry: Option<&Entry>, inode: &Inode, problems: &mut Problems) {
    let Some(entry) = entry else { return };
    if entry.kind != inode.entry_kind() && entry.kind != UNKNOWN {
        let text = format!(
            "its entry says kind {}, its mode {:#o}",
            entry.kind, inode.mode
        );
        problems.inode(Kind::Directory, inode.nid, text);
    }
    if entry.reserved {
        let text = "a reserved byte of its entry is not zero";
        problems.inode(Kind::Directory, inode.nid, text);
    }
}

/// Order and uniqueness of the names, `.` and `..`. `left` names may come in all the
/// directories together.
fn directory<S: Source>(
    image: &Image<S>,
    inode: &Inode,
    above: u64,
    left: &mut u64,
    problems: &mut Problems,
) {
    let mut bad = |text: String| problems.inode(Kind::Directory, inode.nid, text);
    let Ok(entries) = image.entries(inode) else {
        return; // the walk says so
    };
    let (mut own, mut up) = (None, None);
    let mut before: Option<Entry> = None;
    // What cannot be read the walk finds, too.
    for entry in entries.map_while(Result::ok) {
        match left.checked_sub(1) {
            Some(less) => *left = less,
            None => return, // the walk says so, too
        }
        if let Some(before) = before.filter(|before| before.name >= entry.name) {
            let (one, other) = (before.name.escape_ascii(), entry.name.escape_ascii());
            bad(format!("\"{other}\" stands after \"{one}\""));
        }
        match &entry.name[..] {
            b"." => own = Some(entry.nid),
            b".." => up = Some(entry.nid),
            _ => {}
        }
        before = Some(entry);
    }
    let shown = |nid: Option<u64>| nid.map_or("missing".into(), |nid| Nid(nid).to_string());
    let wanted = (!inode.dot_omitted).then_some(inode.nid);
    if own != wanted {
        let (is, wanted) = (shown(own), shown(wanted));
        bad(format!("`.` is {is}, and should be {wanted}"));
    }
    if up != Some(above) {
        let (is, wanted) = (shown(up), shown(Some(above)));
        bad(format!("`..` is {is}, and should be {wanted}"));
    }
}

fn directory_links(inode: &Inode, below: u32, problems: &mut Problems) {
    // 1 says that nobody counts, as elsewhere.
    let wanted = below.saturating_add(2);
    if inode.links != wanted && inode.links != 1 {
        let text = format!("{} links, and should have {wanted}", inode.links);
        problems.inode(Kind::Links, inode.nid, text);
    }
}

fn links(names: &Names, problems: &mut Problems) {
    let mut wrong: Vec<_> = names
        .iter()
        .filter(|(_, (names, links))| names != links)
        .collect();
    wrong.sort_unstable();
    for (nid, (names, links)) in wrong {
        let text = format!("{links} links, but {names} names");
        problems.inode(Kind::Links, *nid, text);
    }
}

/// Finds the paths of what was found without one.
pub(super) fn name<S: Source>(image: &Image<S>, root: Inode, problems: &mut Problems) {
    let mut wanted: HashSet<u64, FxBuildHasher> = problems.without_path().collect();
    for (special, path) in [
        (image.packed(), "packed inode"),
        (image.metabox(), "metabox"),
    ] {
        if let Some(inode) = special
            && wanted.remove(&inode.nid)
        {
            problems.name(inode.nid, path);
        }
    }
    let mut walk = image.walk(root);
    while !wanted.is_empty() {
        match walk.next() {
            Some(Step::Enter(inode) | Step::Node(inode)) if wanted.remove(&inode.nid) => {
                problems.name(inode.nid, &brief(walk.path()));
            }
            Some(_) => {}
            None => break,
        }
    }
}
