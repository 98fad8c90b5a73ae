//! Images of composefs: the same bytes as other programs make of the same tree, and what
//! the kernel makes of them.
#![allow(clippy::unwrap_used, clippy::panic)]

mod dumps;
mod judges;
mod same;
#[path = "../tools/mod.rs"]
mod tools;
