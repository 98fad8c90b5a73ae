//! Making an image: a quick walk through the tree, then the writing.

use super::compress::Shared;
use super::write::{self, DataIn, Made, Media, Options, Outline, WriteError};
use crate::medium::{Medium, Nowhere};
use crate::tree::{Detail, Event, Progress, Source, Survey, TreeError};
use uuid::Uuid;

/// What is asked for.
#[derive(Debug, Clone, Default)]
pub struct Request {
    /// The image.
    pub options: Options,
    /// Identity; derived from tree and options if not given.
    pub uuid: Option<Uuid>,
}

/// What an image will be.
#[derive(Debug)]
pub struct Plan {
    /// Identity.
    pub uuid: Uuid,
    outline: Outline,
}

impl Plan {
    /// What is in the tree.
    pub fn survey(&self) -> &Survey {
        &self.outline.survey
    }

    /// Bytes of the image at most, about: holes are counted, and attributes and the targets
    /// of links are not.
    pub fn at_most(&self) -> u64 {
        self.outline.at_most
    }
}

/// Looks at `source` and decides the identity of its image.
///
/// # Errors
/// If an option cannot be as it is, or the source cannot be read.
pub fn plan(source: &dyn Source, request: &Request) -> Result<Plan, WriteError> {
    let options = &request.options;
    options.check()?;
    let outline = Outline::of(source, options.block_size as usize)?;
    Ok(Plan {
        uuid: write::identity(request.uuid, options, &outline.survey.digest),
        outline,
    })
}

/// Lays out what was planned and writes nothing: for whoever must know that the tree fits
/// before he gives up what the image replaces.
///
/// # Errors
/// As [`make`], but for contents.
pub fn rehearse(source: &dyn Source, request: &Request, plan: &Plan) -> Result<Made, WriteError> {
    let shared = shared(source, request)?;
    let detail = detail(request, Detail::Layout);
    let mut events = source.walk(detail)?;
    let nowhere: &dyn Medium = &Nowhere;
    let blob = matches!(request.options.data, DataIn::Blob { .. });
    let media = Media {
        image: nowhere,
        blob: blob.then_some(nowhere),
    };
    write(request, plan, shared, &mut events, media)
}

fn detail(request: &Request, least: Detail) -> Detail {
    let options = &request.options;
    match (&options.data, &options.compression, options.dedupe) {
        (DataIn::Archive { .. }, _, _) => Detail::Places,
        // How large they are is known only when they are compressed.
        (_, Some(_), _) => Detail::Contents,
        (_, None, true) => Detail::Digests,
        // The same with the ends of files beside their inodes.
        (_, None, false) if options.metadata.is_some() => Detail::Contents,
        (_, None, false) => least,
    }
}

/// What compressed files share, if that is asked for.
fn shared(source: &dyn Source, request: &Request) -> Result<Option<Shared>, WriteError> {
    let options = &request.options;
    match write::needs_survey(options) {
        true => Ok(Some(write::survey(
            options,
            &mut source.walk(Detail::Contents)?,
        )?)),
        false => Ok(None),
    }
}

/// Writes the image that was planned to `media`, which grow as far as is written.
///
/// # Errors
/// If the source cannot be read, has changed or holds what EROFS cannot, or if writing
/// fails.
pub fn make(
    source: &dyn Source,
    request: &Request,
    plan: &Plan,
    media: Media<'_>,
    progress: &Progress,
) -> Result<Made, WriteError> {
    let shared = shared(source, request)?;
    let detail = detail(request, Detail::Contents);
    let mut events = source.walk(detail)?.inspect(|event| progress.add(event));
    write(request, plan, shared, &mut events, media)
}

fn write(
    request: &Request,
    plan: &Plan,
    shared: Option<Shared>,
    events: &mut dyn Iterator<Item = Result<Event, TreeError>>,
    media: Media<'_>,
) -> Result<Made, WriteError> {
    let options = &request.options;
    write::write(options, plan.uuid, &plan.outline, shared, events, media)
}
