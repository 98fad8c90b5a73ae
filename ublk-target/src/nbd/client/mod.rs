//! A client: one request after the other, over a Unix socket.
//!
//! For programs that read or write what csnapd exports without a block device. Several clients of
//! one export, each with a thread, keep several requests under way. Whatever the server
//! says that the protocol does not allow is an error; no length from it is believed before
//! it was held against what was asked for.

mod handshake;

use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zerocopy::byteorder::big_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::wire::{
    ChunkHeader, MAX_STRING, REQUEST_MAGIC, RequestHeader, SIMPLE_REPLY_MAGIC,
    STRUCTURED_REPLY_MAGIC, SimpleReply, WireExtent, allocation, chunk, command,
};

/// How long the server may say nothing.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longest error, in bytes.
const MAX_ERROR: usize = 6 + MAX_STRING;
/// Longest list of extents that is looked at, in bytes.
const MAX_STATUS: usize = 4 << 20;

/// Why an export cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens.
    #[error("cannot connect to {}: {cause}", path.display())]
    Connect {
        /// The socket.
        path: PathBuf,
        /// Why not.
        cause: io::Error,
    },
    /// The connection broke off.
    #[error("the connection to the server failed: {0}")]
    Socket(#[from] io::Error),
    /// The server will not have it.
    #[error("{0}")]
    Refused(String),
    /// A request failed.
    #[error("{message} (NBD error {error})")]
    Request {
        /// The number of the error on the wire.
        error: u32,
        /// What the server says of it.
        message: String,
    },
    /// What the server says makes no sense.
    #[error("the server breaks the NBD protocol: {0}")]
    Protocol(&'static str),
}

type Result<T> = std::result::Result<T, ClientError>;

/// Bytes of an export that are alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stretch {
    /// How many; not 0.
    pub len: u64,
    /// They read as zeroes.
    pub zero: bool,
}

/// A connection to one export.
#[derive(Debug)]
pub struct Client {
    stream: UnixStream,
    /// As the server tells it.
    size: Option<u64>,
    minimum: u32,
    preferred: u32,
    /// A multiple of the minimum, not 0.
    maximum: u32,
    /// The number of `base:allocation`.
    context: Option<u32>,
    cookie: u64,
    /// The last part of the answer has come.
    is_answered: bool,
}

impl Client {
    /// Connects to `export` of the server at `socket`.
    ///
    /// # Errors
    /// If nobody is there, or there is no such export.
    pub fn connect(socket: &Path, export: &str) -> Result<Self> {
        let stream = UnixStream::connect(socket).map_err(|cause| ClientError::Connect {
            path: socket.to_owned(),
            cause,
        })?;
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let mut client = Self {
            stream,
            size: None,
            minimum: 1,
            preferred: 4096,
            maximum: 1 << 20,
            context: None,
            cookie: 0,
            is_answered: true,
        };
        client.greet()?;
        client.choose(export)?;
        Ok(client)
    }

    /// Bytes of the export.
    #[must_use]
    pub fn size(&self) -> u64 {
        self.size.unwrap_or(0)
    }

    /// What every offset and length is a multiple of; bytes.
    #[must_use]
    pub fn minimum_block(&self) -> u32 {
        self.minimum
    }

    /// Best for throughput: a chunk of the store, in bytes.
    #[must_use]
    pub fn preferred_block(&self) -> u32 {
        self.preferred
    }

    /// Fills `buffer` from byte `offset` on. Both are multiples of
    /// [`Self::minimum_block`]. After an error the client is of no more use.
    ///
    /// # Errors
    /// If that cannot be read.
    pub fn read_at(&mut self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        let most = self.maximum as usize;
        let mut at = offset;
        for part in buffer.chunks_mut(most) {
            self.read_part(at, part)?;
            at += part.len() as u64;
        }
        Ok(())
    }

    /// What the bytes from `offset` on are, of `len` at most; the answer may stop early.
    ///
    /// # Errors
    /// If the server cannot tell.
    pub fn stretches(&mut self, offset: u64, len: u32) -> Result<Vec<Stretch>> {
        self.ask(command::BLOCK_STATUS, offset, len)?;
        let mut found = Vec::new();
        while let Some((kind, len)) = self.part()? {
            let bytes = match (kind, len) {
                (chunk::BLOCK_STATUS, 12..=MAX_STATUS) if found.is_empty() => self.bytes(len)?,
                _ => return Err(ClientError::Protocol("no list of extents")),
            };
            let Some((context, extents)) = bytes.split_first_chunk::<4>() else {
                return Err(ClientError::Protocol("a list of extents without context"));
            };
            if Some(u32::from_be_bytes(*context)) != self.context {
                return Err(ClientError::Protocol("extents of another context"));
            }
            found = extents_in(extents)?;
        }
        match found.is_empty() {
            true => Err(ClientError::Protocol("no extents")),
            false => Ok(found),
        }
    }

    fn read_part(&mut self, offset: u64, buffer: &mut [u8]) -> Result<()> {
        self.ask(command::READ, offset, buffer.len() as u32)?;
        let mut filled: Vec<Range<usize>> = Vec::new();
        while let Some((kind, len)) = self.part()? {
            let (at, len) = self.answered(kind, len)?;
            let begin = at.checked_sub(offset);
            let begin = begin.and_then(|begin| usize::try_from(begin).ok());
            let range = begin.and_then(|begin| Some(begin..begin.checked_add(len)?));
            let is_new = |range: &Range<usize>| {
                let apart =
                    |other: &Range<usize>| other.end <= range.start || range.end <= other.start;
                filled.iter().all(apart)
            };
            let range = range.filter(is_new);
            let place = range.clone().and_then(|range| buffer.get_mut(range));
            let Some(place) = place else {
                return Err(ClientError::Protocol("data that was not asked for"));
            };
            match kind {
                chunk::OFFSET_HOLE => place.fill(0),
                _ => self.stream.read_exact(place)?,
            }
            filled.extend(range);
        }
        match filled.iter().map(Range::len).sum::<usize>() == buffer.len() {
            true => Ok(()),
            false => Err(ClientError::Protocol("less data than was asked for")),
        }
    }

    /// Where the bytes of a part of an answer to a read belong, and how many they are.
    fn answered(&mut self, kind: u16, len: usize) -> Result<(u64, usize)> {
        match (kind, len) {
            (chunk::OFFSET_DATA, 9..) => Ok((self.read::<U64>()?.get(), len - 8)),
            (chunk::OFFSET_HOLE, 12) => {
                let at = self.read::<U64>()?.get();
                match self.read::<U32>()?.get() {
                    0 => Err(ClientError::Protocol("a hole of no length")),
                    len => Ok((at, len as usize)),
                }
            }
            _ => Err(ClientError::Protocol("no data in the answer to a read")),
        }
    }

    /// Writes `bytes` from byte `offset` on; both as for [`Self::read_at`].
    ///
    /// # Errors
    /// If the server refuses it or fails; an export may be read-only.
    pub fn write_at(&mut self, offset: u64, bytes: &[u8]) -> Result<()> {
        let most = self.maximum as usize;
        let mut at = offset;
        for part in bytes.chunks(most) {
            self.ask(command::WRITE, at, part.len() as u32)?;
            self.stream.write_all(part)?;
            self.done()?;
            at += part.len() as u64;
        }
        Ok(())
    }

    /// Makes `len` bytes from byte `offset` on zeroes; both as for [`Self::read_at`].
    ///
    /// # Errors
    /// As [`Self::write_at`].
    pub fn zero(&mut self, offset: u64, len: u32) -> Result<()> {
        self.ask(command::WRITE_ZEROES, offset, len)?;
        self.done()
    }

    /// Makes durable what was written.
    ///
    /// # Errors
    /// If that fails.
    pub fn flush(&mut self) -> Result<()> {
        self.ask(command::FLUSH, 0, 0)?;
        self.done()
    }

    fn ask(&mut self, command: u16, offset: u64, len: u32) -> Result<()> {
        self.cookie += 1;
        self.is_answered = false;
        let header = RequestHeader {
            magic: REQUEST_MAGIC.into(),
            flags: 0.into(),
            command: command.into(),
            cookie: self.cookie.into(),
            offset: offset.into(),
            len: U32::new(len),
        };
        Ok(self.stream.write_all(header.as_bytes())?)
    }

    /// The answer to what has none but that it is done.
    fn done(&mut self) -> Result<()> {
        match self.part()? {
            None => Ok(()),
            Some(_) => Err(ClientError::Protocol("data in the answer to a write")),
        }
    }

    /// The kind of the next part of an answer, and how many bytes of it follow; none after
    /// the last one.
    fn part(&mut self) -> Result<Option<(u16, usize)>> {
        if self.is_answered {
            return Ok(None);
        }
        // What has no data may be answered in the old way.
        let mut head = SimpleReply::new_zeroed();
        self.stream.read_exact(head.as_mut_bytes())?;
        match head.magic.get() {
            SIMPLE_REPLY_MAGIC => self.simple(&head),
            STRUCTURED_REPLY_MAGIC => {
                let mut header = ChunkHeader::new_zeroed();
                let (begin, rest) = header.as_mut_bytes().split_at_mut(size_of_val(&head));
                begin.copy_from_slice(head.as_bytes());
                self.stream.read_exact(rest)?;
                self.structured(&header)
            }
            _ => Err(ClientError::Protocol("an answer to nothing")),
        }
    }

    fn simple(&mut self, reply: &SimpleReply) -> Result<Option<(u16, usize)>> {
        if reply.cookie.get() != self.cookie {
            return Err(ClientError::Protocol("an answer to nothing"));
        }
        self.is_answered = true;
        match reply.error.get() {
            0 => Ok(None),
            error => Err(ClientError::Request {
                error,
                message: "it failed".to_owned(),
            }),
        }
    }

    fn structured(&mut self, header: &ChunkHeader) -> Result<Option<(u16, usize)>> {
        if header.cookie.get() != self.cookie {
            return Err(ClientError::Protocol("an answer to nothing"));
        }
        let (kind, len) = (header.kind.get(), header.len.get() as usize);
        self.is_answered = header.flags.get() & chunk::DONE != 0;
        match (kind, len) {
            (chunk::NONE, 0) if self.is_answered => Ok(None),
            (chunk::NONE, _) => Err(ClientError::Protocol("an empty part of an answer")),
            _ if kind & chunk::IS_ERROR != 0 => Err(self.failed(len)?),
            _ => Ok(Some((kind, len))),
        }
    }

    /// What an error of `len` bytes says.
    fn failed(&mut self, len: usize) -> Result<ClientError> {
        let bytes = match len {
            6..=MAX_ERROR => self.bytes(len)?,
            _ => return Err(ClientError::Protocol("an error of no size it can have")),
        };
        let (error, rest) = bytes.split_first_chunk::<4>().unwrap_or((&[0; 4], &[]));
        let (length, text) = rest.split_first_chunk::<2>().unwrap_or((&[0; 2], &[]));
        let length = usize::from(u16::from_be_bytes(*length)).min(text.len());
        let text = text.get(..length).unwrap_or(text);
        Ok(ClientError::Request {
            error: u32::from_be_bytes(*error),
            message: String::from_utf8_lossy(text).into_owned(),
        })
    }

    fn bytes(&mut self, len: usize) -> Result<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.stream.read_exact(&mut bytes)?;
        Ok(bytes)
    }

    fn read<T: FromZeros + FromBytes + IntoBytes>(&mut self) -> Result<T> {
        let mut value = T::new_zeroed();
        self.stream.read_exact(value.as_mut_bytes())?;
        Ok(value)
    }
}

/// The extents of a list.
fn extents_in(bytes: &[u8]) -> Result<Vec<Stretch>> {
    let (extents, rest) = bytes.as_chunks::<{ size_of::<WireExtent>() }>();
    let stretch = |bytes: &[u8; 8]| {
        let extent: WireExtent = zerocopy::transmute!(*bytes);
        Stretch {
            len: extent.len.get().into(),
            zero: extent.flags.get() & allocation::ZERO != 0,
        }
    };
    let found: Vec<_> = extents.iter().map(stretch).collect();
    match rest.is_empty() && found.iter().all(|stretch| stretch.len > 0) {
        true => Ok(found),
        false => Err(ClientError::Protocol("a malformed list of extents")),
    }
}
