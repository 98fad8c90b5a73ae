//! End-to-end tests: `make e2e`. The harness is `csnap_tests::e2e`.
//!
//! Every test has its own directory below `target/e2e` and ends with
//! `store check --data`. Randomised ones print their seed; `CSNAP_SEED` repeats it.

mod bad_input;
mod chains;
mod damage;
mod diff;
mod export;
mod extend;
mod fio;
mod format;
mod freeze;
mod full_store;
mod grow;
mod harness;
mod hold;
mod judges;
mod kill;
mod life;
mod moved;
mod nbd_changes;
mod nbd_libnbd;
mod nbd_tls;
mod restore;
mod scale;
mod scrub;
mod sockets;
mod two_stores;

use csnap_tests::e2e::{seed, setting};
