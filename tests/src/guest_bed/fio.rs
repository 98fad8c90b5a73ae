//! fio as a judge: it writes with checksums and reads everything back.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::{Child, Stdio};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use super::Device;
use crate::e2e::fault::Trying;
use crate::e2e::{Fault, Outcome, tools};
use crate::ensure;

/// The head of every job file: verified, direct, io_uring.
#[must_use]
pub fn verified(device: &Device, seed: u64) -> String {
    format!(
        "[global]\nfilename={}\nioengine=io_uring\ndirect=1\nthread=1\niodepth=16\n\
         verify=crc32c\nverify_fatal=1\nverify_backlog=256\nserialize_overlap=1\n\
         randseed={seed}\nrw=randwrite\nallow_mounted_write=0\n",
        device.path.display()
    )
}

/// A running fio. Dropping it kills it.
#[derive(Debug)]
pub struct Fio {
    child: Option<Child>,
}

impl Fio {
    /// Starts fio on a job file with these contents, kept in `dir`.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(dir: &Path, name: &str, job: &str) -> Outcome<Self> {
        let path = dir.join(format!("{name}.fio"));
        std::fs::write(&path, job).trying(|| format!("write {}", path.display()))?;
        let mut command = tools::program("fio");
        command.arg(&path).current_dir(dir).process_group(0);
        command.stdout(Stdio::piped()).stderr(Stdio::piped());
        let child = command.spawn().trying(|| format!("start fio on {name}"))?;
        Ok(Self { child: Some(child) })
    }

    /// Whether it is still at work.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn running(&mut self) -> Outcome<bool> {
        let child = self.child.as_mut();
        let child = child.ok_or_else(|| Fault::wrong("fio was waited for already"))?;
        let ended = child.try_wait().trying(|| "look after fio".into())?;
        Ok(ended.is_none())
    }

    /// Stops it for a while; what it has submitted still completes.
    ///
    /// # Errors
    /// If it is gone.
    pub fn pause(&self) -> Outcome {
        self.signal(Signal::SIGSTOP)
    }

    /// Lets it go on.
    ///
    /// # Errors
    /// If it is gone.
    pub fn resume(&self) -> Outcome {
        self.signal(Signal::SIGCONT)
    }

    fn signal(&self, signal: Signal) -> Outcome {
        let Some(child) = &self.child else {
            return Ok(());
        };
        let group = i32::try_from(child.id()).map_err(|e| Fault::wrong(e.to_string()))?;
        killpg(Pid::from_raw(group), signal)
            .map_err(|error| Fault::wrong(format!("{signal} to fio: {error}")))
    }

    /// Waits for its end and demands that it found nothing wrong.
    ///
    /// # Errors
    /// Shows what it said.
    pub fn finish(mut self) -> Outcome {
        let (well, said) = self.end()?;
        ensure!(well, "fio found something wrong:\n{said}");
        Ok(())
    }

    /// Waits for its end, whatever that is: whether it went well, and what it said.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn end(&mut self) -> Outcome<(bool, String)> {
        let child = self.child.take();
        let child = child.ok_or_else(|| Fault::wrong("fio was waited for already"))?;
        let output = child.wait_with_output().trying(|| "wait for fio".into())?;
        let [said, complaint] =
            [&output.stdout, &output.stderr].map(|text| String::from_utf8_lossy(text).into_owned());
        let status = output.status;
        Ok((status.success(), format!("{status}\n{said}\n{complaint}")))
    }
}

impl Drop for Fio {
    fn drop(&mut self) {
        let _ = self.signal(Signal::SIGKILL);
        if let Some(child) = &mut self.child {
            let _ = child.wait();
        }
    }
}

/// fio again and again until it is told to stop: every pass writes its part of the
/// device and reads all of it back.
#[derive(Debug)]
pub struct FioLoop {
    stop: Arc<AtomicBool>,
    abandoned: Arc<AtomicBool>,
    thread: Option<JoinHandle<Outcome<u32>>>,
}

impl FioLoop {
    /// Starts it; `job` makes the job file of a pass.
    #[must_use]
    pub fn start(dir: &Path, name: &str, job: impl Fn(u32) -> String + Send + 'static) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let abandoned = Arc::new(AtomicBool::new(false));
        let given_up = Arc::clone(&abandoned);
        let (flag, dir, name) = (Arc::clone(&stop), dir.to_path_buf(), name.to_owned());
        let thread = std::thread::spawn(move || {
            let mut passes = 0;
            while !flag.load(Ordering::Relaxed) {
                let mut fio = Fio::start(&dir, &name, &job(passes))?;
                while fio.running()? {
                    if given_up.load(Ordering::Relaxed) {
                        return Ok(passes); // dropping it kills it
                    }
                    sleep_ms(20);
                }
                fio.finish()?;
                passes += 1;
            }
            Ok(passes)
        });
        Self {
            stop,
            abandoned,
            thread: Some(thread),
        }
    }

    /// Whether it ended before it was told to: it found something wrong.
    #[must_use]
    pub fn gave_up(&self) -> bool {
        self.thread.as_ref().is_some_and(JoinHandle::is_finished)
    }

    /// Lets the pass under way end; how many passes there were.
    ///
    /// # Errors
    /// If a pass found something wrong.
    pub fn finish(mut self) -> Outcome<u32> {
        self.stop.store(true, Ordering::Relaxed);
        let thread = self.thread.take();
        let thread = thread.ok_or_else(|| Fault::wrong("waited for twice"))?;
        thread
            .join()
            .map_err(|_| Fault::wrong("the loop of fio panicked"))?
    }
}

impl Drop for FioLoop {
    fn drop(&mut self) {
        self.abandoned.store(true, Ordering::Relaxed);
        self.stop.store(true, Ordering::Relaxed);
    }
}

/// Sleeps; a test's rhythm.
pub fn sleep_ms(ms: u64) {
    std::thread::sleep(Duration::from_millis(ms));
}
