//! Tests of the NBD protocol, from single messages to the tools people use.
//!
//! | module | what it asks |
//! |---|---|
//! | [`peer`] | (helper) a client's side: builds requests, takes replies apart |
//! | [`driver`] | (helper) a disk in memory behind a connection machine |
//! | [`script`] | (helper) a client's side of the handshake |
//! | `messages` | is each request and reply right, one by one? |
//! | `flow` | do limits, ends and buffers hold? |
//! | `handshake` | does a scripted client get what the protocol says? |
//! | `hostile` | do random, mutated and chopped streams stay harmless? |
//! | `client` | does our own client read right, and survive any server? |
//! | `tools` | do qemu and libnbd's programs agree with us? |

mod client;
mod contexts;
mod driver;
mod extended;
mod flow;
mod handshake;
mod hostile;
mod messages;
mod peer;
mod script;
mod tools;
