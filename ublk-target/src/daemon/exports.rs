//! What is served, by name: `vol` for a live origin, `vol@name` for a mapped
//! snapshot; each as a block device, as an NBD export, or both.
//!
//! Contract: a name taken out of the table admits no new NBD client; those that
//! are connected are counted by, and disconnected with, the [`Export`] itself. A
//! block device goes on until it is removed or handed over ([`super::devices`]).

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use super::devices::{Device, Key};
use crate::export::{Export, ExportTarget};
use crate::nbd::{Refusal, RefusalKind};

/// Something that is served, in at least one way.
#[derive(Clone, Debug)]
pub struct Served {
    /// What it is.
    pub target: ExportTarget,
    /// As a block device.
    pub device: Option<Arc<Device>>,
    /// As an NBD export.
    pub nbd: Option<Arc<Export>>,
}

impl Served {
    /// NBD clients connected to it.
    #[must_use]
    pub fn clients(&self) -> u64 {
        self.nbd
            .as_ref()
            .map_or(0, |export| export.connections() as u64)
    }

    /// Whether it is a snapshot.
    #[must_use]
    pub fn is_snapshot(&self) -> bool {
        matches!(self.target, ExportTarget::Snapshot(..))
    }
}

#[derive(Debug, Default)]
struct Table {
    exports: BTreeMap<String, Served>,
    stopping: bool,
}

/// The exports by name.
#[derive(Debug, Default)]
pub struct ExportTable(RwLock<Table>);

impl ExportTable {
    /// Admits clients to it.
    pub fn insert(&self, name: String, served: Served) {
        self.0.write().exports.insert(name, served);
    }

    /// Admits no further client to it.
    pub fn remove(&self, name: &str) -> Option<Served> {
        self.0.write().exports.remove(name)
    }

    /// What is served under this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Served> {
        self.0.read().exports.get(name).cloned()
    }

    /// Everything that is served.
    #[must_use]
    pub fn all(&self) -> Vec<Served> {
        self.0.read().exports.values().cloned().collect()
    }

    /// Whether a block device serves this.
    #[must_use]
    pub fn has_device(&self, key: Key) -> bool {
        let table = self.0.read();
        let mut devices = table.exports.values().filter_map(|s| s.device.as_ref());
        devices.any(|device| device.key() == key)
    }

    /// Admits nobody to anything any more.
    pub fn stop(&self) {
        self.0.write().stopping = true;
    }

    /// Whether NBD clients are admitted to it.
    #[must_use]
    pub fn has_nbd(&self, name: &str) -> bool {
        let table = self.0.read();
        table.exports.get(name).is_some_and(|s| s.nbd.is_some())
    }

    /// What NBD clients are admitted to.
    #[must_use]
    pub fn names_with_nbd(&self) -> Vec<String> {
        let table = self.0.read();
        let with_nbd = table.exports.iter().filter(|(_, s)| s.nbd.is_some());
        with_nbd.map(|(name, _)| name.clone()).collect()
    }

    /// The NBD export of this name, if there is one.
    ///
    /// # Errors
    /// When nobody is admitted any more.
    pub fn open(&self, name: &str) -> Result<Option<Arc<Export>>, Refusal> {
        let table = self.0.read();
        if table.stopping {
            let message = "csnapd is stopping; connect again when it has restarted".to_owned();
            return Err(Refusal {
                kind: RefusalKind::Shutdown,
                message,
            });
        }
        let served = table.exports.get(name);
        Ok(served.and_then(|served| served.nbd.clone()))
    }
}
