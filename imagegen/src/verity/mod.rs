//! Trees of hashes over an image or a file, by which a kernel notices what was changed.
//!
//! - [`fs`]: the digest that fs-verity knows a file by
//! - [`dm`]: the hash area that dm-verity reads beside a device, as `veritysetup` writes it
//!
//! Both hash blocks, put the hashes into blocks and hash those, until one hash is left:
//! `levels` is that. What is hashed is read once, by several threads (`leaves`), and never
//! held: memory is some MiB for each thread, and a block for each level.

pub mod dm;
pub mod fs;
mod hash;
mod leaves;
mod levels;

pub use hash::{Algorithm, Hash};
