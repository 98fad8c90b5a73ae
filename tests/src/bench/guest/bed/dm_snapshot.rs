//! dm-snapshot: an origin and, for each snapshot, a persistent store of its own.
//!
//! Every snapshot copies for itself, so "fresh" means that all of them are new: else
//! the older ones would have their copies already and only the newest be measured.

use std::path::{Path, PathBuf};

use super::{Bed, differ};
use crate::bench::guest::dm::Mapped;
use crate::bench::guest::media::{self, Media};
use crate::bench::guest::plan::Setting;
use crate::e2e::{Fault, Outcome};

/// An origin with its snapshots.
#[derive(Debug)]
pub struct Snapshots {
    media: Media,
    setting: Setting,
    origin: Mapped,
    taken: Vec<Mapped>,
}

impl Snapshots {
    /// The origin, without snapshots yet.
    ///
    /// # Errors
    /// If the kernel refuses it.
    pub fn make(media: &Media, setting: Setting) -> Outcome<Self> {
        media::modprobe(&["dm-snapshot"])?;
        let target = format!("snapshot-origin {}", media.origin.display());
        Ok(Self {
            origin: Mapped::create("bench-origin", media.used, &target)?,
            media: media.clone(),
            setting,
            taken: Vec::new(),
        })
    }

    fn snapshot(&self) -> Outcome<Mapped> {
        let number = self.taken.len();
        let full = || Fault::wrong(format!("no store for dm-snapshot {}", number + 1));
        let store = self.media.stores.get(number).ok_or_else(full)?;
        // A store without its header is a new one.
        media::wipe(store)?;
        let target = format!(
            "snapshot {} {} P {}",
            self.media.origin.display(),
            store.display(),
            media::sectors(self.setting.chunk)
        );
        self.origin.suspend()?;
        let made = Mapped::create(&format!("bench-snap-{number}"), self.media.used, &target);
        self.origin.resume()?;
        made
    }
}

impl Bed for Snapshots {
    fn device(&self) -> &Path {
        self.origin.path()
    }

    fn fresh(&mut self) -> Outcome {
        self.stale()?;
        for number in 0..self.setting.snapshots {
            if number > 0 {
                differ(self.origin.path(), &self.media, self.setting.chunk, number)?;
            }
            self.take()?;
        }
        Ok(())
    }

    fn stale(&mut self) -> Outcome {
        // A snapshot that ran full says so only here; its figures would be lies.
        for snapshot in &self.taken {
            let status = snapshot.status()?;
            if status.contains("Invalid") || status.contains("Overflow") {
                return Err(Fault::wrong(format!("a dm-snapshot is lost: {status}")));
            }
        }
        self.taken.drain(..).try_for_each(Mapped::remove)
    }

    fn take(&mut self) -> Outcome {
        let snapshot = self.snapshot()?;
        self.taken.push(snapshot);
        Ok(())
    }

    fn newest(&mut self) -> Outcome<Option<PathBuf>> {
        Ok(self.taken.last().map(|mapped| mapped.path().to_path_buf()))
    }

    fn end(mut self: Box<Self>) -> Outcome {
        self.stale()?;
        self.origin.remove()
    }
}
