//! Several sources one over the other, as one.
//!
//! All are walked at the same time: their children come in the same order, so names meet.
//! Of what has the same path the later source's counts; directories are merged, with the
//! later's metadata. Memory does not grow with the trees, but for one thing: an object with
//! several names whose first name is covered is kept until another comes.

use std::collections::VecDeque;

use rustc_hash::FxHashMap;

use super::arena::Arena;
use super::{Bytes, Detail, Event, Kind, Node, Source, TreeError, Walk};

/// Most bytes of contents and most open files that are kept for names to come.
const KEPT_BYTES: usize = 64 << 20;
const KEPT_FILES: usize = 256;

/// Sources, the later ones over the earlier ones. Of none at all it is an empty root of
/// `root:root`, 0755, of 1970.
pub struct Overlay {
    sources: Vec<Box<dyn Source>>,
}

impl Overlay {
    /// `sources`, the first at the bottom.
    pub fn new(sources: Vec<Box<dyn Source>>) -> Self {
        Self { sources }
    }
}

impl Source for Overlay {
    fn walk(&self, detail: Detail) -> Result<Walk<'_>, TreeError> {
        if self.sources.is_empty() {
            let empty = Arena::new().finish();
            let events: Vec<_> = empty.walk(detail)?.collect();
            return Ok(Box::new(events.into_iter()));
        }
        let layers = self.sources.iter().enumerate();
        let layers = layers.map(|(number, source)| Layer::new(number, source.walk(detail)?));
        let mut layers: Vec<Layer<'_>> = layers.collect::<Result<_, TreeError>>()?;
        let (count, all) = (layers.len() as u64, (0..layers.len()).collect());
        for layer in &mut layers {
            layer.advance()?;
        }
        Ok(Box::new(Steps {
            layers,
            count,
            levels: Vec::new(),
            begin: Some(all),
            path: Vec::new(),
            ended: false,
        }))
    }
}

/// One source on its way.
struct Layer<'a> {
    number: usize,
    walk: Walk<'a>,
    /// What comes next.
    next: Option<Event>,
    /// Objects whose first name was covered, by their ids.
    kept: FxHashMap<u64, Node>,
    kept_bytes: usize,
    kept_files: usize,
}

impl<'a> Layer<'a> {
    fn new(number: usize, walk: Walk<'a>) -> Result<Self, TreeError> {
        Ok(Self {
            number,
            walk,
            next: None,
            kept: FxHashMap::default(),
            kept_bytes: 0,
            kept_files: 0,
        })
    }

    /// Takes what comes next.
    fn advance(&mut self) -> Result<Option<Event>, TreeError> {
        let next = self.walk.next().transpose()?;
        Ok(std::mem::replace(&mut self.next, next))
    }

    /// The name of what comes next in the directory entered last.
    fn name(&self) -> Option<&[u8]> {
        match self.next.as_ref()? {
            Event::Enter(node) | Event::Node(node) => Some(&node.name),
            Event::Link { name, .. } => Some(name),
            Event::Leave => None,
        }
    }

    /// Passes over what comes next, with everything in it.
    fn skip(&mut self, path: &[u8]) -> Result<(), TreeError> {
        let mut depth = 0u32;
        loop {
            match self.advance()? {
                Some(Event::Enter(_)) => depth += 1,
                Some(Event::Leave) => depth = depth.saturating_sub(1),
                Some(Event::Node(node)) => self.keep(node, path)?,
                Some(Event::Link { .. }) => {}
                None => return Ok(()),
            }
            if depth == 0 {
                return Ok(());
            }
        }
    }

    /// Keeps an object for the names of it to come.
    fn keep(&mut self, node: Node, path: &[u8]) -> Result<(), TreeError> {
        let Some(links) = node.links else {
            return Ok(());
        };
        if let Kind::File(content) = &node.kind {
            match &content.bytes {
                Bytes::Unread => {}
                Bytes::Read(bytes) => self.kept_bytes += bytes.len(),
                Bytes::At { .. } => self.kept_files += 1,
            }
        }
        if self.kept_bytes > KEPT_BYTES || self.kept_files > KEPT_FILES {
            let reason = "too many files with several names are covered by a later source; \
                          leave them out of the earlier one";
            return Err(TreeError::invalid(path, reason));
        }
        self.kept.insert(links.id, node);
        Ok(())
    }
}

struct Steps<'a> {
    layers: Vec<Layer<'a>>,
    /// How many layers there are: ids are spread by it.
    count: u64,
    /// For each directory on the path the layers that have it, the topmost last.
    levels: Vec<VecDeque<usize>>,
    /// Layers whose roots are to be entered.
    begin: Option<VecDeque<usize>>,
    path: Vec<Box<[u8]>>,
    ended: bool,
}

impl Steps<'_> {
    fn step(&mut self) -> Result<Option<Event>, TreeError> {
        if let Some(all) = self.begin.take() {
            return self.enter(all);
        }
        let Some(level) = self.levels.last() else {
            return Ok(None);
        };
        let names = level.iter().filter_map(|&layer| self.layers[layer].name());
        let Some(name) = names.min().map(Box::<[u8]>::from) else {
            return self.leave().map(Some);
        };
        let here = |layer: &&usize| self.layers[**layer].name() == Some(&name);
        let mut here: VecDeque<usize> = level.iter().filter(here).copied().collect();
        let path = self.path_of(&name);
        // Below something that is no directory nothing counts.
        let is_directory =
            |layer: &usize| matches!(self.layers[*layer].next, Some(Event::Enter(_)));
        let cover = here.iter().rposition(|layer| !is_directory(layer));
        let top = here.len().saturating_sub(1);
        let passed = match cover {
            Some(cover) if cover == top => cover, // it counts itself
            Some(cover) => cover + 1,
            None => 0,
        };
        for layer in here.drain(..passed) {
            self.layers[layer].skip(&path)?;
        }
        match (cover, here.front()) {
            (Some(cover), Some(&layer)) if cover == top => self.single(layer),
            _ => self.enter(here),
        }
    }

    /// The object that comes next in `layer`, which is no directory.
    fn single(&mut self, layer: usize) -> Result<Option<Event>, TreeError> {
        let count = self.count;
        let layer = &mut self.layers[layer];
        let number = layer.number as u64;
        let spread = |id: u64| id.saturating_mul(count).saturating_add(number);
        Ok(layer.advance()?.map(|event| match event {
            Event::Link { name, id } => match layer.kept.remove(&id) {
                None => {
                    let id = spread(id);
                    Event::Link { name, id }
                }
                Some(mut node) => {
                    node.name = name;
                    Event::Node(with_id(node, spread))
                }
            },
            Event::Node(node) => Event::Node(with_id(node, spread)),
            other => other,
        }))
    }

    /// Enters the directory that comes next in these layers.
    fn enter(&mut self, layers: VecDeque<usize>) -> Result<Option<Event>, TreeError> {
        let mut entered = None;
        for &layer in &layers {
            entered = self.layers[layer].advance()?;
        }
        if let Some(Event::Enter(node)) = &entered {
            self.path.push(node.name.clone());
            self.levels.push(layers);
        }
        Ok(entered)
    }

    fn leave(&mut self) -> Result<Event, TreeError> {
        self.path.pop();
        for layer in self.levels.pop().unwrap_or_default() {
            self.layers[layer].advance()?;
        }
        Ok(Event::Leave)
    }

    fn path_of(&self, name: &[u8]) -> Vec<u8> {
        let mut path: Vec<&[u8]> = self.path.iter().map(|name| &**name).collect();
        path.push(name);
        path.join(&b'/')
    }
}

fn with_id(mut node: Node, spread: impl Fn(u64) -> u64) -> Node {
    if let Some(links) = &mut node.links {
        links.id = spread(links.id);
    }
    node
}

impl Iterator for Steps<'_> {
    type Item = Result<Event, TreeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let step = self.step().transpose();
        self.ended = !matches!(step, Some(Ok(_)));
        step
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::Meta;
    use crate::tree::arena::{Body, OnTheWay, UNDESCRIBED};
    use crate::tree::testing::{What, at, check, list, paths, same};
    use proptest::prelude::*;

    #[derive(Debug, Clone)]
    enum Put {
        Directory(String),
        File(String, String),
        Link(String, String),
    }

    fn fill(arena: &mut Arena, puts: &[Put], uid: u32) {
        let meta = Meta { uid, ..UNDESCRIBED };
        arena
            .put(b"", meta, Vec::new(), Body::Directory, OnTheWay::Replace)
            .unwrap();
        for put in puts {
            match put {
                Put::Directory(path) => {
                    let body = Body::Directory;
                    arena
                        .put(path.as_bytes(), meta, Vec::new(), body, OnTheWay::Replace)
                        .unwrap();
                }
                Put::File(path, text) => {
                    let body = Body::Inline(arena.text(text.as_bytes()).unwrap());
                    arena
                        .put(path.as_bytes(), meta, Vec::new(), body, OnTheWay::Replace)
                        .unwrap();
                }
                Put::Link(path, to) => {
                    let _ = arena.link(path.as_bytes(), to.as_bytes(), OnTheWay::Replace);
                }
            }
        }
    }

    fn overlay(layers: &[Vec<Put>]) -> Overlay {
        let trees = layers.iter().enumerate().map(|(uid, puts)| {
            let mut arena = Arena::new();
            fill(&mut arena, puts, uid as u32);
            Box::new(arena.finish()) as Box<dyn Source>
        });
        Overlay::new(trees.collect())
    }

    fn file(path: &str, text: &str) -> Put {
        Put::File(path.into(), text.into())
    }

    #[test]
    fn later_over_earlier_and_directories_merged() {
        let layers = [
            vec![
                file("a/x", "1"),
                file("b", "1"),
                file("c/deep/er", "1"),
                file("d", "1"),
            ],
            vec![
                file("a/y", "2"),
                file("b/z", "2"),
                file("c", "2"),
                Put::Directory("a".into()),
            ],
            vec![file("a/x", "3")],
        ];
        let seen = check(&overlay(&layers));
        assert_eq!(
            paths(&seen),
            ["", "/a", "/a/x", "/a/y", "/b", "/b/z", "/c", "/d"]
        );
        let found = |path| match at(&seen, path) {
            What::Object { body, meta, .. } => (String::from_utf8(body.clone()).unwrap(), meta.uid),
            link => panic!("{link:?}"),
        };
        assert_eq!(found("/a/x"), ("3".into(), 2));
        assert_eq!(found("/c"), ("2".into(), 1));
        assert_eq!(found("/d"), ("1".into(), 0));
        // Made on the way to a/x by the last, which says nothing of the directory itself.
        assert_eq!(found("/a").1, 0);
        assert_eq!(found("").1, 2);
    }

    #[test]
    fn a_file_whose_first_name_is_covered_comes_by_its_next() {
        let link = |path: &str| Put::Link(path.into(), "a/first".into());
        let layers = [
            vec![file("a/first", "linked"), link("b"), link("c"), link("d")],
            vec![file("a", "covers"), file("c", "covers too")],
        ];
        let seen = check(&overlay(&layers));
        assert_eq!(paths(&seen), ["", "/a", "/b", "/c", "/d"]);
        let What::Object { body, .. } = at(&seen, "/b") else {
            panic!()
        };
        assert_eq!(body, b"linked");
        assert_eq!(*at(&seen, "/d"), What::Link(b"/b".to_vec()));
    }

    #[test]
    fn nothing_is_an_empty_root_and_one_is_itself() {
        assert_eq!(paths(&check(&Overlay::new(Vec::new()))), [""]);
        let puts = vec![file("a/b", "x"), Put::Link("a/c".into(), "a/b".into())];
        let mut arena = Arena::new();
        fill(&mut arena, &puts, 0);
        same(&check(&overlay(&[puts])), &list(&arena.finish()).unwrap());
    }

    fn puts() -> impl Strategy<Value = Vec<Put>> {
        let path = || "[abc](/[abc]){0,2}";
        let put = prop_oneof![
            path().prop_map(Put::Directory),
            (path(), "[a-z]{1,3}").prop_map(|(path, text)| Put::File(path, text)),
            (path(), path()).prop_map(|(path, to)| Put::Link(path, to)),
        ];
        prop::collection::vec(put, 0..12)
    }

    /// What there is, without who is linked to whom: bytes, kind and layer by path.
    fn flat(source: &dyn Source) -> Vec<(Vec<u8>, What)> {
        let seen = check(source);
        let first = |what: &What| match what {
            What::Link(path) => seen
                .iter()
                .find(|one| one.path == *path)
                .unwrap()
                .what
                .clone(),
            own => own.clone(),
        };
        seen.iter()
            .map(|one| (one.path.clone(), first(&one.what)))
            .collect()
    }

    proptest! {
        /// Directories that nobody describes are like those of the bottom layer here, so
        /// only kinds and contents are compared with putting one tree into another.
        #[test]
        fn trees_over_trees_are_as_if_unpacked_one_into_the_other(
            layers in prop::collection::vec(puts(), 1..4),
        ) {
            let ours = flat(&overlay(&layers));
            let mut one = Arena::new();
            for puts in &layers {
                let mut alone = Arena::new();
                fill(&mut alone, puts, 0);
                for (path, what) in flat(&alone.finish()) {
                    let What::Object { kind, body, meta, .. } = what else { unreachable!() };
                    let body = match kind.as_str() {
                        "Directory" => Body::Directory,
                        _ => Body::Inline(one.text(&body).unwrap()),
                    };
                    one.put(&path, meta, Vec::new(), body, OnTheWay::Replace).unwrap();
                }
            }
            let bare = |all: Vec<(Vec<u8>, What)>| -> Vec<_> {
                all.into_iter().map(|(path, what)| match what {
                    What::Object { kind, body, .. } => (path, kind, body),
                    What::Link(_) => unreachable!(),
                }).collect()
            };
            prop_assert_eq!(bare(ours), bare(flat(&one.finish())));
        }
    }
}
