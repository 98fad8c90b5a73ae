//! The tree against a `BTreeMap`, on a disk of blocks that are verified on every
//! read, with caches too small to be of any help.

mod bytes;
mod oracle;
mod probes;
mod world;
