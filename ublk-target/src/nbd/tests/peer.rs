//! A client's side of the transmission phase, written against the protocol's text
//! rather than our structures: numbers are spelled out again on purpose.

use std::collections::HashMap;

/// A request with its payload.
pub(super) fn request(
    flags: u16,
    command: u16,
    cookie: u64,
    offset: u64,
    len: u32,
    payload: &[u8],
) -> Vec<u8> {
    let len = len.to_be_bytes();
    message(
        0x2560_9513,
        (flags, command),
        (cookie, offset),
        &len,
        payload,
    )
}

/// The same under extended headers.
pub(super) fn extended(
    flags: u16,
    command: u16,
    at: (u64, u64),
    len: u64,
    payload: &[u8],
) -> Vec<u8> {
    let len = len.to_be_bytes();
    message(0x21e4_1c71, (flags, command), at, &len, payload)
}

fn message(
    magic: u32,
    (flags, command): (u16, u16),
    (cookie, offset): (u64, u64),
    len: &[u8],
    payload: &[u8],
) -> Vec<u8> {
    let mut out = magic.to_be_bytes().to_vec();
    out.extend(flags.to_be_bytes());
    out.extend(command.to_be_bytes());
    out.extend(cookie.to_be_bytes());
    out.extend(offset.to_be_bytes());
    out.extend(len);
    out.extend(payload);
    out
}

pub(super) fn read(cookie: u64, offset: u64, len: u32) -> Vec<u8> {
    request(0, 0, cookie, offset, len, &[])
}

pub(super) fn write(flags: u16, cookie: u64, offset: u64, payload: &[u8]) -> Vec<u8> {
    request(flags, 1, cookie, offset, payload.len() as u32, payload)
}

/// A reply taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Answer {
    Done,
    Error(u32, String),
    Data(u64, Vec<u8>),
    Status(Vec<(u32, u32)>),
    /// Of another context than `base:allocation`, or of 64 bits.
    Context(u32, Vec<(u64, u64)>),
}

/// Takes a stream of replies apart. `reads` has the lengths of reads that were
/// answered with data, without which a simple reply cannot be understood.
pub(super) fn answers(
    mut bytes: &[u8],
    reads: &HashMap<u64, u32>,
) -> Result<Vec<(u64, Answer)>, String> {
    let mut out = Vec::new();
    while !bytes.is_empty() {
        let magic = number(&mut bytes, 4)?;
        let answer = match magic {
            0x6744_6698 => simple(&mut bytes, reads)?,
            0x668e_33ef => chunk(&mut bytes, false)?,
            0x6e8a_278c => chunk(&mut bytes, true)?,
            other => return Err(format!("magic {other:#x} after {out:?}")),
        };
        out.push(answer);
    }
    Ok(out)
}

fn simple(bytes: &mut &[u8], reads: &HashMap<u64, u32>) -> Result<(u64, Answer), String> {
    let error = number(bytes, 4)? as u32;
    let cookie = number(bytes, 8)?;
    let answer = match (error, reads.get(&cookie)) {
        (0, Some(&len)) => Answer::Data(u64::MAX, take(bytes, len as usize)?.to_vec()),
        (0, None) => Answer::Done,
        (error, _) => Answer::Error(error, String::new()),
    };
    Ok((cookie, answer))
}

fn chunk(bytes: &mut &[u8], extended: bool) -> Result<(u64, Answer), String> {
    let flags = number(bytes, 2)?;
    let kind = number(bytes, 2)?;
    let cookie = number(bytes, 8)?;
    let len = match extended {
        true => {
            let _offset = number(bytes, 8)?;
            number(bytes, 8)? as usize
        }
        false => number(bytes, 4)? as usize,
    };
    let mut data = take(bytes, len)?;
    if flags != 1 && (flags != 0 || !matches!(kind, 5 | 6)) {
        return Err(format!("chunk flags {flags}, only DONE is expected"));
    }
    let answer = match kind {
        0 if data.is_empty() => Answer::Done,
        1 => Answer::Data(number(&mut data, 8)?, data.to_vec()),
        5 => {
            let context = number(&mut data, 4)? as u32;
            let mut extents = Vec::new();
            while !data.is_empty() {
                extents.push((number(&mut data, 4)?, number(&mut data, 4)?));
            }
            match context {
                1 => {
                    let narrow = extents
                        .into_iter()
                        .map(|(len, flags)| (len as u32, flags as u32));
                    Answer::Status(narrow.collect())
                }
                context => Answer::Context(context, extents),
            }
        }
        6 if extended => {
            let context = number(&mut data, 4)? as u32;
            let count = number(&mut data, 4)?;
            let mut extents = Vec::new();
            for _ in 0..count {
                extents.push((number(&mut data, 8)?, number(&mut data, 8)?));
            }
            if !data.is_empty() {
                return Err("bytes after the extents".into());
            }
            Answer::Context(context, extents)
        }
        32769 => {
            let error = number(&mut data, 4)? as u32;
            let message_len = number(&mut data, 2)? as usize;
            let message = take(&mut data, message_len)?;
            if !data.is_empty() {
                return Err("bytes after the message".into());
            }
            Answer::Error(
                error,
                String::from_utf8(message.into()).map_err(|e| e.to_string())?,
            )
        }
        other => return Err(format!("chunk type {other}")),
    };
    Ok((cookie, answer))
}

pub(super) fn take<'a>(bytes: &mut &'a [u8], n: usize) -> Result<&'a [u8], String> {
    let (taken, rest) = bytes
        .split_at_checked(n)
        .ok_or(format!("{} bytes instead of {n}", bytes.len()))?;
    *bytes = rest;
    Ok(taken)
}

/// A big-endian number of `n` bytes.
pub(super) fn number(bytes: &mut &[u8], n: usize) -> Result<u64, String> {
    Ok(take(bytes, n)?
        .iter()
        .fold(0, |value, &byte| value << 8 | u64::from(byte)))
}
