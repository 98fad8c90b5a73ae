//! A client that reads: one request after the other, over a Unix socket.
//!
//! For programs that read what csnapd exports without a block device. Several clients of
//! one export, each with a thread, keep several requests under way. Whatever the server
//! says that the protocol does not allow is an error; no length from it is believed before
//! it was held against what was asked for.

use std::io::{self, Read, Write};
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use zerocopy::byteorder::big_endian::{U32, U64};
use zerocopy::{FromBytes, FromZeros, IntoBytes};

use super::wire::{
    BASE_ALLOCATION, ChunkHeader, Greeting, InfoBlockSize, InfoExport, MAX_PAYLOAD, MAX_STRING,
    NBD_MAGIC, OPTION_MAGIC, OPTION_REPLY_MAGIC, OptionHeader, OptionReplyHeader, REQUEST_MAGIC,
    RequestHeader, STRUCTURED_REPLY_MAGIC, WireExtent, allocation, chunk, command, handshake, info,
    option, option_reply,
};

/// How long the server may say nothing.
const PATIENCE: Duration = Duration::from_secs(120);
/// Longest reply to an option that is looked at, in bytes.
const MAX_REPLY: u32 = 16 << 10;
/// Most replies to an option.
const MAX_REPLIES: u32 = 64;
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
    size: u64,
    minimum: u32,
    preferred: u32,
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
            size: 0,
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
        self.size
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
        let most = self.maximum.max(self.minimum) as usize;
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

    fn ask(&mut self, command: u16, offset: u64, len: u32) -> Result<()> {
        self.cookie += 1;
        self.is_answered = false;
        let header = RequestHeader {
            magic: REQUEST_MAGIC.into(),
            flags: 0.into(),
            command: command.into(),
            cookie: self.cookie.into(),
            offset: offset.into(),
            len: len.into(),
        };
        Ok(self.stream.write_all(header.as_bytes())?)
    }

    /// The kind of the next part of an answer, and how many bytes of it follow; none after
    /// the last one.
    fn part(&mut self) -> Result<Option<(u16, usize)>> {
        if self.is_answered {
            return Ok(None);
        }
        let header: ChunkHeader = self.read()?;
        if header.magic.get() != STRUCTURED_REPLY_MAGIC || header.cookie.get() != self.cookie {
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

    fn greet(&mut self) -> Result<()> {
        let greeting: Greeting = self.read()?;
        let wanted = handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES;
        if greeting.magic.get() != NBD_MAGIC || greeting.option_magic.get() != OPTION_MAGIC {
            return Err(ClientError::Protocol("no greeting"));
        }
        if greeting.flags.get() & wanted != wanted {
            return Err(ClientError::Protocol("a handshake of another time"));
        }
        Ok(self.stream.write_all(&u32::from(wanted).to_be_bytes())?)
    }

    /// Structured replies, the context that tells holes, and the export itself.
    fn choose(&mut self, export: &str) -> Result<()> {
        if export.len() > MAX_STRING {
            return Err(ClientError::Refused(
                "the name of the export is too long".into(),
            ));
        }
        self.option(option::STRUCTURED_REPLY, &[])?;
        self.replies(option::STRUCTURED_REPLY, |_, _, _| Ok(()))?;
        let name = [&(export.len() as u32).to_be_bytes(), export.as_bytes()].concat();
        let query = BASE_ALLOCATION.as_bytes();
        let queries = [&[0, 0, 0, 1, 0, 0, 0, query.len() as u8], query].concat();
        self.option(option::SET_META_CONTEXT, &[&*name, &queries].concat())?;
        self.replies(option::SET_META_CONTEXT, |client, kind, data| {
            match (kind, data.split_first_chunk::<4>()) {
                (option_reply::META_CONTEXT, Some((number, _))) => {
                    client.context = Some(u32::from_be_bytes(*number));
                    Ok(())
                }
                _ => Err(ClientError::Protocol("no context")),
            }
        })?;
        if self.context.is_none() {
            return Err(ClientError::Refused(
                "the server does not tell data from holes".into(),
            ));
        }
        let kinds = [&[0, 1][..], &info::BLOCK_SIZE.to_be_bytes()].concat();
        self.option(option::GO, &[name, kinds].concat())?;
        self.replies(option::GO, Self::learn)
    }

    /// A piece of information on the export.
    fn learn(&mut self, kind: u32, data: &[u8]) -> Result<()> {
        let malformed = |_| ClientError::Protocol("malformed information on an export");
        let told = data.first_chunk().map(|kind| u16::from_be_bytes(*kind));
        match told.filter(|_| kind == option_reply::INFO) {
            Some(info::EXPORT) => {
                let export = InfoExport::read_from_bytes(data).map_err(|_| malformed(()))?;
                self.size = export.size.get();
            }
            Some(info::BLOCK_SIZE) => {
                let sizes = InfoBlockSize::read_from_bytes(data).map_err(|_| malformed(()))?;
                self.minimum = sizes.minimum.get();
                self.preferred = sizes.preferred.get();
                self.maximum = sizes.maximum.get().min(MAX_PAYLOAD);
                if self.minimum == 0 || self.maximum < self.minimum {
                    return Err(malformed(()));
                }
                self.maximum -= self.maximum % self.minimum;
            }
            // Whatever else it tells.
            Some(_) => {}
            None => return Err(malformed(())),
        }
        Ok(())
    }

    fn option(&mut self, option: u32, data: &[u8]) -> Result<()> {
        let header = OptionHeader {
            magic: OPTION_MAGIC.into(),
            option: option.into(),
            len: (data.len() as u32).into(),
        };
        Ok(self.stream.write_all(&[header.as_bytes(), data].concat())?)
    }

    /// Gives `take` the kind and the data of every reply to an option but the last, which
    /// says yes or no.
    fn replies(
        &mut self,
        option: u32,
        mut take: impl FnMut(&mut Self, u32, &[u8]) -> Result<()>,
    ) -> Result<()> {
        for _ in 0..MAX_REPLIES {
            let header: OptionReplyHeader = self.read()?;
            let (kind, len) = (header.kind.get(), header.len.get());
            if header.magic.get() != OPTION_REPLY_MAGIC
                || header.option.get() != option
                || len > MAX_REPLY
            {
                return Err(ClientError::Protocol("an odd reply to an option"));
            }
            let data = self.bytes(len as usize)?;
            match kind {
                option_reply::ACK => return Ok(()),
                kind if kind & option_reply::IS_ERROR != 0 => {
                    let text = String::from_utf8_lossy(&data).into_owned();
                    return Err(ClientError::Refused(text));
                }
                kind => take(self, kind, &data)?,
            }
        }
        Err(ClientError::Protocol("no end of replies to an option"))
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
