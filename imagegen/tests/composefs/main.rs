//! Images of composefs: the same bytes as other programs make of the same tree, what the
//! kernel makes of them, and what is refused.
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stdout)]

mod command;
mod dumps;
mod files;
mod info;
mod judges;
mod kernel;
mod refused;
mod same;
#[path = "../tools/mod.rs"]
mod tools;
#[path = "../trees/mod.rs"]
mod trees;
