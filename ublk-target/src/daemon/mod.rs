//! csnapd beside its data path: what is served, and what people asked for.
//!
//! | module | what it holds |
//! |---|---|
//! | [`front`] | block devices, NBD or both? |
//! | [`attach`], [`serve`], `withdraw`, [`release`] | from a store to what is served, and back |
//! | [`origin`], [`fingerprint`], [`marks`] | is an origin there, and still what it was? |
//! | [`origin_errors`], [`revive`], `owed` | origins that fail or vanish, and come back |
//! | [`store`], [`exports`] | what is attached, what is served |
//! | [`devices`] | block devices of the kernel, over restarts too |
//! | [`backend`], `verbs`, `views` | what each request of the control socket does, how things look |
//! | `waiting` | devices of an earlier csnapd: which go, which wait for what |
//! | [`handlers`], [`events`], [`state`] | notices, what happened, what outlives the process |
//! | [`fill_rate`] | when a store will be full |
//! | [`nbd_socket`], [`nbd_tcp`], [`visits`] | new NBD connections, up to the I/O threads; snapshots that are not mapped |
//! | [`signature`], [`in_use`] | what is on a device, who uses it: before it is written over |
//! | [`process`] | one instance, signals, supervisor |
//! | [`activation`] | sockets the supervisor passed on |
//! | [`safety`], [`mounts`] | what protects the machine from a daemon its memory depends on |
//! | [`scrub`] | verifying kept data while it is served |
//! | [`udev`] | what udev's rules learn of our block devices |
//!
//! Contract: what cannot be served is reported and never keeps the rest from
//! being served. Nothing here is on the path of a request.

pub mod activation;
pub mod attach;
pub mod backend;
pub mod devices;
pub mod events;
pub mod exports;
pub mod failures;
pub mod fill_rate;
pub mod fingerprint;
pub mod front;
pub mod handlers;
pub mod in_use;
pub mod marks;
pub mod mounts;
mod nbd_places;
pub mod nbd_socket;
pub mod nbd_tcp;
pub mod origin;
pub mod origin_errors;
mod owed;
pub mod process;
pub mod release;
pub mod revive;
pub mod safety;
pub mod scrub;
pub mod serve;
pub mod signature;
pub mod state;
pub mod store;
pub mod udev;
mod verbs;
mod views;
pub mod visits;
mod waiting;
mod withdraw;

use std::collections::BTreeMap;
use std::path::PathBuf;
use std::sync::Arc;

use parking_lot::{Mutex, RwLock};
use snapstore::engine::{Config, SnapshotInfo, VolumeInfo};
use uuid::Uuid;

use self::devices::{DeviceOptions, Devices};
use self::events::{Events, NewEvent};
use self::exports::ExportTable;
use self::failures::not_found;
use self::front::{Choice, NoUblk, Wish};
use self::origin::Consent;
use self::safety::Safety;
use self::state::{ListedStore, StateFile};
use self::store::Store;
use self::visits::Visits;
use crate::control::protocol::{ErrorCode, Failure, SnapshotName};
use crate::control::utc;
use crate::control::views::{FrontendName, Level, Problem};
use crate::runtime::Runtime;
use crate::ublk::{Features, UblkError};

/// How the daemon is set up.
#[derive(Clone, Debug)]
pub struct Settings {
    /// Path of the NBD socket, for `status`.
    pub nbd_socket: PathBuf,
    /// How engines are tuned.
    pub engine: Config,
    /// Which front end is wanted.
    pub frontend: Wish,
    /// How block devices are made.
    pub devices: DeviceOptions,
    /// Which protections are in force, for `status`.
    pub safety: Safety,
}

/// The daemon: every store it serves, and those it cannot.
pub struct Daemon {
    settings: Settings,
    runtime: Arc<Runtime>,
    state: Arc<StateFile>,
    events: Arc<Events>,
    exports: Arc<ExportTable>,
    visits: Visits,
    choice: Choice,
    /// `None` where the front end is NBD alone.
    devices: Option<Devices>,
    /// What the kernel offers; why there can be no block devices.
    ublk: Result<Features, UblkError>,
    stores: RwLock<Vec<Arc<Store>>>,
    /// Stores that are listed and could not be attached.
    missing: Mutex<BTreeMap<PathBuf, (Uuid, Problem)>>,
    /// Held while stores or volumes come and go: their names are unique over all.
    coming_and_going: Mutex<()>,
    started_ms: u64,
}

impl Daemon {
    /// A daemon that serves nothing yet.
    ///
    /// # Errors
    /// When block devices were asked for or wait, and there can be none.
    pub fn new(
        settings: Settings,
        runtime: Arc<Runtime>,
        state: Arc<StateFile>,
    ) -> Result<Self, NoUblk> {
        let driver = front::driver();
        let left = devices::left_in_kernel(&state.get().devices);
        let choice = front::choose(settings.frontend, driver.as_ref().map(drop), &left)?;
        let events: Arc<Events> = Arc::default();
        let (ublk, control) = match driver {
            Ok(control) => (Ok(control.features()), Some(Arc::new(control))),
            Err(error) => (Err(error), None),
        };
        let devices = control.filter(|_| choice.ublk()).map(|control| {
            let shared = (state.clone(), events.clone());
            Devices::new(control, settings.devices.clone(), runtime.clone(), shared)
        });
        let what = match choice.name {
            FrontendName::Ublk => "block devices (ublk)",
            FrontendName::Nbd => "NBD exports",
            FrontendName::Both => "block devices (ublk) and NBD exports",
        };
        let message = format!("serving {what}: {}", choice.why);
        events.add(NewEvent::new(Level::Info, "front-end", message));
        Ok(Self {
            settings,
            runtime,
            state,
            events,
            exports: Arc::default(),
            visits: Visits::default(),
            choice,
            devices,
            ublk,
            stores: RwLock::default(),
            missing: Mutex::default(),
            coming_and_going: Mutex::default(),
            started_ms: utc::now_ms(),
        })
    }

    /// Lets go of clients that wait for events, and admits none to exports: the
    /// daemon is about to stop.
    pub fn prepare_to_stop(&self) {
        self.exports.stop();
        self.events.close();
    }

    /// Attaches every store of the state file. What fails is remembered and
    /// reported; the others are served.
    pub fn attach_listed(&self) {
        for ListedStore { path, uuid } in self.state.get().stores {
            let Err(failure) = self.attach(&path, Consent::default(), Some(uuid)) else {
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
        let found = store.snapshot_named(volume.id, &wanted.name);
        let snapshot = verbs::matching(wanted, found)?;
        Ok((store, volume, snapshot))
    }
}
