//! csnapd beside its data path: what is served, and what people asked for.
//!
//! | module | what it holds |
//! |---|---|
//! | [`attach`], [`serve`], [`release`] | from a device to exports and back |
//! | [`origin`], [`fingerprint`] | is an origin there, and still what it was? |
//! | [`store`], [`exports`] | what is attached, what clients can connect to |
//! | [`backend`], `verbs` | what each request of the control socket does |
//! | [`handlers`], [`events`], [`state`] | notices, what happened, what outlives the process |
//! | [`nbd_socket`] | new NBD connections, up to the I/O threads |
//! | [`signature`], [`in_use`] | what is on a device, who uses it: before it is written over |
//! | [`process`] | one instance, signals, supervisor |
//!
//! Contract: what cannot be served is reported and never keeps the rest from
//! being served. Nothing here is on the path of a request.

pub mod attach;
pub mod backend;
pub mod events;
pub mod exports;
pub mod failures;
pub mod fingerprint;
pub mod handlers;
pub mod in_use;
pub mod nbd_socket;
pub mod origin;
pub mod process;
pub mod release;
pub mod serve;
pub mod signature;
pub mod state;
pub mod store;
mod verbs;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use snapstore::engine::{Config, SnapshotInfo, VolumeInfo};
use uuid::Uuid;

use self::events::{Events, NewEvent};
use self::exports::ExportTable;
use self::failures::not_found;
use self::state::{ListedStore, StateFile};
use self::store::Store;
use crate::control::protocol::{ErrorCode, Failure, SnapshotName};
use crate::control::utc;
use crate::control::views::{Level, Problem};
use crate::runtime::Runtime;

/// How the daemon is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Path of the NBD socket, for `status`.
    pub nbd_socket: PathBuf,
    /// How engines are tuned.
    pub engine: Config,
}

/// The daemon: every store it serves, and those it cannot.
pub struct Daemon {
    settings: Settings,
    runtime: Arc<Runtime>,
    state: Arc<StateFile>,
    events: Arc<Events>,
    exports: Arc<ExportTable>,
    stores: RwLock<Vec<Arc<Store>>>,
    /// Stores that are listed and could not be attached.
    missing: Mutex<BTreeMap<PathBuf, (Uuid, Problem)>>,
    /// Held while stores or volumes come and go: their names are unique over all.
    coming_and_going: Mutex<()>,
    started_ms: u64,
}

impl Daemon {
    /// A daemon that serves nothing yet.
    #[must_use]
    pub fn new(settings: Settings, runtime: Arc<Runtime>, state: Arc<StateFile>) -> Self {
        Self {
            settings,
            runtime,
            state,
            events: Arc::default(),
            exports: Arc::default(),
            stores: RwLock::default(),
            missing: Mutex::default(),
            coming_and_going: Mutex::default(),
            started_ms: utc::now_ms(),
        }
    }

    /// Lets go of clients that wait for events, and admits none to exports: the
    /// daemon is about to stop.
    pub fn prepare_to_stop(&self) {
        self.exports.stop();
        self.events.close();
    }

    /// The exports, for the NBD socket.
    #[must_use]
    pub fn exports(&self) -> Arc<ExportTable> {
        self.exports.clone()
    }

    /// Attaches every store of the state file. What fails is remembered and
    /// reported; the others are served.
    pub fn attach_listed(&self) {
        for ListedStore { path, uuid } in self.state.get().stores {
            let Err(failure) = self.attach(&path, &[], Some(uuid)) else {
                continue;
            };
            let message = format!("store {} cannot be attached: {failure}", path.display());
            self.events
                .add(NewEvent::new(Level::Error, "store-missing", message).store(&path));
            let mut next = format!("then: csnapctl store attach {}", path.display());
            if let Some(first) = failure.next {
                next = format!("{first}; {next}");
            }
            let problem = Problem {
                message: failure.message,
                next,
            };
            self.missing.lock().insert(path, (uuid, problem));
        }
    }

    /// The attached stores.
    fn stores(&self) -> Vec<Arc<Store>> {
        self.stores.read().clone()
    }

    /// The store a person means.
    fn store_called(&self, name: &str) -> Result<Arc<Store>, Failure> {
        let found = self
            .stores()
            .into_iter()
            .find(|store| store.is_called(name));
        found.ok_or_else(|| {
            not_found(
                format_args!("an attached store {name:?}"),
                "`csnapctl status` lists the stores; `csnapctl store attach` adds one",
            )
        })
    }

    /// The store a person means, or the only one.
    fn store_or_only(&self, name: Option<&str>) -> Result<Arc<Store>, Failure> {
        if let Some(name) = name {
            return self.store_called(name);
        }
        match self.stores().as_slice() {
            [only] => Ok(only.clone()),
            [] => Err(not_found(
                "an attached store",
                "attach one: csnapctl store attach",
            )),
            _ => Err(Failure::new(ErrorCode::Usage, "there are several stores")
                .next("name one with --store")),
        }
    }

    /// A volume and its store.
    fn volume(&self, name: &str) -> Result<(Arc<Store>, VolumeInfo), Failure> {
        self.find_volume(name).ok_or_else(|| {
            not_found(
                format_args!("volume {name:?}"),
                "`csnapctl volume list` shows the volumes",
            )
        })
    }

    fn find_volume(&self, name: &str) -> Option<(Arc<Store>, VolumeInfo)> {
        self.stores().into_iter().find_map(|store| {
            let info = store
                .volumes()
                .into_iter()
                .find(|volume| volume.name == name)?;
            Some((store, info))
        })
    }

    /// A snapshot, its volume and its store.
    fn snapshot(
        &self,
        wanted: &SnapshotName,
    ) -> Result<(Arc<Store>, VolumeInfo, SnapshotInfo), Failure> {
        let (store, volume) = self.volume(&wanted.volume)?;
        let mut all = store.snapshots(volume.id).into_iter();
        let found = all.find(|snapshot| snapshot.name == wanted.name);
        let snapshot = verbs::matching(wanted, found)?;
        Ok((store, volume, snapshot))
    }
}
