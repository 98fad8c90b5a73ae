//! The dialogue: one option after the other until an export is chosen.

use zerocopy::IntoBytes;

use super::super::export::{ExportInfo, Exports, Refusal, RefusalKind, Since};
use super::super::text::beginning;
use super::super::wire::{
    BASE_ALLOCATION, BASE_ALLOCATION_ID, DIRTY_BITMAP, DIRTY_BITMAP_ID, InfoBlockSize, InfoExport,
    MAX_STRING, info, option, option_reply,
};
use super::channel::{Channel, Greeted};
use super::options::{self, ContextRequest, InfoRequest, Queries};
use super::{MAX_CHANGED, MAX_OPTION, MAX_OPTIONS, MAX_SKIPPED_OPTION, NegotiateError, Options};

/// A block size every client may be expected to keep to without having asked.
const USUAL_BLOCK: u32 = 512;

/// `base:allocation`, and the snapshots to be compared with.
type Chosen = (bool, [Option<Since>; MAX_CHANGED]);

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
    Done(Box<Negotiated<E>>),
}

impl<E> Next<E> {
    fn done(negotiated: Negotiated<E>) -> Self {
        Self::Done(Box::new(negotiated))
    }
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
    greeted: Greeted,
    encrypted: bool,
    structured: bool,
    extended: bool,
    /// The metadata contexts chosen, and for which export.
    chosen: Option<(String, Chosen)>,
}

impl<'a, E: Exports> Session<'a, E> {
    /// A session after the greeting.
    pub(super) fn new(
        channel: Channel<'a>,
        exports: &'a E,
        greeted: Greeted,
        encrypted: bool,
    ) -> Self {
        Self {
            channel,
            exports,
            greeted,
            encrypted,
            structured: false,
            extended: false,
            chosen: None,
        }
    }

    pub(super) fn run(mut self) -> Result<Negotiated<E::Export>, NegotiateError> {
        for _ in 0..MAX_OPTIONS {
            if let Next::Done(negotiated) = self.option()? {
                return Ok(*negotiated);
            }
        }
        Err(NegotiateError::TooManyOptions)
    }

    fn option(&mut self) -> Result<Next<E::Export>, NegotiateError> {
        let (option, len) = self.channel.option(self.greeted)?;
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
            option::EXPORT_NAME => return self.export_name(data).map(Next::done),
            option::INFO | option::GO => return self.info(option, data),
            option::ABORT => {
                self.reply(option, option_reply::ACK, &[])?;
                return Err(NegotiateError::Left);
            }
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => self.contexts(option, data)?,
            option::STARTTLS if self.encrypted => {
                let why = "the connection is encrypted already";
                self.error(option, option_reply::ERR_INVALID, why)?;
            }
            option::STARTTLS => {
                let why = "no encryption here";
                self.error(option, option_reply::ERR_UNSUP, why)?;
            }
            option::LIST | option::STRUCTURED_REPLY | option::EXTENDED_HEADERS
                if !data.is_empty() =>
            {
                self.error(
                    option,
                    option_reply::ERR_INVALID,
                    "the option takes no data",
                )?;
            }
            option::LIST => self.list()?,
            option::STRUCTURED_REPLY if self.extended => {
                let why = "extended headers were agreed on already";
                self.error(option, option_reply::ERR_EXT_HEADER_REQD, why)?;
            }
            option::STRUCTURED_REPLY => {
                self.structured = true;
                self.reply(option, option_reply::ACK, &[])?;
            }
            option::EXTENDED_HEADERS if self.extended => {
                let why = "extended headers were agreed on already";
                self.error(option, option_reply::ERR_INVALID, why)?;
            }
            option::EXTENDED_HEADERS => {
                (self.structured, self.extended) = (true, true);
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
        if !self.greeted.no_zeroes {
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
            Next::done(self.done(opened))
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

    /// `LIST_META_CONTEXT` and `SET_META_CONTEXT`; "Metadata querying".
    fn contexts(&mut self, option: u32, data: &[u8]) -> Result<(), NegotiateError> {
        let choose = option == option::SET_META_CONTEXT;
        if choose {
            // Each choice replaces the one before, also if it fails.
            self.chosen = None;
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
        let queries = Queries::new(&queries);
        let older = match queries.want_older() {
            true => self.exports.older(&name),
            false => Vec::new(),
        };
        if choose {
            self.choose(name, &queries, &older)
        } else {
            self.list_contexts(&queries, &older)
        }
    }

    fn list_contexts(
        &mut self,
        queries: &Queries<'_>,
        older: &[(String, Since)],
    ) -> Result<(), NegotiateError> {
        let option = option::LIST_META_CONTEXT;
        if queries.list_allocation() {
            self.context(option, 0, &[BASE_ALLOCATION])?;
        }
        for (name, _) in older.iter().filter(|(name, _)| queries.list_older(name)) {
            self.context(option, 0, &[DIRTY_BITMAP, name])?;
        }
        self.reply(option, option_reply::ACK, &[])
    }

    fn choose(
        &mut self,
        export: String,
        queries: &Queries<'_>,
        older: &[(String, Since)],
    ) -> Result<(), NegotiateError> {
        let option = option::SET_META_CONTEXT;
        let wanted = older.iter().filter(|(name, _)| queries.choose_older(name));
        let wanted: Vec<_> = wanted.collect();
        if wanted.len() > MAX_CHANGED {
            let why = format!("at most {MAX_CHANGED} snapshots can be compared with at once");
            return self.error(option, option_reply::ERR_TOO_BIG, &why);
        }
        let mut chosen = Chosen::default();
        if queries.choose_allocation() {
            chosen.0 = true;
            self.context(option, BASE_ALLOCATION_ID, &[BASE_ALLOCATION])?;
        }
        let places = chosen.1.iter_mut().zip(DIRTY_BITMAP_ID..);
        for ((name, since), (place, id)) in wanted.into_iter().zip(places) {
            *place = Some(*since);
            self.context(option, id, &[DIRTY_BITMAP, name])?;
        }
        self.chosen = Some((export, chosen));
        self.reply(option, option_reply::ACK, &[])
    }

    fn context(&mut self, option: u32, id: u32, name: &[&str]) -> Result<(), NegotiateError> {
        let mut data = id.to_be_bytes().to_vec();
        data.extend(name.iter().flat_map(|part| part.bytes()));
        self.reply(option, option_reply::META_CONTEXT, &data)
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
        let chosen = self.chosen.as_ref();
        let chosen = chosen.filter(|(export, _)| *export == opened.name);
        let (base_allocation, changed) = chosen.map_or_else(Chosen::default, |(_, chosen)| *chosen);
        Negotiated {
            export: opened.export,
            name: opened.name,
            info: opened.info,
            options: Options {
                structured: self.structured,
                extended: self.extended,
                base_allocation,
                changed,
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
        self.channel.error(option, kind, message)
    }

    fn reply(&mut self, option: u32, kind: u32, data: &[u8]) -> Result<(), NegotiateError> {
        self.channel.reply(option, kind, data)
    }
}
