//! How far ahead is looked, and that it ends with what was surveyed.

use super::*;
use crate::erofs::compress::choice::{Choice, Compression, Fragments};
use crate::erofs::compress::dedupe::{FilePlan, Pieces, Step};
use crate::erofs::compress::selection::Plan;
use crate::tree::{Meta, Node, Time};
use std::cell::Cell;
use std::fs::File;

const ZSTD: &str = "zstd";
const SMALL: u64 = 256 << 10;

fn file(content: Content) -> Event {
    let time = Time::default();
    Event::Node(Node {
        name: b"f"[..].into(),
        kind: Kind::File(content),
        meta: Meta {
            mode: 0o644,
            uid: 0,
            gid: 0,
            project: 0,
            mtime: time,
            ctime: time,
        },
        xattrs: Vec::new(),
        links: None,
    })
}

fn content(size: u64, bytes: Bytes) -> Content {
    Content {
        size,
        data: vec![0..size; 1],
        bytes,
        digests: Vec::new(),
    }
}

/// How many of `count` files one thread looks at to give out the first, and how it ends.
fn looked_at(
    compression: &Compression,
    shared: Option<Shared>,
    count: usize,
    content: impl Fn() -> Content,
) -> (usize, Option<String>) {
    let seen = Cell::new(0);
    let mut events = (0..count).map(|_| {
        seen.set(seen.get() + 1);
        Ok(file(content()))
    });
    let plan = Plan::new(Some(compression), 4096, shared.is_some());
    let choice = Choice::new(compression).unwrap();
    std::thread::scope(|scope| {
        let pool = Pool::start(scope, Some(1));
        let selection = Selection::new(Some(choice), plan);
        let mut ahead = Ahead::new(&mut events, &pool, selection, shared);
        assert!(ahead.next().unwrap().is_ok());
        let first = seen.get();
        let mut end = None;
        while let Some(item) = ahead.next() {
            end = item.err().map(|error| error.to_string());
        }
        drop(ahead);
        pool.finish();
        (first, end)
    })
}

fn zstd(fragments: Fragments) -> Compression {
    Compression {
        fragments,
        ..Compression::new(Method::By(ZSTD.parse().unwrap()), 4096)
    }
}

#[test]
fn files_that_are_open_are_few() {
    let own = || Bytes::At {
        file: Arc::new(File::open("/dev/null").unwrap()),
        path: Arc::from(&b"null"[..]),
        offsets: vec![0],
        written: None,
    };
    let plain = Compression::new(Method::Plain, 4096);
    for compression in [plain.clone(), zstd(Fragments::All)] {
        let (first, _) = looked_at(&compression, None, 1000, || content(SMALL + 1, own()));
        assert_eq!(first, FILES);
    }
    // An archive is open once, however many of its files wait.
    let archive = Arc::new(File::open("/dev/null").unwrap());
    let (first, _) = looked_at(&plain, None, 1000, || {
        let mut bytes = own();
        if let Bytes::At { file, .. } = &mut bytes {
            *file = Arc::clone(&archive);
        }
        content(SMALL + 1, bytes)
    });
    assert_eq!(first, 1000);
}

#[test]
fn contents_that_are_only_taken_are_counted() {
    let bytes = || Bytes::Read(vec![7; SMALL as usize]);
    for fragments in [Fragments::All, Fragments::Tails] {
        let (first, _) = looked_at(&zstd(fragments), None, 300, || content(SMALL, bytes()));
        let most = SEGMENTS * SEGMENT / SMALL;
        assert_eq!(first as u64, most, "{fragments:?}");
    }
}

/// So many files of one piece each, as a survey saw them.
fn of_pieces(count: usize) -> (Shared, impl Fn() -> Content) {
    let hole = || content(SEGMENT, Bytes::Unread);
    let plan = FilePlan {
        stamp: Stamp::of(&hole()),
        steps: vec![Step {
            length: SEGMENT,
            piece: Some(0),
        }],
    };
    let shared = Shared {
        files: Arc::new(vec![plan; count]),
        pieces: Arc::new(Pieces::new(1)),
    };
    (shared, hole)
}

#[test]
fn pieces_are_counted() {
    let (shared, hole) = of_pieces(100);
    let (first, end) = looked_at(&zstd(Fragments::None), Some(shared), 100, hole);
    assert!(first as u64 <= SEGMENTS + 1, "{first}");
    assert_eq!(end, None);
}

#[test]
fn as_many_files_come_as_were_surveyed() {
    let (shared, hole) = of_pieces(3);
    let (_, end) = looked_at(&zstd(Fragments::None), Some(shared), 2, hole);
    let end = end.unwrap();
    assert!(end.contains("files were added or removed"), "{end}");
}
