//! csnapd serving the origin at a block device.

use std::path::{Path, PathBuf};

use snapstore::Checksum;

use super::{Bed, differ};
use crate::bench::guest::media::{self, Media};
use crate::bench::guest::plan::Setting;
use crate::bench::server::{Csnap, Shape};
use crate::e2e::Outcome;

/// Sockets and log; in memory.
const DIR: &str = "/run/csnap-bench";

/// A running csnapd.
#[derive(Debug)]
pub struct Served {
    setting: Setting,
    csnap: Csnap,
    device: PathBuf,
    fresh: Option<String>,
    newest: Option<String>,
}

impl Served {
    /// Makes the store, starts the daemon and takes all snapshots but the fresh one.
    ///
    /// # Errors
    /// If something is refused.
    pub fn start(media: &Media, setting: Setting, checksum: Checksum) -> Outcome<Self> {
        media::modprobe(&["ublk_drv"])?;
        let store = &media.stores[0];
        media::wipe(store)?;
        let shape = Shape {
            dir: DIR.into(),
            origin: media.size,
            filled: true,
            store: media.size,
            chunk: setting.chunk,
            checksum,
            options: vec!["--frontend".into(), "ublk".into()],
        };
        let csnap = Csnap::start_on(shape, &media.origin, store)?;
        let device = csnap.device()?;
        media::wait_for(&device)?;
        let mut served = Self {
            setting,
            csnap,
            device,
            fresh: None,
            newest: None,
        };
        for number in 1..setting.snapshots {
            served.take()?;
            differ(&served.device, media, setting.chunk, number)?;
        }
        Ok(served)
    }
}

impl Bed for Served {
    fn device(&self) -> &Path {
        &self.device
    }

    fn fresh(&mut self) -> Outcome {
        if self.setting.snapshots > 0 {
            self.stale()?;
            self.take()?;
            self.fresh.clone_from(&self.newest);
        }
        Ok(())
    }

    fn stale(&mut self) -> Outcome {
        match self.fresh.take() {
            Some(name) => self.csnap.delete(&name),
            None => Ok(()),
        }
    }

    fn take(&mut self) -> Outcome {
        self.newest = Some(self.csnap.take()?);
        Ok(())
    }

    fn newest(&mut self) -> Outcome<Option<PathBuf>> {
        let Some(name) = &self.newest else {
            return Ok(None);
        };
        let device = self.csnap.map_device(name)?;
        media::wait_for(&device)?;
        Ok(Some(device))
    }

    fn end(self: Box<Self>) -> Outcome {
        self.csnap.end()
    }
}
