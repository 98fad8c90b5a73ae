//! An NBD client's bytes, from the greeting on or (odd first byte) from the first
//! request on: see `csnap_fuzz::nbd`.
#![no_main]

use csnap_fuzz::nbd::{handshake, transmission};
use libfuzzer_sys::fuzz_target;
use ublk_target::nbd::Options;

fuzz_target!(|data: &[u8]| {
    let [start, data @ ..] = data else {
        return;
    };
    if start % 2 == 1 {
        let options = Options {
            structured: start & 2 != 0,
            base_allocation: start & 4 != 0,
            extended: start & 16 != 0,
            ..Options::NONE
        };
        transmission(options, start & 8 != 0, data);
    } else {
        handshake(data);
    }
});
