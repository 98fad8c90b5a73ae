//! The dialogue: one option after the other until an export is chosen.

use zerocopy::IntoBytes;
use zerocopy::byteorder::big_endian::U32;

use super::super::export::{ExportInfo, Exports, Refusal, RefusalKind};
use super::super::text::beginning;
use super::super::wire::{
    BASE_ALLOCATION, BASE_ALLOCATION_ID, Greeting, InfoBlockSize, InfoExport, MAX_STRING,
    NBD_MAGIC, OPTION_MAGIC, OPTION_REPLY_MAGIC, OptionHeader, OptionReplyHeader, handshake, info,
    option, option_reply,
};
use super::channel::Channel;
use super::options::{self, ContextRequest, InfoRequest};
use super::{MAX_OPTION, MAX_OPTIONS, MAX_SKIPPED_OPTION, NegotiateError, Options};

/// A block size every client may be expected to keep to without having asked.
const USUAL_BLOCK: u32 = 512;

/// A finished handshake.
#[derive(Debug)]
pub struct Negotiated<E> {
    /// What [`Exports::open`] gave.
    pub export: E,
    /// Its name.
    pub name: String,
    /// What the client was told of it.
    pub info: ExportInfo,
    /// What the client has chosen.
    pub options: Options,
}

/// What an option leads to.
enum Next<E> {
    Option,
    Done(Negotiated<E>),
}

/// An export opened under the name the client will see.
struct Opened<E> {
    name: String,
    export: E,
    info: ExportInfo,
}

pub(super) struct Session<'a, E: Exports> {
    channel: Channel<'a>,
    exports: &'a E,
    /// The client knows fixed newstyle: may use other options than `EXPORT_NAME`.
    fixed: bool,
    /// The client wants no padding after `EXPORT_NAME`.
    no_zeroes: bool,
    structured: bool,
    /// The export for which `base:allocation` was chosen.
    allocation_of: Option<String>,
}

impl<'a, E: Exports> Session<'a, E> {
    pub(super) fn new(channel: Channel<'a>, exports: &'a E) -> Self {
        Self {
            channel,
            exports,
            fixed: false,
            no_zeroes: false,
            structured: false,
            allocation_of: None,
        }
    }

    pub(super) fn run(mut self) -> Result<Negotiated<E::Export>, NegotiateError> {
        self.greet()?;
        for _ in 0..MAX_OPTIONS {
            if let Next::Done(negotiated) = self.option()? {
                return Ok(negotiated);
            }
        }
        Err(NegotiateError::TooManyOptions)
    }

    fn greet(&mut self) -> Result<(), NegotiateError> {
        let greeting = Greeting {
            magic: NBD_MAGIC.into(),
            option_magic: OPTION_MAGIC.into(),
            flags: (handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES).into(),
        };
        self.channel.write(greeting.as_bytes())?;
        let flags = self.channel.read::<U32>()?.get();
        if flags & !u32::from(handshake::FIXED_NEWSTYLE | handshake::NO_ZEROES) != 0 {
            return Err(NegotiateError::BadFlags(flags));
        }
        self.fixed = flags & u32::from(handshake::FIXED_NEWSTYLE) != 0;
        self.no_zeroes = flags & u32::from(handshake::NO_ZEROES) != 0;
        Ok(())
    }

    fn option(&mut self) -> Result<Next<E::Export>, NegotiateError> {
        let header: OptionHeader = self.channel.read()?;
        let (option, len) = (header.option.get(), header.len.get());
        if header.magic.get() != OPTION_MAGIC {
            return Err(NegotiateError::BadMagic(header.magic.get()));
        }
        if option != option::EXPORT_NAME && !self.fixed {
            return Err(NegotiateError::OldClient(option));
        }
        let longest = if option == option::EXPORT_NAME {
            MAX_STRING as u32
        } else {
            MAX_OPTION
        };
        if len > longest {
            return self.too_long(option, len).map(|()| Next::Option);
        }
        let data = self.channel.read_vec(len)?;
        self.answer(option, &data)
    }

    fn too_long(&mut self, option: u32, len: u32) -> Result<(), NegotiateError> {
        if option == option::EXPORT_NAME || len > MAX_SKIPPED_OPTION {
            return Err(NegotiateError::OptionTooLong { option, len });
        }
        self.channel.skip(len)?;
        self.error(option, option_reply::ERR_TOO_BIG, "the option is too long")
    }

    fn answer(&mut self, option: u32, data: &[u8]) -> Result<Next<E::Export>, NegotiateError> {
        match option {
            option::EXPORT_NAME => return self.export_name(data).map(Next::Done),
            option::INFO | option::GO => return self.info(option, data),
            option::ABORT => {
                self.reply(option, option_reply::ACK, &[])?;
                return Err(NegotiateError::Left);
            }
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => self.contexts(option, data)?,
            option::STARTTLS => {
                let why = "no encryption here: the socket does not leave this machine";
                self.error(option, option_reply::ERR_UNSUP, why)?;
            }
            option::LIST | option::STRUCTURED_REPLY if !data.is_empty() => {
                self.error(
                    option,
                    option_reply::ERR_INVALID,
                    "the option takes no data",
                )?;
            }
            option::LIST => self.list()?,
            option::STRUCTURED_REPLY => {
                self.structured = true;
                self.reply(option, option_reply::ACK, &[])?;
            }
            _ => self.error(
                option,
                option_reply::ERR_UNSUP,
                "the option is not known here",
            )?,
        }
        Ok(Next::Option)
    }

    /// "Option types, `NBD_OPT_EXPORT_NAME`": no way to say no but to hang up.
    fn export_name(&mut self, data: &[u8]) -> Result<Negotiated<E::Export>, NegotiateError> {
        let name = options::export_name(data).map_err(NegotiateError::BadName)?;
        let opened = self
            .open(&name)
            .map_err(|refusal| NegotiateError::Refused { name, refusal })?;
        let mut answer = Vec::with_capacity(134);
        answer.extend_from_slice(&opened.info.size().to_be_bytes());
        answer.extend_from_slice(&opened.info.flags(self.structured).to_be_bytes());
        if !self.no_zeroes {
            answer.resize(134, 0);
        }
        self.channel.write(&answer)?;
        Ok(self.done(opened))
    }

    /// `INFO` and `GO`.
    fn info(&mut self, option: u32, data: &[u8]) -> Result<Next<E::Export>, NegotiateError> {
        let request = match options::info_request(data) {
            Ok(request) => request,
            Err(why) => {
                self.error(option, option_reply::ERR_INVALID, why)?;
                return Ok(Next::Option);
            }
        };
        let opened = match self.open(&request.name) {
            Ok(opened) => opened,
            Err(refusal) => {
                self.refuse(option, &refusal)?;
                return Ok(Next::Option);
            }
        };
        if opened.info.minimum_block() > USUAL_BLOCK && !request.kinds.contains(&info::BLOCK_SIZE) {
            let why = format!(
                "blocks of {} bytes: ask for them",
                opened.info.minimum_block()
            );
            self.error(option, option_reply::ERR_BLOCK_SIZE_REQD, &why)?;
            return Ok(Next::Option);
        }
        self.describe(option, &request, &opened)?;
        self.reply(option, option_reply::ACK, &[])?;
        Ok(if option == option::GO {
            Next::Done(self.done(opened))
        } else {
            Next::Option
        })
    }

    /// Size, flags and block sizes always; text only if asked for.
    fn describe(
        &mut self,
        option: u32,
        request: &InfoRequest,
        opened: &Opened<E::Export>,
    ) -> Result<(), NegotiateError> {
        let facts = &opened.info;
        let export = InfoExport {
            kind: info::EXPORT.into(),
            size: facts.size().into(),
            flags: facts.flags(self.structured).into(),
        };
        self.reply(option, option_reply::INFO, export.as_bytes())?;
        let blocks = InfoBlockSize {
            kind: info::BLOCK_SIZE.into(),
            minimum: facts.minimum_block().into(),
            preferred: facts.preferred_block().into(),
            maximum: facts.maximum_payload().into(),
        };
        self.reply(option, option_reply::INFO, blocks.as_bytes())?;
        if request.kinds.contains(&info::NAME) {
            self.text(option, info::NAME, &opened.name)?;
        }
        if request.kinds.contains(&info::DESCRIPTION) {
            let description = self.exports.describe(&opened.name);
            if !description.is_empty() {
                self.text(option, info::DESCRIPTION, &description)?;
            }
        }
        Ok(())
    }

    fn text(&mut self, option: u32, kind: u16, text: &str) -> Result<(), NegotiateError> {
        let text = beginning(text, MAX_STRING).as_bytes();
        let data = [&kind.to_be_bytes(), text].concat();
        self.reply(option, option_reply::INFO, &data)
    }

    fn list(&mut self) -> Result<(), NegotiateError> {
        for entry in self.exports.list() {
            let room = MAX_STRING.saturating_sub(entry.name.len());
            let description = self.exports.describe(&entry.name);
            let description = beginning(&description, room);
            let mut data = (entry.name.len() as u32).to_be_bytes().to_vec();
            data.extend_from_slice(entry.name.as_bytes());
            data.extend_from_slice(description.as_bytes());
            self.reply(option::LIST, option_reply::SERVER, &data)?;
        }
        self.reply(option::LIST, option_reply::ACK, &[])
    }

    /// `LIST_META_CONTEXT` and `SET_META_CONTEXT`; "Metadata querying". The wildcards
    /// (no query at all, or a bare `base:`) list, but do not choose.
    fn contexts(&mut self, option: u32, data: &[u8]) -> Result<(), NegotiateError> {
        let choose = option == option::SET_META_CONTEXT;
        if choose {
            // Each choice replaces the one before, also if it fails.
            self.allocation_of = None;
        }
        let ContextRequest { name, queries } = match options::context_request(data) {
            Ok(request) => request,
            Err(why) => return self.error(option, option_reply::ERR_INVALID, why),
        };
        if !self.structured {
            let why = "ask for structured replies first";
            return self.error(option, option_reply::ERR_INVALID, why);
        }
        let name = match self.open(&name) {
            Ok(opened) => opened.name,
            Err(refusal) => return self.refuse(option, &refusal),
        };
        let wildcard = !choose && (queries.is_empty() || queries.iter().any(|q| q == "base:"));
        if wildcard || queries.iter().any(|query| query == BASE_ALLOCATION) {
            let id = if choose { BASE_ALLOCATION_ID } else { 0 };
            let data = [&id.to_be_bytes(), BASE_ALLOCATION.as_bytes()].concat();
            self.reply(option, option_reply::META_CONTEXT, &data)?;
            self.allocation_of = choose.then_some(name).or(self.allocation_of.take());
        }
        self.reply(option, option_reply::ACK, &[])
    }

    /// Opens an export; the empty name is the only export there is.
    fn open(&self, name: &str) -> Result<Opened<E::Export>, Refusal> {
        let name = if name.is_empty() {
            self.only_export()?
        } else {
            name.to_owned()
        };
        let (export, info) = self.exports.open(&name)?;
        Ok(Opened { name, export, info })
    }

    fn only_export(&self) -> Result<String, Refusal> {
        let mut entries = self.exports.list();
        entries.retain(|entry| !entry.on_demand);
        match (entries.pop(), entries.len()) {
            (Some(entry), 0) => Ok(entry.name),
            (None, _) => Err(Refusal {
                kind: RefusalKind::Unknown,
                message: "there are no exports; `csnapctl volume create` makes one".into(),
            }),
            (Some(_), others) => Err(Refusal {
                kind: RefusalKind::Unknown,
                message: format!(
                    "there are {} exports and none is the default; name one (VOLUME or \
                     VOLUME@SNAPSHOT), `nbdinfo --list` shows them",
                    others + 1
                ),
            }),
        }
    }

    fn done(&self, opened: Opened<E::Export>) -> Negotiated<E::Export> {
        let base_allocation = self.allocation_of.as_deref() == Some(opened.name.as_str());
        Negotiated {
            export: opened.export,
            name: opened.name,
            info: opened.info,
            options: Options {
                structured: self.structured,
                base_allocation,
            },
        }
    }

    fn refuse(&mut self, option: u32, refusal: &Refusal) -> Result<(), NegotiateError> {
        let kind = match refusal.kind {
            RefusalKind::Unknown => option_reply::ERR_UNKNOWN,
            RefusalKind::Policy => option_reply::ERR_POLICY,
            RefusalKind::Shutdown => option_reply::ERR_SHUTDOWN,
        };
        self.error(option, kind, &refusal.message)
    }

    fn error(&mut self, option: u32, kind: u32, message: &str) -> Result<(), NegotiateError> {
        self.reply(option, kind, beginning(message, MAX_STRING).as_bytes())
    }

    fn reply(&mut self, option: u32, kind: u32, data: &[u8]) -> Result<(), NegotiateError> {
        let header = OptionReplyHeader {
            magic: OPTION_REPLY_MAGIC.into(),
            option: option.into(),
            kind: kind.into(),
            len: (data.len() as u32).into(),
        };
        // One write, so that a client never sees half a reply because of us.
        self.channel.write(&[header.as_bytes(), data].concat())
    }
}
