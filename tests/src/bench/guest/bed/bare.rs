//! `ublk-bare`: our own server without an engine, passing through or copying.

use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::Bed;
use crate::bench::guest::media::{self, Media};
use crate::e2e::fault::Trying;
use crate::e2e::{Fault, Outcome, tools};
use crate::ensure;

const STOPPED_WITHIN: Duration = Duration::from_secs(60);

/// A running `ublk-bare`. Dropping it kills it.
#[derive(Debug)]
pub struct Bare {
    media: Media,
    /// Bytes of a chunk, if it copies.
    chunk: Option<u64>,
    child: Option<Child>,
    device: PathBuf,
}

impl Bare {
    /// Starts it.
    ///
    /// # Errors
    /// If it does not serve.
    pub fn start(media: &Media, chunk: Option<u64>) -> Outcome<Self> {
        media::modprobe(&["ublk_drv"])?;
        let mut bare = Self {
            media: media.clone(),
            chunk,
            child: None,
            device: PathBuf::new(),
        };
        bare.serve()?;
        Ok(bare)
    }

    fn serve(&mut self) -> Outcome {
        let mut command = Command::new(tools::csnap_program("ublk-bare")?);
        command.arg("--origin").arg(&self.media.origin);
        // As many as csnapd has when it is told nothing.
        let threads = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        command.arg(format!("--threads={}", threads.min(8)));
        if let (Some(chunk), Some(store)) = (self.chunk, self.media.stores.first()) {
            command.arg("--store").arg(store);
            command.args(["--chunk", &format!("{}K", chunk >> 10)]);
        }
        let spawned = command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn();
        let mut child = spawned.trying(|| "start ublk-bare".into())?;
        let mut line = String::new();
        let stdout = child.stdout.take();
        self.child = Some(child);
        if let Some(stdout) = stdout {
            let read = BufReader::new(stdout).read_line(&mut line);
            read.trying(|| "read what ublk-bare says".into())?;
        }
        let device = line
            .split_whitespace()
            .find(|word| word.starts_with("/dev/"));
        let silent = || Fault::wrong(format!("ublk-bare named no device but said {line:?}"));
        self.device = device.map(PathBuf::from).ok_or_else(silent)?;
        media::wait_for(&self.device)
    }

    fn stop(&mut self) -> Outcome {
        let Some(mut child) = self.child.take() else {
            return Ok(());
        };
        let pid = i32::try_from(child.id()).map_err(|error| Fault::wrong(error.to_string()))?;
        let told = kill(Pid::from_raw(pid), Signal::SIGTERM);
        told.map_err(|error| Fault::wrong(format!("stop ublk-bare: {error}")))?;
        let deadline = Instant::now() + STOPPED_WITHIN;
        loop {
            if let Some(status) = child.try_wait().trying(|| "wait for ublk-bare".into())? {
                ensure!(status.success(), "ublk-bare ended with {status}");
                return Ok(());
            }
            if Instant::now() > deadline {
                self.child = Some(child);
                return Err(Fault::wrong("ublk-bare does not stop"));
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Bed for Bare {
    fn device(&self) -> &Path {
        &self.device
    }

    /// A new one has copied nothing yet.
    fn fresh(&mut self) -> Outcome {
        if self.chunk.is_none() {
            return Ok(());
        }
        self.stop()?;
        self.serve()
    }

    fn stale(&mut self) -> Outcome {
        Ok(())
    }

    fn take(&mut self) -> Outcome {
        Ok(())
    }

    fn newest(&mut self) -> Outcome<Option<PathBuf>> {
        Ok(None)
    }

    fn end(mut self: Box<Self>) -> Outcome {
        self.stop()
    }
}

impl Drop for Bare {
    fn drop(&mut self) {
        if let Some(mut child) = self.child.take() {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}
