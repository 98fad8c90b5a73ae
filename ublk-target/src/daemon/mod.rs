//! csnapd beside its data path: what is served, and what people asked for.
//!
//! | module | what it holds |
//! |---|---|
//! | [`signature`], [`in_use`] | what is on a device, who uses it: before it is written over |

pub mod in_use;
pub mod signature;
