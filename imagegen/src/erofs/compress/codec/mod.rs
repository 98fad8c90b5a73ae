//! Codecs with a fixed room for what they write: as much input as fits, or nearly.
//!
//! Contract: what [`Codec::fit`] writes decodes to exactly the bytes it took, by the
//! kernel's decoder of its algorithm, and begins with a byte that is not zero, because
//! readers skip the zeroes before it. The same input after [`Codec::forget`] gives the
//! same output, whatever came before.

mod deflate;
mod lz4;
mod lzma;
mod search;
mod zstd;
mod zstd_small;

#[cfg(test)]
mod tests;

use super::algorithm::{Algorithm, Family};

/// What one physical cluster may take.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Room {
    /// Bytes at most, a multiple of `block` if that is not 1.
    pub bytes: usize,
    /// Clusters are filled up to a multiple of so many bytes; 1 if they are not.
    pub block: usize,
}

impl Room {
    /// What `size` compressed bytes occupy.
    pub fn occupied(&self, size: usize) -> usize {
        size.next_multiple_of(self.block.max(1))
    }
}

/// A library refused to compress: a defect, or no memory.
#[derive(Debug, thiserror::Error)]
#[error("{library} does not compress: {cause}; please report this")]
pub struct CodecError {
    /// Which.
    pub library: &'static str,
    /// What it said.
    pub cause: String,
}

/// What became of the beginning of an input.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Fit {
    /// So many bytes of it were compressed.
    Compressed(usize),
    /// So many bytes of it are not worth compressing.
    Plain(usize),
}

/// One algorithm at one level, with the memory it works in.
pub trait Codec: Send {
    /// Compresses a beginning of `input`, which is not empty, into `out`, whose contents it
    /// replaces. Whatever it says to be compressed occupies less than it was.
    ///
    /// # Errors
    /// If the library fails.
    fn fit(&mut self, input: &[u8], room: Room, out: &mut Vec<u8>) -> Result<Fit, CodecError>;

    /// Forgets how well earlier input was compressed.
    fn forget(&mut self) {}
}

/// The codec of `algorithm` for clusters of up to `cluster` bytes.
///
/// # Errors
/// If the library fails.
pub fn codec(algorithm: Algorithm, cluster: u32) -> Result<Box<dyn Codec>, CodecError> {
    Ok(match algorithm.family() {
        Family::Lz4 => Box::new(lz4::Lz4),
        Family::Lz4hc => Box::new(lz4::Lz4hc::new(algorithm.level())),
        Family::Deflate => Box::new(deflate::Deflate::new(algorithm.level())?),
        Family::Lzma => Box::new(lzma::Lzma::new(algorithm.level(), cluster)?),
        Family::Zstd if cluster <= zstd_small::MOST => {
            Box::new(zstd_small::ZstdSmall::new(algorithm.level(), cluster)?)
        }
        Family::Zstd => Box::new(zstd::Zstd::new(algorithm.level(), cluster)?),
    })
}

/// What was taken, if it gains something: else a cluster's worth to be stored plain.
fn judged(taken: usize, size: usize, room: Room, available: usize) -> Fit {
    if size > 0 && room.occupied(size) < taken {
        Fit::Compressed(taken)
    } else {
        plain(room.bytes, room, available)
    }
}

/// `count` bytes of the `available` ones, as whole blocks, shall be stored plain.
fn plain(count: usize, room: Room, available: usize) -> Fit {
    let whole = count.next_multiple_of(room.block.max(1));
    Fit::Plain(whole.min(available))
}
