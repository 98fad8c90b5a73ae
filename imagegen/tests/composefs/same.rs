//! The same bytes.

use crate::dumps::{For, random};
use crate::judges::{Other, digest, equal, ours, theirs};
use imagegen::erofs::composefs::{Format, Version};
use std::path::Path;

pub(crate) const V0: Format = Format::Exactly(Version::V0);
pub(crate) const V1: Format = Format::Exactly(Version::V1);
pub(crate) const V2: Format = Format::Exactly(Version::V2);
const EMPTY: &str = "/ 0 40755 2 0 0 0 0.0 - - -\n";

#[test]
fn empty_trees_have_the_published_digests() {
    let v0 = "8f589e8f57ecb88823736b0d857ddca1e1068a23e264fad164b28f7038eb3682";
    let v1 = "14a26c957c84f6eb774b91205476adc13196c7c33b9dd97d08d43725ecb90b63";
    for (format, wanted) in [(Format::Auto, v0), (V0, v0), (V1, v1)] {
        assert_eq!(digest(&ours(EMPTY, format).unwrap()), wanted, "{format:?}");
    }
}

/// Compares the images of one dump; whether the other was there.
fn compare(dump: &str, other: Other, formats: &[Format], dir: &Path, what: &str) -> bool {
    let file = dir.join("dump");
    std::fs::write(&file, dump).unwrap();
    for &format in formats {
        let Some(theirs) = theirs(other, &file, format) else {
            return false;
        };
        let what = format!("{what}, {format:?}");
        let ours = ours(dump, format).unwrap_or_else(|error| panic!("{what}: {error}"));
        equal(&ours, &theirs, &what);
    }
    true
}

fn random_dumps(other: Other, wanted: For, formats: &[Format], seeds: std::ops::Range<u64>) {
    let dir = tempfile::tempdir().unwrap();
    for seed in seeds {
        let dump = random(seed, wanted);
        if !compare(&dump, other, formats, dir.path(), &format!("seed {seed}")) {
            return;
        }
    }
}

/// `COMPOSEFS_SEED` and `COMPOSEFS_DUMPS` say otherwise.
pub(crate) fn seeds(count: u64) -> std::ops::Range<u64> {
    let told = |name: &str| std::env::var(name).ok().map(|text| text.parse().unwrap());
    let first = told("COMPOSEFS_SEED").unwrap_or_else(|| rand::random::<u32>().into());
    println!("COMPOSEFS_SEED={first}");
    first..first + told("COMPOSEFS_DUMPS").unwrap_or(count)
}

#[test]
fn random_dumps_are_those_of_mkcomposefs() {
    random_dumps(Other::C, For::C, &[Format::Auto, V0, V1], seeds(30));
}

#[test]
fn random_dumps_are_those_of_the_crate() {
    random_dumps(Other::Crate, For::Crate, &[V2], seeds(30));
}
