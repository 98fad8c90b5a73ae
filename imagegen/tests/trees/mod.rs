//! Trees in memory, their images mounted, and what is seen there: for the tests of all
//! formats.
#![allow(dead_code)] // every test program uses another part
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

pub(crate) mod mixture;
pub(crate) mod model;
pub(crate) mod mount;
pub(crate) mod observe;
pub(crate) mod random;
