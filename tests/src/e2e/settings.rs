//! What a person may set for one run: `CSNAP_SEED`, and numbers by name.

use super::{Fault, Outcome};

/// A seed to print: `CSNAP_SEED`, else a new one.
#[allow(clippy::print_stdout)] // the runner shows it with a failed test
#[must_use]
pub fn seed() -> u64 {
    let given = std::env::var("CSNAP_SEED")
        .ok()
        .and_then(|seed| seed.parse().ok());
    let seed = given.unwrap_or_else(|| rand::random::<u32>().into());
    println!("CSNAP_SEED={seed}");
    seed
}

/// A number from the environment, else the default.
///
/// # Errors
/// When it is set and not a number.
pub fn setting(name: &str, default: u32) -> Outcome<u32> {
    match std::env::var(name) {
        Ok(text) => text
            .parse()
            .map_err(|_| Fault::wrong(format!("{name}={text}: not a number"))),
        Err(_) => Ok(default),
    }
}
