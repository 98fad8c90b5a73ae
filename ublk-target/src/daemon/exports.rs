//! What clients can connect to, by name: `vol` for a live origin, `vol@name` for
//! a mapped snapshot.
//!
//! Contract: a name taken out of the table admits no new client; those that are
//! connected are counted by, and disconnected with, the [`Export`] itself.

use std::collections::BTreeMap;
use std::sync::Arc;

use parking_lot::RwLock;

use crate::export::Export;
use crate::nbd::{ExportEntry, ExportInfo, Exports, Refusal, RefusalKind};

#[derive(Debug, Default)]
struct Table {
    exports: BTreeMap<String, Arc<Export>>,
    stopping: bool,
}

/// The exports by name.
#[derive(Debug, Default)]
pub struct ExportTable(RwLock<Table>);

impl ExportTable {
    /// Admits clients to an export.
    pub fn insert(&self, name: String, export: Arc<Export>) {
        self.0.write().exports.insert(name, export);
    }

    /// Admits no further client to it.
    pub fn remove(&self, name: &str) -> Option<Arc<Export>> {
        self.0.write().exports.remove(name)
    }

    /// The export of this name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<Arc<Export>> {
        self.0.read().exports.get(name).cloned()
    }

    /// Clients connected to it; 0 if there is none of this name.
    #[must_use]
    pub fn clients(&self, name: &str) -> u64 {
        self.get(name)
            .map_or(0, |export| export.connections() as u64)
    }

    /// Every name with its clients.
    #[must_use]
    pub fn all(&self) -> Vec<(String, u64)> {
        let table = self.0.read();
        table
            .exports
            .iter()
            .map(|(name, export)| (name.clone(), export.connections() as u64))
            .collect()
    }

    /// Admits nobody to anything any more.
    pub fn stop(&self) {
        self.0.write().stopping = true;
    }
}

impl Exports for ExportTable {
    type Export = Arc<Export>;

    fn list(&self) -> Vec<ExportEntry> {
        let table = self.0.read();
        let entry = |name: &String| {
            let what = if name.contains('@') {
                "snapshot (read-only)"
            } else {
                "live origin"
            };
            ExportEntry {
                name: name.clone(),
                description: what.to_owned(),
            }
        };
        table.exports.keys().map(entry).collect()
    }

    fn open(&self, name: &str) -> Result<(Arc<Export>, ExportInfo), Refusal> {
        let table = self.0.read();
        if table.stopping {
            let message = "csnapd is stopping; connect again when it has restarted".to_owned();
            return Err(Refusal {
                kind: RefusalKind::Shutdown,
                message,
            });
        }
        match table.exports.get(name) {
            Some(export) => Ok((export.clone(), *export.info())),
            None => Err(Refusal {
                kind: RefusalKind::Unknown,
                message: unknown(name),
            }),
        }
    }
}

fn unknown(name: &str) -> String {
    let next = if name.contains('@') {
        "a snapshot must be mapped first: csnapctl snapshot map"
    } else {
        "csnapctl status shows the volumes, and why one is not served"
    };
    format!("there is no export {name:?}; {next}")
}
