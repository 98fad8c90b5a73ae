//! A ublk server without an engine: what the kernel, the ring and the devices
//! cost on their own. **For benchmarks and for trying the kernel only.**
//!
//! Without a store it passes every request on to the origin. With one it does
//! what every snapshot must: before the first write to a chunk the old contents
//! are read from the origin and written to the store. Which chunks those were is
//! nowhere written down, so the copies are worth nothing; that is the point: it is
//! the bound the engine is measured against.
//!
//! | module | what it holds |
//! |---|---|
//! | `thread` | the loop |
//! | `ring` | a ring and its memory |
//! | `copies` | which chunks have been copied |
//!
//! Signals: TERM and INT stop and remove the device; HUP makes every chunk
//! untouched again; USR2 stands aside (`--recover` takes over), as `kill -9` does
//! without order.

mod copies;
mod ring;
mod thread;

use std::io::Write;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::AtomicI32;
use std::sync::mpsc::{self, Sender};
use std::thread::JoinHandle;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal, kill};

use crate::device::{OriginDevice, StoreDevice};
use crate::runtime::{MOST_BYTES, Spread};
use crate::ublk::uapi::{DevInfo, feature};
use crate::ublk::{
    self, CharDevice, Control, Descriptors, Features, Limits, NewDevice, ZeroCopy, features, params,
};
use copies::Copies;
use thread::{Mode, Server};

/// Bytes of one copy, most.
const MAX_COPY: u64 = 256 << 10;
/// udev looks at new nodes at once.
const PATIENCE: Duration = Duration::from_secs(10);
/// To find idle tags in.
const QUIESCE: Duration = Duration::from_secs(10);

/// Any failure: this is a tool, its message is all that matters.
pub type Failure = Box<dyn std::error::Error + Send + Sync>;

/// What to serve, and how.
#[derive(Clone, Debug)]
pub struct Options {
    /// The device passed on to.
    pub origin: PathBuf,
    /// Where copies go; `None`: no copies.
    pub store: Option<PathBuf>,
    /// Bytes of a chunk.
    pub chunk: u64,
    /// Whether a copy counts only once the store was flushed.
    pub flush: bool,
    /// Threads, and queues.
    pub threads: u16,
    /// Which thread serves which tags.
    pub spread: Spread,
    /// Tags of a queue.
    pub depth: u16,
    /// How data reaches the origin.
    pub zero_copy: ZeroCopy,
    /// The number of a device whose server is gone, to go on with.
    pub recover: Option<u32>,
}

/// What all threads use.
struct Shared {
    device: CharDevice,
    descriptors: Vec<Descriptors>,
    origin: OriginDevice,
    store: Option<StoreDevice>,
    copies: Option<Copies>,
    mode: Mode,
    /// Bytes of the buffer a slot's data is copied through.
    data: usize,
    /// Bytes of the buffer a slot copies chunks through.
    copy: usize,
    /// Descriptors of the threads' rings.
    rings: Vec<AtomicI32>,
}

impl Shared {
    /// Bytes of memory for each slot.
    fn stride(&self) -> usize {
        self.data + self.copy
    }

    fn data_at(&self, slot: u32) -> usize {
        slot as usize * self.stride()
    }

    fn copy_at(&self, slot: u32) -> usize {
        self.data_at(slot) + self.data
    }
}

/// Serves until told to stop.
///
/// # Errors
/// Whatever stands in the way; a device made is removed again.
pub fn run(options: &Options) -> Result<(), Failure> {
    let signals = block_signals()?;
    let origin = OriginDevice::open(&options.origin, false)?;
    let store = options
        .store
        .as_ref()
        .map(|path| StoreDevice::open(path, false))
        .transpose()?;
    let control = Control::open()?;
    let agreed = match options.recover {
        Some(id) => {
            control.start_recovery(id)?;
            control.info(id)?
        }
        None => add(&control, options, &origin)?,
    };
    let id = agreed.dev_id;
    tracing::info!(id, agreed = %Features(agreed.flags), "agreed");
    let served = shared(options, &agreed, origin, store)
        .and_then(|shared| serve(&control, options, &agreed, shared, &signals));
    match served {
        Ok(End::Aside) => Ok(()),
        Ok(End::Stopped) => Ok(control.delete(id)?),
        Err(error) => {
            if options.recover.is_none() {
                control.delete_async(id)?;
            }
            Err(error)
        }
    }
}

enum End {
    Stopped,
    Aside,
}

fn block_signals() -> nix::Result<SigSet> {
    let mut signals = SigSet::empty();
    for signal in [
        Signal::SIGTERM,
        Signal::SIGINT,
        Signal::SIGHUP,
        Signal::SIGUSR2,
    ] {
        signals.add(signal);
    }
    signals.thread_block()?;
    Ok(signals)
}

fn add(control: &Control, options: &Options, origin: &OriginDevice) -> Result<DevInfo, Failure> {
    let limits = Limits::of(origin)?;
    let flags = features::wanted(control.features(), options.zero_copy, true);
    let agreed = control.add(&NewDevice {
        id: None,
        queues: options.threads,
        depth: options.depth,
        max_io_bytes: MOST_BYTES,
        flags,
        identity: 0,
    })?;
    let id = agreed.dev_id;
    let made = params::params(&limits, origin.size(), false, &agreed);
    let set = features::check(&agreed).and_then(|()| control.set_params(id, &made));
    match set.and_then(|()| control.params(id)) {
        Ok(got) => {
            let ignored = params::ignored(&made, &got);
            if ignored != 0 {
                tracing::warn!(id, ignored, "the driver does not know some parameters");
            }
            Ok(agreed)
        }
        Err(error) => {
            control.delete(id)?;
            Err(error.into())
        }
    }
}

fn shared(
    options: &Options,
    agreed: &DevInfo,
    origin: OriginDevice,
    store: Option<StoreDevice>,
) -> Result<Arc<Shared>, Failure> {
    let flags = Features(agreed.flags);
    let mode = if flags.has(feature::AUTO_BUF_REG) {
        Mode::Auto
    } else if flags.has(feature::SUPPORT_ZERO_COPY) {
        Mode::Register
    } else {
        Mode::Copy
    };
    let copies = match &store {
        Some(store) if store.size() < origin.size() => {
            return Err("the store must be as large as the origin".into());
        }
        Some(_) => {
            let most = (MAX_COPY / options.chunk).max(1);
            let copies = Copies::new(origin.size(), options.chunk, most, options.flush);
            Some(copies)
        }
        None => None,
    };
    let device = CharDevice::open(agreed.dev_id, PATIENCE)?;
    let descriptors = (0..agreed.nr_hw_queues)
        .map(|queue| Descriptors::map(&device, queue, agreed.queue_depth))
        .collect::<Result<_, _>>()?;
    Ok(Arc::new(Shared {
        device,
        descriptors,
        origin,
        store,
        mode,
        data: if mode == Mode::Copy {
            agreed.max_io_buf_bytes as usize
        } else {
            0
        },
        copy: copies.as_ref().map_or(0, |c| (c.most * c.chunk) as usize),
        copies,
        rings: (0..options.threads).map(|_| AtomicI32::new(-1)).collect(),
    }))
}

fn serve(
    control: &Control,
    options: &Options,
    agreed: &DevInfo,
    shared: Arc<Shared>,
    signals: &SigSet,
) -> Result<End, Failure> {
    let id = agreed.dev_id;
    let (sender, ready) = mpsc::channel();
    let shares = options.spread.shares(agreed, options.threads);
    let threads = shares
        .into_iter()
        .map(|(me, tags)| spawn(me, tags, &shared, &sender))
        .collect::<Result<Vec<_>, _>>()?;
    for _ in &threads {
        ready.recv()?.map_err(|e| format!("a thread: {e}"))?;
    }
    match options.recover {
        Some(_) => control.end_recovery(id)?,
        None => control.start(id)?,
    }
    let mut out = std::io::stdout();
    writeln!(out, "{}", ublk::char::disk(id).display())?;
    out.flush()?;
    let end = wait(control, id, &shared, signals)?;
    for thread in threads {
        thread.join().map_err(|_| "a thread died")??;
    }
    Ok(end)
}

/// Ends the process in order when a thread ends otherwise.
struct Alarm;

impl Drop for Alarm {
    fn drop(&mut self) {
        if let Err(error) = kill(nix::unistd::getpid(), Signal::SIGTERM) {
            tracing::error!(%error, "a thread ended early, and nobody can be told");
        }
    }
}

type Ready = Sender<std::io::Result<()>>;

fn spawn(
    me: u16,
    tags: Vec<(u16, u16)>,
    shared: &Arc<Shared>,
    ready: &Ready,
) -> std::io::Result<JoinHandle<std::io::Result<()>>> {
    let (shared, ready) = (shared.clone(), ready.clone());
    std::thread::Builder::new()
        .name(format!("bare-{me}"))
        .spawn(move || {
            let mut server = match Server::new(u32::from(me), &shared, &tags) {
                Ok(server) => server,
                Err(error) => return ready.send(Err(error)).map_err(std::io::Error::other),
            };
            // The receiver is gone only when another thread failed already.
            let _ = ready.send(Ok(()));
            let alarm = Alarm;
            server.run()?;
            std::mem::forget(alarm);
            Ok(())
        })
}

/// Obeys signals until one ends the service.
fn wait(control: &Control, id: u32, shared: &Shared, signals: &SigSet) -> Result<End, Failure> {
    loop {
        match signals.wait()? {
            Signal::SIGHUP => {
                if let Some(copies) = &shared.copies {
                    copies.reset();
                }
            }
            Signal::SIGUSR2 => {
                control.quiesce(id, QUIESCE)?;
                return Ok(End::Aside);
            }
            _ => {
                control.stop(id)?;
                return Ok(End::Stopped);
            }
        }
    }
}
