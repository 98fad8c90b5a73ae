//! What a quick walk tells about a tree: how much there is, and what it is called by.

use super::{Detail, Event, Kind, Node, Source, Time, TreeError};
use sha2::{Digest, Sha256};

/// What is in a tree, contents not looked at.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Survey {
    /// Objects, the root included, each once however many names it has.
    pub objects: u64,
    /// Of these, directories.
    pub directories: u64,
    /// Bytes of all names.
    pub names: u64,
    /// Names, that of the root not included.
    pub entries: u64,
    /// Bytes of the data of files; holes are not counted.
    pub data: u64,
    /// The same with every file rounded up to 4096 bytes.
    pub rounded: u64,
    /// SHA-256 over names and metadata in the order of the walk, times of change among them
    /// if images keep them. Contents are not part of it.
    pub digest: [u8; 32],
}

impl Survey {
    /// Walks through `source`, as far as `detail` says: with [`Detail::Names`] `data` is what
    /// is allocated, which the same tree need not have twice. The digest is the same.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn of(source: &dyn Source, detail: Detail) -> Result<Self, TreeError> {
        let mut surveyor = Surveyor {
            changes: true,
            ..Surveyor::default()
        };
        for event in source.walk(detail)? {
            surveyor.add(&event?);
        }
        Ok(surveyor.finish())
    }

    fn count(&mut self, event: &Event) {
        match event {
            Event::Enter(node) => {
                self.directories += 1;
                self.object(node);
            }
            Event::Node(node) => self.object(node),
            Event::Link { name, .. } => self.name(name),
            Event::Leave => {}
        }
    }

    fn object(&mut self, node: &Node) {
        self.objects += 1;
        self.name(&node.name);
        if let Kind::File(content) = &node.kind {
            let data: u64 = content
                .data
                .iter()
                .map(|range| range.end - range.start)
                .sum();
            self.data += data;
            self.rounded += data.next_multiple_of(4096);
        }
    }

    fn name(&mut self, name: &[u8]) {
        self.entries += u64::from(!name.is_empty());
        self.names += name.len() as u64;
    }
}

/// Makes a survey of events as they come, for who learns more from the same walk.
#[derive(Default)]
pub(crate) struct Surveyor {
    survey: Survey,
    digest: Sha256,
    /// Whether times of change (ctime) count.
    changes: bool,
}

impl Surveyor {
    pub(crate) fn add(&mut self, event: &Event) {
        add(&mut self.digest, event, self.changes);
        self.survey.count(event);
    }

    /// What was seen; all events have come.
    pub(crate) fn finish(self) -> Survey {
        Survey {
            digest: self.digest.finalize().into(),
            ..self.survey
        }
    }
}

fn add(digest: &mut Sha256, event: &Event, changes: bool) {
    match event {
        Event::Enter(node) | Event::Node(node) => add_node(digest, node, changes),
        Event::Link { name, id } => {
            digest.update(b"l");
            digest.update(name);
            digest.update(id.to_le_bytes());
        }
        Event::Leave => digest.update(b"."),
    }
}

fn add_node(digest: &mut Sha256, node: &Node, changes: bool) {
    let (kind, a, b) = match &node.kind {
        Kind::Directory => (b'd', 0, 0_u32),
        Kind::File(content) => (b'f', content.size, 0),
        Kind::Symlink(_) => (b's', 0, 0),
        Kind::CharDevice(device) => (b'c', device.major.into(), device.minor),
        Kind::BlockDevice(device) => (b'b', device.major.into(), device.minor),
        Kind::Fifo => (b'p', 0, 0),
        Kind::Socket => (b'u', 0, 0),
    };
    let meta = &node.meta;
    let changed = if changes { meta.ctime } else { Time::default() };
    digest.update([kind]);
    digest.update((node.name.len() as u64).to_le_bytes());
    digest.update(&node.name);
    for number in [
        a,
        u64::from(b),
        meta.mode.into(),
        meta.uid.into(),
        meta.gid.into(),
        meta.project.into(),
        meta.mtime.seconds as u64,
        meta.mtime.nanoseconds.into(),
        changed.seconds as u64,
        changed.nanoseconds.into(),
    ] {
        digest.update(number.to_le_bytes());
    }
}
