//! QCOW2: what QEMU makes is read, what we make is read by QEMU, and damage is found.
#![allow(
    clippy::unwrap_used,
    clippy::panic,
    clippy::print_stdout,
    clippy::print_stderr
)]

mod bounds;
mod command;
mod convert;
mod damage;
mod edges;
mod guarded;
mod hostile;
mod images;
mod parts;
mod read;
#[path = "../tools/mod.rs"]
mod tools;
