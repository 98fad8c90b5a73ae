//! The engine as the core holds it: the real one, with what a thread or a daemon
//! would do besides put aside for the world, which has only one thread.
//!
//! - `record_invalid` runs on a thread of its own in csnapd. Here the effect never
//!   reaches the core; the world carries it out and some lane tells the engine.
//! - A lane that finds the engine's lock held leaves its events. With one thread
//!   that happens only from inside a step, so [`Wrapped::step`] lets such lanes in.
//! - A panic in a step ends csnapd. Here it is a broken promise like any other.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};

use snapstore::engine::{Notice, StoreInfo};
use snapstore::ids::IoId;
use snapstore::{Checksum, Effect, Effects, Engine, EventBatch, IoError, Tag, UniqueMap, VolumeId};
use ublk_target::core::{Core, Entry, Stepper, StoreHandlers, Visit};

use crate::sim::defect::Defect;

/// What steps put aside.
#[derive(Default)]
pub(super) struct Aside {
    /// The way to the engine, for the lanes that meet another one there.
    pub(super) core: Weak<Core<Wrapped>>,
    /// Lanes that will find the engine held, one a step.
    pub(super) meeting: Vec<Visit>,
    /// To be recorded outside the store.
    pub(super) invalid: Vec<(IoId, Vec<VolumeId>)>,
    /// What people should know.
    pub(super) notices: Vec<Notice>,
    /// What broke.
    pub(super) broken: Option<String>,
}

/// [`Aside`], where the core, the engine and the world find it.
#[derive(Clone, Default)]
pub(super) struct Shared(Arc<Mutex<Aside>>);

impl Shared {
    pub(super) fn lock(&self) -> MutexGuard<'_, Aside> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// See the module.
pub(super) struct Wrapped {
    pub(super) engine: Engine,
    pub(super) aside: Shared,
    pub(super) defect: Option<Defect>,
}

impl Wrapped {
    /// A lane that comes while this one is in the engine.
    fn meet(&self) {
        let (core, visit) = {
            let mut aside = self.aside.lock();
            (aside.core.upgrade(), aside.meeting.pop())
        };
        if let (Some(core), Some(mut visit)) = (core, visit) {
            core.enter(&mut visit);
            if !visit.events.is_empty() || !visit.local.list.is_empty() {
                self.aside.lock().broken = Some("a lane entered an engine that was held".into());
            }
        }
    }

    fn put_aside(&self, effects: &mut Effects) {
        let taken = effects
            .list
            .extract_if(.., |effect| matches!(effect, Effect::RecordInvalid { .. }));
        for effect in taken {
            if let Effect::RecordInvalid { io, volumes } = effect {
                self.aside.lock().invalid.push((io, volumes));
            }
        }
    }

    /// The bits of what is only going to be copied.
    fn set_early(&self, effects: &Effects) {
        for effect in &effects.list {
            if let Effect::Copy {
                volume,
                first,
                count,
                ..
            } = effect
                && let Some(map) = self.engine.unique_map(*volume)
            {
                (*first..first + u64::from(*count)).for_each(|chunk| map.set(chunk));
            }
        }
    }
}

impl Stepper for Wrapped {
    fn step(&mut self, batch: &mut EventBatch, effects: &mut Effects) {
        if self.defect == Some(Defect::Overtaking) {
            batch.events.reverse();
        }
        let engine = &mut self.engine;
        let stepped = catch_unwind(AssertUnwindSafe(|| engine.step(batch, effects)));
        if let Err(panic) = stepped {
            let text = panic.downcast_ref::<String>().cloned();
            let text = text.or_else(|| panic.downcast_ref::<&str>().map(|s| (*s).to_owned()));
            self.aside.lock().broken = Some(format!("panic: {}", text.unwrap_or_default()));
        } else if !batch.is_empty() {
            self.aside.lock().broken = Some("a step left events in the batch".into());
        }
        if self.defect == Some(Defect::EarlyBit) {
            self.set_early(effects);
        }
        self.put_aside(effects);
        self.meet();
    }

    fn chunk_size(&self) -> u32 {
        self.engine.chunk_size()
    }

    fn checksum(&self) -> Checksum {
        self.engine.checksum()
    }

    fn unique_map(&self, volume: VolumeId) -> Option<Arc<UniqueMap>> {
        self.engine.unique_map(volume)
    }

    fn volume_size(&self, volume: VolumeId) -> Option<u64> {
        Stepper::volume_size(&self.engine, volume)
    }

    fn snapshot_size(&self, volume: VolumeId, tag: Tag) -> Option<u64> {
        Stepper::snapshot_size(&self.engine, volume, tag)
    }

    fn store_info(&self) -> StoreInfo {
        self.engine.store_info()
    }
}

/// What csnapd would hear.
pub(super) struct Ears(pub(super) Shared);

impl StoreHandlers for Ears {
    fn notice(&self, notice: Notice) {
        self.0.lock().notices.push(notice);
    }

    // The client hears of it too, and is judged by it.
    fn origin_failed(&self, _: VolumeId, _: i32) {}

    fn record_invalid(&self, _: &[VolumeId]) -> Result<(), IoError> {
        self.0.lock().broken = Some("an effect that was put aside came through".into());
        Ok(())
    }
}
