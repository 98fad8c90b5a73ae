//! A server ready to be measured: csnapd with some snapshots, or qemu.

use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::Value;
use snapstore::Checksum;

use crate::e2e::client::{Ask, Client};
use crate::e2e::daemon::Places;
use crate::e2e::fault::Trying;
use crate::e2e::{Ctl, Daemon, Fault, Outcome, ctl, files, tools};
use crate::ensure;

const VOLUME: &str = "vol";

/// What a csnap server is made of.
#[derive(Clone, Debug)]
pub struct Shape {
    /// Its own directory.
    pub dir: PathBuf,
    /// Bytes of the origin.
    pub origin: u64,
    /// Whether the origin's blocks exist (`false`: a sparse file).
    pub filled: bool,
    /// Bytes of the store.
    pub store: u64,
    /// Bytes of a chunk.
    pub chunk: u64,
    /// What covers the data copied to the store.
    pub checksum: Checksum,
    /// Further options of csnapd.
    pub options: Vec<String>,
}

/// csnapd serving one volume.
#[derive(Debug)]
pub struct Csnap {
    shape: Shape,
    places: Places,
    ctl: Ctl,
    daemon: Option<Daemon>,
    taken: u32,
}

impl Csnap {
    /// Makes origin and store as files and starts the daemon.
    ///
    /// # Errors
    /// If something cannot be made or started.
    pub fn start(shape: Shape) -> Outcome<Self> {
        let dir = shape.dir.clone();
        empty_dir(&dir)?;
        let (origin, store) = (dir.join("origin.img"), dir.join("store.img"));
        make_device(&origin, shape.origin, shape.filled)?;
        make_device(&store, shape.store, shape.filled)?;
        Self::serve(shape, &origin, &store)
    }

    /// Starts the daemon over devices that exist; `shape.dir` is for its sockets.
    ///
    /// # Errors
    /// If something cannot be made or started.
    pub fn start_on(shape: Shape, origin: &Path, store: &Path) -> Outcome<Self> {
        empty_dir(&shape.dir)?;
        Self::serve(shape, origin, store)
    }

    fn serve(shape: Shape, origin: &Path, store: &Path) -> Outcome<Self> {
        let places = Places::below(&shape.dir);
        let ctl = Ctl::new(&places.run_dir)?;
        let (chunk, checksum) = (shape.chunk, shape.checksum);
        ctl.ok(&format!(
            "store create {} --chunk-size {chunk} --checksum {checksum} --force --yes",
            store.display()
        ))?;
        let daemon = Some(Daemon::start(&places, &shape.options)?);
        ctl.ok(&format!("store attach {}", store.display()))?;
        let line = format!("volume create {VOLUME} {}", origin.display());
        ctl.ok(&format!("{line} --store {}", store.display()))?;
        Ok(Self {
            shape,
            places,
            ctl,
            daemon,
            taken: 0,
        })
    }

    /// Stops and starts the daemon with other options.
    ///
    /// # Errors
    /// If it does not come up again.
    pub fn restart(&mut self, options: &[String]) -> Outcome {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop()?;
        }
        self.daemon = Some(Daemon::start(&self.places, options)?);
        Ok(())
    }

    /// Takes `count` snapshots, overwriting one chunk in fifty before each.
    ///
    /// # Errors
    /// If a take or a write fails.
    pub fn take_many(&mut self, count: u32) -> Outcome {
        let mut random = ChaCha8Rng::seed_from_u64(u64::from(count));
        let chunks = self.shape.origin / self.shape.chunk;
        for _ in 0..count {
            let mut client = Client::connect(&self.places.nbd_socket(), VOLUME)?;
            for _ in 0..chunks / 50 {
                let chunk = random.random_range(0..chunks);
                let data = vec![random.random(); self.shape.chunk as usize];
                client.send(chunk * self.shape.chunk, &Ask::Write(data, false))?;
                if client.in_flight() >= 16 {
                    client.wait()?;
                }
            }
            while client.in_flight() > 0 {
                client.wait()?;
            }
            self.take()?;
        }
        Ok(())
    }

    /// Takes one more snapshot and returns its name.
    ///
    /// # Errors
    /// If it is refused.
    pub fn take(&mut self) -> Outcome<String> {
        self.taken += 1;
        let name = format!("{VOLUME}@s{}", self.taken);
        self.ctl.ok(&format!("snapshot take {name}"))?;
        Ok(name)
    }

    /// Exports a snapshot and returns its URI.
    ///
    /// # Errors
    /// If it is refused.
    pub fn map(&self, snapshot: &str) -> Outcome<String> {
        self.ctl.ok(&format!("snapshot map {snapshot}"))?;
        Ok(uri(&self.places.nbd_socket(), snapshot))
    }

    /// The block device the volume is served at.
    ///
    /// # Errors
    /// If it has none: the daemon must serve by ublk.
    pub fn device(&self) -> Outcome<PathBuf> {
        self.device_of(&format!("volume show {VOLUME}"))
    }

    /// Maps a snapshot and returns its block device.
    ///
    /// # Errors
    /// If it is refused or has none.
    pub fn map_device(&self, snapshot: &str) -> Outcome<PathBuf> {
        self.ctl.ok(&format!("snapshot map {snapshot}"))?;
        self.device_of(&format!("snapshot show {snapshot}"))
    }

    fn device_of(&self, line: &str) -> Outcome<PathBuf> {
        let shown = self.ctl.json(line)?;
        let device = ctl::rows(&shown)?
            .first()
            .and_then(|row| row["device"].as_str());
        let none = || Fault::wrong(format!("`{line} --json` names no device: {shown}"));
        device.map(PathBuf::from).ok_or_else(none)
    }

    /// Deletes a snapshot and waits until its space is back.
    ///
    /// # Errors
    /// If it is refused or takes more than a minute.
    pub fn delete(&self, snapshot: &str) -> Outcome {
        self.ctl.any(&format!("snapshot unmap {snapshot}"))?;
        self.begin_delete(snapshot)?;
        self.purged(snapshot)
    }

    /// Deletes a snapshot; its space comes back meanwhile.
    ///
    /// # Errors
    /// If it is refused.
    pub fn begin_delete(&self, snapshot: &str) -> Outcome {
        let line = format!("snapshot delete {snapshot} --yes");
        self.ctl.ok(&line).map(drop)
    }

    /// Waits until the space of `snapshot` and of all others deleted is back.
    ///
    /// # Errors
    /// If that takes more than a minute.
    pub fn purged(&self, snapshot: &str) -> Outcome {
        let deadline = Instant::now() + Duration::from_secs(60);
        while self.counter("purging")? > 0 {
            ensure!(
                Instant::now() < deadline,
                "the space of {snapshot} does not come back"
            );
            std::thread::sleep(Duration::from_millis(50));
        }
        Ok(())
    }

    /// A number of `store status --json`, by its name there.
    ///
    /// # Errors
    /// If it is not there.
    pub fn counter(&self, name: &str) -> Outcome<u64> {
        let status = self.ctl.json("store status")?;
        let row = ctl::rows(&status)?.first().cloned().unwrap_or(Value::Null);
        let found = row[name]
            .as_u64()
            .or_else(|| row["counters"][name].as_u64());
        found.ok_or_else(|| Fault::wrong(format!("`store status --json` lacks {name}: {row}")))
    }

    /// URI of the origin's export.
    #[must_use]
    pub fn uri(&self) -> String {
        uri(&self.places.nbd_socket(), VOLUME)
    }

    /// Stops it and removes its files.
    ///
    /// # Errors
    /// If it does not end well.
    pub fn end(mut self) -> Outcome {
        if let Some(daemon) = self.daemon.take() {
            daemon.stop()?;
        }
        let dir = &self.shape.dir;
        std::fs::remove_dir_all(dir).trying(|| format!("remove {}", dir.display()))
    }
}

/// `qemu-storage-daemon` serving one file. Dropping it ends it.
#[derive(Debug)]
pub struct Qemu {
    dir: PathBuf,
    overlay: bool,
    child: Option<Child>,
}

impl Qemu {
    /// Makes the raw file, with a qcow2 overlay over it if asked for, and serves.
    ///
    /// # Errors
    /// If something cannot be made or started.
    pub fn start(dir: &Path, origin: u64, overlay: bool) -> Outcome<Self> {
        empty_dir(dir)?;
        make_device(&dir.join("raw.img"), origin, true)?;
        let mut qemu = Self {
            dir: dir.to_path_buf(),
            overlay,
            child: None,
        };
        qemu.fresh()?;
        Ok(qemu)
    }

    /// The same again with an empty overlay: the state after "take a snapshot".
    ///
    /// # Errors
    /// If it does not come up.
    pub fn fresh(&mut self) -> Outcome {
        self.stop();
        let (raw, top) = (self.dir.join("raw.img"), self.dir.join("top.qcow2"));
        if self.overlay {
            let mut create = tools::program("qemu-img");
            create.args(["create", "-q", "-f", "qcow2", "-F", "raw", "-b"]);
            tools::run(create.arg(&raw).arg(&top))?;
        }
        let _ = std::fs::remove_file(self.socket());
        let file = if self.overlay { &top } else { &raw };
        let direct = "cache.direct=on,aio=io_uring";
        let mut command = Command::new("qemu-storage-daemon");
        command
            .arg("--blockdev")
            .arg(format!(
                "driver=file,node-name=file,filename={},{direct}",
                file.display()
            ))
            .arg("--blockdev")
            .arg(if self.overlay {
                let backing = format!("backing.file.driver=file,backing.file.{}", "aio=io_uring");
                format!(
                    "driver=qcow2,node-name=top,file=file,backing.driver=raw,{backing},\
                     backing.file.cache.direct=on,backing.file.filename={}",
                    raw.display()
                )
            } else {
                "driver=raw,node-name=top,file=file".into()
            })
            .arg("--nbd-server")
            .arg(format!(
                "addr.type=unix,addr.path={}",
                self.socket().display()
            ))
            .arg("--export")
            .arg(format!("nbd,id=e,node-name=top,name={VOLUME},writable=on"))
            .stdin(Stdio::null());
        self.child = Some(
            command
                .spawn()
                .trying(|| "start qemu-storage-daemon".into())?,
        );
        let deadline = Instant::now() + Duration::from_secs(10);
        while Client::connect(&self.socket(), VOLUME).is_err() {
            ensure!(
                Instant::now() < deadline,
                "qemu-storage-daemon does not serve"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(())
    }

    /// URI of its export.
    #[must_use]
    pub fn uri(&self) -> String {
        uri(&self.socket(), VOLUME)
    }

    fn socket(&self) -> PathBuf {
        self.dir.join("nbd.sock")
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

impl Drop for Qemu {
    fn drop(&mut self) {
        self.stop();
        let _ = std::fs::remove_dir_all(&self.dir);
    }
}

fn uri(socket: &Path, export: &str) -> String {
    format!("nbd+unix:///{export}?socket={}", socket.display())
}

fn empty_dir(dir: &Path) -> Outcome {
    let story = || format!("make {}", dir.display());
    if dir.exists() {
        std::fs::remove_dir_all(dir).trying(story)?;
    }
    std::fs::create_dir_all(dir).trying(story)
}

/// A file whose blocks all exist and were written (no file system work is then
/// measured later), or a sparse one.
fn make_device(path: &Path, size: u64, filled: bool) -> Outcome {
    if filled {
        files::make_noise(path, size, 17)
    } else {
        files::make_sparse(path, size)
    }
}
