//! dm-thin: a pool, a fully provisioned thin volume and thin snapshots of it.
//!
//! The data must be moved into the pool first, which is what csnap avoids. A write
//! of a whole block copies nothing; a smaller one to a shared block copies it.

use std::path::{Path, PathBuf};

use super::{Bed, differ};
use crate::bench::guest::dm::Mapped;
use crate::bench::guest::media::{self, Media};
use crate::bench::guest::plan::Setting;
use crate::e2e::Outcome;
use crate::ensure;

/// A pool with a volume.
#[derive(Debug)]
pub struct Thin {
    media: Media,
    setting: Setting,
    pool: Mapped,
    volume: Mapped,
    /// Number of the newest snapshot; the volume has 0.
    newest: u32,
    fresh: bool,
    shown: Option<Mapped>,
}

impl Thin {
    /// The pool, the volume, and all snapshots but the fresh one.
    ///
    /// # Errors
    /// If the kernel refuses one.
    pub fn make(media: &Media, setting: Setting) -> Outcome<Self> {
        media::modprobe(&["dm-thin-pool"])?;
        let [data, metadata, ..] = media.stores.as_slice() else {
            return Err(crate::e2e::Fault::wrong("dm-thin needs two stores"));
        };
        // Metadata that begins with zeroes is made anew.
        media::wipe(metadata)?;
        let target = format!(
            "thin-pool {} {} {} 1 2 skip_block_zeroing error_if_no_space",
            metadata.display(),
            data.display(),
            media::sectors(setting.chunk)
        );
        let pool = Mapped::create("bench-pool", media.size, &target)?;
        pool.message("create_thin 0")?;
        let volume = Mapped::create("bench-thin", media.used, &thin(&pool, 0))?;
        media::fill(volume.path(), media.used)?;
        let mut made = Self {
            media: media.clone(),
            setting,
            pool,
            volume,
            newest: 0,
            fresh: false,
            shown: None,
        };
        for number in 1..setting.snapshots {
            made.take()?;
            differ(made.volume.path(), media, setting.chunk, number)?;
        }
        Ok(made)
    }
}

fn thin(pool: &Mapped, number: u32) -> String {
    format!("thin {} {number}", pool.path().display())
}

impl Bed for Thin {
    fn device(&self) -> &Path {
        self.volume.path()
    }

    fn fresh(&mut self) -> Outcome {
        if self.setting.snapshots > 0 {
            self.stale()?;
            self.take()?;
            self.fresh = true;
        }
        Ok(())
    }

    fn stale(&mut self) -> Outcome {
        let status = self.pool.status()?;
        ensure!(
            !status.contains("out_of_data_space") && !status.contains("Fail"),
            "the thin pool failed: {status}"
        );
        if let Some(shown) = self.shown.take() {
            shown.remove()?;
        }
        if std::mem::take(&mut self.fresh) {
            self.pool.message(&format!("delete {}", self.newest))?;
        }
        Ok(())
    }

    fn take(&mut self) -> Outcome {
        self.newest += 1;
        self.volume.suspend()?;
        let taken = self.pool.message(&format!("create_snap {} 0", self.newest));
        self.volume.resume()?;
        taken
    }

    fn newest(&mut self) -> Outcome<Option<PathBuf>> {
        if self.newest == 0 {
            return Ok(None);
        }
        let target = thin(&self.pool, self.newest);
        let shown = Mapped::create("bench-thin-snap", self.media.used, &target)?;
        let path = shown.path().to_path_buf();
        self.shown = Some(shown);
        Ok(Some(path))
    }

    fn end(mut self: Box<Self>) -> Outcome {
        self.stale()?;
        self.volume.remove()?;
        self.pool.remove()
    }
}
