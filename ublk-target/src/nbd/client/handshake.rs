//! How a connection begins: structured replies, the context that tells holes, and the export
//! itself.

use std::io::Write;

use zerocopy::{FromBytes, IntoBytes};

use super::{Client, ClientError, Result};
use crate::nbd::wire::{
    BASE_ALLOCATION, Greeting, InfoBlockSize, InfoExport, MAX_PAYLOAD, MAX_STRING, NBD_MAGIC,
    OPTION_MAGIC, OPTION_REPLY_MAGIC, OptionHeader, OptionReplyHeader, handshake, info, option,
    option_reply,
};

/// Longest reply to an option that is looked at, in bytes.
const MAX_REPLY: u32 = 16 << 10;
/// Most replies to an option.
const MAX_REPLIES: u32 = 64;

impl Client {
    pub(super) fn greet(&mut self) -> Result<()> {
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
    pub(super) fn choose(&mut self, export: &str) -> Result<()> {
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
        self.replies(option::GO, Self::learn)?;
        match self.size {
            Some(_) => Ok(()),
            None => Err(ClientError::Protocol("no size of the export")),
        }
    }

    /// A piece of information on the export.
    fn learn(&mut self, kind: u32, data: &[u8]) -> Result<()> {
        let malformed = || ClientError::Protocol("malformed information on an export");
        let told = data.first_chunk().map(|kind| u16::from_be_bytes(*kind));
        match told.filter(|_| kind == option_reply::INFO) {
            Some(info::EXPORT) => {
                let export = InfoExport::read_from_bytes(data).map_err(|_| malformed())?;
                self.size = Some(export.size.get());
            }
            Some(info::BLOCK_SIZE) => {
                let sizes = InfoBlockSize::read_from_bytes(data).map_err(|_| malformed())?;
                self.minimum = sizes.minimum.get();
                self.preferred = sizes.preferred.get();
                self.maximum = sizes.maximum.get().min(MAX_PAYLOAD);
                if self.minimum == 0 || self.maximum < self.minimum {
                    return Err(malformed());
                }
                self.maximum -= self.maximum % self.minimum;
            }
            // Whatever else it tells.
            Some(_) => {}
            None => return Err(malformed()),
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
}
