//! A piece of the disk: read, looked at for zeroes, and compressed, by one thread.

use super::codec::Codec;
use super::{Options, WriteError};
use crate::medium::{Paged, Source};
use crate::qcow2::format::{SUBCLUSTERS, Subclusters};
use crate::qcow2::read::{Disk, What};
use std::ops::Range;

/// What a cluster becomes.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum State {
    /// In no layer.
    Nothing,
    /// Zeroes in these subclusters; the others are those of the backing file.
    Zero(u32),
    /// As it is, where it stands in the piece's bytes; of these subclusters.
    Plain(Subclusters),
    /// Compressed, these of the packed bytes.
    Packed(Range<usize>),
}

/// Clusters that follow each other.
#[derive(Debug, Default)]
pub(super) struct Piece {
    /// Number of the first.
    pub(super) first: u64,
    pub(super) states: Vec<State>,
    /// All of them, zeroes behind the disk's end.
    pub(super) bytes: Paged,
    /// What was compressed.
    pub(super) packed: Vec<u8>,
    /// What the backing file holds there.
    below: Vec<u8>,
}

impl Piece {
    /// Empties it for `clusters`, keeping its memory.
    fn begin(&mut self, clusters: &Range<u64>) {
        self.first = clusters.start;
        self.states.clear();
        self.packed.clear();
    }

    /// Reads `clusters` of the disk, and of what lies below if that is to be compared.
    pub(super) fn read<S: Source>(
        &mut self,
        disk: &Disk<S>,
        below: Option<&Disk<S>>,
        clusters: &Range<u64>,
        options: &Options,
        codec: Option<&mut Codec>,
    ) -> Result<(), WriteError> {
        self.begin(clusters);
        let cluster = 1usize << options.cluster_bits;
        let from = clusters.start << options.cluster_bits;
        let length = (clusters.end - clusters.start) as usize * cluster;
        self.bytes.resize(length);
        read(disk, from, self.bytes.bytes_mut())?;
        if let Some(below) = below {
            self.below.resize(length, 0);
            read(below, from, &mut self.below)?;
        }
        for (number, bytes) in self.bytes.bytes().chunks(cluster).enumerate() {
            let at = number * cluster;
            let seen = below.and_then(|_| self.below.get(at..at + cluster));
            let found = data_of(bytes, seen, options);
            self.states.push(match found {
                Subclusters { allocated: 1.., .. } => State::Plain(found),
                Subclusters { zero: 0, .. } => State::Nothing,
                // Above nothing both read as zeroes.
                Subclusters { zero: u32::MAX, .. }
                    if options.backing.is_some()
                        && below.is_none()
                        && is_nothing(disk, from + at as u64, cluster as u64)? =>
                {
                    State::Nothing
                }
                Subclusters { zero, .. } => State::Zero(zero),
            });
        }
        if let Some(codec) = codec {
            self.pack(codec, cluster);
        }
        Ok(())
    }

    fn pack(&mut self, codec: &mut Codec, cluster: usize) {
        for (state, bytes) in self
            .states
            .iter_mut()
            .zip(self.bytes.bytes().chunks(cluster))
        {
            if matches!(state, State::Plain(_)) {
                let begin = self.packed.len();
                if let Some(length) = codec.pack(bytes, &mut self.packed) {
                    *state = State::Packed(begin..begin + length);
                }
            }
        }
    }
}

/// Fills `bytes` from byte `at` of a disk on; beyond its end are zeroes.
fn read<S: Source>(disk: &Disk<S>, at: u64, bytes: &mut [u8]) -> Result<(), WriteError> {
    let there = disk.size().saturating_sub(at).min(bytes.len() as u64);
    let (inside, beyond) = bytes.split_at_mut(there as usize);
    beyond.fill(0);
    match inside.is_empty() {
        true => Ok(()),
        false => disk.read_at(at, inside).map_err(WriteError::Read),
    }
}

/// Which subclusters hold data and which are zeroes; neither, where `below` holds the same.
/// Where there are no subclusters the cluster is all of them.
fn data_of(bytes: &[u8], below: Option<&[u8]>, options: &Options) -> Subclusters {
    let whole = !options.extended || options.compression.is_some();
    let size = match whole {
        true => bytes.len(),
        false => bytes.len() / SUBCLUSTERS as usize,
    };
    let mut found = Subclusters::default();
    for (number, part) in bytes.chunks(size).enumerate() {
        let seen = below.and_then(|below| below.get(number * size..(number + 1) * size));
        let bits = if whole { u32::MAX } else { 1 << number };
        if seen == Some(part) {
            continue;
        }
        match is_zero(part) {
            true => found.zero |= bits,
            false => found.allocated |= bits,
        }
    }
    found
}

/// Whether all are zeroes; quick where the first ones are not.
fn is_zero(bytes: &[u8]) -> bool {
    let (words, rest) = bytes.as_chunks::<64>();
    let zero = |word: &[u8; 64]| word.iter().fold(0, |all, byte| all | byte) == 0;
    words.iter().all(zero) && rest.iter().all(|byte| *byte == 0)
}

/// Whether no layer says anything of these bytes.
fn is_nothing<S: Source>(disk: &Disk<S>, at: u64, length: u64) -> Result<bool, WriteError> {
    let end = (at + length).min(disk.size());
    let mut at = at;
    while at < end {
        let run = disk.run(at, end - at).map_err(WriteError::Read)?;
        if run.what != What::Nothing {
            return Ok(false);
        }
        at += run.length;
    }
    Ok(true)
}
