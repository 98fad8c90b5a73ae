//! A test's own directory, origin, store and daemon.

use std::path::{Path, PathBuf};

use super::ctl::Ctl;
use super::daemon::{Daemon, Places};
use super::fault::{Fault, Outcome, Trying};
use super::files::{self, MIB};
use super::tools;

/// Name of the volume every bed starts with.
pub const VOLUME: &str = "vol";

/// What a bed is made of.
#[derive(Clone, Debug)]
pub struct Setup {
    /// Bytes of the origin.
    pub origin_bytes: u64,
    /// Bytes of the store.
    pub store_bytes: u64,
    /// As `store create --chunk-size` takes it.
    pub chunk: String,
    /// Fill the origin with noise of this seed; `None`: zeroes.
    pub noise: Option<u64>,
    /// Further options of `csnapd`.
    pub options: Vec<String>,
}

impl Default for Setup {
    fn default() -> Self {
        Self {
            origin_bytes: 64 * MIB,
            store_bytes: 512 * MIB,
            chunk: "16K".into(),
            noise: None,
            options: Vec::new(),
        }
    }
}

/// A directory with an origin, a store and a daemon.
#[derive(Debug)]
pub struct Bed {
    /// The directory.
    pub dir: PathBuf,
    /// The origin file.
    pub origin: PathBuf,
    /// The store file.
    pub store: PathBuf,
    /// Where the daemon keeps its things.
    pub places: Places,
    /// `csnapctl` for this daemon.
    pub ctl: Ctl,
    options: Vec<String>,
    daemon: Option<Daemon>,
    finished: bool,
}

impl Bed {
    /// A directory with an origin and an empty file for the store; no daemon.
    ///
    /// # Errors
    /// If something cannot be made.
    pub fn bare(test: &str, setup: &Setup) -> Outcome<Self> {
        let dir = tools::target_dir()?
            .join("e2e")
            .join(format!("{test}-{}", std::process::id()));
        let (origin, store) = (dir.join("origin.img"), dir.join("store.img"));
        let bed = Self::on(dir, origin, store, &setup.options)?;
        match setup.noise {
            Some(seed) => files::make_noise(&bed.origin, setup.origin_bytes, seed)?,
            None => files::make_sparse(&bed.origin, setup.origin_bytes)?,
        }
        files::make_sparse(&bed.store, setup.store_bytes)?;
        Ok(bed)
    }

    /// An empty directory for a daemon that will serve this origin and store,
    /// whatever they are; no daemon.
    ///
    /// # Errors
    /// If the directory cannot be made.
    pub fn on(dir: PathBuf, origin: PathBuf, store: PathBuf, options: &[String]) -> Outcome<Self> {
        let story = || format!("make {}", dir.display());
        if dir.exists() {
            std::fs::remove_dir_all(&dir).trying(story)?;
        }
        std::fs::create_dir_all(&dir).trying(story)?;
        let places = Places::below(&dir);
        Ok(Self {
            ctl: Ctl::new(&places.run_dir)?,
            origin,
            store,
            options: options.to_vec(),
            dir,
            places,
            daemon: None,
            finished: false,
        })
    }

    /// The same with everything running: store created and attached, volume
    /// [`VOLUME`] served.
    ///
    /// # Errors
    /// If something cannot be made or started.
    pub fn new(test: &str, setup: &Setup) -> Outcome<Self> {
        let mut bed = Self::bare(test, setup)?;
        bed.serve(&setup.chunk)?;
        Ok(bed)
    }

    /// Makes the store, starts the daemon, attaches the store and serves the
    /// origin as [`VOLUME`].
    ///
    /// # Errors
    /// If one of these is refused.
    pub fn serve(&mut self, chunk: &str) -> Outcome {
        let store = self.store.display().to_string();
        self.ctl
            .ok(&format!("store create {store} --yes --chunk-size {chunk}"))?;
        self.start()?;
        self.ctl.ok(&format!("store attach {store}"))?;
        let origin = self.origin.display();
        self.ctl
            .ok(&format!("volume create {VOLUME} {origin} --store {store}"))?;
        Ok(())
    }

    /// Starts the daemon.
    ///
    /// # Errors
    /// If it does not come up.
    pub fn start(&mut self) -> Outcome {
        self.daemon = Some(Daemon::start(&self.places, &self.options)?);
        Ok(())
    }

    /// Stops the daemon in an orderly way.
    ///
    /// # Errors
    /// If it does not end well.
    pub fn stop(&mut self) -> Outcome {
        self.daemon.take().map_or(Ok(()), Daemon::stop)
    }

    /// The daemon's process.
    ///
    /// # Errors
    /// If none runs.
    pub fn pid(&self) -> Outcome<u32> {
        let daemon = self.daemon.as_ref().map(Daemon::pid);
        daemon.ok_or_else(|| Fault::wrong("no daemon runs"))
    }

    /// `kill -9`.
    ///
    /// # Errors
    /// If it had ended by itself.
    pub fn kill9(&mut self) -> Outcome {
        let daemon = self.daemon.take();
        daemon
            .ok_or_else(|| Fault::wrong("no daemon to kill"))?
            .kill9()
    }

    /// The URI of an export, for the tools that speak NBD.
    #[must_use]
    pub fn uri(&self, export: &str) -> String {
        format!(
            "nbd+unix:///{export}?socket={}",
            self.places.nbd_socket().display()
        )
    }

    /// Path of the NBD socket.
    #[must_use]
    pub fn nbd_socket(&self) -> PathBuf {
        self.places.nbd_socket()
    }

    /// A path in the bed's directory.
    #[must_use]
    pub fn path(&self, name: &str) -> PathBuf {
        self.dir.join(name)
    }

    /// Takes a snapshot of the volume and maps it; returns its export's name.
    ///
    /// # Errors
    /// If either is refused.
    pub fn take_mapped(&self, name: &str) -> Outcome<String> {
        let full = format!("{VOLUME}@{name}");
        self.ctl.ok(&format!("snapshot take {full}"))?;
        self.ctl.ok(&format!("snapshot map {full}"))?;
        Ok(full)
    }

    /// Unmaps and deletes a snapshot.
    ///
    /// # Errors
    /// If either is refused.
    pub fn delete(&self, full_name: &str) -> Outcome {
        self.ctl.ok(&format!("snapshot unmap {full_name}"))?;
        self.ctl
            .ok(&format!("snapshot delete {full_name} --yes"))
            .map(drop)
    }

    /// SHA-256 of an export.
    ///
    /// # Errors
    /// If it cannot be read.
    pub fn digest(&self, export: &str) -> Outcome<String> {
        files::digest_export(&self.uri(export))
    }

    /// Checks the store, which no daemon may hold.
    ///
    /// # Errors
    /// If `store check` finds anything.
    pub fn check_store(&self) -> Outcome {
        self.ctl
            .ok(&format!("store check {} --data", self.store.display()))
            .map(drop)
    }

    /// Ends a test that went well: stops the daemon, checks the store, tidies up.
    ///
    /// # Errors
    /// If the daemon does not end well or the store is not sound.
    pub fn finish(mut self) -> Outcome {
        self.stop()?;
        self.check_store()?;
        self.discard()
    }

    /// Ends a test whose store is damaged on purpose or was never made.
    ///
    /// # Errors
    /// If the daemon does not end well.
    pub fn finish_unchecked(mut self) -> Outcome {
        self.stop()?;
        self.discard()
    }

    /// The directory of a test that went well goes.
    ///
    /// # Errors
    /// If it cannot be removed.
    pub fn discard(&mut self) -> Outcome {
        self.finished = true;
        let dir: &Path = &self.dir;
        std::fs::remove_dir_all(dir).trying(|| format!("remove {}", dir.display()))
    }
}

impl Drop for Bed {
    fn drop(&mut self) {
        if !self.finished {
            report(&self.dir, &self.places);
        }
    }
}

#[allow(clippy::print_stderr)] // the test runner shows it with the failed test
fn report(dir: &Path, places: &Places) {
    eprintln!("--- kept for a look: {}", dir.display());
    eprintln!(
        "--- end of {}\n{}",
        places.log.display(),
        places.log_tail(40)
    );
}
