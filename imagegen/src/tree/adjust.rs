//! Changes to what a source yields: owners, times, labels, attributes.

use super::owners::Owners;
use super::selinux::Labels;
use super::{Detail, Event, Node, Source, Time, TreeError, Walk, attributes, path};

const LABEL: &[u8] = b"security.selinux";

/// What is changed about every object of a tree; nothing by default.
#[derive(Debug, Default)]
pub struct Adjust {
    /// Whom it belongs to.
    pub owners: Owners,
    /// Its times.
    pub times: Times,
    /// Its project id; that of the source if not given (a directory's is not read).
    pub project: Option<u32>,
    /// Its SELinux label, in place of the source's.
    pub labels: Option<Labels>,
    /// Attributes whose full names begin with one of these are left out, before a label is
    /// set: `security.`, `user.`, `trusted.overlay.`.
    pub drop_xattrs: Vec<String>,
    /// The path under which the root of the tree will be mounted, for labels: `/` if empty.
    pub mounted_at: String,
}

/// What becomes of times.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Times {
    /// They stay as they are.
    #[default]
    Keep,
    /// Times after this become this, and the inode's time is that of the contents: what
    /// `SOURCE_DATE_EPOCH` asks for. The tree alone decides, and not when it was copied.
    Clamp(Time),
    /// All become this.
    Fixed(Time),
}

/// A source with changes.
#[derive(Debug)]
pub struct Adjusted<S> {
    source: S,
    adjust: Adjust,
}

impl<S: Source> Adjusted<S> {
    /// `source`, changed by `adjust`.
    pub fn new(source: S, adjust: Adjust) -> Self {
        Self { source, adjust }
    }
}

impl<S: Source> Source for Adjusted<S> {
    fn walk(&self, detail: Detail) -> Result<Walk<'_>, TreeError> {
        Ok(Box::new(Steps {
            walk: self.source.walk(detail)?,
            adjust: &self.adjust,
            detail,
            path: Vec::new(),
            lengths: Vec::new(),
            ended: false,
        }))
    }
}

struct Steps<'a> {
    walk: Walk<'a>,
    adjust: &'a Adjust,
    detail: Detail,
    /// Of the directory entered last, without slash at its end.
    path: Vec<u8>,
    /// Of the paths of the directories around it.
    lengths: Vec<usize>,
    ended: bool,
}

impl Steps<'_> {
    fn event(&mut self, mut event: Event) -> Result<Event, TreeError> {
        match &mut event {
            Event::Enter(node) => {
                self.lengths.push(self.path.len());
                if node.name.is_empty() {
                    self.path = mount_point(&self.adjust.mounted_at)?;
                } else {
                    self.path.push(b'/');
                    self.path.extend_from_slice(&node.name);
                }
                self.adjust.node(node, &self.path, self.detail)?;
            }
            Event::Node(node) => {
                let length = self.path.len();
                self.path.push(b'/');
                self.path.extend_from_slice(&node.name);
                self.adjust.node(node, &self.path, self.detail)?;
                self.path.truncate(length);
            }
            Event::Link { .. } => {}
            Event::Leave => self.path.truncate(self.lengths.pop().unwrap_or(0)),
        }
        Ok(event)
    }
}

/// The path of the root, without slash at its end.
fn mount_point(path: &str) -> Result<Vec<u8>, TreeError> {
    let names = path::names(path.as_bytes());
    let names = names.map_err(|reason| TreeError::invalid(path.as_bytes(), reason))?;
    Ok(names
        .iter()
        .flat_map(|name| [b"/", *name])
        .flatten()
        .copied()
        .collect())
}

impl Adjust {
    fn node(&self, node: &mut Node, path: &[u8], detail: Detail) -> Result<(), TreeError> {
        let shown = if path.is_empty() { b"/" } else { path };
        let invalid = |reason: String| TreeError::invalid(shown, reason);
        self.owners.apply(&mut node.meta).map_err(invalid)?;
        self.times.apply(node);
        if let Some(project) = self.project {
            node.meta.project = project;
        }
        if detail == Detail::Names {
            return Ok(()); // which has no attributes
        }
        let dropped = |name: &[u8]| {
            self.drop_xattrs
                .iter()
                .any(|begin| name.starts_with(begin.as_bytes()))
        };
        if !self.drop_xattrs.is_empty() {
            node.xattrs.retain(|one| !dropped(&one.name));
        }
        if let Some(labels) = &self.labels {
            node.xattrs.retain(|one| &*one.name != LABEL);
            if let Some(value) = labels.value(shown, &node.kind)? {
                attributes::set(&mut node.xattrs, LABEL, &value);
            }
        }
        Ok(())
    }
}

impl Times {
    fn apply(self, node: &mut Node) {
        let meta = &mut node.meta;
        match self {
            Self::Keep => {}
            Self::Clamp(latest) => {
                meta.mtime = meta.mtime.min(latest);
                meta.ctime = meta.mtime;
            }
            Self::Fixed(time) => (meta.mtime, meta.ctime) = (time, time),
        }
    }
}

impl Iterator for Steps<'_> {
    type Item = Result<Event, TreeError>;

    fn next(&mut self) -> Option<Self::Item> {
        if self.ended {
            return None;
        }
        let step = self.walk.next()?.and_then(|event| self.event(event));
        self.ended = step.is_err();
        Some(step)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::arena::{Arena, Body, OnTheWay, UNDESCRIBED};
    use crate::tree::testing::{What, at, check, list};
    use crate::tree::{Meta, OwnerMap, Xattr};

    fn second(seconds: i64) -> Time {
        Time {
            seconds,
            nanoseconds: 5,
        }
    }

    /// A directory and a fifo in it, of user 3, second 10 and 20, with attributes.
    fn source() -> impl Source {
        let mut arena = Arena::new();
        let meta = Meta {
            uid: 3,
            gid: 4,
            mtime: second(10),
            ctime: second(20),
            ..UNDESCRIBED
        };
        let xattrs: Vec<Xattr> = ["security.capability", "security.selinux", "user.a"]
            .map(|name| Xattr {
                name: name.as_bytes().into(),
                value: b"1"[..].into(),
            })
            .into();
        for (path, body) in [
            (&b""[..], Body::Directory),
            (b"d", Body::Directory),
            (b"d/f", Body::Fifo),
        ] {
            arena
                .put(path, meta, xattrs.clone(), body, OnTheWay::Refuse)
                .unwrap();
        }
        arena.finish()
    }

    fn adjusted(adjust: Adjust, path: &str) -> (Meta, Vec<(String, String)>) {
        let seen = check(&Adjusted::new(source(), adjust));
        let What::Object { meta, xattrs, .. } = at(&seen, path) else {
            panic!()
        };
        let text = |bytes: &[u8]| String::from_utf8(bytes.to_vec()).unwrap();
        (
            *meta,
            xattrs
                .iter()
                .map(|(name, value)| (text(name), text(value)))
                .collect(),
        )
    }

    #[test]
    fn nothing_is_changed_by_default() {
        let plain = list(&source()).unwrap();
        assert_eq!(check(&Adjusted::new(source(), Adjust::default())), plain);
    }

    #[test]
    fn times_are_clamped_or_fixed() {
        for (times, wanted) in [
            (Times::Keep, (second(10), second(20))),
            (Times::Clamp(second(5)), (second(5), second(5))),
            (Times::Clamp(second(15)), (second(10), second(10))),
            (Times::Fixed(second(30)), (second(30), second(30))),
        ] {
            let (meta, _) = adjusted(
                Adjust {
                    times,
                    ..Adjust::default()
                },
                "/d/f",
            );
            assert_eq!((meta.mtime, meta.ctime), wanted, "{times:?}");
        }
    }

    #[test]
    fn owners_and_project_for_all() {
        let owners = Owners::All { uid: 1, gid: 2 };
        let (meta, _) = adjusted(
            Adjust {
                owners,
                project: Some(9),
                ..Adjust::default()
            },
            "/d",
        );
        assert_eq!((meta.uid, meta.gid, meta.project), (1, 2, 9));
    }

    #[test]
    fn who_is_not_in_the_map_is_named_with_the_path() {
        let owners = Owners::Map(OwnerMap::default());
        let adjust = Adjust {
            owners,
            mounted_at: "/mnt/".into(),
            ..Adjust::default()
        };
        let error = list(&Adjusted::new(source(), adjust))
            .unwrap_err()
            .to_string();
        assert!(error.starts_with("/mnt: it belongs to user 3,"), "{error}");
    }

    #[test]
    fn attributes_are_dropped_and_labels_set() {
        let labels = Some(Labels::All("l".into()));
        let drop_xattrs = vec!["user.".to_owned(), "security.c".to_owned()];
        let (_, xattrs) = adjusted(
            Adjust {
                labels,
                drop_xattrs,
                ..Adjust::default()
            },
            "",
        );
        assert_eq!(xattrs, [("security.selinux".to_owned(), "l\0".to_owned())]);
    }

    #[test]
    fn labels_go_by_the_path_of_the_mount() {
        let file = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(file.path(), "/srv/d/f -p fifo\n/srv root\n").unwrap();
        for (path, wanted) in [("", Some("root\0")), ("/d", None), ("/d/f", Some("fifo\0"))] {
            let labels = Some(Labels::Contexts(
                crate::tree::Contexts::read(file.path()).unwrap(),
            ));
            let adjust = Adjust {
                labels,
                mounted_at: "/srv".into(),
                ..Adjust::default()
            };
            let (_, xattrs) = adjusted(adjust, path);
            let label = xattrs.iter().find(|(name, _)| name == "security.selinux");
            assert_eq!(label.map(|(_, value)| value.as_str()), wanted, "{path}");
        }
    }
}
