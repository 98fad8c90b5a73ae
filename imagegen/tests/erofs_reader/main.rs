//! The reader of EROFS, its checker and its extraction against images that mkfs.erofs of
//! Debian's stable and newest suites makes, and against damage.
#![allow(clippy::single_range_in_vec_init)] // a file has a list of ranges
#![allow(clippy::unwrap_used, clippy::panic, clippy::print_stderr)]

mod bytes;
mod check;
mod command;
mod damages;
mod extract;
mod hostile;
mod images;
mod maps;
mod patient;
mod raw;
mod read;
mod restore;
#[path = "../tools/mod.rs"]
mod tools;
#[path = "../trees/mod.rs"]
mod trees;
mod view;
