//! What leaves csnap: an image of a snapshot, and one of what changed since it, of a volume
//! of which every hundredth chunk was written between the two.

use std::fs::{self, File};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::bars::{Goal, Pair};
use crate::targets::{Found, Target, cargo_target, step, text};
use crate::trees::spread;
use crate::{Outcome, Trying};

/// Bytes of the volume, all of them data.
pub(crate) const VOLUME: u64 = 8 << 30;
/// Bytes of a chunk of the store.
const CHUNK: u64 = 64 << 10;
/// One of so many chunks is written.
const EACH: u64 = 100;
const MIB: usize = 1 << 20;
const READY_WITHIN: Duration = Duration::from_secs(60);

const FULL: &str = "export";
const INCREMENT: &str = "export --from";
/// What an increment is laid over: nobody reads it.
const BELOW: &str = "full.qcow2";

/// Both that are measured.
pub(crate) fn targets() -> Vec<Found> {
    vec![
        target(FULL, &["vol@a"]),
        target(INCREMENT, &["vol@b", "--from", "vol@a", "--backing", BELOW]),
    ]
}

/// What is wanted of an increment.
pub(crate) fn pairs() -> Vec<Pair> {
    vec![Goal::Twentieth.pair(INCREMENT, FULL)]
}

fn target(name: &'static str, words: &'static [&'static str]) -> Found {
    let program = built("csnapctl").map_err(|why| (name, why))?;
    Ok(Target {
        name,
        prepare: |_| Ok(()),
        steps: Box::new(move |job| {
            let run = text(&run_dir(job.image.parent().unwrap_or(job.image)));
            let mut all = step(&[&program, "--run-dir", &run, "snapshot", "export"]);
            all.extend(step(words));
            all.extend(["--output".to_owned(), text(job.image)]);
            vec![all]
        }),
    })
}

/// A program of the release build.
fn built(name: &str) -> Result<String, String> {
    let path = cargo_target().join("release").join(name);
    let path = path.canonicalize();
    let path = path.map_err(|error| format!("{name}: {error}; run make build"))?;
    Ok(text(&path))
}

fn run_dir(work: &Path) -> PathBuf {
    work.join("served/run")
}

/// csnapd with the volume; all is gone when it is dropped.
pub(crate) struct Served {
    daemon: Child,
    dir: PathBuf,
}

impl Served {
    /// Makes and serves the volume below `work`, with both snapshots.
    pub(crate) fn start(work: &Path) -> Outcome<Self> {
        let dir = work.join("served");
        fs::create_dir_all(&dir).trying(dir.display())?;
        noise(&dir.join("origin"))?;
        let store = dir.join("store");
        let room = File::create_new(&store).and_then(|file| file.set_len(VOLUME / 4));
        room.trying(store.display())?;
        let log = File::create(dir.join("csnapd.log")).trying("make the log")?;
        let mut csnapd = Command::new(built("csnapd")?);
        csnapd.args(["--frontend", "nbd", "--run-dir"]);
        csnapd.arg(run_dir(work)).arg("--state-dir");
        csnapd.arg(dir.join("state")).stderr(log);
        let daemon = csnapd.spawn().trying("start csnapd")?;
        let served = Self { daemon, dir };
        served.fill(&text(&store), work)?;
        Ok(served)
    }

    fn fill(&self, store: &str, work: &Path) -> Outcome {
        let until = Instant::now() + READY_WITHIN;
        while self.ctl(work, &["status"]).is_err() {
            if Instant::now() > until {
                return Err("csnapd does not answer".into());
            }
            std::thread::sleep(Duration::from_millis(50));
        }
        let origin = text(&self.dir.join("origin"));
        let chunk = CHUNK.to_string();
        let create = ["store", "create", store, "--yes", "--chunk-size", &chunk];
        self.ctl(work, &create)?;
        self.ctl(work, &["store", "attach", store])?;
        self.ctl(work, &["volume", "create", "vol", &origin])?;
        self.ctl(work, &["snapshot", "take", "vol@a"])?;
        write_some(&run_dir(work).join("nbd.sock"))?;
        self.ctl(work, &["snapshot", "take", "vol@b"])
    }

    fn ctl(&self, work: &Path, words: &[&str]) -> Outcome {
        let mut ctl = Command::new(built("csnapctl")?);
        ctl.arg("--run-dir").arg(run_dir(work)).args(words);
        let output = ctl.output().trying("run csnapctl")?;
        match output.status.success() {
            true => Ok(()),
            false => Err(format!(
                "csnapctl {}: {}",
                words.join(" "),
                String::from_utf8_lossy(&output.stderr)
            )),
        }
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        let _ = self.daemon.kill();
        let _ = self.daemon.wait();
        let _ = fs::remove_dir_all(&self.dir);
    }
}

/// A file that nothing makes smaller.
fn noise(path: &Path) -> Outcome {
    let mut file = File::create_new(path).trying(path.display())?;
    let words = (0..MIB as u64 / 8).flat_map(|word| spread(word).to_le_bytes());
    let mut piece: Vec<u8> = words.collect();
    for number in 0..VOLUME / MIB as u64 {
        // No two are the same, which a disk might notice.
        for sector in piece.chunks_mut(512) {
            sector[..8].copy_from_slice(&spread(number).to_le_bytes());
        }
        file.write_all(&piece).trying(path.display())?;
    }
    file.sync_all().trying(path.display())
}

/// Writes 4 KiB somewhere in each of [`EACH`] chunks.
fn write_some(socket: &Path) -> Outcome {
    let uri = format!("nbd+unix:///vol?socket={}", socket.display());
    let mut io = Command::new("qemu-io");
    io.args(["-f", "raw", &uri]);
    io.stdin(Stdio::piped()).stdout(Stdio::null());
    let mut io = io.spawn().trying("run qemu-io")?;
    let mut commands = String::new();
    for group in 0..VOLUME / CHUNK / EACH {
        let chunk = group * EACH + spread(group) % EACH;
        commands += &format!("write -q -P {} {} 4k\n", group % 250 + 1, chunk * CHUNK);
    }
    commands += "flush\nquit\n";
    if let Some(mut stdin) = io.stdin.take() {
        stdin
            .write_all(commands.as_bytes())
            .trying("tell qemu-io")?;
    }
    let ended = io.wait().trying("wait for qemu-io")?;
    ended.success().then_some(()).ok_or("qemu-io failed".into())
}
