//! Frames: a 4-byte little-endian length, then that many bytes of JSON.
//!
//! Contract: a frame is at most [`MAX_FRAME`] bytes; nothing is allocated for a
//! longer one. A frame must arrive (or leave) within its time limit counted from
//! its first byte, however slowly its bytes drip, so no peer can hold a thread.

use std::io::{ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

/// Longest frame in bytes, without its length field.
pub const MAX_FRAME: usize = 1 << 20;

/// Why a frame did not come through.
#[derive(Debug, thiserror::Error)]
pub enum FrameError {
    /// The peer closed the connection between two frames.
    #[error("the connection was closed")]
    Closed,
    /// The peer closed the connection inside a frame.
    #[error("the connection was closed in the middle of a message")]
    Cut,
    /// A frame longer than [`MAX_FRAME`].
    #[error("a message of {0} bytes is too long; the limit is {MAX_FRAME}")]
    TooLong(usize),
    /// Nothing, or not all of a frame, came in time.
    #[error("timed out after {} ms", .0.as_millis())]
    Timeout(Duration),
    /// The socket failed.
    #[error("the socket failed: {0}")]
    Io(#[from] std::io::Error),
}

/// Reads one frame: waits up to `idle` for its first byte, then up to `whole` for
/// the rest.
///
/// # Errors
/// See [`FrameError`]. After any error the stream is no longer in step.
pub fn read_frame(
    stream: &UnixStream,
    idle: Duration,
    whole: Duration,
) -> Result<Vec<u8>, FrameError> {
    let mut header = [0u8; 4];
    let (first, rest) = header.split_at_mut(1);
    match read_until(stream, first, Instant::now() + idle, idle) {
        Err(FrameError::Cut) => return Err(FrameError::Closed),
        other => other?,
    }
    let deadline = Instant::now() + whole;
    read_until(stream, rest, deadline, whole)?;
    let length = u32::from_le_bytes(header) as usize;
    if length > MAX_FRAME {
        return Err(FrameError::TooLong(length));
    }
    let mut body = vec![0; length];
    read_until(stream, &mut body, deadline, whole)?;
    Ok(body)
}

/// Writes one frame within `limit`.
///
/// # Errors
/// See [`FrameError`].
pub fn write_frame(stream: &UnixStream, body: &[u8], limit: Duration) -> Result<(), FrameError> {
    let length = u32::try_from(body.len())
        .ok()
        .filter(|_| body.len() <= MAX_FRAME);
    let length = length.ok_or(FrameError::TooLong(body.len()))?;
    let mut frame = Vec::with_capacity(body.len() + 4);
    frame.extend_from_slice(&length.to_le_bytes());
    frame.extend_from_slice(body);
    let deadline = Instant::now() + limit;
    let mut left = frame.as_slice();
    while !left.is_empty() {
        stream.set_write_timeout(Some(remaining(deadline, limit)?))?;
        match { stream }.write(left) {
            Ok(0) => return Err(FrameError::Cut),
            Ok(n) => left = left.get(n..).unwrap_or(&[]),
            Err(error) => retry(error)?,
        }
    }
    Ok(())
}

fn read_until(
    stream: &UnixStream,
    mut out: &mut [u8],
    deadline: Instant,
    limit: Duration,
) -> Result<(), FrameError> {
    while !out.is_empty() {
        stream.set_read_timeout(Some(remaining(deadline, limit)?))?;
        match { stream }.read(out) {
            Ok(0) => return Err(FrameError::Cut),
            Ok(n) => out = out.get_mut(n..).unwrap_or_default(),
            Err(error) if error.kind() == ErrorKind::ConnectionReset => {
                return Err(FrameError::Cut);
            }
            Err(error) => retry(error)?,
        }
    }
    Ok(())
}

/// Time left; a socket time-out of zero would mean "for ever".
fn remaining(deadline: Instant, limit: Duration) -> Result<Duration, FrameError> {
    let left = deadline.saturating_duration_since(Instant::now());
    if left.is_zero() {
        Err(FrameError::Timeout(limit))
    } else {
        Ok(left)
    }
}

/// Time-outs and interruptions end in another look at the deadline.
fn retry(error: std::io::Error) -> Result<(), FrameError> {
    match error.kind() {
        ErrorKind::WouldBlock | ErrorKind::TimedOut | ErrorKind::Interrupted => Ok(()),
        _ => Err(FrameError::Io(error)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SHORT: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(5);

    #[test]
    fn frames_come_through_and_a_clean_end_is_told_from_a_cut_one() {
        let (a, b) = UnixStream::pair().unwrap();
        write_frame(&a, b"{}", LONG).unwrap();
        write_frame(&a, b"", LONG).unwrap();
        (&a).write_all(&[9, 0, 0, 0, b'x']).unwrap();
        drop(a);
        assert_eq!(read_frame(&b, LONG, LONG).unwrap(), b"{}");
        assert_eq!(read_frame(&b, LONG, LONG).unwrap(), b"");
        assert!(matches!(read_frame(&b, LONG, LONG), Err(FrameError::Cut)));
        let (a, b) = UnixStream::pair().unwrap();
        drop(a);
        assert!(matches!(
            read_frame(&b, LONG, LONG),
            Err(FrameError::Closed)
        ));
    }

    #[test]
    fn long_frames_are_refused_on_both_sides() {
        let (a, b) = UnixStream::pair().unwrap();
        let long = vec![0; MAX_FRAME + 1];
        assert!(matches!(
            write_frame(&a, &long, LONG),
            Err(FrameError::TooLong(_))
        ));
        (&a).write_all(&u32::MAX.to_le_bytes()).unwrap();
        assert!(matches!(
            read_frame(&b, LONG, LONG),
            Err(FrameError::TooLong(_))
        ));
    }

    #[test]
    fn dripping_bytes_do_not_extend_the_limit() {
        let (a, b) = UnixStream::pair().unwrap();
        let dripper = std::thread::spawn(move || {
            for byte in [100, 0, 0, 0].into_iter().chain([b' '; 60]) {
                if (&a).write_all(&[byte]).is_err() {
                    break;
                }
                std::thread::sleep(Duration::from_millis(10));
            }
        });
        let start = Instant::now();
        assert!(matches!(
            read_frame(&b, LONG, SHORT * 2),
            Err(FrameError::Timeout(_))
        ));
        assert!(
            start.elapsed() < Duration::from_millis(500),
            "took {:?}",
            start.elapsed()
        );
        drop(b);
        dripper.join().unwrap();
    }

    #[test]
    fn a_reader_that_does_not_read_is_given_up() {
        let (a, _b) = UnixStream::pair().unwrap();
        let body = vec![b' '; MAX_FRAME];
        assert!(matches!(
            write_frame(&a, &body, SHORT),
            Err(FrameError::Timeout(_))
        ));
    }
}
