//! End-to-end tests: `make e2e`. The harness is `csnap_tests::e2e`.
//!
//! Every test has its own directory below `target/e2e` and ends with
//! `store check --data`. Randomised ones print their seed; `CSNAP_SEED` repeats it.

mod bad_input;
mod fio;
mod full_store;
mod harness;
mod judges;
mod kill;
mod life;
mod sockets;

use csnap_tests::e2e::{Fault, Outcome};

/// A seed to print: `CSNAP_SEED`, else a new one.
#[allow(clippy::print_stdout)] // the runner shows it with a failed test
fn seed() -> u64 {
    let given = std::env::var("CSNAP_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| rand::random::<u32>().into());
    println!("CSNAP_SEED={seed}");
    seed
}

/// A number from the environment, else the default.
fn setting(name: &str, default: u32) -> Outcome<u32> {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .map_err(|_| Fault::wrong(format!("{name}={text}: not a number"))),
        Err(_) => Ok(default),
    }
}
