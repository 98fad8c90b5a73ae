//! A whole store that somebody changed: see `csnap_fuzz::store`.
#![no_main]

use csnap_fuzz::store::{Patches, live};
use csnap_tests::golden::{Golden, all};
use libfuzzer_sys::fuzz_target;
use std::sync::LazyLock;

static GOLDEN: LazyLock<Vec<Golden>> = LazyLock::new(|| all().expect("the golden stores"));

/// Checksums of changed blocks are made right.
const SEALED: u8 = 1;
/// The journal's blocks chain again.
const CHAINED: u8 = 2;
/// The origins are attached.
const ORIGINS: u8 = 4;

fuzz_target!(|data: &[u8]| {
    let [which, flags, patches @ ..] = data else {
        return;
    };
    let mut golden = GOLDEN[usize::from(*which) % GOLDEN.len()].clone();
    Patches(patches).apply(&mut golden.store, flags & SEALED != 0);
    if flags & CHAINED != 0 {
        csnap_fuzz::store::chain(&mut golden.store);
    }
    if flags & ORIGINS == 0 {
        golden.origins.0.clear();
    }
    live(golden.store, golden.origins);
});
