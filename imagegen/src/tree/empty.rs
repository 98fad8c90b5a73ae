//! A tree of nothing but its root.

use super::{Detail, Event, Kind, Meta, Node, Source, Time, TreeError, Walk};

/// An empty directory that belongs to root and that everybody may read.
#[derive(Debug, Clone, Copy)]
pub struct Empty {
    /// When it was made.
    pub time: Time,
}

impl Source for Empty {
    fn walk(&self, _: Detail) -> Result<Walk<'_>, TreeError> {
        let meta = Meta {
            mode: 0o755,
            uid: 0,
            gid: 0,
            project: 0,
            mtime: self.time,
            ctime: self.time,
        };
        let root = Node {
            name: Box::default(),
            kind: Kind::Directory,
            meta,
            xattrs: Vec::new(),
            links: None,
        };
        Ok(Box::new(
            [Ok(Event::Enter(root)), Ok(Event::Leave)].into_iter(),
        ))
    }
}
