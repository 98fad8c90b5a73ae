//! `volume.*`

use std::path::Path;
use std::sync::Arc;

use snapstore::VolumeId;
use snapstore::engine::{Command, MAX_PATH, Reply, VolumeInfo};
use uuid::Uuid;

use crate::control::protocol::{Answer, ErrorCode, Failure, MAX_PAGE};
use crate::control::utc;
use crate::control::views::{Level, PolicyName};
use crate::daemon::Daemon;
use crate::daemon::attach::canonical;
use crate::daemon::events::NewEvent;
use crate::daemon::failures::{busy, held, not_found};
use crate::daemon::origin::{self, NotServed, Surroundings};
use crate::daemon::store::Store;
use crate::daemon::withdraw::Leaving;
use crate::device::OriginDevice;
use crate::runtime::AttachError;

impl Daemon {
    pub(in crate::daemon) fn volume_create(
        &self,
        name: String,
        origin: &str,
        store: Option<&str>,
        policy: PolicyName,
    ) -> Result<Answer, Failure> {
        // Names are unique over all stores, so nothing may come meanwhile.
        let _alone = self.coming_and_going.lock();
        let store = self.store_or_only(store)?;
        let _changing = store.changing.lock();
        if self.find_volume(&name).is_some() {
            let message = format!("there is a volume {name:?} already");
            return Err(busy(message, "choose another name"));
        }
        let (device, origin) = self.open_new(origin, &store)?;
        let id = add_volume(&store, name.clone(), (&device, origin), policy)?;
        store.handlers.name(id, &name);
        let (_, info) = self.volume(&name)?;
        if let Err(failure) = self.serve(&store, &info, device) {
            // A volume that cannot be served would only be in the way.
            let _ = store.handle.command(Command::DeleteVolume { volume: id });
            return Err(failure);
        }
        let message = format!("volume {name} was created on {}", info.origin);
        let event = NewEvent::new(Level::Info, "volume-created", message);
        self.events.add(event.store(&store.path).volume(&name));
        Ok(self.show_volume(&store, info))
    }

    /// Opens a device that is to become an origin. It keeps the name it is called by:
    /// links such as those by serial number outlive what they lead to.
    fn open_new(&self, origin: &str, store: &Store) -> Result<(OriginDevice, String), Failure> {
        let path = canonical(Path::new(origin))?;
        if origin.len() > MAX_PATH || !origin.starts_with('/') {
            let message = format!("{origin} is no usable path");
            return Err(Failure::new(ErrorCode::Usage, message)
                .next(format!("use an absolute path of at most {MAX_PATH} bytes")));
        }
        self.must_not_lie_on_ourselves(&path)?;
        let device = OriginDevice::open(&path, false)?;
        // A loop device goes a moment after its last mount.
        let until = origin::patience(false);
        origin::patiently(until, || origin::unused(&path, ()))?;
        let around = Surroundings {
            store: &store.path,
            store_identity: store.identity,
            state_dir: self.state.dir(),
            until,
        };
        origin::apart(&device, &around)
            .map_err(|why| busy(why.problem.message, &why.problem.next))?;
        self.must_be_apart(&path, device.identity(), None)?;
        Ok((device, origin.to_owned()))
    }

    pub(in crate::daemon) fn volume_list(
        &self,
        store: Option<&str>,
        after: Option<String>,
    ) -> Result<Answer, Failure> {
        let stores = match store {
            Some(name) => vec![self.store_called(name)?],
            None => self.stores(),
        };
        let mut items: Vec<_> = stores
            .iter()
            .flat_map(|store| {
                store
                    .volumes()
                    .into_iter()
                    .map(|info| (store.clone(), info))
            })
            .filter(|(_, info)| after.as_ref().is_none_or(|after| info.name > *after))
            .collect();
        items.sort_by(|(_, a), (_, b)| a.name.cmp(&b.name));
        let more = items.len() > MAX_PAGE as usize;
        items.truncate(MAX_PAGE as usize);
        let items: Vec<_> = items
            .into_iter()
            .map(|(store, info)| self.volume_view(&store, info))
            .collect();
        let next = items.last().filter(|_| more).map(|last| last.name.clone());
        Ok(Answer::Volumes { items, next })
    }

    pub(in crate::daemon) fn volume_show(&self, name: &str) -> Result<Answer, Failure> {
        let (store, info) = self.volume(name)?;
        let mut view = self.volume_view(&store, info);
        self.count_openers_of(&mut view);
        Ok(Answer::Volume(view))
    }

    pub(in crate::daemon) fn volume_set(
        &self,
        name: &str,
        policy: Option<PolicyName>,
        full_wait_s: Option<u32>,
    ) -> Result<Answer, Failure> {
        let (store, _) = self.volume(name)?;
        let _changing = store.changing.lock();
        let (_, info) = self.volume(name)?;
        let set = Command::SetPolicy {
            volume: info.id,
            policy: policy.map(Into::into),
            full_wait_s,
        };
        store.handle.command(set)?;
        self.volume_show(name)
    }

    pub(in crate::daemon) fn volume_resize(
        &self,
        name: &str,
        size: Option<u64>,
    ) -> Result<Answer, Failure> {
        let (store, _) = self.volume(name)?;
        let _changing = store.changing.lock();
        let (_, info) = self.volume(name)?;
        let Some(origin) = store.handle.origin(info.id) else {
            return Err(busy(
                format!("volume {name} is not served"),
                "csnapctl volume show says why; a volume grows while it is served",
            ));
        };
        let bytes = match size {
            Some(bytes) => bytes,
            None => origin.measure()?,
        };
        store.handle.resize_origin(info.id, bytes)?;
        if bytes != info.size {
            let message = format!("volume {name} grew from {} to {bytes} bytes", info.size);
            let event = NewEvent::new(Level::Info, "volume-resized", message);
            self.events.add(event.store(&store.path).volume(name));
        }
        self.resized(name, bytes)?;
        self.volume_show(name)
    }

    pub(in crate::daemon) fn volume_delete(
        &self,
        name: &str,
        uuid: Option<&str>,
        force: bool,
    ) -> Result<Answer, Failure> {
        let _alone = self.coming_and_going.lock();
        let (store, info) = self.volume(name)?;
        let _changing = store.changing.lock();
        let is = Uuid::from_bytes(info.uuid).to_string();
        if let Some(wanted) = uuid.filter(|wanted| *wanted != is) {
            return Err(not_found(
                format_args!("volume {name} with UUID {wanted}"),
                "another volume has the name by now: look again",
            ));
        }
        if let Some(mapped) = store
            .snapshots(info.id)
            .iter()
            .find(|snapshot| snapshot.mapped)
        {
            let message = format!("snapshot {name}@{} is mapped", mapped.name);
            return Err(busy(message, "unmap it first: csnapctl snapshot unmap"));
        }
        if let Some(kept) = store.snapshots(info.id).iter().find(|s| s.is_kept()) {
            return Err(held(name, &kept.name, ""));
        }
        let alone = std::slice::from_ref(&info);
        if force {
            store.let_wait_for_room(alone, false);
        }
        let deleted = self.withdraw_and_delete(&store, &info, Leaving::forced(force));
        store.let_wait_for_room(alone, true);
        deleted?;
        store.handlers.unwatch(info.id);
        self.forget_mark(&store, info.id);
        if store.is_served(info.id)
            && let Err(error) = store.handle.detach_origin(info.id)
        {
            tracing::error!(volume = name, %error, "the origin is still held");
        }
        store.not_served.lock().remove(&info.id);
        let message = format!(
            "volume {name} and its snapshots were deleted; {} stays",
            info.origin
        );
        let event = NewEvent::new(Level::Info, "volume-deleted", message);
        self.events.add(event.store(&store.path).volume(name));
        Ok(Answer::Done)
    }

    fn withdraw_and_delete(
        &self,
        store: &Arc<Store>,
        info: &VolumeInfo,
        leaving: Leaving,
    ) -> Result<(), Failure> {
        let names = std::slice::from_ref(&info.name);
        self.dismiss(names, leaving)?;
        self.withdraw(store, names, leaving)?;
        let delete = Command::DeleteVolume { volume: info.id };
        if let Err(error) = store.handle.command(delete) {
            self.admit_again(store, info);
            return Err(error.into());
        }
        Ok(())
    }

    /// The deletion failed: clients may come back.
    fn admit_again(&self, store: &Arc<Store>, info: &VolumeInfo) {
        let target = crate::export::ExportTarget::Origin(info.id);
        if let Err(failure) = self.admit(store, info.name.clone(), target) {
            let why = NotServed::failed(&failure, &store.path);
            store.not_served.lock().insert(info.id, why);
            if let Some(origin) = store.handle.origin(info.id) {
                self.let_go(store, info, &origin);
            }
        }
    }

    /// A volume has `bytes` bytes from now on. Whoever has its block device open
    /// sees it at once. NBD cannot tell those who are connected: whoever connects
    /// later sees it.
    fn resized(&self, name: &str, bytes: u64) -> Result<(), Failure> {
        let Some(served) = self.exports.get(name) else {
            return Ok(());
        };
        if let Some(export) = served.nbd {
            export.resize(bytes).map_err(AttachError::from)?;
        }
        if let Some(device) = served.device {
            device.block().resize(bytes)?;
        }
        Ok(())
    }

    fn show_volume(&self, store: &Store, info: VolumeInfo) -> Answer {
        Answer::Volume(self.volume_view(store, info))
    }
}

fn add_volume(
    store: &Store,
    name: String,
    (device, origin): (&OriginDevice, String),
    policy: PolicyName,
) -> Result<VolumeId, Failure> {
    let create = Command::CreateVolume {
        name,
        uuid: *Uuid::new_v4().as_bytes(),
        size: device.size(),
        origin,
        policy: policy.into(),
        created_ms: utc::now_ms(),
    };
    match store.handle.command(create)? {
        Reply::Volume(id) => Ok(id),
        other => Err(Failure::new(
            ErrorCode::Error,
            format!("unexpected reply {other:?}"),
        )),
    }
}
