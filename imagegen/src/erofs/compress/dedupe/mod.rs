//! Compressed contents that come more than once are kept once.
//!
//! A [walk before](survey()) finds pieces: parts of files that come at several places, each
//! time as a whole. A piece is compressed on its own, once; a file refers to its clusters.
//! All threads work on it, and the image is the same for any number of them.
//!
//! Two extents may not begin in one logical cluster, and a piece may begin anywhere in one.
//! So the last bytes of a piece, if they are less than a block, are used only where the
//! cluster border allows it; elsewhere they are compressed with the first clusters of what
//! follows, which then are not shared at that place.

mod chunks;
mod pieces;
mod stamp;
mod survey;

#[cfg(test)]
mod tests;

pub(super) use pieces::{Pieces, Reader, compress};
pub(super) use stamp::Stamp;
use survey::Survey;

use std::sync::Arc;

use super::SegmentError;
use super::pool::Pool;
use super::selection::Selection;
use crate::tree::{Event, Kind, TreeError};

/// A part of a file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Step {
    /// Bytes.
    pub(crate) length: u64,
    /// Which piece it is, if it comes more than once.
    pub(crate) piece: Option<u32>,
}

/// A file as the survey saw it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct FilePlan {
    pub(crate) stamp: Stamp,
    /// All of it.
    pub(crate) steps: Vec<Step>,
}

/// What files of an image share.
#[derive(Debug, Clone)]
pub(crate) struct Shared {
    /// Files that may share something, in the order of the walk.
    pub(crate) files: Arc<Vec<FilePlan>>,
    pub(crate) pieces: Arc<Pieces>,
}

/// Looks at the files of a walk: what of them comes more than once.
///
/// # Errors
/// If the tree or a file cannot be read.
pub(crate) fn survey(
    events: &mut dyn Iterator<Item = Result<Event, TreeError>>,
    mut selection: Selection,
    pool: &Pool<'_>,
) -> Result<Shared, SurveyError> {
    let mut survey = Survey::new(pool);
    for event in events {
        let event = event.map_err(SurveyError::Tree)?;
        let Some((method, cluster)) = selection.of(&event) else {
            continue;
        };
        if let Event::Node(node) = event
            && let Kind::File(content) = node.kind
            && selection.shares(content.size, cluster)
        {
            let added = survey.add(content, (method, cluster));
            added.map_err(SurveyError::Read)?;
        }
    }
    let (files, count) = survey.finish().map_err(SurveyError::Read)?;
    Ok(Shared {
        files: Arc::new(files),
        pieces: Arc::new(Pieces::new(count)),
    })
}

/// Why a tree cannot be looked at.
#[derive(Debug)]
pub(crate) enum SurveyError {
    /// The walk failed.
    Tree(TreeError),
    /// A file cannot be read.
    Read(SegmentError),
}
