//! What the daemon remembers beside the stores: which stores it serves, which
//! block devices of the kernel are its own, which snapshots became invalid while a
//! store could not be written, and what the kernel had counted of origins (`marks`).
//!
//! A JSON file, always replaced as a whole: written to a temporary file, synced,
//! renamed over the old one, the directory synced. A crash leaves the old contents
//! or the new, and a change counts only once [`StateFile::update`] returned.
//!
//! An *invalid* record is the last word on snapshots whose store died: it must be
//! durable before their shared chunks are overwritten, it survives until the next
//! attach has dropped them in the store, and it never lies on an origin that it
//! concerns (the attach refuses such an origin).
//!
//! A *device* is listed before it is made, then again with its number, and
//! forgotten after it is gone: at any instant every device of ours that is in the
//! kernel is listed, but for one that the driver made too late (see `devices`).

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};
use snapstore::VolumeId;
use uuid::Uuid;

use super::devices::Key;
use super::marks::Mark;

/// Version of the file.
const VERSION: u32 = 1;
const NAME: &str = "state.json";
const TEMPORARY: &str = "state.json.new";

/// A store that is served after every start.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedStore {
    /// Canonical path.
    pub path: PathBuf,
    /// Identity.
    pub uuid: Uuid,
}

/// Volumes of a store whose snapshots became invalid.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Invalid {
    /// The store.
    pub store: Uuid,
    /// Volume numbers, ascending.
    pub volumes: Vec<u32>,
}

/// A block device of the kernel that is ours.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct ListedDevice {
    /// Its number, once it is known: `/dev/ublkbN`.
    pub id: Option<u32>,
    /// The store that it serves.
    pub store: Uuid,
    /// Number of the volume in that store.
    pub volume: u32,
    /// Tag of the snapshot; none for the live origin.
    pub tag: Option<u64>,
    /// `vol` or `vol@snap`, for people and for its link.
    pub name: String,
}

impl ListedDevice {
    /// A device of which the number may not be known yet.
    #[must_use]
    pub fn new(key: Key, name: &str, id: Option<u32>) -> Self {
        let Key { store, volume, tag } = key;
        Self {
            id,
            store,
            volume,
            tag,
            name: name.to_owned(),
        }
    }

    /// Whether it serves this volume or a snapshot of it.
    #[must_use]
    pub fn is_of(&self, store: Uuid, volume: VolumeId) -> bool {
        (self.store, self.volume) == (store, volume.0)
    }

    /// What it serves.
    #[must_use]
    pub fn key(&self) -> Key {
        Key {
            store: self.store,
            volume: self.volume,
            tag: self.tag,
        }
    }
}

/// What is remembered.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct State {
    version: u32,
    /// Stores to be served.
    pub stores: Vec<ListedStore>,
    /// Invalid snapshots not yet dropped in their store.
    pub invalid: Vec<Invalid>,
    /// Block devices that are in the kernel, or were about to be.
    #[serde(default)]
    pub devices: Vec<ListedDevice>,
    /// What origins looked like to the kernel.
    #[serde(default)]
    pub origins: Vec<Mark>,
}

impl Default for State {
    fn default() -> Self {
        Self {
            version: VERSION,
            stores: Vec::new(),
            invalid: Vec::new(),
            devices: Vec::new(),
            origins: Vec::new(),
        }
    }
}

impl State {
    /// Lists a store, replacing what was listed under its path or identity.
    pub fn list(&mut self, store: ListedStore) {
        self.stores
            .retain(|other| other.path != store.path && other.uuid != store.uuid);
        self.stores.push(store);
    }

    /// Lists a device, replacing what was listed for the same thing.
    pub fn list_device(&mut self, device: ListedDevice) {
        self.forget_device(device.key());
        self.devices.push(device);
    }

    /// The device of `key` is gone.
    pub fn forget_device(&mut self, key: Key) {
        self.devices.retain(|device| device.key() != key);
    }

    /// Whether block devices of the store listed under this path may be in the kernel.
    #[must_use]
    pub fn has_devices_of(&self, store: &Path) -> bool {
        let mut stores = self.stores.iter().filter(|listed| listed.path == store);
        stores.any(|listed| self.devices.iter().any(|d| d.store == listed.uuid))
    }

    /// Records that the snapshots of these volumes are invalid.
    pub fn invalidate(&mut self, store: Uuid, volumes: impl IntoIterator<Item = u32>) {
        let mut all = self.invalid_volumes(store);
        all.extend(volumes);
        all.sort_unstable();
        all.dedup();
        self.invalid.retain(|record| record.store != store);
        self.invalid.push(Invalid {
            store,
            volumes: all,
        });
    }

    /// Volumes of `store` whose snapshots are invalid.
    #[must_use]
    pub fn invalid_volumes(&self, store: Uuid) -> Vec<u32> {
        let of_store = self.invalid.iter().filter(|record| record.store == store);
        of_store
            .flat_map(|record| record.volumes.iter().copied())
            .collect()
    }

    /// Forgets these volumes: their snapshots are dropped in the store now. Others
    /// stay: the store may have failed again meanwhile.
    pub fn forget_invalid(&mut self, store: Uuid, volumes: &[u32]) {
        for record in self.invalid.iter_mut().filter(|r| r.store == store) {
            record.volumes.retain(|volume| !volumes.contains(volume));
        }
        self.invalid.retain(|record| !record.volumes.is_empty());
    }
}

/// Why the state cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum StateError {
    /// A system call failed.
    #[error("cannot {action} {path}: {error}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// The file is not what this program writes.
    #[error(
        "{path} cannot be understood: {reason}; it may say which snapshots are invalid, so csnapd does not go on without it. Restore it from a backup; or move it away if you know that no store failed while it was served, and attach the stores again"
    )]
    Damaged {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
}

/// The state and its file.
#[derive(Debug)]
pub struct StateFile {
    dir: PathBuf,
    state: Mutex<State>,
}

impl StateFile {
    /// Reads the state in `dir`; a missing file is an empty state.
    ///
    /// # Errors
    /// See [`StateError`].
    pub fn open(dir: &Path) -> Result<Self, StateError> {
        let path = dir.join(NAME);
        let state = match fs::read(&path) {
            Ok(bytes) => parse(&bytes).map_err(|reason| StateError::Damaged { path, reason })?,
            Err(error) if error.kind() == io::ErrorKind::NotFound => State::default(),
            Err(error) => {
                return Err(StateError::Io {
                    action: "read",
                    path,
                    error,
                });
            }
        };
        Ok(Self {
            dir: dir.to_owned(),
            state: Mutex::new(state),
        })
    }

    /// The directory it lies in.
    #[must_use]
    pub fn dir(&self) -> &Path {
        &self.dir
    }

    /// A copy of what is remembered.
    #[must_use]
    pub fn get(&self) -> State {
        self.state.lock().clone()
    }

    /// Changes the state; durable when this returns, unchanged if it fails.
    ///
    /// # Errors
    /// [`StateError::Io`].
    pub fn update(&self, change: impl FnOnce(&mut State)) -> Result<(), StateError> {
        let mut state = self.state.lock();
        let mut next = state.clone();
        change(&mut next);
        if next != *state {
            self.save(&next)?;
            *state = next;
        }
        Ok(())
    }

    fn save(&self, state: &State) -> Result<(), StateError> {
        let (path, temporary) = (self.dir.join(NAME), self.dir.join(TEMPORARY));
        let failed = |action, path: &Path| {
            let path = path.to_owned();
            move |error| StateError::Io {
                action,
                path,
                error,
            }
        };
        let text = serde_json::to_vec_pretty(state)
            .map_err(|error| failed("write", &path)(error.into()))?;
        let mut file = File::create(&temporary).map_err(failed("create", &temporary))?;
        file.write_all(&text).map_err(failed("write", &temporary))?;
        file.sync_all().map_err(failed("sync", &temporary))?;
        fs::rename(&temporary, &path).map_err(failed("replace", &path))?;
        let dir = File::open(&self.dir).map_err(failed("open", &self.dir))?;
        dir.sync_all().map_err(failed("sync", &self.dir))
    }
}

fn parse(bytes: &[u8]) -> Result<State, String> {
    let state: State = serde_json::from_slice(bytes).map_err(|error| error.to_string())?;
    match state.version {
        VERSION => Ok(state),
        other => Err(format!(
            "it has version {other}, this csnapd knows {VERSION}"
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(path: &str, id: u128) -> ListedStore {
        ListedStore {
            path: path.into(),
            uuid: Uuid::from_u128(id),
        }
    }

    #[test]
    fn what_was_updated_is_there_after_a_restart() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::open(dir.path()).unwrap();
        assert_eq!(file.get(), State::default());
        file.update(|s| s.list(listed("/a", 1))).unwrap();
        file.update(|s| s.list(listed("/b", 2))).unwrap();
        file.update(|s| s.list(listed("/c", 1))).unwrap();
        file.update(|s| s.invalidate(Uuid::from_u128(2), [5, 3]))
            .unwrap();
        file.update(|s| s.invalidate(Uuid::from_u128(2), [4, 3]))
            .unwrap();
        let again = StateFile::open(dir.path()).unwrap().get();
        assert_eq!(again, file.get());
        assert_eq!(again.stores, [listed("/b", 2), listed("/c", 1)]);
        assert_eq!(again.invalid_volumes(Uuid::from_u128(2)), [3, 4, 5]);
        // What was recorded after the drops began is not forgotten with them.
        file.update(|s| s.forget_invalid(Uuid::from_u128(2), &[3, 5]))
            .unwrap();
        assert_eq!(file.get().invalid_volumes(Uuid::from_u128(2)), [4]);
        file.update(|s| s.forget_invalid(Uuid::from_u128(2), &[4]))
            .unwrap();
        assert!(
            StateFile::open(dir.path())
                .unwrap()
                .get()
                .invalid
                .is_empty()
        );
    }

    #[test]
    fn devices_are_remembered_by_what_they_serve() {
        let dir = tempfile::tempdir().unwrap();
        // As csnapd wrote it before it knew of devices.
        let old = r#"{"version": 1, "stores": [], "invalid": []}"#;
        fs::write(dir.path().join(NAME), old).unwrap();
        let file = StateFile::open(dir.path()).unwrap();
        let key = |tag| Key {
            store: Uuid::from_u128(1),
            volume: 2,
            tag,
        };
        let device = |tag, id| ListedDevice::new(key(tag), "web", id);
        for (tag, id) in [(None, None), (Some(5), None), (None, Some(7))] {
            file.update(|s| s.list_device(device(tag, id))).unwrap();
        }
        let again = StateFile::open(dir.path()).unwrap().get();
        assert_eq!(
            again.devices,
            [device(Some(5), None), device(None, Some(7))]
        );
        file.update(|s| s.forget_device(key(None))).unwrap();
        assert_eq!(file.get().devices, [device(Some(5), None)]);
        file.update(|s| s.list(listed("/a", 1))).unwrap();
        file.update(|s| s.list(listed("/b", 2))).unwrap();
        let state = file.get();
        assert!(state.has_devices_of(Path::new("/a")));
        assert!(!state.has_devices_of(Path::new("/b")));
        assert!(!state.has_devices_of(Path::new("/c")));
    }

    #[test]
    fn a_crash_while_writing_leaves_the_old_state() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::open(dir.path()).unwrap();
        file.update(|s| s.list(listed("/a", 1))).unwrap();
        fs::write(dir.path().join(TEMPORARY), b"{\"version\": 1, \"sto").unwrap();
        assert_eq!(StateFile::open(dir.path()).unwrap().get(), file.get());
        file.update(|s| s.list(listed("/b", 2))).unwrap();
        assert_eq!(StateFile::open(dir.path()).unwrap().get().stores.len(), 2);
    }

    #[test]
    fn a_reader_never_sees_half_a_state() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::open(dir.path()).unwrap();
        file.update(|s| s.list(listed("/a", 0))).unwrap();
        std::thread::scope(|scope| {
            scope.spawn(|| {
                for id in 1..50 {
                    file.update(|s| s.list(listed(&format!("/{}", "x".repeat(id)), 0)))
                        .unwrap();
                }
            });
            for _ in 0..500 {
                assert_eq!(StateFile::open(dir.path()).unwrap().get().stores.len(), 1);
            }
        });
    }

    #[test]
    fn a_damaged_or_newer_file_is_refused_and_kept() {
        let dir = tempfile::tempdir().unwrap();
        for text in [
            "",
            "{}",
            "[1]",
            r#"{"version": 2, "stores": [], "invalid": []}"#,
        ] {
            fs::write(dir.path().join(NAME), text).unwrap();
            let error = StateFile::open(dir.path()).unwrap_err();
            assert!(
                matches!(error, StateError::Damaged { .. }),
                "{text:?}: {error}"
            );
            assert_eq!(fs::read_to_string(dir.path().join(NAME)).unwrap(), text);
        }
    }

    #[test]
    fn an_update_that_cannot_be_saved_changes_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let file = StateFile::open(dir.path()).unwrap();
        let path = dir.path().to_owned();
        drop(dir);
        assert!(!path.exists());
        assert!(file.update(|s| s.list(listed("/a", 1))).is_err());
        assert_eq!(file.get(), State::default());
    }
}
