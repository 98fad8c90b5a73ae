//! csnap on real block devices: runs inside the guest, started by `make guest-test`
//! (`scripts/guest-runner` boots the kernel). The harness is `csnap_tests::guest_bed`.
//!
//! Every test has its own disks in memory and ends with the origin alone compared
//! with what the device showed last, `store check --data`, no ublk device left and a
//! look at the kernel's log. Randomised ones print their seed; `CSNAP_SEED` repeats it.

mod alone;
mod erofs;
mod errors;
mod exports;
mod failures;
mod file_systems;
mod front_end;
mod full_store;
mod grow;
mod images;
mod kill;
mod lifecycle;
mod long;
mod modes;
mod pressure;
mod requests;
mod udev;
mod upgrade;
mod verify;

use csnap_tests::e2e::{Outcome, seed, setting};

/// How many of `all` rounds to do: `CSNAP_PART` in a hundred of them, at least one.
fn rounds(all: u32) -> Outcome<u32> {
    let part = setting("CSNAP_PART", 100)?.min(100);
    Ok((all * part / 100).max(1))
}
