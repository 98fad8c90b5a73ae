//! A small blocking NBD client, pipelined, with simple replies.
//!
//! The tests own one because no outside tool tells which writes were
//! acknowledged before a `kill -9`. It speaks the fixed newstyle handshake
//! (`NBD_OPT_GO`) and only what the tests need; anything unexpected from the
//! server is a fault, never skipped.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::time::Duration;

use super::fault::{Fault, Outcome, Trying};
use super::files::MIB;
use crate::ensure;

const MAGIC: u64 = 0x4e42_444d_4147_4943;
const OPTION_MAGIC: u64 = 0x4948_4156_454f_5054;
const OPTION_REPLY_MAGIC: u64 = 0x0003_e889_0455_65a9;
const REQUEST_MAGIC: u32 = 0x2560_9513;
const SIMPLE_REPLY_MAGIC: u32 = 0x6744_6698;
const FIXED_NEWSTYLE_NO_ZEROES: u16 = 3;
const OPT_GO: u32 = 7;
const INFO_BLOCK_SIZE: u16 = 3;
const REPLY_ACK: u32 = 1;
const REPLY_INFO: u32 = 3;
const REPLY_ERROR: u32 = 1 << 31;
const FLAG_FUA: u16 = 1;

/// `EIO` as NBD says it.
pub const EIO: u32 = 5;

/// What to ask of the server.
#[derive(Clone, Debug)]
pub enum Ask {
    /// Read so many bytes.
    Read(u32),
    /// Write these bytes; durable when acknowledged if the flag is set.
    Write(Vec<u8>, bool),
    /// Zero so many bytes.
    Zero(u32),
    /// Trim so many bytes.
    Trim(u32),
    /// Flush.
    Flush,
}

/// An answered request.
#[derive(Clone, Debug)]
pub struct Done {
    /// What [`Client::send`] returned.
    pub cookie: u64,
    /// 0, or the error number of the protocol.
    pub error: u32,
    /// What was read.
    pub data: Vec<u8>,
}

/// One connection to one export.
#[derive(Debug)]
pub struct Client {
    socket: UnixStream,
    size: u64,
    flags: u16,
    next_cookie: u64,
    pending: HashMap<u64, u32>,
}

impl Client {
    /// Connects and negotiates.
    ///
    /// # Errors
    /// If there is no server, no such export, or the server breaks the protocol.
    pub fn connect(socket: &Path, export: &str) -> Outcome<Self> {
        let story = || format!("connect to {} at {}", export, socket.display());
        let socket = UnixStream::connect(socket).trying(story)?;
        let patience = Some(Duration::from_secs(60));
        socket.set_read_timeout(patience).trying(story)?;
        socket.set_write_timeout(patience).trying(story)?;
        let pending = HashMap::new();
        let mut client = Self {
            socket,
            size: 0,
            flags: 0,
            next_cookie: 1,
            pending,
        };
        client.greet()?;
        client.go(export)?;
        Ok(client)
    }

    fn greet(&mut self) -> Outcome {
        let hello: [u8; 18] = self.take()?;
        let magics = u64::from_be_bytes(part(&hello, 0)) == MAGIC
            && u64::from_be_bytes(part(&hello, 8)) == OPTION_MAGIC;
        ensure!(
            magics,
            "the server does not speak newstyle NBD: {hello:02x?}"
        );
        self.put(&u32::from(FIXED_NEWSTYLE_NO_ZEROES).to_be_bytes())
    }

    fn go(&mut self, export: &str) -> Outcome {
        let mut message = OPTION_MAGIC.to_be_bytes().to_vec();
        message.extend(OPT_GO.to_be_bytes());
        message.extend((export.len() as u32 + 8).to_be_bytes());
        message.extend((export.len() as u32).to_be_bytes());
        message.extend(export.as_bytes());
        message.extend(1_u16.to_be_bytes());
        // Who does not ask is refused by exports whose blocks are not 512 bytes.
        message.extend(INFO_BLOCK_SIZE.to_be_bytes());
        self.put(&message)?;
        loop {
            let head: [u8; 20] = self.take()?;
            let magic = u64::from_be_bytes(part(&head, 0));
            ensure!(
                magic == OPTION_REPLY_MAGIC,
                "not an option reply: {head:02x?}"
            );
            let kind = u32::from_be_bytes(part(&head, 12));
            let body = self.take_vec(u32::from_be_bytes(part(&head, 16)))?;
            match kind {
                REPLY_ACK => return Ok(()),
                REPLY_INFO if body.len() == 12 && body[..2] == [0, 0] => {
                    self.size = u64::from_be_bytes(part(&body, 2));
                    self.flags = u16::from_be_bytes(part(&body, 10));
                }
                REPLY_INFO => {}
                error if error & REPLY_ERROR != 0 => {
                    let why = String::from_utf8_lossy(&body);
                    return Err(Fault::wrong(format!(
                        "no export {export:?}: {error:#x} {why}"
                    )));
                }
                other => return Err(Fault::wrong(format!("unknown option reply {other:#x}"))),
            }
        }
    }

    /// Size of the export in bytes.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size
    }

    /// Whether the export can be written.
    #[must_use]
    pub fn read_only(&self) -> bool {
        self.flags & 2 != 0
    }

    /// Requests not answered yet.
    #[must_use]
    pub fn in_flight(&self) -> usize {
        self.pending.len()
    }

    /// Sends a request and returns its cookie.
    ///
    /// # Errors
    /// If the connection is gone.
    pub fn send(&mut self, offset: u64, ask: &Ask) -> Outcome<u64> {
        let (kind, flags, length, payload): (u16, u16, u32, &[u8]) = match ask {
            Ask::Read(length) => (0, 0, *length, &[]),
            Ask::Write(data, fua) => (
                1,
                if *fua { FLAG_FUA } else { 0 },
                data.len() as u32,
                data.as_slice(),
            ),
            Ask::Flush => (3, 0, 0, &[]),
            Ask::Trim(length) => (4, 0, *length, &[]),
            Ask::Zero(length) => (6, 0, *length, &[]),
        };
        let cookie = self.next_cookie;
        self.next_cookie += 1;
        let mut message = Vec::with_capacity(28 + payload.len());
        message.extend(REQUEST_MAGIC.to_be_bytes());
        message.extend(flags.to_be_bytes());
        message.extend(kind.to_be_bytes());
        message.extend(cookie.to_be_bytes());
        message.extend(offset.to_be_bytes());
        message.extend(length.to_be_bytes());
        message.extend(payload);
        self.pending
            .insert(cookie, if kind == 0 { length } else { 0 });
        self.put(&message)?;
        Ok(cookie)
    }

    /// Waits for the next answer, whichever request it belongs to.
    ///
    /// # Errors
    /// If the connection is gone or the answer belongs to no request.
    pub fn wait(&mut self) -> Outcome<Done> {
        let head: [u8; 16] = self.take()?;
        let magic = u32::from_be_bytes(part(&head, 0));
        ensure!(
            magic == SIMPLE_REPLY_MAGIC,
            "not a simple reply: {head:02x?}"
        );
        let error = u32::from_be_bytes(part(&head, 4));
        let cookie = u64::from_be_bytes(part(&head, 8));
        let Some(length) = self.pending.remove(&cookie) else {
            return Err(Fault::wrong(format!(
                "an answer to request {cookie}, which is not open"
            )));
        };
        let data = if error == 0 {
            self.take_vec(length)?
        } else {
            Vec::new()
        };
        Ok(Done {
            cookie,
            error,
            data,
        })
    }

    /// Sends one request and waits for its answer; nothing else may be open.
    ///
    /// # Errors
    /// If the connection is gone. An error of the export is in the answer.
    pub fn call(&mut self, offset: u64, ask: &Ask) -> Outcome<Done> {
        self.send(offset, ask)?;
        self.wait()
    }

    /// Reads `length` bytes and demands that it works.
    ///
    /// # Errors
    /// If it does not.
    pub fn read(&mut self, offset: u64, length: u32) -> Outcome<Vec<u8>> {
        let done = self.call(offset, &Ask::Read(length))?;
        ensure!(
            done.error == 0,
            "read of {length} bytes at {offset}: NBD error {}",
            done.error
        );
        Ok(done.data)
    }

    /// Reads the whole export, piece by piece.
    ///
    /// # Errors
    /// If a read fails.
    pub fn read_all(&mut self) -> Outcome<Vec<u8>> {
        let mut bytes = Vec::new();
        while (bytes.len() as u64) < self.size() {
            let at = bytes.len() as u64;
            let length = (self.size() - at).min(MIB) as u32;
            bytes.extend(self.read(at, length)?);
        }
        Ok(bytes)
    }

    /// Writes the whole export in pieces of 64 KiB; how many of them were refused.
    ///
    /// # Errors
    /// If the connection breaks.
    pub fn overwrite_all(&mut self) -> Outcome<u64> {
        const PIECE: usize = 64 << 10;
        let mut refused = 0;
        for at in (0..self.size()).step_by(PIECE) {
            let done = self.call(at, &Ask::Write(vec![2; PIECE], false))?;
            refused += u64::from(done.error != 0);
        }
        Ok(refused)
    }

    /// Writes and demands that it works.
    ///
    /// # Errors
    /// If it does not.
    pub fn write(&mut self, offset: u64, data: Vec<u8>) -> Outcome {
        let done = self.call(offset, &Ask::Write(data, false))?;
        ensure!(
            done.error == 0,
            "write at {offset}: NBD error {}",
            done.error
        );
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> Outcome {
        self.socket
            .write_all(bytes)
            .trying(|| "send to the NBD server".into())
    }

    fn take<const N: usize>(&mut self) -> Outcome<[u8; N]> {
        let mut bytes = [0; N];
        self.socket
            .read_exact(&mut bytes)
            .trying(|| "receive from the NBD server".into())?;
        Ok(bytes)
    }

    fn take_vec(&mut self, length: u32) -> Outcome<Vec<u8>> {
        ensure!(length <= 64 << 20, "the server announces {length} bytes");
        let mut bytes = vec![0; length as usize];
        self.socket
            .read_exact(&mut bytes)
            .trying(|| "receive from the NBD server".into())?;
        Ok(bytes)
    }
}

/// `N` bytes at `at` of a message whose length is known to be enough.
fn part<const N: usize>(message: &[u8], at: usize) -> [u8; N] {
    let mut bytes = [0; N];
    bytes.copy_from_slice(&message[at..at + N]);
    bytes
}
