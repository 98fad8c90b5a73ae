//! Digests by which the same bytes are known again. Nobody compares the bytes, so the digests
//! are cryptographic.

use sha2::{Digest, Sha256};

/// What bytes are known by of which there are few: nobody can make others with the same.
pub(crate) type Long = [u8; 32];
/// What bytes are known by of which there are many. That chance makes two the same is out of
/// the question. To do so on purpose takes 2^64 trials, and then only contents that one and the
/// same person made are taken for each other; nobody can do it to contents of others.
pub(crate) type Short = [u8; 16];

/// That of `bytes`.
pub(crate) fn long(bytes: &[u8]) -> Long {
    Sha256::digest(bytes).into()
}

/// The first half of what was put into `digest`.
pub(crate) fn short(digest: Sha256) -> Short {
    let whole = digest.finalize();
    std::array::from_fn(|byte| whole[byte])
}
