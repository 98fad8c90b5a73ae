//! What the fuzz targets share: bytes made into blocks whose checksums are right,
//! so that the fuzzer gets behind them, and a whole store put through its life.
#![forbid(unsafe_code)]

pub mod blocks;
pub mod nbd;
pub mod store;
