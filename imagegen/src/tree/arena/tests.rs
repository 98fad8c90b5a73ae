//! The tree in memory against a map of paths.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::{Arena, Body, OnTheWay, UNDESCRIBED};
use crate::tree::testing::{What, check, paths};
use crate::tree::{Meta, Xattr};

fn meta(uid: u32) -> Meta {
    Meta { uid, ..UNDESCRIBED }
}

fn put(arena: &mut Arena, path: &str, body: Body) -> Result<(), String> {
    arena.put(path.as_bytes(), meta(1), Vec::new(), body, OnTheWay::Refuse)
}

#[test]
fn a_directory_over_a_directory_keeps_what_is_in_it() {
    let mut arena = Arena::new();
    put(&mut arena, "d/x", Body::Fifo).unwrap();
    let xattrs = vec![Xattr {
        name: b"user.a"[..].into(),
        value: b"1"[..].into(),
    }];
    arena
        .put(b"d", meta(7), xattrs, Body::Directory, OnTheWay::Refuse)
        .unwrap();
    let seen = check(&arena.finish());
    assert_eq!(paths(&seen), ["", "/d", "/d/x"]);
    let What::Object { meta, xattrs, .. } = &seen[1].what else {
        panic!()
    };
    assert_eq!((meta.uid, xattrs.len()), (7, 1));
}

#[test]
fn what_was_below_does_not_come_back() {
    let mut arena = Arena::new();
    put(&mut arena, "d/x", Body::Fifo).unwrap();
    put(&mut arena, "d", Body::Socket).unwrap();
    assert!(
        put(&mut arena, "d/y", Body::Fifo)
            .unwrap_err()
            .contains("through d")
    );
    put(&mut arena, "d", Body::Directory).unwrap();
    put(&mut arena, "e/x", Body::Fifo).unwrap();
    arena.empty(b"e").unwrap();
    put(&mut arena, "f/x", Body::Fifo).unwrap();
    arena.remove(b"f").unwrap();
    put(&mut arena, "f/y", Body::Fifo).unwrap();
    assert_eq!(
        paths(&check(&arena.finish())),
        ["", "/d", "/e", "/f", "/f/y"]
    );
}

#[test]
fn a_link_to_itself_or_to_nothing() {
    let mut arena = Arena::new();
    put(&mut arena, "a", Body::Fifo).unwrap();
    arena.link(b"a", b"./a", OnTheWay::Refuse).unwrap();
    assert!(arena.link(b"b", b"c", OnTheWay::Refuse).is_err());
    put(&mut arena, "d/e", Body::Fifo).unwrap();
    assert!(
        arena
            .link(b"b", b"d", OnTheWay::Refuse)
            .unwrap_err()
            .contains("directory")
    );
    arena.remove(b"a").unwrap();
    assert!(arena.link(b"b", b"a", OnTheWay::Refuse).is_err());
    assert_eq!(paths(&check(&arena.finish())), ["", "/d", "/d/e"]);
}

#[derive(Debug, Clone)]
enum Step {
    Put(String, u32),
    Directory(String),
    Link(String, String),
    Remove(String),
    Empty(String),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let path = || "[abc](/[abc]){0,2}";
    let step = prop_oneof![
        3 => (path(), any::<u32>()).prop_map(|(path, id)| Step::Put(path, id)),
        2 => path().prop_map(Step::Directory),
        2 => (path(), path()).prop_map(|(path, to)| Step::Link(path, to)),
        1 => path().prop_map(Step::Remove),
        1 => path().prop_map(Step::Empty),
    ];
    prop::collection::vec(step, 0..40)
}

/// A path's directory or file; two names of a file have the same number.
type Model = BTreeMap<String, Option<u32>>;

fn drop_below(model: &mut Model, path: &str) {
    let prefix = format!("{path}/");
    model.retain(|other, _| !other.starts_with(&prefix));
}

/// Makes the directories on the way, as `OnTheWay::Replace` does.
fn make_way(model: &mut Model, path: &str) {
    for (at, _) in path.match_indices('/') {
        model
            .entry(path[..at].to_owned())
            .and_modify(|there| *there = None)
            .or_insert(None);
    }
}

proptest! {
    #[test]
    fn any_steps_leave_what_a_map_would(steps in steps()) {
        let mut arena = Arena::new();
        let mut model = Model::new();
        for step in steps {
            match step {
                Step::Put(path, id) => {
                    arena.put(path.as_bytes(), meta(id), Vec::new(), Body::Fifo, OnTheWay::Replace).unwrap();
                    make_way(&mut model, &path);
                    drop_below(&mut model, &path);
                    model.insert(path, Some(id));
                }
                Step::Directory(path) => {
                    arena.put(path.as_bytes(), meta(0), Vec::new(), Body::Directory, OnTheWay::Replace).unwrap();
                    make_way(&mut model, &path);
                    model.insert(path, None);
                }
                Step::Link(path, to) => {
                    let linked = arena.link(path.as_bytes(), to.as_bytes(), OnTheWay::Replace);
                    let target = model.get(&to).copied().flatten();
                    prop_assert_eq!(linked.is_ok(), target.is_some());
                    if let Some(id) = target {
                        make_way(&mut model, &path);
                        drop_below(&mut model, &path);
                        model.insert(path, Some(id));
                    }
                }
                Step::Remove(path) => {
                    arena.remove(path.as_bytes()).unwrap();
                    drop_below(&mut model, &path);
                    model.remove(&path);
                }
                Step::Empty(path) => {
                    arena.empty(path.as_bytes()).unwrap();
                    drop_below(&mut model, &path);
                }
            }
        }
        let seen = check(&arena.finish());
        let mut found = Model::new();
        for one in seen.iter().skip(1) {
            let path = String::from_utf8(one.path[1..].to_vec()).unwrap();
            let first = match &one.what {
                What::Link(first) => &seen.iter().find(|other| other.path == *first).unwrap().what,
                own => own,
            };
            let What::Object { kind, meta, .. } = first else { panic!() };
            found.insert(path, (kind != "Directory").then_some(meta.uid));
        }
        prop_assert_eq!(found, model);
    }
}
