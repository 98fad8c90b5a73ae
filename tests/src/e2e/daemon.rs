//! A running `csnapd`, stopped in an orderly way or by `kill -9`.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;

use super::ctl::{Ctl, exit};
use super::fault::{Fault, Outcome, Trying};
use super::tools;
use crate::ensure;

const READY_WITHIN: Duration = Duration::from_secs(60);
const STOPPED_WITHIN: Duration = Duration::from_secs(60);

/// Where a daemon keeps its things.
#[derive(Clone, Debug)]
pub struct Places {
    /// Sockets.
    pub run_dir: PathBuf,
    /// What it remembers.
    pub state_dir: PathBuf,
    /// Its stderr, appended to by every start.
    pub log: PathBuf,
}

impl Places {
    /// Below one directory.
    #[must_use]
    pub fn below(dir: &Path) -> Self {
        Self {
            run_dir: dir.join("run"),
            state_dir: dir.join("state"),
            log: dir.join("csnapd.log"),
        }
    }

    /// The NBD socket.
    #[must_use]
    pub fn nbd_socket(&self) -> PathBuf {
        self.run_dir.join("nbd.sock")
    }

    /// The last lines of the log.
    #[must_use]
    pub fn log_tail(&self, lines: usize) -> String {
        let text = std::fs::read(&self.log).unwrap_or_default();
        let text = String::from_utf8_lossy(&text);
        let all: Vec<&str> = text.lines().collect();
        all[all.len().saturating_sub(lines)..].join("\n")
    }
}

/// A `csnapd` we started. Dropping it kills it.
#[derive(Debug)]
pub struct Daemon {
    child: Child,
    places: Places,
}

impl Daemon {
    /// Its process.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Starts one and waits until `csnapctl status` answers (it may have something to complain of).
    ///
    /// # Errors
    /// If it ends or does not answer in time.
    pub fn start(places: &Places, options: &[String]) -> Outcome<Self> {
        let mut daemon = Self {
            child: Self::spawn(places, options)?,
            places: places.clone(),
        };
        let ctl = Ctl::new(&places.run_dir)?;
        let deadline = Instant::now() + READY_WITHIN;
        while ctl.any("status")?.code == exit::UNREACHABLE {
            if let Some(status) = daemon.ended()? {
                let log = places.log_tail(20);
                return Err(Fault::wrong(format!(
                    "csnapd ended at once with {status}:\n{log}"
                )));
            }
            ensure!(
                Instant::now() < deadline,
                "csnapd was not ready within {READY_WITHIN:?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(daemon)
    }

    /// Starts one that should refuse to run, and hands back how it ended.
    ///
    /// # Errors
    /// If it is still running after some seconds.
    pub fn start_refused(places: &Places, options: &[String]) -> Outcome<ExitStatus> {
        let mut daemon = Self {
            child: Self::spawn(places, options)?,
            places: places.clone(),
        };
        let deadline = Instant::now() + Duration::from_secs(20);
        loop {
            if let Some(status) = daemon.ended()? {
                return Ok(status);
            }
            ensure!(
                Instant::now() < deadline,
                "csnapd {options:?} runs and should have refused"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    fn spawn(places: &Places, options: &[String]) -> Outcome<Child> {
        let open = || File::options().create(true).append(true).open(&places.log);
        let log = open().trying(|| format!("open {}", places.log.display()))?;
        Command::new(tools::csnap_program("csnapd")?)
            .arg("--run-dir")
            .arg(&places.run_dir)
            .arg("--state-dir")
            .arg(&places.state_dir)
            .args(options)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(log)
            .spawn()
            .trying(|| "start csnapd".into())
    }

    /// How it ended, if it did.
    ///
    /// # Errors
    /// If the system does not tell.
    pub fn ended(&mut self) -> Outcome<Option<ExitStatus>> {
        self.child.try_wait().trying(|| "look after csnapd".into())
    }

    /// `kill -9`: no chance to tidy up.
    ///
    /// # Errors
    /// If it had ended by itself before, which nothing here asks for.
    pub fn kill9(mut self) -> Outcome {
        if let Some(status) = self.ended()? {
            let log = self.places.log_tail(40);
            return Err(Fault::wrong(format!(
                "csnapd ended by itself with {status}:\n{log}"
            )));
        }
        self.child.kill().trying(|| "kill csnapd".into())?;
        self.child.wait().trying(|| "wait for csnapd".into())?;
        Ok(())
    }

    /// SIGTERM, and waits for the orderly end.
    ///
    /// # Errors
    /// If it takes too long or ends with anything but success.
    pub fn stop(mut self) -> Outcome {
        let pid = i32::try_from(self.child.id()).map_err(|e| Fault::wrong(e.to_string()))?;
        kill(Pid::from_raw(pid), Signal::SIGTERM).map_err(|e| Fault::wrong(e.to_string()))?;
        let deadline = Instant::now() + STOPPED_WITHIN;
        loop {
            if let Some(status) = self.ended()? {
                let log = self.places.log_tail(20);
                ensure!(status.success(), "csnapd stopped with {status}:\n{log}");
                return Ok(());
            }
            ensure!(
                Instant::now() < deadline,
                "csnapd was not down within {STOPPED_WITHIN:?}"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }
}

impl Drop for Daemon {
    fn drop(&mut self) {
        // Already reaped after an orderly end; else nothing may be left running.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
