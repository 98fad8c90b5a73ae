//! The control protocol: what a client may ask and what the daemon answers.
//!
//! A Unix stream socket carries frames ([`super::frame`]): a length and a JSON
//! document. The client sends [`RequestFrame`]s, the daemon answers each with one
//! [`ResponseFrame`] of the same `id`, in order. Every list is paged, so that no
//! frame outgrows its limit. `docs/control-protocol.md` describes it for people;
//! a test compares its verbs with [`VERBS`].
//!
//! Compatibility: a change that an older client would misread raises
//! [`VERSION`]; new verbs and new optional fields do not. Unknown fields in a
//! request are refused (a misspelt `force` must not pass silently), unknown
//! fields in an answer are ignored.

use std::fmt;

use serde::{Deserialize, Serialize};

use super::views::{
    EventView, FeaturesView, PolicyName, RangeView, ScrubView, SnapshotView, StatusView, StoreView,
    TakenView, VolumeView,
};

/// Version of the protocol. A daemon refuses requests of another version.
pub const VERSION: u32 = 1;

/// Most snapshots, volumes or events in one answer.
pub const MAX_PAGE: u32 = 1000;

/// Longest time in milliseconds that `events` waits for something to happen.
pub const MAX_WAIT_MS: u32 = 25_000;

/// One request.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RequestFrame {
    /// [`VERSION`].
    pub version: u32,
    /// Chosen by the client, repeated in the answer.
    pub id: u64,
    /// What is asked.
    pub request: Request,
}

/// The answer to one request.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub struct ResponseFrame {
    /// [`VERSION`] of the daemon.
    pub version: u32,
    /// Of the request; 0 when the request could not be read.
    pub id: u64,
    /// How it went.
    pub result: Outcome,
}

/// How a request went.
#[expect(
    clippy::large_enum_variant,
    reason = "made once a request, and moved twice"
)]
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Outcome {
    /// It was done.
    Ok(Answer),
    /// It was refused or failed; nothing was changed unless the message says so.
    Error(Failure),
}

/// A volume and a snapshot name to be used for a take.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TakeTarget {
    /// The volume.
    pub volume: String,
    /// The snapshot's name; made from UTC time when absent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
}

/// A snapshot named by a client.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SnapshotName {
    /// The volume.
    pub volume: String,
    /// The snapshot.
    pub name: String,
    /// If given, the request is refused unless the snapshot has this tag: what a
    /// person confirmed is what goes, even if it was renamed meanwhile.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tag: Option<u64>,
}

impl fmt::Display for TakeTarget {
    /// `vol` or `vol@name`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.volume)?;
        match &self.name {
            Some(name) => write!(f, "@{name}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for SnapshotName {
    /// `vol@name`.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}@{}", self.volume, self.name)
    }
}

/// What a client may ask. The tag `verb` names the variant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(tag = "verb", deny_unknown_fields)]
pub enum Request {
    /// How the daemon and its stores are. Answer: `status`.
    #[serde(rename = "status")]
    Status {},
    /// What happened. Answer: `events`.
    #[serde(rename = "events")]
    Events {
        /// Events with a greater sequence number.
        since: u64,
        /// At most so many, at most [`MAX_PAGE`].
        limit: u32,
        /// Wait up to so long for the first one, at most [`MAX_WAIT_MS`].
        #[serde(default)]
        wait_ms: u32,
    },
    /// What the kernel offers to serve block devices with. Answer: `features`.
    #[serde(rename = "features")]
    Features {},
    /// Attach a store, or retry the origins of one that is attached. Answer: `store`.
    #[serde(rename = "store.attach")]
    StoreAttach {
        /// The store device or file.
        path: String,
        /// Volumes whose origin may have changed: their snapshots are dropped.
        #[serde(default)]
        accept_changed_origin: Vec<String>,
        /// Volumes whose origin is the same disk as before, although it calls itself
        /// otherwise: their snapshots are kept.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        same_origin: Vec<String>,
    },
    /// Stop serving a store. Refused while something of it is in use. Answer: `done`.
    #[serde(rename = "store.detach")]
    StoreDetach {
        /// Path or UUID.
        store: String,
        /// Disconnect clients, and remove block devices that are open.
        #[serde(default)]
        force: bool,
    },
    /// How one store is. Answer: `store`.
    #[serde(rename = "store.status")]
    StoreStatus {
        /// Path or UUID.
        store: String,
    },
    /// Verify the kept data of a store while it is served. Answer: `scrub`.
    #[serde(rename = "store.scrub")]
    StoreScrub {
        /// Path or UUID.
        store: String,
        /// Begin, stop, or only look.
        action: ScrubAction,
        /// Bytes a second it is to keep to.
        #[serde(default = "default_scrub_rate")]
        rate: u64,
    },
    /// Make a store as large as its device has become. Answer: `store`.
    #[serde(rename = "store.extend")]
    StoreExtend {
        /// Path or UUID.
        store: String,
        /// Make the store's file so many bytes long first; not for block devices.
        #[serde(default)]
        size: Option<u64>,
    },
    /// Put an origin under a store's care. Answer: `volume`.
    #[serde(rename = "volume.create")]
    VolumeCreate {
        /// The volume's name.
        name: String,
        /// The origin device or file.
        origin: String,
        /// Path or UUID of the store; may be absent when there is just one.
        #[serde(default)]
        store: Option<String>,
        /// What comes first when the store is full.
        #[serde(default)]
        policy: PolicyName,
    },
    /// The volumes by name. Answer: `volumes`.
    #[serde(rename = "volume.list")]
    VolumeList {
        /// Of this store only (path or UUID).
        #[serde(default)]
        store: Option<String>,
        /// Names after this one: the `next` of the page before.
        #[serde(default)]
        after: Option<String>,
    },
    /// One volume. Answer: `volume`.
    #[serde(rename = "volume.show")]
    VolumeShow {
        /// The volume.
        name: String,
    },
    /// Forget a volume and its snapshots; the origin is not touched. Answer: `done`.
    #[serde(rename = "volume.delete")]
    VolumeDelete {
        /// The volume.
        name: String,
        /// If given, refused unless the volume has this UUID.
        #[serde(default)]
        uuid: Option<String>,
        /// Disconnect clients, and remove block devices that are open.
        #[serde(default)]
        force: bool,
    },
    /// Change a volume. Answer: `volume`.
    #[serde(rename = "volume.set")]
    VolumeSet {
        /// The volume.
        name: String,
        /// What comes first when the store is full.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        policy: Option<PolicyName>,
        /// Seconds a write waits for room where snapshots come first.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        full_wait_s: Option<u32>,
    },
    /// Make a volume as large as its origin has become. Answer: `volume`.
    #[serde(rename = "volume.resize")]
    VolumeResize {
        /// The volume.
        name: String,
        /// Bytes, at least as many as it has; all the origin has when absent.
        #[serde(default)]
        size: Option<u64>,
    },
    /// Take snapshots of one or more volumes of one store at one instant. Answer:
    /// `taken`.
    #[serde(rename = "snapshot.take")]
    SnapshotTake {
        /// Which volumes, under which names.
        targets: Vec<TakeTarget>,
        /// Lowest is dropped first when the store is full.
        #[serde(default)]
        priority: i32,
    },
    /// Snapshots by volume and age. Answer: `snapshots`.
    #[serde(rename = "snapshot.list")]
    SnapshotList {
        /// Of this volume only.
        #[serde(default)]
        volume: Option<String>,
        /// Those after this one: the `next` of the page before.
        #[serde(default)]
        after: Option<Cursor>,
    },
    /// One snapshot. Answer: `snapshot`.
    #[serde(rename = "snapshot.show")]
    SnapshotShow {
        /// Which.
        snapshot: SnapshotName,
    },
    /// What differs between a snapshot and a newer one, or its volume as it is. Answer:
    /// `changes`.
    #[serde(rename = "snapshot.diff")]
    SnapshotDiff {
        /// The older one.
        from: SnapshotName,
        /// Name of the newer one, of the same volume; the volume as it is when absent.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to: Option<String>,
        /// Its number; with a name that another one has now the answer is `not-found`.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        to_tag: Option<u64>,
        /// What follows this place: the `next` of the part before.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        after: Option<DiffCursor>,
    },
    /// Delete snapshots, all or none of a store's. Answer: `done`.
    #[serde(rename = "snapshot.delete")]
    SnapshotDelete {
        /// Which.
        snapshots: Vec<SnapshotName>,
        /// Those that are held too, and those that NBD clients read: they are disconnected.
        #[serde(default)]
        force: bool,
    },
    /// Give a snapshot another name. Answer: `snapshot`.
    #[serde(rename = "snapshot.rename")]
    SnapshotRename {
        /// Which.
        snapshot: SnapshotName,
        /// The new name.
        to: String,
    },
    /// Export a snapshot, again after every restart: as a read-only block device
    /// where the kernel has ublk. Answer: `snapshot`.
    #[serde(rename = "snapshot.map")]
    SnapshotMap {
        /// Which.
        snapshot: SnapshotName,
    },
    /// Stop exporting a snapshot. Answer: `snapshot`.
    #[serde(rename = "snapshot.unmap")]
    SnapshotUnmap {
        /// Which.
        snapshot: SnapshotName,
        /// Disconnect clients, and remove block devices that are open.
        #[serde(default)]
        force: bool,
    },
    /// Change a snapshot. Answer: `snapshot`.
    #[serde(rename = "snapshot.set")]
    SnapshotSet {
        /// Which.
        snapshot: SnapshotName,
        /// Lowest is dropped first when the store is full.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        priority: Option<i32>,
        /// Held: never dropped for room, and deleted only with force.
        #[serde(default, skip_serializing_if = "Option::is_none")]
        hold: Option<bool>,
    },
}

/// What to do about a scrub.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ScrubAction {
    /// Begin one.
    Start,
    /// End the one under way.
    Stop,
    /// Only look.
    Status,
}

fn default_scrub_rate() -> u64 {
    100 << 20
}

/// Every verb, in the order of [`Request`].
pub const VERBS: [&str; 23] = [
    "status",
    "events",
    "features",
    "store.attach",
    "store.detach",
    "store.status",
    "store.scrub",
    "store.extend",
    "volume.create",
    "volume.list",
    "volume.show",
    "volume.delete",
    "volume.set",
    "volume.resize",
    "snapshot.take",
    "snapshot.list",
    "snapshot.show",
    "snapshot.diff",
    "snapshot.delete",
    "snapshot.rename",
    "snapshot.map",
    "snapshot.unmap",
    "snapshot.set",
];

/// Where a page of a snapshot list ended.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// Volume of the last snapshot shown.
    pub volume: String,
    /// Its tag.
    pub tag: u64,
}

/// Where a part of a list of changes ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DiffCursor {
    /// Tag of the snapshot that was the newest when a chunk was copied.
    pub tag: u64,
    /// That chunk.
    pub chunk: u64,
}

/// What the daemon answers.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum Answer {
    /// Done, nothing more to say.
    Done,
    /// How the daemon is.
    Status(StatusView),
    /// What the kernel offers.
    Features(FeaturesView),
    /// A store.
    Store(StoreView),
    /// A scrub.
    Scrub(ScrubView),
    /// A volume.
    Volume(VolumeView),
    /// A page of volumes.
    Volumes {
        /// By name.
        items: Vec<VolumeView>,
        /// More follow after this name.
        next: Option<String>,
    },
    /// A snapshot.
    Snapshot(SnapshotView),
    /// A page of snapshots.
    Snapshots {
        /// By volume name, then by tag.
        items: Vec<SnapshotView>,
        /// More follow after this one.
        next: Option<Cursor>,
    },
    /// A part of what differs.
    Changes {
        /// Ranges, each once in all parts, in no order and not joined.
        items: Vec<RangeView>,
        /// More follow after this place.
        next: Option<DiffCursor>,
    },
    /// Snapshots were taken.
    Taken(TakenView),
    /// Events.
    Events {
        /// By sequence number.
        items: Vec<EventView>,
        /// Sequence number of the oldest event still remembered.
        oldest: u64,
        /// Sequence number of the newest event.
        newest: u64,
    },
}

/// Kinds of failure; each is an exit code of `csnapctl`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
pub enum ErrorCode {
    /// Anything not below. Exit code 1.
    Error,
    /// The request makes no sense. Exit code 2.
    Usage,
    /// What was named does not exist. Exit code 3.
    NotFound,
    /// Something is in use or held. Exit code 4.
    Busy,
    /// No space. Exit code 5.
    NoSpace,
    /// Stored data is damaged. Exit code 6.
    Corruption,
    /// The daemon does not answer; never sent by the daemon. Exit code 7.
    Unreachable,
}

impl ErrorCode {
    /// Every code.
    pub const ALL: [Self; 7] = [
        Self::Error,
        Self::Usage,
        Self::NotFound,
        Self::Busy,
        Self::NoSpace,
        Self::Corruption,
        Self::Unreachable,
    ];

    /// The exit code of `csnapctl`.
    #[must_use]
    pub const fn exit_code(self) -> u8 {
        match self {
            Self::Error => 1,
            Self::Usage => 2,
            Self::NotFound => 3,
            Self::Busy => 4,
            Self::NoSpace => 5,
            Self::Corruption => 6,
            Self::Unreachable => 7,
        }
    }
}

/// Why a request was refused or failed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error, Serialize, Deserialize)]
#[error("{message}")]
pub struct Failure {
    /// What kind of failure.
    pub code: ErrorCode,
    /// What failed and why, for a person.
    pub message: String,
    /// What to do next, for a person.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<String>,
}

impl Failure {
    /// A failure without advice.
    #[must_use]
    pub fn new(code: ErrorCode, message: impl Into<String>) -> Self {
        Self {
            code,
            message: message.into(),
            next: None,
        }
    }

    /// Adds what to do next.
    #[must_use]
    pub fn next(mut self, next: impl Into<String>) -> Self {
        self.next = Some(next.into());
        self
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verb_of(request: &Request) -> String {
        serde_json::to_value(request).unwrap()["verb"]
            .as_str()
            .unwrap()
            .to_owned()
    }

    /// The requests of the document's examples; the one with a placeholder aside.
    fn documented() -> Vec<Request> {
        let text = include_str!("../../../docs/control-protocol.md");
        text.lines()
            .filter(|line| line.starts_with("    {") && line.contains("\"request\""))
            .filter(|line| !line.contains("VERB"))
            .map(|line| {
                serde_json::from_str::<RequestFrame>(line)
                    .unwrap_or_else(|e| panic!("docs/control-protocol.md: {line}: {e}"))
                    .request
            })
            .collect()
    }

    #[test]
    fn the_list_of_verbs_is_the_one_serde_knows() {
        let error = serde_json::from_str::<Request>(r#"{"verb": "?"}"#)
            .unwrap_err()
            .to_string();
        let known: Vec<&str> = error.split('`').skip(3).step_by(2).collect();
        assert_eq!(known, VERBS, "{error}");
    }

    #[test]
    fn the_document_shows_one_example_of_every_verb_and_no_other() {
        let documented: Vec<String> = documented().iter().map(verb_of).collect();
        assert_eq!(
            documented, VERBS,
            "docs/control-protocol.md and protocol.rs disagree"
        );
    }

    #[test]
    fn the_document_lists_every_error_code_with_its_exit_code() {
        let text = include_str!("../../../docs/control-protocol.md");
        for code in ErrorCode::ALL {
            let name = serde_json::to_value(code).unwrap();
            let row = format!("| `{}` | {} |", name.as_str().unwrap(), code.exit_code());
            assert!(
                text.contains(&row),
                "docs/control-protocol.md lacks the row {row:?}"
            );
        }
    }

    #[test]
    fn unknown_verbs_and_fields_are_refused() {
        for bad in [
            r#"{"verb": "store.format"}"#,
            r#"{"verb": "status", "extra": 1}"#,
            r#"{"verb": "store.detach", "store": "x", "forse": true}"#,
            r#"{"verb": "snapshot.take", "targets": [{"volume": "a", "nme": "b"}]}"#,
        ] {
            assert!(
                serde_json::from_str::<Request>(bad).is_err(),
                "{bad} was accepted"
            );
        }
    }
}
