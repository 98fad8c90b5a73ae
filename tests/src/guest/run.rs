//! One run: boot, program, results, end.

use std::path::{Path, PathBuf};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

use super::cache::{Cache, make_dir};
use super::console::Event;
use super::error::{Error, Result, Trying};
use super::kernels::{Kernel, Series, cached};
use super::machine::{Disk, Hardware, Machine, make_sparse, read};
use super::payload::Payload;
use super::tool::{run as run_tool, tool};
use super::{host, root};

/// What to run and in which machine.
#[derive(Clone, Debug)]
pub struct Job {
    /// Kernel.
    pub series: Series,
    /// Bytes of memory.
    pub memory: u64,
    /// Processors.
    pub cpus: u32,
    /// Longest life of the guest, boot included.
    pub timeout: Duration,
    /// Longest silence of the program (a boot may take three minutes, and is tried twice).
    pub idle_timeout: Option<Duration>,
    /// Program, files, first program.
    pub payload: Payload,
    /// Where `/results` is unpacked.
    pub get: Option<PathBuf>,
    /// Extra disks.
    pub disks: Vec<Disk>,
    /// Further kernel arguments.
    pub append: String,
}

impl Job {
    /// A program on a kernel, everything else as usual.
    #[must_use]
    pub fn new(series: Series, program: &[&str]) -> Self {
        Self {
            series,
            memory: 4 << 30,
            cpus: 2,
            timeout: Duration::from_secs(600),
            idle_timeout: None,
            payload: Payload {
                program: program.iter().map(|word| (*word).to_owned()).collect(),
                ..Payload::default()
            },
            get: None,
            disks: Vec::new(),
            append: String::new(),
        }
    }
}

/// How a guest ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum End {
    /// The program ended with this status (128 and the signal's number if killed).
    Exited(i32),
    /// The program asked for a power cut.
    PowerCut,
    /// It lived too long and was killed.
    TimedOut,
    /// It was silent too long and was killed.
    Silent,
    /// It ended without a word: a panic, most often.
    Died,
}

/// What is left of a run.
#[derive(Clone, Debug)]
pub struct Outcome {
    /// How it ended.
    pub end: End,
    /// From qemu's start to the program's; none if it never started.
    pub boot: Option<Duration>,
    /// From qemu's start to its end.
    pub total: Duration,
    /// Everything the kernel said.
    pub kernel_log: PathBuf,
    /// The release that ran.
    pub release: String,
}

impl Outcome {
    /// Lines of the kernel's log that tell of trouble.
    #[must_use]
    pub fn complaints(&self) -> Vec<String> {
        let text = read(&self.kernel_log);
        let lines = text.lines().filter(|line| is_complaint(line));
        lines.map(str::to_owned).collect()
    }
}

fn is_complaint(line: &str) -> bool {
    let words = [
        "BUG:",
        "WARNING:",
        "Oops",
        "Kernel panic",
        "blocked for more than",
        "general protection fault",
        "soft lockup",
        "rcu_preempt detected stalls",
        "rcu_sched detected stalls",
        "Out of memory:",
        "guest: the initramfs could not",
    ];
    words.iter().any(|word| line.contains(word))
}

/// Runs a job; `hear` gets what the program writes, as it comes.
///
/// # Errors
/// If the guest is not prepared or could not be started, or results do not come
/// back. Whatever happens inside is an [`End`].
pub fn run(cache: &Cache, job: &Job, hear: &mut dyn FnMut(&Event)) -> Result<Outcome> {
    let kernel = cached(cache, job.series).ok_or_else(|| {
        Error::Argument(format!(
            "kernel {} is not prepared: run `guest prepare`",
            job.series
        ))
    })?;
    let root = root::image(cache, &host::suite()?);
    if !root.is_file() {
        let problem = format!("{} is not there: run `guest prepare`", root.display());
        return Err(Error::Argument(problem));
    }
    let dir = cache.new_run()?;
    let hardware = hardware(job, kernel, root, &dir)?;
    let start = Instant::now();
    let mut life = live(job, &hardware, &dir, hear)?;
    if matches!(life.end, End::Silent | End::Died) && life.boot.is_none() {
        // The emulator lost an interrupt that the boot waited for, until the end of our
        // patience or the kernel's. What the program has not begun it can begin again.
        let log = dir.join("kernel-hung.log");
        let story = || format!("rename the log to {}", log.display());
        std::fs::rename(dir.join("kernel.log"), &log).trying(story)?;
        let note = format!(
            "guest: the boot hung or died ({}); once more\n",
            log.display()
        );
        hear(&Event::Stderr(note.into_bytes()));
        life = live(job, &hardware, &dir, hear)?;
    }
    let Life { end, boot } = life;
    if let (Some(into), Some(results), End::Exited(_)) = (&job.get, &hardware.results, end) {
        unpack(results, into)?;
    }
    tidy(&dir, &hardware);
    Ok(Outcome {
        end,
        boot,
        total: start.elapsed(),
        kernel_log: dir.join("kernel.log"),
        release: hardware.kernel.release,
    })
}

/// What became of one machine.
struct Life {
    end: End,
    boot: Option<Duration>,
}

/// One machine from its start to its end.
fn live(job: &Job, hardware: &Hardware, dir: &Path, hear: &mut dyn FnMut(&Event)) -> Result<Life> {
    let mut watch = Watch::new(job, Instant::now());
    let (sender, events) = channel();
    let mut machine = Machine::start(hardware, dir, &sender)?;
    drop(sender);
    let end = watch.follow(&mut machine, &events, hear)?;
    machine.kill();
    let boot = watch.boot;
    Ok(Life { end, boot })
}

fn hardware(job: &Job, kernel: Kernel, root: PathBuf, dir: &Path) -> Result<Hardware> {
    let mut payload = job.payload.clone();
    payload.results = job.get.is_some();
    payload.disks = job.disks.len();
    let file = dir.join("payload.tar");
    payload.build(&dir.join("payload"), &file)?;
    let results = job.get.as_ref().map(|_| dir.join("results.tar"));
    if let Some(results) = &results {
        make_sparse(results, RESULTS_BYTES)?;
    }
    Ok(Hardware {
        kernel,
        root,
        payload: file,
        results,
        memory: job.memory,
        cpus: job.cpus,
        disks: job.disks.clone(),
        append: job.append.clone(),
        terminal: payload.terminal.is_some(),
    })
}

/// Most that can come back; the file is sparse.
const RESULTS_BYTES: u64 = 64 << 30;

fn unpack(results: &Path, into: &Path) -> Result {
    make_dir(into)?;
    let mut tar = tool("tar");
    tar.arg("-C").arg(into).arg("-xf").arg(results);
    run_tool(&mut tar).map(drop)
}

/// The logs stay, images go.
fn tidy(dir: &Path, hardware: &Hardware) {
    let empty = (0..hardware.disks.len()).map(|index| dir.join(format!("disk{index}")));
    let images = empty.chain([hardware.payload.clone()]);
    for image in images.chain(hardware.results.clone()) {
        // Left over it is only space, taken back with the run's directory.
        let _ = std::fs::remove_file(image);
    }
}

/// Longest boot.
const BOOT: Duration = Duration::from_secs(180);

struct Watch {
    start: Instant,
    heard: Instant,
    timeout: Duration,
    idle_timeout: Option<Duration>,
    boot: Option<Duration>,
    exit: Option<End>,
}

impl Watch {
    fn new(job: &Job, start: Instant) -> Self {
        Self {
            start,
            heard: start,
            timeout: job.timeout,
            idle_timeout: job.idle_timeout,
            boot: None,
            exit: None,
        }
    }

    /// Until the guest is gone, or has to go.
    fn follow(
        &mut self,
        machine: &mut Machine,
        events: &Receiver<Event>,
        hear: &mut dyn FnMut(&Event),
    ) -> Result<End> {
        loop {
            match events.recv_timeout(Duration::from_millis(100)) {
                Ok(Event::PowerCut) => {
                    machine.kill();
                    self.exit = Some(End::PowerCut);
                }
                Ok(event) => self.note(&event, hear),
                // All ports are closed: qemu ends.
                Err(RecvTimeoutError::Disconnected) => return Ok(self.exit.unwrap_or(End::Died)),
                Err(RecvTimeoutError::Timeout) => {}
            }
            if let Some(end) = self.overdue() {
                return Ok(end);
            }
        }
    }

    fn note(&mut self, event: &Event, hear: &mut dyn FnMut(&Event)) {
        self.heard = Instant::now();
        match event {
            Event::Ready => self.boot = Some(self.start.elapsed()),
            Event::Exit(status) => self.exit = Some(End::Exited(*status)),
            _ => {}
        }
        hear(event);
    }

    fn overdue(&self) -> Option<End> {
        if self.start.elapsed() > self.timeout {
            // What ended in time and only does not power off has ended.
            return Some(self.exit.unwrap_or(End::TimedOut));
        }
        // A boot is silent, and slow on a busy machine.
        let idle = match self.boot {
            Some(_) => self.idle_timeout?,
            None => BOOT,
        };
        (self.heard.elapsed() > idle).then(|| self.exit.unwrap_or(End::Silent))
    }
}
