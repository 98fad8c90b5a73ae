//! `/dev/ublk-control`: making, starting, stopping, recovering, removing devices.
//!
//! Every command may be called from any thread at any time, except that STOP and
//! DELETE wait for requests and must not be called from a thread that serves
//! them. Every command ends: with an answer, or with [`UblkError::TimedOut`] (see
//! `command` for what that leaves behind). The driver itself holds one
//! lock over all ADD and DELETE commands of the system: one that hangs can make
//! those of other devices time out too.

use std::fs::File;
use std::io;
use std::os::fd::AsFd;
use std::time::{Duration, Instant};

use zerocopy::{FromBytes, FromZeros, Immutable, IntoBytes, KnownLayout};

use super::command::{self, Call};
use super::features::Features;
use super::uapi::{DevInfo, Params, command as code, state};
use super::{UblkError, char};

/// Commands that only look or set: they take a lock and copy a record. Long,
/// because under emulation or with a busy machine even that can take seconds.
const SHORT: Duration = Duration::from_secs(10);
/// ADD allocates queues, frozen-queue work included; some 6.17 and 6.18 kernels
/// never come back from it.
const ADD: Duration = Duration::from_secs(20);
/// START and END wait for every tag to be fetched and, before 7.0, read the
/// partition table through the server.
const START: Duration = Duration::from_secs(60);
/// STOP and DELETE wait for requests in flight, so for the devices below, which
/// may take their own error handling (30 s a command is usual) before failing.
const STOP: Duration = Duration::from_secs(90);
/// How long the I/O of a server that was killed may keep its device. The same
/// devices below, the same error handling.
const RECOVERY: Duration = Duration::from_secs(90);
/// Between two questions whether that is over: a kill is noticed after about
/// 60 ms, so this adds little to it.
const RECOVERY_STEP: Duration = Duration::from_millis(5);
/// The step doubles up to this: what takes long is seldom asked for.
const RECOVERY_LONGEST_STEP: Duration = Duration::from_millis(100);
/// Beyond the time the driver itself was given to quiesce.
const MARGIN: Duration = Duration::from_secs(10);

const CONTROL: &str = "/dev/ublk-control";
const CLASS: &str = "/sys/class/ublk-char";

/// What to ask ADD for.
#[derive(Clone, Copy, Debug)]
pub struct NewDevice {
    /// Its number; `None`: the driver chooses.
    pub id: Option<u32>,
    /// Hardware queues; the driver takes at most one a core.
    pub queues: u16,
    /// Tags of a queue, at most [`super::uapi::MAX_QUEUE_DEPTH`].
    pub depth: u16,
    /// Most bytes in one request; the driver rounds down to pages.
    pub max_io_bytes: u32,
    /// See [`super::uapi::feature`].
    pub flags: u64,
    /// Kept by the driver, never looked at (`ublksrv_flags`): whose device it is.
    pub identity: u64,
}

/// The control device. See the module.
#[derive(Debug)]
pub struct Control {
    file: File,
    features: Features,
}

/// The buffer of GET_DEV_INFO2: a path before the record.
#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct InfoByPath {
    path: [u8; 64],
    info: DevInfo,
}

/// No buffer.
type Nothing = [u8; 0];

impl Control {
    /// Opens it and asks for the driver's features.
    ///
    /// # Errors
    /// [`UblkError::Absent`] where the kernel has no ublk; [`UblkError::Denied`];
    /// what stands in the way of io_uring.
    pub fn open() -> Result<Self, UblkError> {
        let file = File::options().read(true).write(true).open(CONTROL);
        let mut control = Self {
            file: file.map_err(not_opened)?,
            features: Features(0),
        };
        let call = call("tell its features to", code::GET_FEATURES, None);
        control.features = match control.run(call, 0_u64) {
            Ok(bits) => Features(bits),
            // Linux before 6.5: nothing of what csnap wants is in question there,
            // and ADD tells what it agreed to.
            Err(UblkError::Unsupported { .. } | UblkError::Command { .. }) => {
                Features(super::features::BEFORE_GET_FEATURES)
            }
            Err(other) => return Err(other),
        };
        Ok(control)
    }

    /// What the driver says it can do, asked once. It may still not agree to all
    /// of it: look at the flags [`Self::add`] returns.
    #[must_use]
    pub fn features(&self) -> Features {
        self.features
    }

    /// Makes a device. It has no block device yet. Returns what the driver agreed
    /// to.
    ///
    /// # Errors
    /// `EEXIST` where the number is taken. After a time-out the device may appear
    /// later, belonging to nobody: [`Self::devices`] shows it by its identity, and
    /// the daemon removes it when it serves the same again.
    pub fn add(&self, want: &NewDevice) -> Result<DevInfo, UblkError> {
        let info = DevInfo {
            nr_hw_queues: want.queues,
            queue_depth: want.depth,
            max_io_buf_bytes: want.max_io_bytes,
            dev_id: want.id.unwrap_or(u32::MAX),
            ublksrv_pid: -1,
            flags: want.flags,
            ublksrv_flags: want.identity,
            ..DevInfo::default()
        };
        let call = Call {
            patience: ADD,
            ..call("make", code::ADD, want.id)
        };
        self.run(call, info)
    }

    /// Sets the parameters, before the first start only. What the driver does not
    /// know it ignores without a word: see [`Self::params`].
    ///
    /// # Errors
    /// `EINVAL` for values it refuses, `EACCES` once the device was started.
    pub fn set_params(&self, id: u32, params: &Params) -> Result<(), UblkError> {
        let call = call("set the parameters of", code::SET_PARAMS, Some(id));
        self.run(call, *params).map(drop)
    }

    /// The parameters as the driver has them.
    ///
    /// # Errors
    /// [`UblkError::NoDevice`].
    pub fn params(&self, id: u32) -> Result<Params, UblkError> {
        let mut params = Params::new_zeroed();
        params.len = size_of::<Params>() as u32;
        self.run(
            call("tell the parameters of", code::GET_PARAMS, Some(id)),
            params,
        )
    }

    /// The device as it is now.
    ///
    /// # Errors
    /// [`UblkError::NoDevice`] if it is gone.
    pub fn info(&self, id: u32) -> Result<DevInfo, UblkError> {
        let first = self.run(
            call("describe", code::GET_INFO, Some(id)),
            DevInfo::default(),
        );
        match first {
            // A device of an unprivileged user wants its path named, and looks
            // for it in the buffer.
            Err(UblkError::Command { .. }) => self.info_by_path(id),
            other => other,
        }
    }

    fn info_by_path(&self, id: u32) -> Result<DevInfo, UblkError> {
        let mut buffer = InfoByPath::new_zeroed();
        let path = char::node(id);
        let path = path.as_os_str().as_encoded_bytes();
        for (to, from) in buffer.path.iter_mut().zip(path) {
            *to = *from;
        }
        let call = Call {
            path_len: buffer.path.len() as u16,
            ..call("describe", code::GET_INFO2, Some(id))
        };
        self.run(call, buffer).map(|buffer| buffer.info)
    }

    /// Makes the block device and lets requests in. Blocks until every tag of
    /// every queue has been fetched by this process, and (before 7.0) until the
    /// partition table has been read through it.
    ///
    /// # Errors
    /// [`UblkError::TimedOut`] when nobody fetches; what the driver says to the
    /// parameters.
    pub fn start(&self, id: u32) -> Result<(), UblkError> {
        self.simple(Call {
            data: own_pid(),
            patience: START,
            ..call("start", code::START, Some(id))
        })
    }

    /// Ends the block device: waits for requests in flight, fails later ones. The
    /// fetches of all tags come back with [`super::uapi::IO_ABORT`].
    ///
    /// # Errors
    /// [`UblkError::NoDevice`], [`UblkError::TimedOut`].
    pub fn stop(&self, id: u32) -> Result<(), UblkError> {
        self.simple(Call {
            patience: STOP,
            ..call("stop", code::STOP, Some(id))
        })
    }

    /// Likewise, unless somebody has it open.
    ///
    /// # Errors
    /// [`UblkError::Open`], [`UblkError::Unsupported`] before 7.0.
    pub fn try_stop(&self, id: u32) -> Result<(), UblkError> {
        let stopped = self.simple(Call {
            patience: STOP,
            ..call("stop (unless open)", code::TRY_STOP, Some(id))
        });
        match stopped {
            Err(error) if is(&error, libc::EBUSY) => Err(UblkError::Open(id)),
            // The driver says so of a device that has no block device.
            Err(UblkError::NoDevice(id)) if self.info(id).is_ok() => Ok(()),
            other => other,
        }
    }

    /// Removes the device, stopping it first, and waits until nothing refers to it
    /// any more: its character device must have been closed.
    ///
    /// # Errors
    /// [`UblkError::NoDevice`]; [`UblkError::TimedOut`] while somebody holds it: it
    /// goes away once they let go.
    pub fn delete(&self, id: u32) -> Result<(), UblkError> {
        self.simple(Call {
            patience: STOP,
            ..call("remove", code::DELETE, Some(id))
        })
    }

    /// Removes the device, stopping it first; its number is free once nothing
    /// refers to it any more.
    ///
    /// # Errors
    /// [`UblkError::NoDevice`].
    pub fn delete_async(&self, id: u32) -> Result<(), UblkError> {
        self.simple(Call {
            patience: STOP,
            ..call("remove", code::DELETE_ASYNC, Some(id))
        })
    }

    /// Begins to take a device over whose server is gone: waits until that
    /// server's I/O is over. Then open its [`super::CharDevice`], fetch every tag,
    /// and [`Self::end_recovery`].
    ///
    /// # Errors
    /// [`UblkError::TimedOut`] while the old server lives or its I/O hangs;
    /// `EINVAL` for a device that was never served or knows no recovery.
    pub fn start_recovery(&self, id: u32) -> Result<(), UblkError> {
        let call = call("begin to recover", code::START_RECOVERY, Some(id));
        if self.info(id)?.state == state::DEAD {
            // Older drivers say so themselves; from 6.17 on they say EBUSY, as if
            // waiting could help.
            return Err(UblkError::Command {
                command: call.name,
                id: Some(id),
                source: io::Error::from_raw_os_error(libc::EINVAL),
            });
        }
        let began = Instant::now();
        let mut step = RECOVERY_STEP;
        loop {
            match self.simple(call) {
                Err(error) if is(&error, libc::EBUSY) => {}
                other => return other,
            }
            if began.elapsed() >= RECOVERY {
                return Err(UblkError::TimedOut {
                    command: call.name,
                    id: Some(id),
                    after: RECOVERY,
                });
            }
            std::thread::sleep(step);
            step = (step * 2).min(RECOVERY_LONGEST_STEP);
        }
    }

    /// Ends it: requests go on, beginning with those the old server left. Blocks
    /// until every tag has been fetched.
    ///
    /// # Errors
    /// [`UblkError::TimedOut`] when nobody fetches.
    pub fn end_recovery(&self, id: u32) -> Result<(), UblkError> {
        self.simple(Call {
            data: own_pid(),
            patience: START,
            ..call("recover", code::END_RECOVERY, Some(id))
        })
    }

    /// Changes the size of a live device, in sectors of 512 bytes.
    ///
    /// # Errors
    /// [`UblkError::Unsupported`] where the device did not agree to it.
    pub fn update_size(&self, id: u32, sectors: u64) -> Result<(), UblkError> {
        self.simple(Call {
            data: sectors,
            ..call("resize", code::UPDATE_SIZE, Some(id))
        })
    }

    /// Lets the server stand aside: idle fetches come back with
    /// [`super::uapi::IO_ABORT`], requests being carried out may be finished, and
    /// further ones wait for the next server. The state changes once this one has
    /// closed its character device.
    ///
    /// # Errors
    /// [`UblkError::TimedOut`] when some queue had no idle tag within `timeout`;
    /// [`UblkError::Unsupported`] before 6.16.
    pub fn quiesce(&self, id: u32, timeout: Duration) -> Result<(), UblkError> {
        let call = Call {
            // 0 would be for ever, and the driver keeps 32 bits.
            data: timeout.as_millis().clamp(1, u128::from(u32::MAX)) as u64,
            patience: timeout.saturating_add(MARGIN),
            ..call("quiesce", code::QUIESCE, Some(id))
        };
        match self.simple(call) {
            Err(error) if is(&error, libc::EBUSY) => Err(UblkError::TimedOut {
                command: call.name,
                id: Some(id),
                after: timeout,
            }),
            other => other,
        }
    }

    /// Every ublk device of the system, by number, whoever made it. One that goes
    /// away meanwhile is left out.
    ///
    /// # Errors
    /// What reading `/sys` or asking the driver gave.
    pub fn devices(&self) -> Result<Vec<DevInfo>, UblkError> {
        let mut found = Vec::new();
        for id in numbers()? {
            match self.info(id) {
                Ok(info) => found.push(info),
                Err(UblkError::NoDevice(_)) => {}
                Err(other) => return Err(other),
            }
        }
        Ok(found)
    }

    fn simple(&self, call: Call) -> Result<(), UblkError> {
        self.run::<Nothing>(call, []).map(drop)
    }

    fn run<T>(&self, call: Call, buffer: T) -> Result<T, UblkError> {
        command::run(self.file.as_fd(), call, Box::new(buffer)).map(|buffer| *buffer)
    }
}

/// A command that takes a moment.
fn not_opened(source: io::Error) -> UblkError {
    match source.kind() {
        io::ErrorKind::PermissionDenied => UblkError::Barred {
            path: CONTROL.into(),
            source,
        },
        _ => UblkError::Absent {
            why: format!("cannot open {CONTROL}: {source}"),
        },
    }
}

fn call(name: &'static str, code: u32, id: Option<u32>) -> Call {
    Call {
        name,
        code,
        id,
        data: 0,
        path_len: 0,
        patience: SHORT,
    }
}

fn is(error: &UblkError, errno: i32) -> bool {
    matches!(error, UblkError::Command { source, .. } if source.raw_os_error() == Some(errno))
}

fn own_pid() -> u64 {
    u64::from(std::process::id())
}

/// The numbers of all devices, in order.
fn numbers() -> Result<Vec<u32>, UblkError> {
    let failed = |source| UblkError::Sysfs {
        path: CLASS.into(),
        source,
    };
    let mut numbers = Vec::new();
    for entry in std::fs::read_dir(CLASS).map_err(failed)? {
        let name = entry.map_err(failed)?.file_name();
        numbers.extend(name.to_str().and_then(char::number));
    }
    numbers.sort_unstable();
    Ok(numbers)
}

const _: () = {
    const fn send_and_sync<T: Send + Sync>() {}
    send_and_sync::<Control>();
};
