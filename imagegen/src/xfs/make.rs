//! Making an image: how large it gets, what it is called by, then the writing.
//!
//! A tree is walked quickly first ([`Survey`]). Where the size follows from the tree, it is
//! found by `sizing`.

use super::geometry::{Geometry, OptionError, Options};
use super::sizing::Sizing;
use super::write::{Made, WriteError, WriteOptions, write};
use crate::medium::{Medium, Nowhere};
use crate::tree::{Detail, Source, Survey, TreeError, Xattr};
use sha2::{Digest, Sha256};
use uuid::Uuid;

pub use crate::tree::Progress;

/// What is asked for.
#[derive(Debug, Clone)]
pub struct Request {
    /// Sizes and features; `size` and `uuid` of it are not looked at.
    pub options: Options,
    /// How large it shall be.
    pub size: Size,
    /// Identity; derived from tree and options if not given.
    pub uuid: Option<Uuid>,
    /// Inodes that shall be free at least.
    pub free_inodes: u64,
    /// Whether blocks with the same contents are kept once.
    pub dedupe: bool,
    /// Whether the root gets the attribute by which it asks the system for repair, as
    /// mkfs.xfs gives it where the features allow it.
    pub autofsck: bool,
    /// Threads that write; 0 for as many as there are processors.
    pub threads: usize,
}

/// How large an image shall be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Size {
    /// So many bytes.
    Exact(u64),
    /// As small as it can be for the tree.
    Minimal,
    /// So that so many bytes are free for users beside the tree.
    Free(u64),
    /// So that this part of it is free for users, in percent; at most 99.
    FreePercent(u8),
}

/// Why an image could not be made.
#[derive(Debug, thiserror::Error)]
pub enum MakeError {
    /// An option cannot be as it is.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// The source cannot be read.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// No size was found.
    #[error("no size up to {tried} bytes holds the tree; give one (--size)")]
    NoSize {
        /// The largest that was tried.
        tried: u64,
    },
}

/// What an image will be.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Everything about where things lie.
    pub geometry: Geometry,
    /// What is in the tree.
    pub survey: Survey,
    expected_blocks: u64,
}

impl Plan {
    /// Bytes of the image.
    pub fn bytes(&self) -> u64 {
        self.geometry.blocks << self.geometry.block_log
    }
}

/// Decides size and identity of an image of `source`.
///
/// # Errors
/// If the source cannot be read, or if the options cannot be met.
pub fn plan(source: &dyn Source, request: &Request) -> Result<Plan, MakeError> {
    // A size that follows from the tree must be the same for the same tree.
    let detail = match request.size {
        Size::Exact(_) => Detail::Names,
        _ => Detail::Layout,
    };
    let survey = Survey::of(source, detail)?;
    let sizing = Sizing {
        source,
        request,
        uuid: identity(request, &survey),
        survey: &survey,
    };
    let size = match request.size {
        Size::Exact(size) => size,
        Size::Minimal => sizing.minimal()?,
        Size::Free(free) => sizing.with_free(free, 0)?,
        Size::FreePercent(percent) => sizing.with_free(0, percent.min(99).into())?,
    };
    let geometry = sizing.options(size).geometry()?;
    sizing.check_inodes(&geometry)?;
    let expected_blocks = sizing.expected(&geometry);
    Ok(Plan {
        geometry,
        survey,
        expected_blocks,
    })
}

/// Lays out what was planned and writes nothing: for whoever must know that the tree fits
/// before he gives up what the image replaces. Reads no contents, unless the tree fits
/// only with its equal blocks kept once.
///
/// # Errors
/// As [`make`], but for contents.
pub fn rehearse(source: &dyn Source, request: &Request, plan: &Plan) -> Result<Made, MakeError> {
    let plain = Request {
        dedupe: false,
        ..request.clone()
    };
    match lay_out(source, &plain, plan) {
        Err(WriteError::Full { .. }) if request.dedupe => Ok(lay_out(source, request, plan)?),
        other => Ok(other?),
    }
}

fn lay_out(source: &dyn Source, request: &Request, plan: &Plan) -> Result<Made, WriteError> {
    let events = &mut source.walk(detail(request, Detail::Layout))?;
    // As `make` would in the end: with every group filled up.
    let options = write_options(request, &plan.geometry);
    write(&plan.geometry, events, &Nowhere, &options)
}

/// Writes the image that was planned. `medium` has the size the plan says.
///
/// # Errors
/// If the source cannot be read or has changed, does not fit, or if writing fails.
pub fn make(
    source: &dyn Source,
    request: &Request,
    plan: &Plan,
    medium: &dyn Medium,
    progress: &Progress,
) -> Result<Made, MakeError> {
    let attempt = |options: &WriteOptions| {
        let mut events = source
            .walk(detail(request, Detail::Contents))?
            .inspect(|event| progress.add(event));
        Ok(write(&plan.geometry, &mut events, medium, options)?)
    };
    let spread = planned(request, plan);
    match attempt(&spread) {
        // Free space cannot be spread over the groups if the tree takes more than was
        // expected of it: groups are filled up then.
        Err(MakeError::Write(WriteError::Full { .. })) if spread.expected_blocks.is_some() => {
            progress.begin();
            attempt(&WriteOptions {
                expected_blocks: None,
                ..spread
            })
        }
        done => done,
    }
}

fn planned(request: &Request, plan: &Plan) -> WriteOptions {
    let mut options = write_options(request, &plan.geometry);
    if request.size != Size::Minimal {
        options.expected_blocks = Some(plan.expected_blocks);
    }
    options
}

pub(super) fn detail(request: &Request, least: Detail) -> Detail {
    if request.dedupe {
        Detail::Digests
    } else {
        least
    }
}

pub(super) fn write_options(request: &Request, geometry: &Geometry) -> WriteOptions {
    let autofsck = request.autofsck && geometry.features.autofsck();
    let xattr = Xattr {
        name: b"trusted.xfs:autofsck".as_slice().into(),
        value: b"repair".as_slice().into(),
    };
    WriteOptions {
        root_xattrs: Vec::from_iter(autofsck.then_some(xattr)),
        free_inodes: request.free_inodes,
        dedupe: request.dedupe,
        threads: request.threads,
        ..WriteOptions::default()
    }
}

/// The same for the same tree and options. What it does not depend on are contents,
/// attributes and targets of links, which are not read for it.
fn identity(request: &Request, survey: &Survey) -> Uuid {
    if let Some(uuid) = request.uuid {
        return uuid;
    }
    let mut digest = Sha256::new();
    digest.update(survey.digest);
    digest.update(format!(
        "{:?} {:?} {} {} {}",
        request.options, request.size, request.dedupe, request.free_inodes, request.autofsck
    ));
    let digest = digest.finalize();
    let mut bytes = [0; 16];
    bytes.copy_from_slice(&digest[..16]);
    uuid::Builder::from_custom_bytes(bytes).into_uuid()
}
