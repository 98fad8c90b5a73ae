//! Which algorithm compresses which file.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use globset::{GlobSet, GlobSetBuilder};

use super::algorithm::{Algorithm, Family};
use super::codec::{CodecError, Fit, Room};
use super::pool::Codecs;
use crate::tree::glob;

/// Bytes of a file that a trial compresses.
pub const SAMPLE: usize = 128 << 10;

/// How files are compressed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Compression {
    /// For files that no rule is about.
    pub usual: Method,
    /// The first whose pattern matches decides.
    pub rules: Vec<Rule>,
    /// Bytes of a physical cluster at most: a multiple of the block size.
    pub cluster: u32,
    /// A last cluster of less than a block may lie beside the inode. With fragments, which
    /// take the ends of files, this is about the packed inode and the metabox.
    pub inline_tails: bool,
    /// What goes into the packed inode.
    pub fragments: Fragments,
}

impl Compression {
    /// All files by `usual`, in clusters of one block.
    pub fn new(usual: Method, block: u32) -> Self {
        Self {
            usual,
            rules: Vec::new(),
            cluster: block,
            inline_tails: false,
            fragments: Fragments::None,
        }
    }
}

/// What goes into the packed inode, where it is compressed together.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fragments {
    /// Nothing.
    None,
    /// Ends of files that do not fill a cluster.
    Tails,
    /// All contents.
    All,
}

/// How a file is compressed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Method {
    /// Not at all.
    Plain,
    /// By this algorithm.
    By(Algorithm),
    /// By whatever a trial with a part of it finds worth it: [`AUTOMATIC`].
    Auto,
}

/// Files that are compressed otherwise.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// Which: a pattern over paths below the root, as those of what is left out.
    pub pattern: String,
    /// How.
    pub method: Method,
    /// Bytes of their clusters at most, if other than usual.
    pub cluster: Option<u32>,
}

/// What a trial chooses from, the quickest to read first. A later one must save a tenth
/// more of the file to be taken.
pub const AUTOMATIC: [Family; 2] = [Family::Lz4hc, Family::Zstd];

impl Compression {
    /// Every algorithm that a file may get.
    pub fn algorithms(&self) -> Vec<Algorithm> {
        let methods = self.rules.iter().map(|rule| rule.method);
        let mut all: Vec<Algorithm> = std::iter::once(self.usual)
            .chain(methods)
            .flat_map(|method| match method {
                Method::Plain => Vec::new(),
                Method::By(algorithm) => vec![algorithm],
                Method::Auto => AUTOMATIC.map(Algorithm::usual).to_vec(),
            })
            .collect();
        all.sort_unstable();
        all.dedup();
        all
    }

    /// Bytes of the largest cluster.
    pub fn largest_cluster(&self) -> u32 {
        let others = self.rules.iter().filter_map(|rule| rule.cluster);
        others.fold(self.cluster, u32::max)
    }
}

/// Rules with their patterns compiled.
pub(crate) struct Choice {
    patterns: GlobSet,
    methods: Vec<(Method, u32)>,
    usual: (Method, u32),
}

/// A pattern that is none.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{pattern}: not a pattern: {cause}")]
pub struct PatternError {
    /// The pattern.
    pub pattern: String,
    /// What is wrong with it.
    pub cause: String,
}

impl Choice {
    /// Those of `compression`.
    pub(crate) fn new(compression: &Compression) -> Result<Self, PatternError> {
        let mut patterns = GlobSetBuilder::new();
        let mut methods = Vec::new();
        for rule in &compression.rules {
            let failed = |cause: globset::Error| PatternError {
                pattern: rule.pattern.clone(),
                cause: cause.to_string(),
            };
            patterns.add(glob(&rule.pattern).map_err(failed)?);
            let cluster = rule.cluster.unwrap_or(compression.cluster);
            methods.push((rule.method, cluster));
        }
        let patterns = patterns.build().map_err(|cause| PatternError {
            pattern: "the rules together".into(),
            cause: cause.to_string(),
        })?;
        Ok(Self {
            patterns,
            methods,
            usual: (compression.usual, compression.cluster),
        })
    }

    /// How the file at `path`, below the root, is compressed, and bytes of its clusters.
    pub(crate) fn of(&self, path: &[u8]) -> (Method, u32) {
        if self.methods.is_empty() {
            return self.usual;
        }
        let matching = self.patterns.matches(OsStr::from_bytes(path));
        let first = matching.into_iter().min();
        let method = first.and_then(|first| self.methods.get(first));
        method.copied().unwrap_or(self.usual)
    }
}

/// The algorithm that a file gets which begins with `sample`; none if nothing is worth it.
pub(crate) fn trial(
    sample: &[u8],
    cluster: u32,
    codecs: &mut Codecs,
) -> Result<Option<Algorithm>, CodecError> {
    let mut best = (None, sample.len());
    for family in AUTOMATIC {
        let algorithm = Algorithm::usual(family);
        let size = size(sample, algorithm, cluster, codecs)?;
        if size + sample.len() / 10 <= best.1 {
            best = (Some(algorithm), size);
        }
    }
    Ok(best.0)
}

/// What `sample` comes to.
fn size(
    sample: &[u8],
    algorithm: Algorithm,
    cluster: u32,
    codecs: &mut Codecs,
) -> Result<usize, CodecError> {
    let codec = codecs.get(algorithm, cluster)?;
    codec.forget();
    let room = Room {
        bytes: cluster as usize,
        block: 1,
    };
    let (mut at, mut size, mut out) = (0, 0, Vec::new());
    while let Some(rest) = sample.get(at..).filter(|rest| !rest.is_empty()) {
        match codec.fit(rest, room, &mut out)? {
            Fit::Plain(count) => (at, size) = (at + count, size + count),
            Fit::Compressed(count) => (at, size) = (at + count, size + out.len()),
        }
    }
    Ok(size)
}
