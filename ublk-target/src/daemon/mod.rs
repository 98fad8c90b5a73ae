//! csnapd beside its data path: what is served, and what people asked for.

pub mod events;
pub mod fingerprint;
pub mod in_use;
pub mod process;
pub mod signature;
pub mod state;
