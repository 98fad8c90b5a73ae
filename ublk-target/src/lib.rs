//! The csnap daemon: everything that touches the kernel lives in this crate.
//!
//! | module | what it holds |
//! |---|---|
//! | [`device`] | opening origins and stores, plain calls on them |
//! | [`nbd`] | the NBD protocol, pure |
//! | [`control`] | the control socket: protocol, client, server |
//! | [`daemon`] | attaching, serving and stopping; what each verb does |

pub mod control;
pub mod daemon;
pub mod device;
pub mod nbd;
