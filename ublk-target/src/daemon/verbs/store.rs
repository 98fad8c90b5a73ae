//! `store.attach`, `store.detach`, `store.status`, `store.scrub`, `store.extend`.

use std::path::Path;

use crate::control::protocol::{Answer, Failure, ScrubAction};
use crate::daemon::Daemon;
use crate::daemon::origin::Consent;
use crate::daemon::scrub::Scrubber;
use crate::daemon::withdraw::Leaving;

impl Daemon {
    pub(in crate::daemon) fn store_attach(
        &self,
        path: &str,
        consent: Consent<'_>,
    ) -> Result<Answer, Failure> {
        let store = self.attach(Path::new(path), consent, None)?;
        Ok(Answer::Store(store.view()))
    }

    pub(in crate::daemon) fn store_detach(
        &self,
        name: &str,
        force: bool,
    ) -> Result<Answer, Failure> {
        let _alone = self.coming_and_going.lock();
        let missing = self.missing_stores().into_iter();
        let missing = missing.filter(|store| store.path == name || store.uuid == name);
        if let Some(missing) = missing.into_iter().next() {
            let uuid = self
                .missing
                .lock()
                .get(Path::new(&missing.path))
                .map(|m| m.0);
            if let (Some(devices), Some(uuid)) = (&self.devices, uuid) {
                devices.give_up(uuid, None, force)?;
            }
            self.state.update(|state| {
                state
                    .stores
                    .retain(|store| store.path.as_os_str() != &*missing.path)
            })?;
            self.missing.lock().remove(Path::new(&missing.path));
            return Ok(Answer::Done);
        }
        let store = self.store_called(name)?;
        let released = self.release(&store, Leaving::forced(force));
        if self.stores().iter().any(|other| other.uuid == store.uuid) {
            return released.map(|()| Answer::Done);
        }
        // Gone, if perhaps not in good order: it is not to come back by itself.
        self.state
            .update(|state| state.stores.retain(|listed| listed.uuid != store.uuid))?;
        released.map(|()| Answer::Done)
    }

    pub(in crate::daemon) fn store_status(&self, name: &str) -> Result<Answer, Failure> {
        let missing = self.missing_stores().into_iter();
        match missing
            .into_iter()
            .find(|store| store.path == name || store.uuid == name)
        {
            Some(missing) => Ok(Answer::Store(missing)),
            None => Ok(Answer::Store(self.store_called(name)?.view())),
        }
    }

    pub(in crate::daemon) fn store_scrub(
        &self,
        name: &str,
        action: ScrubAction,
        rate: u64,
    ) -> Result<Answer, Failure> {
        let store = self.store_called(name)?;
        match action {
            // Not while it is being let go: nobody would end it.
            ScrubAction::Start => {
                let _changing = store.changing.lock();
                let store = self.store_called(name)?;
                Scrubber::start(&store, self.events.clone(), rate)?;
            }
            ScrubAction::Stop => store.scrub.stop(),
            ScrubAction::Status => {}
        }
        Ok(Answer::Scrub(store.scrub.view()))
    }

    /// Without the store's `changing` lock: that takes as long as a checkpoint, and a
    /// snapshot must not wait for it. The engine sees to what may happen together.
    pub(in crate::daemon) fn store_extend(
        &self,
        name: &str,
        size: Option<u64>,
    ) -> Result<Answer, Failure> {
        let store = self.store_called(name)?;
        store.handle.extend(size)?;
        Ok(Answer::Store(store.view()))
    }
}
