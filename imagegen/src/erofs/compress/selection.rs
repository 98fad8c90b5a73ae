//! Which files of a walk are compressed, and how. Two walks through the same tree select
//! the same.

use super::algorithm::{Algorithm, Family};
use super::choice::{Choice, Compression, Fragments, Method};
use super::segment::End;
use crate::tree::{Content, Event, Kind};

/// How files are cut.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Plan {
    pub(crate) block: usize,
    pub(crate) interlaced: bool,
    /// The same of inodes that hold what belongs to files.
    pub(crate) interlaced_within: bool,
    pub(crate) end: End,
    /// Files are only taken, for whoever asks for their contents.
    pub(crate) takes_only: bool,
    /// What files share has to be of one algorithm, so there are no trials.
    pub(crate) dedupe: bool,
}

impl Plan {
    /// As asked for; with `dedupe`, the same clusters may be used anywhere in a block.
    pub(crate) fn new(compression: Option<&Compression>, block: usize, dedupe: bool) -> Self {
        let end = match compression {
            None => End::Blocks,
            Some(compression) => match compression.fragments {
                Fragments::None if compression.inline_tails => End::Inline,
                Fragments::None => End::Blocks,
                Fragments::Tails | Fragments::All => End::Fragment,
            },
        };
        let interlaced = end == End::Fragment && !dedupe;
        Self {
            block,
            interlaced,
            // A kernel looks for the parts of what is wrapped in a whole block, which an end
            // beside the inode is not.
            interlaced_within: interlaced && !compression.is_some_and(|c| c.inline_tails),
            end,
            takes_only: compression.is_some_and(|c| c.fragments == Fragments::All),
            dedupe,
        }
    }
}

/// What is selected, and where in the tree the walk is.
pub(crate) struct Selection {
    /// None if nothing is compressed.
    choice: Option<Choice>,
    pub(super) plan: Plan,
    /// Of the directory the walk is in, without the leading slash.
    path: Vec<u8>,
    /// Lengths of the paths before.
    paths: Vec<usize>,
}

impl Selection {
    pub(crate) fn new(choice: Option<Choice>, plan: Plan) -> Self {
        Self {
            choice,
            plan,
            path: Vec::new(),
            paths: Vec::new(),
        }
    }

    /// Whether nothing is selected.
    pub(super) fn is_empty(&self) -> bool {
        self.choice.is_none()
    }

    /// How the file that comes with this event is compressed, and bytes of its clusters.
    pub(super) fn of(&mut self, event: &Event) -> Option<(Method, u32)> {
        let choice = self.choice.as_ref()?;
        match event {
            Event::Enter(node) => {
                self.paths.push(self.path.len());
                go_to(&mut self.path, &node.name);
                None
            }
            Event::Leave => {
                self.path.truncate(self.paths.pop().unwrap_or(0));
                None
            }
            Event::Node(node) => {
                let Kind::File(content) = &node.kind else {
                    return None;
                };
                let before = self.path.len();
                go_to(&mut self.path, &node.name);
                let (method, cluster) = choice.of(&self.path);
                self.path.truncate(before);
                let small = self.plan.end == End::Blocks && content.size <= self.plan.block as u64;
                let method = match method {
                    Method::Auto if self.plan.dedupe => Method::By(Algorithm::usual(Family::Zstd)),
                    method => method,
                };
                let left = method == Method::Plain || content.size == 0 || small;
                (!left && !is_sparse(content)).then_some((method, cluster))
            }
            Event::Link { .. } => None,
        }
    }

    /// Whether a selected file of `size` bytes may consist of pieces. Others are fragments
    /// as a whole, which are kept once anyway.
    pub(super) fn shares(&self, size: u64, cluster: u32) -> bool {
        !self.plan.takes_only && (self.plan.end != End::Fragment || size > u64::from(cluster))
    }
}

fn go_to(path: &mut Vec<u8>, name: &[u8]) {
    if !path.is_empty() {
        path.push(b'/');
    }
    path.extend_from_slice(name);
}

/// Whether a file is so much hole that chunks tell it better.
fn is_sparse(content: &Content) -> bool {
    let data: u64 = content
        .data
        .iter()
        .map(|range| range.end - range.start)
        .sum();
    content.size > 64 << 20 && data < content.size / 8
}
