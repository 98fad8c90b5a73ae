//! From a store device to a running engine.
//!
//! Order: open (patiently: I/O of a killed daemon may hold the device), read,
//! open the origins, recover (by those alone that nothing speaks against), hand over
//! to the I/O threads, drop what the state file says is invalid, and only then serve
//! volumes. Before the lanes have the store a failure simply lets go of everything.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use parking_lot::Mutex;
use snapstore::engine::{Command, DropReason, Seal, VolumeInfo};
use snapstore::recover::{self, Loaded, Recovered};
use snapstore::{Engine, VolumeId};
use uuid::Uuid;

use super::Daemon;
use super::events::NewEvent;
use super::failures::{busy, opening};
use super::handlers::Handlers;
use super::origin::{self, Consent, NotServed, Surroundings};
use super::scrub::Scrubber;
use super::state::ListedStore;
use super::store::Store;
use crate::control::protocol::{ErrorCode, Failure};
use crate::control::views::Level;
use crate::device::{Identity, OriginDevice, OriginSet, StoreDevice};

/// The origins of a store.
struct Origins {
    /// Those that recovery may judge records by.
    set: OriginSet,
    /// Those that it must not read: to it they are not there, and what cannot be judged
    /// is kept as it is.
    aside: Vec<(VolumeId, OriginDevice)>,
    /// Why others are not served.
    not_served: BTreeMap<VolumeId, NotServed>,
}

impl Origins {
    /// All that are there, once the store is recovered.
    fn whole(mut self) -> OriginSet {
        for (volume, origin) in self.aside {
            self.set.insert(volume, origin);
        }
        self.set
    }
}

impl Daemon {
    /// Attaches the store at `path`, or tries again what is not served of it if it
    /// is attached. `consent` is what a person says of its origins. With
    /// `expected`, refuses a store of another identity.
    ///
    /// # Errors
    /// What keeps the store from being attached. A volume that cannot be served is
    /// no error: see [`Store::not_served`].
    pub fn attach(
        &self,
        path: &Path,
        consent: Consent<'_>,
        expected: Option<Uuid>,
    ) -> Result<Arc<Store>, Failure> {
        let _alone = self.coming_and_going.lock();
        let path = canonical(path)?;
        let known = self.stores().into_iter().find(|store| store.path == path);
        if let Some(store) = known {
            self.try_again(&store, consent);
            return Ok(store);
        }
        self.must_not_lie_on_ourselves(&path)?;
        // A daemon that ended in order left no device but those it handed over.
        let until = origin::patience(self.state.get().has_devices_of(&path));
        let open = || origin::unused(&path, StoreDevice::open(&path, false)?);
        let mut device = origin::patiently(until, open)?;
        self.must_be_apart(&path, device.identity(), None)?;
        let loaded = recover::load(&mut device).map_err(|error| opening(&path, &error))?;
        let uuid = Uuid::from_bytes(loaded.uuid());
        self.must_fit(&path, uuid, expected, &loaded)?;
        let mut origins = self.open_origins(&path, uuid, (&device, &loaded), consent, until);
        let (engine, recovered) = loaded
            .recover(&mut device, &mut origins.set, self.settings.engine)
            .map_err(|error| opening(&path, &error))?;
        let store = self.hand_over(path, uuid, engine, device, &origins)?;
        self.events.add(attached(&store, &recovered));
        if let Err(failure) = self.begin(&store, consent, origins.whole()) {
            self.abandon(&store);
            return Err(failure);
        }
        Ok(store)
    }

    /// Refuses a store or an origin on a block device that this daemon serves, or
    /// will serve again: it would wait for itself. By its path, because a device
    /// that waits must not even be read.
    pub(super) fn must_not_lie_on_ourselves(&self, path: &Path) -> Result<(), Failure> {
        let identity = Identity::of(path).map_err(|error| {
            Failure::new(ErrorCode::Error, format!("{}: {error}", path.display()))
        })?;
        match self.own_device_below(identity) {
            None => Ok(()),
            Some(own) => {
                let message = format!(
                    "{} lies on a block device of this csnapd, that of {}",
                    path.display(),
                    own.name
                );
                Err(busy(message, "use a device that csnap does not serve"))
            }
        }
    }

    /// Refuses a store that is another one than expected, is attached under
    /// another path (a copy!), or has volumes of the same names as others.
    fn must_fit(
        &self,
        path: &Path,
        uuid: Uuid,
        expected: Option<Uuid>,
        loaded: &Loaded,
    ) -> Result<(), Failure> {
        let shown = path.display();
        if let Some(expected) = expected.filter(|expected| *expected != uuid) {
            let message = format!("{shown} holds store {uuid}, not {expected} as before");
            return Err(Failure::new(ErrorCode::Error, message)
                .next("if the new store is the right one, attach it by hand"));
        }
        if let Some(twin) = self.stores().into_iter().find(|store| store.uuid == uuid) {
            let message = format!("{shown} is a copy of store {uuid}, which is attached");
            return Err(busy(
                message,
                &format!("detach {} first", twin.path.display()),
            ));
        }
        for VolumeInfo { name, .. } in loaded.volumes().into_iter().filter(|info| !info.deleting) {
            if let Some((other, _)) = self.find_volume(&name) {
                let message = format!(
                    "{shown} has a volume {name:?}, and so has the attached store {}",
                    other.path.display()
                );
                return Err(busy(message, "serve one of them with a daemon of its own"));
            }
        }
        Ok(())
    }

    fn open_origins(
        &self,
        path: &Path,
        uuid: Uuid,
        (device, loaded): (&StoreDevice, &Loaded),
        consent: Consent<'_>,
        until: Instant,
    ) -> Origins {
        let around = Surroundings {
            store: path,
            store_identity: device.identity(),
            state_dir: self.state.dir(),
            until,
        };
        let mut origins = Origins {
            set: OriginSet::new(loaded.chunk_size()),
            aside: Vec::new(),
            not_served: BTreeMap::new(),
        };
        for info in loaded.volumes().into_iter().filter(|info| !info.deleting) {
            match self.open_origin(&info, &around) {
                Ok(origin) if self.may_judge(uuid, &info, &origin, consent) => {
                    origins.set.insert(info.id, origin);
                }
                Ok(origin) => origins.aside.push((info.id, origin)),
                Err(why) => drop(origins.not_served.insert(info.id, why)),
            }
        }
        origins
    }

    /// Whether recovery may judge by this origin what of its last copies reached the
    /// store. Not by one that was let go in order: all of it had reached the store, and
    /// the origin is not judged itself yet. Nor by one that something speaks against: by
    /// another disk every copy would be lost, before a person can put the right one back.
    fn may_judge(
        &self,
        store: Uuid,
        info: &VolumeInfo,
        origin: &OriginDevice,
        consent: Consent<'_>,
    ) -> bool {
        let evidence = self.evidence(store, info, origin);
        matches!(info.seal, Seal::Use(_)) && !consent.heard(&info.name, evidence).any()
    }

    pub(super) fn open_origin(
        &self,
        info: &VolumeInfo,
        around: &Surroundings<'_>,
    ) -> Result<OriginDevice, NotServed> {
        let path = Path::new(&info.origin);
        // What is not there is said in the words of the open.
        if path.exists() {
            let refused = |failure: Failure| NotServed::failed(&failure, around.store);
            self.must_not_lie_on_ourselves(path).map_err(refused)?;
        }
        let origin = origin::open(info, around)?;
        let but = Some((around.store_identity, info.id));
        self.must_be_apart(path, origin.identity(), but)
            .map_err(|failure| NotServed::failed(&failure, around.store))?;
        Ok(origin)
    }

    /// Refuses what shares storage with an attached store, or with the origin of an
    /// attached volume other than `but`: each would write into the other.
    pub(super) fn must_be_apart(
        &self,
        path: &Path,
        identity: Identity,
        but: Option<(Identity, VolumeId)>,
    ) -> Result<(), Failure> {
        let refuse = |other: String| {
            let message = format!("{} and {other} share storage", path.display());
            Err(busy(message, "give each a device of its own"))
        };
        let layers = identity.layers();
        for store in self.stores() {
            if store.identity.lies_on(identity) || layers.contains(&store.identity) {
                return refuse(format!("the store {}", store.path.display()));
            }
            for info in store.volumes() {
                if but == Some((store.identity, info.id)) {
                    continue;
                }
                let shared = store.handle.origin(info.id).is_some_and(|origin| {
                    origin.layers().contains(&identity) || layers.contains(&origin.identity())
                });
                if shared {
                    return refuse(format!("the origin of volume {}", info.name));
                }
            }
        }
        Ok(())
    }

    /// Gives engine and device to the lanes. Nothing is served yet.
    fn hand_over(
        &self,
        path: PathBuf,
        uuid: Uuid,
        engine: Engine,
        device: StoreDevice,
        origins: &Origins,
    ) -> Result<Arc<Store>, Failure> {
        let identity = device.identity();
        let handlers = Handlers::new(path.clone(), uuid, self.events.clone(), self.state.clone());
        let handlers = Arc::new(handlers);
        let handle = self
            .runtime
            .attach_store(engine, device, handlers.clone())?;
        let not_served = Mutex::new(origins.not_served.clone());
        let changing = Mutex::default();
        Ok(Arc::new(Store {
            path,
            uuid,
            identity,
            handle,
            handlers,
            changing,
            scrub: Scrubber::default(),
            not_served,
        }))
    }

    /// Drops what is invalid, lists the store, serves its volumes.
    fn begin(
        &self,
        store: &Arc<Store>,
        consent: Consent<'_>,
        mut origins: OriginSet,
    ) -> Result<(), Failure> {
        let _changing = store.changing.lock();
        self.drop_invalid(store)?;
        let listed = ListedStore {
            path: store.path.clone(),
            uuid: store.uuid,
        };
        self.state.update(|state| state.list(listed))?;
        self.missing.lock().remove(&store.path);
        self.stores.write().push(store.clone());
        for info in store.volumes() {
            store.handlers.name(info.id, &info.name);
            if let Some(origin) = origins.take(info.id) {
                self.serve_or_say_why(store, &info, origin, consent);
            }
        }
        self.report_not_served(store);
        self.clean_devices(store);
        Ok(())
    }

    /// A store failed earlier: what its origins overwrote since is recorded in the
    /// state file only. Now the store itself must know, before anything is served.
    fn drop_invalid(&self, store: &Store) -> Result<(), Failure> {
        let volumes = self.state.get().invalid_volumes(store.uuid);
        for volume in volumes.iter().copied().map(VolumeId) {
            if store.volumes().iter().any(|info| info.id == volume) {
                let reason = DropReason::StoreFailed;
                store
                    .handle
                    .command(Command::DropSnapshots { volume, reason })?;
            }
        }
        if !volumes.is_empty() {
            self.state
                .update(|state| state.forget_invalid(store.uuid, &volumes))?;
        }
        Ok(())
    }

    /// Tries origins that were missing or refused, or failed since.
    fn try_again(&self, store: &Arc<Store>, consent: Consent<'_>) {
        let _changing = store.changing.lock();
        let around = Surroundings {
            store: &store.path,
            store_identity: store.identity,
            state_dir: self.state.dir(),
            until: origin::patience(false),
        };
        for info in store.volumes() {
            if store.is_served(info.id) {
                self.revive(store, &info, &around);
                continue;
            }
            match self.open_origin(&info, &around) {
                Ok(origin) => {
                    self.serve_or_say_why(store, &info, origin, consent);
                }
                Err(why) => drop(store.not_served.lock().insert(info.id, why)),
            }
        }
        self.report_not_served(store);
    }

    fn report_not_served(&self, store: &Store) {
        let not_served = store.not_served.lock().clone();
        for info in store.volumes() {
            if let Some(NotServed { problem, .. }) = not_served.get(&info.id) {
                let message = format!("volume {} is not served: {}", info.name, problem.message);
                let event = NewEvent::new(Level::Error, "volume-not-served", message);
                self.events.add(event.store(&store.path).volume(&info.name));
            }
        }
    }
}

fn attached(store: &Store, recovered: &Recovered) -> NewEvent {
    let path = store.path.display();
    let Recovered {
        clean,
        replayed,
        dropped,
        lost,
    } = recovered;
    let message = if *clean {
        format!("store {path} is attached after an orderly stop")
    } else {
        format!(
            "store {path} is attached and recovered: {replayed} records replayed, {dropped} unused ones dropped, {lost} chunks lost"
        )
    };
    let level = if *lost > 0 { Level::Error } else { Level::Info };
    NewEvent::new(level, "store-attached", message).store(&store.path)
}

/// The path as everyone shall know it.
pub(super) fn canonical(path: &Path) -> Result<PathBuf, Failure> {
    path.canonicalize().map_err(|error| {
        let code = match error.kind() {
            std::io::ErrorKind::NotFound => ErrorCode::NotFound,
            _ => ErrorCode::Error,
        };
        Failure::new(code, format!("{}: {error}", path.display()))
            .next("check the path, and that the device is connected")
    })
}
