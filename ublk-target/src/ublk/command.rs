//! One control command: a submission, a completion or a time-out.
//!
//! The driver runs every control command on a worker of the kernel, which may
//! hang: ADD on some kernels, START until every tag is fetched, DELETE while
//! somebody refers to the device. So each thread has a ring of its own for them:
//! commands of several threads never wait for each other.
//!
//! A thread keeps its ring from one command to the next. Since Linux 7.0 the
//! kernel's workers leave with the last ring of their thread, and a command of
//! the next ring can be handed to one that is on its way out: it is never carried
//! out then (`io_uring/io-wq.c`, `IO_WQ_BIT_EXIT_ON_IDLE`).
//!
//! When the time is up the ring is closed, which interrupts the worker where it
//! can be interrupted, and **the command's buffer is leaked**: the worker may
//! write to it at any later time. At most 152 bytes a hung command.

use std::cell::Cell;
use std::io;
use std::os::fd::{AsRawFd, BorrowedFd};
use std::time::{Duration, Instant};

use io_uring::register::Restriction;
use io_uring::types::{Fd, SubmitArgs, Timespec};
use io_uring::{IoUring, cqueue, opcode, squeue};
use zerocopy::IntoBytes;

use super::UblkError;
use super::uapi::CtrlCmd;

type Ring = IoUring<squeue::Entry128, cqueue::Entry>;

/// Entries of a command's ring. One is used; but the first ring of a thread also
/// bounds the workers all its later rings get (the kernel takes the least of
/// entries and four a core), and a hung command occupies one.
const ENTRIES: u32 = 8;

thread_local! {
    /// This thread's ring, between commands.
    static RING: Cell<Option<Ring>> = const { Cell::new(None) };
}

/// What to ask of the driver.
#[derive(Clone, Copy, Debug)]
pub(super) struct Call {
    /// For messages: a verb.
    pub(super) name: &'static str,
    /// See [`super::uapi::command`].
    pub(super) code: u32,
    /// Which device.
    pub(super) id: Option<u32>,
    /// The command's value.
    pub(super) data: u64,
    /// Bytes of the path the buffer begins with.
    pub(super) path_len: u16,
    /// How long to wait for the answer.
    pub(super) patience: Duration,
}

/// Issues `call` with `buffer` and waits. Gives the buffer back as the driver
/// left it; on a time-out it stays with the driver for ever.
pub(super) fn run<T>(
    control: BorrowedFd<'_>,
    call: Call,
    buffer: Box<T>,
) -> Result<Box<T>, UblkError> {
    let mut ring = RING.take().map_or_else(ring, Ok).map_err(UblkError::Ring)?;
    let buffer = Box::into_raw(buffer);
    let header = CtrlCmd {
        dev_id: call.id.unwrap_or(u32::MAX),
        queue_id: u16::MAX,
        len: size_of::<T>() as u16,
        addr: if size_of::<T>() == 0 {
            0
        } else {
            buffer.expose_provenance() as u64
        },
        data: call.data,
        dev_path_len: call.path_len,
        ..CtrlCmd::default()
    };
    match issue(&mut ring, control, call, &header) {
        Answer::Completed(result) => {
            RING.set(Some(ring));
            // SAFETY: the pointer came from `into_raw` above, and the driver is
            // done with it: the command has completed.
            let buffer = unsafe { Box::from_raw(buffer) };
            judge(call, result).map(|()| buffer)
        }
        Answer::NotIssued(error) => {
            // SAFETY: the pointer came from `into_raw` above, and the driver has
            // never seen it.
            drop(unsafe { Box::from_raw(buffer) });
            Err(UblkError::Ring(error))
        }
        Answer::TimedOut => {
            let (command, id, after) = (call.name, call.id, call.patience);
            tracing::error!(command, id, ?after, "a ublk command was given up");
            // The next ring before this one goes: see the top of the module.
            RING.set(self::ring().ok());
            Err(UblkError::TimedOut { command, id, after })
        }
    }
}

enum Answer {
    Completed(i32),
    NotIssued(io::Error),
    /// Or the ring failed while waiting: the command may be under way either way.
    TimedOut,
}

fn issue(ring: &mut Ring, control: BorrowedFd<'_>, call: Call, header: &CtrlCmd) -> Answer {
    let mut bytes = [0; 80];
    for (to, from) in bytes.iter_mut().zip(header.as_bytes()) {
        *to = *from;
    }
    let entry = opcode::UringCmd80::new(Fd(control.as_raw_fd()), call.code)
        .cmd(bytes)
        .build();
    // SAFETY: the submission names no memory of its own; what `header.addr` names
    // lives until the completion or for ever, see `run`.
    if unsafe { ring.submission().push(&entry) }.is_err() {
        return Answer::NotIssued(io::Error::other("an idle ring has no room"));
    }
    loop {
        match ring.submit() {
            Ok(0) => return Answer::NotIssued(io::Error::other("nothing was submitted")),
            Ok(_) => break,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Answer::NotIssued(error),
        }
    }
    wait(ring, call.patience)
}

fn wait(ring: &mut Ring, patience: Duration) -> Answer {
    let deadline = Instant::now() + patience;
    loop {
        if let Some(entry) = ring.completion().next() {
            return Answer::Completed(entry.result());
        }
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Answer::TimedOut;
        }
        let left = Timespec::from(left);
        let result = ring
            .submitter()
            .submit_with_args(1, &SubmitArgs::new().timespec(&left));
        match result {
            Ok(_) => {}
            // The time is up or a signal came: the loop looks at the clock.
            Err(error) if passing(&error) => {}
            Err(error) => {
                tracing::error!(%error, "cannot wait for a ublk command");
                return Answer::TimedOut;
            }
        }
    }
}

fn passing(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(libc::ETIME | libc::EINTR | libc::EAGAIN | libc::EBUSY)
    )
}

fn judge(call: Call, result: i32) -> Result<(), UblkError> {
    let (command, id) = (call.name, call.id);
    match (-result, id) {
        (..=0, _) => Ok(()),
        (libc::ENODEV, Some(id)) => Err(UblkError::NoDevice(id)),
        (libc::EOPNOTSUPP, _) => Err(UblkError::Unsupported { command }),
        (libc::EPERM, _) => Err(UblkError::Denied { command, id }),
        (errno, _) => Err(UblkError::Command {
            command,
            id,
            source: io::Error::from_raw_os_error(errno),
        }),
    }
}

/// A ring that can carry ublk commands and nothing else, where the kernel can
/// restrict it.
fn ring() -> io::Result<Ring> {
    let ring: Ring = IoUring::builder()
        .setup_r_disabled()
        .dontfork()
        .build(ENTRIES)?;
    let mut allowed = [Restriction::sqe_op(opcode::UringCmd80::CODE)];
    if let Err(error) = ring.submitter().register_restrictions(&mut allowed) {
        tracing::debug!(%error, "the ring for ublk commands is not restricted");
    }
    ring.submitter().register_enable_rings()?;
    Ok(ring)
}

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::os::fd::AsFd;

    use super::*;

    fn call(id: Option<u32>) -> Call {
        Call {
            name: "test",
            code: 0,
            id,
            data: 0,
            path_len: 0,
            patience: Duration::from_secs(5),
        }
    }

    #[test]
    fn the_drivers_answers_get_their_meaning() {
        let with = |errno: i32| judge(call(Some(7)), -errno).unwrap_err();
        assert!(judge(call(Some(7)), 0).is_ok());
        assert!(matches!(with(libc::ENODEV), UblkError::NoDevice(7)));
        assert!(matches!(with(libc::EPERM), UblkError::Denied { .. }));
        assert!(matches!(with(libc::EACCES), UblkError::Command { .. }));
        assert!(matches!(
            with(libc::EOPNOTSUPP),
            UblkError::Unsupported { .. }
        ));
        assert!(with(libc::EBUSY).to_string().contains("device 7"));
    }

    /// `/dev/null` takes ring commands and answers 0 to every one; older kernels
    /// refuse. Either way an answer comes through the whole path.
    #[test]
    fn a_command_comes_back_with_its_buffer() {
        let null = File::options()
            .read(true)
            .write(true)
            .open("/dev/null")
            .unwrap();
        match run(null.as_fd(), call(None), Box::new(0x1234_u64)) {
            Ok(buffer) => assert_eq!(*buffer, 0x1234),
            Err(UblkError::Unsupported { .. }) => {}
            Err(other) => panic!("{other}"),
        }
    }
}
