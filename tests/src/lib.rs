//! The simulated world, the harness of the end-to-end tests, the benchmarks.

pub mod bench;
pub mod e2e;
