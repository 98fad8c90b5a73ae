//! What goes into the engine and what comes out: the seam between the engine
//! and whatever runs it (`csnapd`'s I/O threads, or the simulated world).
//!
//! Rules for the runtime:
//! - Every effect that carries an [`IoId`] or a copy is answered by exactly one
//!   matching event (a [`Effect::Copy`] by two: see there), in any order.
//! - [`Event::BlockWritten`], [`Event::CopyWritten`] and [`Event::CopyRead`] are
//!   reported when the operation **completed**; only a later flush makes it
//!   durable. The engine submits the flushes.
//! - Between [`Event::Paused`] and [`Effect::Resume`] no thread issues a write, a
//!   discard or a write-zeroes to the paused origins, nor looks at their
//!   [`UniqueMap`]. Reads go on. Reporting `Paused` means that all such I/O that
//!   was issued has completed.
//! - A write granted under an epoch that is no longer the volume's
//!   [`UniqueMap::epoch`] must not be issued: it asks again with
//!   [`Event::Write`].
//! - Effects may be carried out in any order and by any thread.
//!
//! | file | what it holds |
//! |---|---|
//! | `io` | events and effects |
//! | `commands` | what a person asks for, the answers, notices |
//! | `errors` | why a request cannot be served |
//! | `info` | how volumes, snapshots and the store are; tuning |

mod commands;
mod errors;
mod info;
mod io;

pub use commands::*;
pub use errors::*;
pub use info::*;
pub use io::*;

#[allow(unused_imports)] // for the documentation links
use crate::ids::IoId;
#[allow(unused_imports)] // for the documentation links
use crate::unique::UniqueMap;
