//! Block devices: made, taken over from a dead daemon, handed over, removed.
//!
//! Order of making: add, parameters, open the character device, every lane
//! fetches its tags, start. Taking over leaves out the first two. Removing: stop
//! (the driver waits for what is in flight, then ends every fetch), the lanes let
//! go, the character device closes, delete.
//!
//! Calls block, some for as long as requests are in flight; none is for I/O threads.

use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc;
use std::time::{Duration, Instant};

use parking_lot::Mutex;

use super::spread::{Spread, Tags};
use super::{AttachError, Runtime, StoreHandle};
use crate::core::{Lanes, Mail, Stepper};
use crate::device::OriginDevice;
use crate::export::ExportTarget;
use crate::lane::Target;
use crate::ring::{MOST_TAGS, Mode, NewShare, Order, Served, Serving};
use crate::ublk::{
    CharDevice, Control, Descriptors, Features, Limits, NewDevice, Openers, UblkError, ZeroCopy,
    char, features, params, uapi,
};

/// How long lanes may take to fetch their tags, or to let go of them.
const PATIENCE: Duration = Duration::from_secs(20);
/// Most bytes in a request whose pages are registered.
pub(crate) const MOST_BYTES: u32 = 1 << 20;
/// Most bytes in a request that is copied: each tag has a buffer of this size.
const COPIED_BYTES: u32 = 512 << 10;
/// Most bytes in a read of a snapshot: with the blocks around it, it fits the
/// pool's large buffers.
const SNAPSHOT_BYTES: u32 = 128 << 10;
/// Most tags of a snapshot's queue.
const SNAPSHOT_DEPTH: u16 = 64;

/// What a block device is to be.
#[derive(Clone, Copy)]
pub struct BlockOptions<'a> {
    /// Kept by the driver, for the daemon that comes after this one.
    pub identity: u64,
    /// How data moves.
    pub zero_copy: ZeroCopy,
    /// Tags of a queue.
    pub queue_depth: u16,
    /// Which I/O threads serve them.
    pub spread: Spread,
    /// Is told the device's number before anybody can see the device: between the
    /// making and the start, also of one that is recovered.
    pub announce: &'a dyn Fn(u32),
}

/// Which device it becomes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlockOpen {
    /// A new one.
    New,
    /// One that an earlier daemon has left.
    Recover {
        /// Its number.
        id: u32,
    },
}

/// Why there is no block device, or it does not go.
#[derive(Debug, thiserror::Error)]
pub enum BlockError {
    /// Of the store or the origin.
    #[error(transparent)]
    Attach(#[from] AttachError),
    /// Of the driver.
    #[error(transparent)]
    Ublk(#[from] UblkError),
    /// Somebody uses it.
    #[error("{} is in use: {openers}", path.display())]
    Open {
        /// The device.
        path: PathBuf,
        /// By whom.
        openers: Openers,
    },
    /// I/O threads did not do their part.
    #[error("the I/O threads did not take up ublk device {0} in time")]
    Lanes(u32),
    /// Taking it over failed half way: this process still holds its requests.
    #[error(
        "taking over /dev/ublkb{0} failed before, and only another process can try again: \
         restart csnapd"
    )]
    HalfTaken(u32),
    /// What waits in it was meant for another device below.
    #[error(
        "/dev/ublkb{id} waits with the I/O of its users, and what it serves lies on a device by \
         now that differs in {what}: requests would fail; attach it on one like before, or give \
         up what waits with `csnapctl store detach --force`"
    )]
    Unsuited {
        /// Its number.
        id: u32,
        /// Names, separated by commas.
        what: String,
    },
    /// It cannot change its size.
    #[error("this kernel cannot change the size of {} while it is there; unmap or detach it, then serve it again", .0.display())]
    FixedSize(PathBuf),
}

/// What became of a device that is served no more.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Removed {
    /// It is gone, or goes once nobody holds it any more.
    Gone,
    /// It is stopped, and the driver did not delete it.
    Stopped,
}

/// What was agreed with the driver.
#[derive(Clone, Copy, Debug)]
pub struct Agreed {
    /// Bits of [`uapi::feature`].
    pub features: Features,
    /// How data moves.
    pub zero_copy: ZeroCopy,
    /// Hardware queues.
    pub queues: u16,
    /// Tags of each.
    pub depth: u16,
    /// Most bytes in a request.
    pub max_io_bytes: u32,
    /// The tags of one queue are spread over the I/O threads.
    pub per_io: bool,
    /// Limits, as the driver took them.
    pub params: uapi::Params,
}

/// A block device being served. Dropping it leaves the device to a successor.
#[derive(Debug)]
pub struct BlockDevice {
    id: u32,
    number: u64,
    read_only: bool,
    size: Mutex<u64>,
    agreed: Agreed,
    control: Arc<Control>,
    lanes: Arc<Lanes>,
    /// Until it is removed or handed over.
    served: Mutex<Option<Arc<Served>>>,
}

/// Everything about a device before it exists.
struct Plan {
    size: u64,
    read_only: bool,
    volume: crate::lane::VolumeSlot,
    target: Target,
    limits: Limits,
}

impl Runtime {
    /// Serves `target` as a block device.
    ///
    /// # Errors
    /// When its origin is not attached, the driver refuses, or something did not
    /// happen in time. A new device is gone again then; one that was to be
    /// recovered waits on, for another process if this one had begun to fetch.
    pub fn open_block<E: Stepper>(
        &self,
        control: &Arc<Control>,
        store: &Arc<StoreHandle<E>>,
        target: ExportTarget,
        how: BlockOpen,
        options: &BlockOptions<'_>,
    ) -> Result<Arc<BlockDevice>, BlockError> {
        let plan = plan(store, target)?;
        let info = match how {
            BlockOpen::New => self.add(control, &plan, options)?,
            BlockOpen::Recover { id } => {
                if self.half_taken.lock().contains(&id) {
                    return Err(BlockError::HalfTaken(id));
                }
                suits(control, id, &plan)?;
                control.start_recovery(id)?;
                control.info(id)?
            }
        };
        (options.announce)(info.dev_id);
        let opened = self.open_added(control, &plan, &info, how, options);
        if opened.is_err() && how == BlockOpen::New {
            // Nobody has seen it. The driver ends what the lanes have fetched.
            let gone = control.stop(info.dev_id);
            let gone = gone.and_then(|()| control.delete_async(info.dev_id));
            if let Err(error) = gone {
                tracing::error!(%error, "a block device that could not be served stays");
            }
        }
        opened
    }

    fn add(
        &self,
        control: &Control,
        plan: &Plan,
        options: &BlockOptions<'_>,
    ) -> Result<uapi::DevInfo, BlockError> {
        let live = plan.target == Target::Origin;
        let flags = features::wanted(control.features(), options.zero_copy, live);
        let depth = if live {
            options.queue_depth
        } else {
            options.queue_depth.min(SNAPSHOT_DEPTH)
        };
        let add = |flags, max_io_bytes| {
            control.add(&NewDevice {
                id: None,
                queues: self.shared.lanes.count(),
                depth,
                max_io_bytes,
                flags,
                identity: options.identity,
            })
        };
        let most = |flags| match (live, Features(flags).is_zero_copy()) {
            (false, _) => SNAPSHOT_BYTES,
            (true, false) => COPIED_BYTES,
            (true, true) => MOST_BYTES,
        };
        let mut info = add(flags, most(flags))?;
        if most(info.flags) < info.max_io_buf_bytes {
            // Zero copy was offered and then refused: buffers of its size are
            // more than copying needs.
            control.delete(info.dev_id)?;
            info = add(info.flags, most(info.flags))?;
        }
        if let Err(error) = features::check(&info) {
            control.delete(info.dev_id)?;
            return Err(error.into());
        }
        let params = params::params(&plan.limits, plan.size, plan.read_only, &info);
        if let Err(error) = set_params(control, info.dev_id, &params) {
            control.delete(info.dev_id)?;
            return Err(error.into());
        }
        Ok(info)
    }

    fn open_added(
        &self,
        control: &Arc<Control>,
        plan: &Plan,
        info: &uapi::DevInfo,
        how: BlockOpen,
        options: &BlockOptions<'_>,
    ) -> Result<Arc<BlockDevice>, BlockError> {
        let id = info.dev_id;
        let char = CharDevice::open(id, PATIENCE)?;
        let queues = (0..info.nr_hw_queues)
            .map(|queue| Descriptors::map(&char, queue, info.queue_depth))
            .collect::<Result<Vec<_>, _>>()?;
        let number = self.next.fetch_add(1, Ordering::Relaxed);
        let lanes = self.shared.lanes.clone();
        let by_tag = options.spread.is_by_tag(info, lanes.count());
        let shares = options.spread.shares(info, lanes.count());
        let serving = Serving {
            number,
            volume: plan.volume,
            target: plan.target,
            mode: mode(info.flags, plan.target),
            max_io_bytes: info.max_io_buf_bytes,
            lanes: shares.len(),
        };
        let served = Arc::new(Served::new(&serving, queues, char));
        let device = Arc::new(BlockDevice {
            id,
            number,
            read_only: plan.read_only,
            size: Mutex::new(plan.size),
            agreed: agreed(info, control.params(id)?, by_tag),
            control: control.clone(),
            lanes,
            served: Mutex::new(Some(served.clone())),
        });
        let up = device.fetch(&served, shares).and_then(|()| match how {
            BlockOpen::New => Ok(control.start(id)?),
            BlockOpen::Recover { .. } => Ok(control.end_recovery(id)?),
        });
        if up.is_err() && how != BlockOpen::New {
            // A command that was given up may still happen, and the lanes have
            // fetched: what users asked for must not fail on a volume let go of.
            device.stand_aside();
            self.half_taken.lock().push(id);
        }
        up.map(|()| device)
    }
}

impl BlockDevice {
    /// Its number.
    #[must_use]
    pub fn id(&self) -> u32 {
        self.id
    }

    /// `/dev/ublkbN`.
    #[must_use]
    pub fn path(&self) -> PathBuf {
        char::disk(self.id)
    }

    /// Bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        *self.size.lock()
    }

    /// Nothing may change it.
    #[must_use]
    pub fn read_only(&self) -> bool {
        self.read_only
    }

    /// What was agreed with the driver.
    #[must_use]
    pub fn agreed(&self) -> &Agreed {
        &self.agreed
    }

    /// What of another origin would refuse requests that this device admits.
    ///
    /// # Errors
    /// When the system does not tell how the origin, or the device, is.
    pub fn unsuited(&self, origin: &OriginDevice) -> Result<Vec<&'static str>, BlockError> {
        let limits = Limits::of(origin)?;
        let info = self.control.info(self.id)?;
        let asked = params::params(&limits, *self.size.lock(), self.read_only, &info);
        Ok(params::unsuited(&asked, &self.agreed.params))
    }

    /// Who has it open, as far as can be seen.
    ///
    /// # Errors
    /// When the system does not say.
    pub fn openers(&self) -> Result<Openers, BlockError> {
        Ok(Openers::of(self.id)?)
    }

    /// Takes the device away. Requests in flight are carried out first.
    ///
    /// # Errors
    /// [`BlockError::Open`] when somebody has it open and this is not `force`d, or
    /// what the driver said: it is served as before then. With force its users get
    /// I/O errors.
    pub fn remove(&self, force: bool) -> Result<Removed, BlockError> {
        let mut served = self.served.lock();
        if served.is_none() {
            return Ok(Removed::Gone);
        }
        let stopped = if force {
            self.control.stop(self.id).map_err(BlockError::from)
        } else {
            self.stop_unused()
        };
        match stopped {
            // Somebody has deleted it.
            Ok(()) | Err(BlockError::Ublk(UblkError::NoDevice(_))) => {}
            Err(error) => return Err(error),
        }
        let left = served.take().is_none_or(|s| s.wait_until_left(PATIENCE));
        if !left {
            tracing::error!(device = self.id, "an I/O thread did not let go in time");
        }
        let later = || self.control.delete_async(self.id);
        Ok(if left && !force {
            deleted(self.control.delete(self.id), later)
        } else {
            // Whoever has it open may keep it for long; its number stays taken.
            deleted(later(), later)
        })
    }

    fn stop_unused(&self) -> Result<(), BlockError> {
        let safe = self.agreed.features.has(uapi::feature::SAFE_STOP_DEV);
        let openers = self.openers()?;
        if openers.is_empty() {
            let stopped = if safe {
                self.control.try_stop(self.id)
            } else {
                self.control.stop(self.id)
            };
            match stopped {
                Err(UblkError::Open(_)) => {}
                other => return Ok(other?),
            }
        }
        Err(BlockError::Open {
            path: self.path(),
            openers,
        })
    }

    /// Leaves the device to the next daemon: nothing fails, its users wait.
    /// Requests in flight are carried out first; what comes later stays with the
    /// driver. False if it was not served any more.
    ///
    /// # Errors
    /// When requests did not finish in time. They are issued again to the
    /// successor all the same.
    pub fn hand_over(&self) -> Result<bool, BlockError> {
        let Some(served) = self.served.lock().take() else {
            return Ok(false);
        };
        if self.agreed.features.has(uapi::feature::QUIESCE) {
            let quiesced = self.control.quiesce(self.id, PATIENCE);
            if let Err(error) = &quiesced {
                tracing::warn!(%error, device = self.id, "standing aside without quiescing");
            }
        }
        self.stand_aside();
        match served.wait_until_left(PATIENCE) {
            true => Ok(true),
            false => Err(BlockError::Lanes(self.id)),
        }
    }

    /// The lanes take no further request: what comes stays with the driver.
    fn stand_aside(&self) {
        let number = self.number;
        for lane in 0..self.lanes.count() {
            self.lanes
                .post(lane, Mail::Order(Order::StandAside { number }));
        }
    }

    /// Gives the device another size.
    ///
    /// # Errors
    /// [`BlockError::FixedSize`] on kernels before 6.16.
    pub fn resize(&self, bytes: u64) -> Result<(), BlockError> {
        if !self.agreed.features.has(uapi::feature::UPDATE_SIZE) {
            return Err(BlockError::FixedSize(self.path()));
        }
        self.control.update_size(self.id, bytes / uapi::SECTOR)?;
        *self.size.lock() = bytes;
        Ok(())
    }

    /// Lets every lane fetch its tags, and waits until all are on their way.
    fn fetch(&self, served: &Arc<Served>, shares: Vec<(u16, Tags)>) -> Result<(), BlockError> {
        let (done, all) = mpsc::channel();
        let count = shares.len();
        for (lane, tags) in shares {
            let share = NewShare {
                served: served.clone(),
                tags,
                done: done.clone(),
            };
            self.lanes.post(lane, Mail::Order(Order::ServeBlock(share)));
        }
        drop(done);
        let until = Instant::now() + PATIENCE;
        for _ in 0..count {
            let left = until.saturating_duration_since(Instant::now());
            all.recv_timeout(left)
                .map_err(|_| BlockError::Lanes(self.id))?;
        }
        Ok(())
    }
}

/// What the driver said to deleting a device that is stopped. There is no way back
/// then, so a failure is none of who asked: it is tried once more, without waiting
/// for those who hold the device.
fn deleted(said: Result<(), UblkError>, again: impl FnOnce() -> Result<(), UblkError>) -> Removed {
    let said = match said {
        Ok(()) | Err(UblkError::NoDevice(_)) => return Removed::Gone,
        Err(error) => {
            tracing::warn!(%error, "a device that is stopped was not deleted at once");
            again()
        }
    };
    match said {
        Ok(()) | Err(UblkError::NoDevice(_)) => Removed::Gone,
        Err(error) => {
            tracing::error!(%error, "a device that is stopped cannot be deleted");
            Removed::Stopped
        }
    }
}

/// Refuses to take over a device of which requests would be refused below: it goes
/// on waiting.
fn suits(control: &Control, id: u32, plan: &Plan) -> Result<(), BlockError> {
    let info = control.info(id)?;
    let asked = params::params(&plan.limits, plan.size, plan.read_only, &info);
    let unsuited = params::unsuited(&asked, &control.params(id)?);
    if !unsuited.is_empty() {
        let what = unsuited.join(", ");
        return Err(BlockError::Unsuited { id, what });
    }
    features::check_mode(&info, plan.target == Target::Origin)?;
    Ok(())
}

fn plan<E: Stepper>(store: &Arc<StoreHandle<E>>, target: ExportTarget) -> Result<Plan, BlockError> {
    let (volume, lane_target, facts) = store.export_facts(target)?;
    let (ExportTarget::Origin(id) | ExportTarget::Snapshot(id, _)) = target;
    let origin = store.origin(id).ok_or(AttachError::NotAttached(id))?;
    Ok(Plan {
        size: facts.size,
        read_only: facts.read_only,
        volume,
        target: lane_target,
        limits: Limits::of(&origin)?,
    })
}

/// What the driver does not know it ignores without a word, so look at what it kept.
fn set_params(control: &Control, id: u32, asked: &uapi::Params) -> Result<(), UblkError> {
    control.set_params(id, asked)?;
    let ignored = params::heeded(id, asked, &control.params(id)?)?;
    if !ignored.is_empty() {
        let ignored = ignored.join(", ");
        tracing::warn!(device = id, %ignored, "the driver ignored some parameters");
    }
    Ok(())
}

fn mode(flags: u64, target: Target) -> Mode {
    if target != Target::Origin {
        Mode::Pooled
    } else if flags & uapi::feature::AUTO_BUF_REG != 0 {
        Mode::Auto
    } else if flags & uapi::feature::SUPPORT_ZERO_COPY != 0 {
        Mode::Register
    } else {
        Mode::Copy
    }
}

fn agreed(info: &uapi::DevInfo, params: uapi::Params, per_io: bool) -> Agreed {
    let zero_copy = if info.flags & uapi::feature::AUTO_BUF_REG != 0 {
        ZeroCopy::Auto
    } else if info.flags & uapi::feature::SUPPORT_ZERO_COPY != 0 {
        ZeroCopy::Register
    } else {
        ZeroCopy::Off
    };
    Agreed {
        features: Features(info.flags),
        zero_copy,
        queues: info.nr_hw_queues,
        depth: info.queue_depth,
        max_io_bytes: info.max_io_buf_bytes,
        per_io,
        params,
    }
}

const _: () = assert!(uapi::MAX_QUEUE_DEPTH as usize <= MOST_TAGS);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_stopped_device_goes_whatever_the_driver_says() {
        let late = || {
            Err(UblkError::TimedOut {
                command: "remove",
                id: Some(3),
                after: PATIENCE,
            })
        };
        let gone = || Err(UblkError::NoDevice(3));
        assert_eq!(deleted(Ok(()), late), Removed::Gone);
        assert_eq!(deleted(gone(), late), Removed::Gone);
        assert_eq!(deleted(late(), || Ok(())), Removed::Gone);
        assert_eq!(deleted(late(), gone), Removed::Gone);
        assert_eq!(deleted(late(), late), Removed::Stopped);
    }
}
