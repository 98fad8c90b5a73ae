//! For tests: a walk as a list that can be compared, with the contract checked on the way.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs::{self, File};
use std::ops::Range;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileExt, PermissionsExt, symlink};
use std::path::Path;
use std::process::Command;
use std::time::{Duration, UNIX_EPOCH};

use super::{Bytes, Content, Detail, Event, Kind, Meta, NAME_MAX, Node, Source, TreeError};

/// One name of an object, with everything about the object at its first name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Seen {
    pub(super) path: Vec<u8>,
    pub(super) what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum What {
    Object {
        kind: String,
        /// A file's bytes with zeroes for holes, a link's target, a device's numbers.
        body: Vec<u8>,
        meta: Meta,
        xattrs: Vec<(Vec<u8>, Vec<u8>)>,
    },
    /// Another name of the object at this path.
    Link(Vec<u8>),
}

/// Everything a source yields in a walk with contents.
pub(super) fn list(source: &dyn Source) -> Result<Vec<Seen>, TreeError> {
    let mut lister = Lister::default();
    for event in source.walk(Detail::Contents)? {
        lister.take(event?)?;
    }
    Ok(lister.finish())
}

/// Walks with every detail and checks that the walks agree; returns the one with contents.
pub(super) fn check(source: &dyn Source) -> Vec<Seen> {
    let wanted = list(source).unwrap();
    let mut shapes = Vec::new();
    for detail in [
        Detail::Names,
        Detail::Layout,
        Detail::Contents,
        Detail::Digests,
    ] {
        let events: Vec<Event> = source.walk(detail).unwrap().map(Result::unwrap).collect();
        shapes.push(
            events
                .iter()
                .map(|event| shape(event, detail))
                .collect::<Vec<_>>(),
        );
    }
    let (names, rest) = shapes.split_first().unwrap();
    for other in rest {
        let bare = |shape: &Shape| (shape.0.clone(), shape.1);
        let (a, b): (Vec<_>, Vec<_>) = (
            names.iter().map(bare).collect(),
            other.iter().map(bare).collect(),
        );
        assert_eq!(a, b);
        assert_eq!(other, &rest[0]);
    }
    wanted
}

/// Name and metadata; target, holes and attributes as far as a layout knows them.
type Shape = (Vec<u8>, Option<Meta>, String);

fn shape(event: &Event, detail: Detail) -> Shape {
    match event {
        Event::Leave => (b"/".to_vec(), None, String::new()),
        Event::Link { name, id } => (name.to_vec(), None, id.to_string()),
        Event::Enter(node) | Event::Node(node) => {
            let kind = match &node.kind {
                Kind::File(content) => {
                    check_content(content, detail);
                    format!("{} {:?}", content.size, content.data)
                }
                Kind::Symlink(target) if detail == Detail::Names => {
                    assert!(target.is_empty());
                    String::new()
                }
                other => format!("{other:?}"),
            };
            let text = format!("{kind} {:?} {:?}", node.xattrs, node.links);
            (node.name.to_vec(), Some(node.meta), text)
        }
    }
}

fn check_content(content: &Content, detail: Detail) {
    let mut end = None;
    for range in &content.data {
        assert!(range.start < range.end && end.is_none_or(|end| end < range.start));
        assert!(range.end <= content.size, "{range:?} of {}", content.size);
        end = Some(range.end);
    }
    let unread = matches!(content.bytes, Bytes::Unread);
    assert_eq!(unread, matches!(detail, Detail::Names | Detail::Layout));
    let mut blocks = std::collections::BTreeSet::new();
    for range in content.data.iter().filter(|_| detail == Detail::Digests) {
        blocks.extend(range.start / 4096..=(range.end - 1) / 4096);
    }
    assert_eq!(content.digests.len(), blocks.len());
}

#[derive(Default)]
struct Lister {
    found: Vec<Seen>,
    path: Vec<Vec<u8>>,
    last: Vec<Option<Vec<u8>>>,
    objects: BTreeMap<u64, (Vec<u8>, u32)>,
    ended: bool,
}

impl Lister {
    fn take(&mut self, event: Event) -> Result<(), TreeError> {
        assert!(!self.ended, "an event after the root was left");
        match event {
            Event::Enter(node) => {
                self.object(&node)?;
                self.last.push(None);
            }
            Event::Node(node) => {
                self.object(&node)?;
                self.path.pop();
            }
            Event::Link { name, id } => {
                self.name(&name);
                let (first, left) = self.objects.get_mut(&id).expect("an object seen before");
                *left = left.checked_sub(1).expect("more names than at most");
                let what = What::Link(first.clone());
                let path = self.path.join(&b'/');
                self.found.push(Seen { path, what });
                self.path.pop();
            }
            Event::Leave => {
                self.last.pop().expect("nothing to leave");
                self.path.pop();
                self.ended = self.path.is_empty();
            }
        }
        Ok(())
    }

    fn name(&mut self, name: &[u8]) {
        match self.last.last_mut() {
            None => assert!(name.is_empty() && self.path.is_empty()),
            Some(last) => {
                assert!(!name.is_empty() && name.len() <= NAME_MAX);
                assert!(!name.contains(&0) && !name.contains(&b'/'));
                assert!(name != b"." && name != b"..");
                assert!(last.as_deref() < Some(name), "{last:?} before {name:?}");
                *last = Some(name.to_vec());
            }
        }
        self.path.push(name.to_vec());
    }

    fn object(&mut self, node: &Node) -> Result<(), TreeError> {
        self.name(&node.name);
        let path = self.path.join(&b'/');
        if let Some(links) = node.links {
            let before = self
                .objects
                .insert(links.id, (path.clone(), links.at_most - 1));
            assert!(before.is_none(), "an id came twice");
        }
        let pairs = node.xattrs.iter();
        let xattrs: Vec<_> = pairs.map(|x| (x.name.to_vec(), x.value.to_vec())).collect();
        assert!(
            xattrs.windows(2).all(|two| two[0].0 < two[1].0),
            "{xattrs:?}"
        );
        let (kind, body) = match &node.kind {
            Kind::File(content) => ("file".to_owned(), bytes(content)?),
            Kind::Symlink(target) => ("symlink".to_owned(), target.to_vec()),
            other => (format!("{other:?}"), Vec::new()),
        };
        let meta = node.meta;
        let what = What::Object {
            kind,
            body,
            meta,
            xattrs,
        };
        self.found.push(Seen { path, what });
        Ok(())
    }

    fn finish(self) -> Vec<Seen> {
        assert!(self.ended, "the root was not left");
        self.found
    }
}

/// All bytes of a file, zeroes for holes.
pub(super) fn bytes(content: &Content) -> Result<Vec<u8>, TreeError> {
    let mut whole = vec![0; content.size as usize];
    let mut at = 0;
    for (index, range) in content.data.iter().enumerate() {
        let place = &mut whole[range.start as usize..range.end as usize];
        match &content.bytes {
            Bytes::Unread => panic!("a file that was not read"),
            Bytes::Read(bytes) => place.copy_from_slice(&bytes[at..at + place.len()]),
            Bytes::At {
                file,
                path,
                offsets,
                ..
            } => {
                let read = file.read_exact_at(place, offsets[index]);
                read.map_err(|cause| TreeError::io(path, "read", cause))?;
            }
        }
        at += (range.end - range.start) as usize;
    }
    if let Bytes::Read(bytes) = &content.bytes {
        assert_eq!(bytes.len(), at);
    }
    Ok(whole)
}

/// Finds the object at `path`.
pub(super) fn at<'a>(seen: &'a [Seen], path: &str) -> &'a What {
    let found = seen.iter().find(|one| one.path == path.as_bytes());
    &found
        .unwrap_or_else(|| panic!("{path} is not in {:?}", paths(seen)))
        .what
}

/// All paths, as text.
pub(super) fn paths(seen: &[Seen]) -> Vec<String> {
    seen.iter()
        .map(|one| super::error::show(&one.path))
        .collect()
}

/// Makes a tree with some of everything that every kind of archive can hold.
pub(super) fn plant(root: &Path) {
    let at = |name: &str| root.join(name);
    fs::create_dir_all(at("dir/sub")).unwrap();
    fs::create_dir(at("dir/empty")).unwrap();
    fs::write(at("dir/sub/small"), "some text\n").unwrap();
    fs::write(at("dir/nothing"), "").unwrap();
    fs::write(
        at("large"),
        (0..700_000u32).map(|n| (n / 7) as u8).collect::<Vec<u8>>(),
    )
    .unwrap();
    fs::hard_link(at("dir/sub/small"), at("alias")).unwrap();
    symlink("dir/sub", at("link")).unwrap();
    let long = "l".repeat(200);
    fs::create_dir(at(&long)).unwrap();
    fs::write(at(&long).join("f".repeat(200)), "long").unwrap();
    fs::hard_link(at(&long).join("f".repeat(200)), at("dir/long")).unwrap();
    symlink("t".repeat(300), at("long-link")).unwrap();
    fs::write(root.join(OsStr::from_bytes(b"\xff\xfe=\n\\")), "not text").unwrap();
    fs::set_permissions(at("dir/sub/small"), fs::Permissions::from_mode(0o6751)).unwrap();
    fs::set_permissions(at("dir"), fs::Permissions::from_mode(0o1777)).unwrap();
    let mkfifo = Command::new("mkfifo").arg(at("fifo")).status();
    assert!(mkfifo.unwrap().success());
    let sparse = File::create(at("sparse")).unwrap();
    sparse.set_len(10_000_000).unwrap();
    for n in 0..30u8 {
        sparse
            .write_all_at(&[n + 1; 4096], u64::from(n) * 300 * 1024)
            .unwrap();
    }
    File::create(at("hole")).unwrap().set_len(100_000).unwrap();
    let times =
        fs::FileTimes::new().set_modified(UNIX_EPOCH + Duration::new(1_234_567_890, 123_456_789));
    sparse.set_times(times).unwrap();
}

/// What is comparable about a tree that went through an archive of limited means.
pub(super) fn without(seen: &[Seen], nanoseconds: bool, ctime: bool, xattrs: bool) -> Vec<Seen> {
    let mut seen = seen.to_vec();
    for one in &mut seen {
        if let What::Object {
            meta, xattrs: own, ..
        } = &mut one.what
        {
            if nanoseconds {
                meta.mtime.nanoseconds = 0;
            }
            if ctime {
                meta.ctime = meta.mtime;
            }
            if xattrs {
                own.clear();
            }
        }
    }
    seen
}

/// Where data lies in every file, by its name.
pub(super) fn holes(source: &dyn Source) -> BTreeMap<Vec<u8>, Vec<Range<u64>>> {
    let events = source.walk(Detail::Layout).unwrap().map(Result::unwrap);
    let files = events.filter_map(|event| match event {
        Event::Node(Node {
            name,
            kind: Kind::File(content),
            ..
        }) => Some((name.to_vec(), content.data)),
        _ => None,
    });
    files.collect()
}

/// Whether a program the test needs is there; says so if not.
pub(super) fn have(program: &str) -> bool {
    let there = Command::new(program).arg("--version").output().is_ok();
    if !there {
        println!("SKIPPED: {program} is not installed");
    }
    there
}

/// Says in which object two trees differ, with the beginning of how.
pub(super) fn same(ours: &[Seen], wanted: &[Seen]) {
    assert_eq!(paths(ours), paths(wanted));
    for (ours, wanted) in ours.iter().zip(wanted) {
        let brief = |one: &Seen| {
            let mut one = one.clone();
            if let What::Object { body, .. } = &mut one.what {
                body.truncate(30);
            }
            format!("{:?}", one.what)
        };
        let path = super::error::show(&ours.path);
        assert!(
            ours == wanted,
            "{path}:\n{}\n{}",
            brief(ours),
            brief(wanted)
        );
    }
}
