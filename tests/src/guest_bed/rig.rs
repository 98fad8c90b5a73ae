//! Origin, store and daemon of one test, on block devices.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde_json::Value;

use super::device::Image;
use super::disk::{Disk, RamOptions};
use super::{Device, kernel};
use crate::e2e::bed::VOLUME;
use crate::e2e::{Bed, Fault, Outcome, tools};
use crate::ensure;

/// What a rig is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// The origin.
    pub origin: RamOptions,
    /// Size of the store.
    pub store_mib: u64,
    /// As `store create --chunk-size` takes it.
    pub chunk: String,
    /// Further options of `csnapd`.
    pub options: Vec<String>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            origin: RamOptions::plain(64),
            store_mib: 256,
            chunk: "16K".into(),
            options: Vec::new(),
        }
    }
}

/// An origin filled with known blocks, a store, and a daemon that serves them.
#[derive(Debug)]
pub struct Rig {
    /// Directory, daemon and `csnapctl`.
    pub bed: Bed,
    /// The origin.
    pub origin: Disk,
    /// The store.
    pub store: Disk,
    /// What each mapped snapshot held when it was taken.
    pub pictures: BTreeMap<String, Image>,
    log: kernel::Mark,
    finished: bool,
}

impl Rig {
    /// Everything running on disks in memory.
    ///
    /// # Errors
    /// If something cannot be made or started.
    pub fn new(test: &str, setup: &Setup) -> Outcome<Self> {
        kernel::inside()?;
        let origin = Disk::ram(setup.origin)?;
        let store = Disk::ram(RamOptions::plain(setup.store_mib))?;
        Self::on(test, setup, origin, store)
    }

    /// Everything running on the disks given.
    ///
    /// # Errors
    /// If something cannot be made or started.
    pub fn on(test: &str, setup: &Setup, origin: Disk, store: Disk) -> Outcome<Self> {
        let mut rig = Self::unserved(test, setup, origin, store)?;
        rig.origin.device().fill(super::load::FILLED)?;
        rig.bed.serve(&setup.chunk)?;
        Ok(rig)
    }

    /// No daemon and no store yet, the origin as it is.
    ///
    /// # Errors
    /// If something cannot be made.
    pub fn unserved(test: &str, setup: &Setup, origin: Disk, store: Disk) -> Outcome<Self> {
        kernel::inside()?;
        kernel::load("ublk_drv ublks_max=128")?;
        let log = kernel::mark()?;
        let left = kernel::ublk_devices()?;
        ensure!(
            left.is_empty(),
            "an earlier test left devices behind: {left:?}"
        );
        let dir = PathBuf::from("/run/csnap-test").join(test);
        let paths = [&origin, &store].map(|disk| disk.device().path.clone());
        let [origin_path, store_path] = paths;
        Ok(Self {
            bed: Bed::on(dir, origin_path, store_path, &setup.options)?,
            origin,
            store,
            pictures: BTreeMap::new(),
            log,
            finished: false,
        })
    }

    /// The volume's device.
    ///
    /// # Errors
    /// If it has none.
    pub fn device(&self) -> Outcome<Device> {
        let shown = self.bed.ctl.json(&format!("volume show {VOLUME}"))?;
        device_of(&shown)
    }

    /// The device of a mapped snapshot.
    ///
    /// # Errors
    /// If it has none.
    pub fn snapshot_device(&self, full_name: &str) -> Outcome<Device> {
        let shown = self.bed.ctl.json(&format!("snapshot show {full_name}"))?;
        device_of(&shown)
    }

    /// Takes a snapshot while nobody writes: it must hold exactly what the volume
    /// holds before and after.
    ///
    /// # Errors
    /// If it does not, or is refused.
    pub fn take_at_rest(&mut self, name: &str) -> Outcome<String> {
        let live = self.device()?;
        live.rest()?;
        let before = live.image()?;
        let full = self.bed.take_mapped(name)?;
        let after = live.image()?;
        before.same(&after, "the volume, which nobody should write now")?;
        let seen = self.snapshot_device(&full)?.image()?;
        before.same(&seen, &format!("{full} against the volume at the take"))?;
        self.pictures.insert(full.clone(), before);
        Ok(full)
    }

    /// Takes a snapshot while the volume is written, and keeps what it shows.
    ///
    /// # Errors
    /// If it is refused.
    pub fn take_in_motion(&mut self, name: &str) -> Outcome<String> {
        let full = self.bed.take_mapped(name)?;
        let seen = self.snapshot_device(&full)?.image()?;
        self.pictures.insert(full.clone(), seen);
        Ok(full)
    }

    /// Unmaps and deletes a snapshot, which must still show what it showed at first.
    ///
    /// # Errors
    /// If it does not, or either is refused.
    pub fn delete(&mut self, full_name: &str) -> Outcome {
        if let Some(picture) = self.pictures.remove(full_name) {
            self.compare(full_name, &picture)?;
        }
        kernel::settle()?;
        self.bed.delete(full_name)
    }

    /// Every mapped snapshot must still show what it showed at first.
    ///
    /// # Errors
    /// Names the one that does not.
    pub fn verify(&self) -> Outcome {
        let mut all = self.pictures.iter();
        all.try_for_each(|(name, picture)| self.compare(name, picture))
    }

    fn compare(&self, name: &str, picture: &Image) -> Outcome {
        let seen = self.snapshot_device(name)?.image()?;
        picture.same(&seen, &format!("{name} since it was taken"))
    }

    /// Ends a test that went well; see the module's introduction.
    ///
    /// # Errors
    /// If something is not as it should be.
    pub fn finish(mut self) -> Outcome {
        self.verify()?;
        let live = self.device()?;
        live.rest()?;
        let last = live.image()?;
        self.stop()?;
        let alone = self.origin.device().image()?;
        last.same(&alone, "the origin alone against the volume before")?;
        self.bed.check_store()?;
        self.end()
    }

    /// Ends a test that broke the origin or the store on purpose.
    ///
    /// # Errors
    /// If the daemon does not end well, the store is not sound, devices are left, or
    /// the kernel complains.
    pub fn finish_broken(mut self) -> Outcome {
        self.stop()?;
        self.bed.check_store()?;
        self.end()
    }

    /// Stops the daemon when nobody has a device open: no device may be left.
    ///
    /// # Errors
    /// If one is.
    pub fn stop(&mut self) -> Outcome {
        kernel::settle()?;
        self.bed.stop()?;
        kernel::eventually("no ublk device is left", Duration::from_secs(10), || {
            let left = kernel::ublk_devices()?;
            ensure!(left.is_empty(), "left: {left:?}");
            Ok(())
        })
    }

    /// The last step, after a stop: disks and directory go, the kernel must have nothing
    /// to complain of. By itself for a test that damaged its store.
    ///
    /// # Errors
    /// If somebody has a disk still, or the kernel complains.
    pub fn end(&mut self) -> Outcome {
        self.finished = true;
        self.origin.remove()?;
        self.store.remove()?;
        kernel::quiet_since(&self.log)?;
        self.bed.discard()
    }
}

/// The device that `csnapctl` tells of.
///
/// # Errors
/// If it tells of none.
pub fn device_of(shown: &Value) -> Outcome<Device> {
    match find(shown, "device") {
        Some(path) => Device::new(path),
        None => Err(Fault::wrong(format!("it has no device: {shown}"))),
    }
}

/// The first text of this name anywhere in what `csnapctl` printed.
#[must_use]
pub fn find<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    find_any(value, name, &Value::is_string).and_then(Value::as_str)
}

/// The first value of this name and kind anywhere in what `csnapctl` printed.
#[must_use]
pub fn find_any<'a>(
    value: &'a Value,
    name: &str,
    kind: &dyn Fn(&Value) -> bool,
) -> Option<&'a Value> {
    let inside = |inner| find_any(inner, name, kind);
    match value {
        Value::Object(fields) => match fields.get(name) {
            Some(found) if kind(found) => Some(found),
            _ => fields.values().find_map(inside),
        },
        Value::Array(items) => items.iter().find_map(inside),
        _ => None,
    }
}

/// Thaws and unmounts what a failed test left mounted; a daemon must run.
fn unmount_below(dir: &Path) {
    let mounts = super::text("/proc/mounts").unwrap_or_default();
    let places = mounts.lines().filter_map(|line| line.split(' ').nth(1));
    for place in places.filter(|place| Path::new(place).starts_with(dir)) {
        // Best effort: the test has failed already.
        let _ = tools::run(tools::program("fsfreeze").args(["--unfreeze", place]));
        let _ = tools::run(tools::program("umount").arg(place));
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        if self.finished {
            return;
        }
        // A test that failed must not take the next ones with it: its loads end with
        // their next answer, which a daemon has to give; then nothing is open.
        for _ in 0..10 {
            unmount_below(&self.bed.dir);
            let _ = self.bed.stop();
            if kernel::ublk_devices().is_ok_and(|left| left.is_empty()) {
                break;
            }
            let _ = self.bed.start();
            std::thread::sleep(Duration::from_secs(1));
        }
    }
}
