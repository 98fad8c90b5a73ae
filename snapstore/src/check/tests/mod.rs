//! The checker over small stores that the engine made: sound ones, and the same
//! ones with one thing wrong.

mod checksums;
mod directed;
pub(crate) mod random;
pub(crate) mod world;
