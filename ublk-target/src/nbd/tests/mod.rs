//! Tests of the NBD protocol, from single messages to the tools people use.
//!
//! | module | what it asks |
//! |---|---|
//! | [`peer`] | (helper) a client's side: builds requests, takes replies apart |
//! | [`driver`] | (helper) a disk in memory behind a connection machine |
//! | `messages` | is each request and reply right, one by one? |
//! | `handshake` | does a scripted client get what the protocol says? |
//! | `hostile` | do random, mutated and chopped streams stay harmless? |
//! | `tools` | do qemu and libnbd's programs agree with us? |

mod driver;
mod handshake;
mod hostile;
mod messages;
mod peer;
mod tools;
