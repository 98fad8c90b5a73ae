//! The checker over small stores that the engine made: sound ones, and the same
//! ones with one thing wrong.

mod checksums;
mod directed;
mod random;
mod world;
