//! Files that stand for devices, and their checksums by outside programs.

use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::process::{Command, Stdio};

use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::fault::{Fault, Outcome, Trying};
use super::tools;
use crate::ensure;

/// One mebibyte.
pub const MIB: u64 = 1 << 20;

/// Makes a file of `size` bytes of noise, the same for the same seed.
///
/// # Errors
/// If it cannot be written.
pub fn make_noise(path: &Path, size: u64, seed: u64) -> Outcome {
    let story = || format!("make {}", path.display());
    let file = File::create(path).trying(story)?;
    file.set_len(size).trying(story)?;
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let mut buffer = vec![0; MIB as usize];
    let mut at = 0;
    while at < size {
        random.fill_bytes(&mut buffer);
        let part = (size - at).min(MIB) as usize;
        file.write_all_at(&buffer[..part], at).trying(story)?;
        at += part as u64;
    }
    file.sync_all().trying(story)
}

/// Makes a file of `size` bytes that takes no room yet.
///
/// # Errors
/// If it cannot be made.
pub fn make_sparse(path: &Path, size: u64) -> Outcome {
    let story = || format!("make {}", path.display());
    File::create(path)
        .trying(story)?
        .set_len(size)
        .trying(story)
}

/// Flips every bit of one byte, behind everyone's back.
///
/// # Errors
/// If it cannot be read or written.
pub fn flip_byte(path: &Path, offset: u64) -> Outcome {
    let story = || format!("flip byte {offset} of {}", path.display());
    let file = File::options()
        .read(true)
        .write(true)
        .open(path)
        .trying(story)?;
    let mut byte = [0];
    file.read_exact_at(&mut byte, offset).trying(story)?;
    file.write_all_at(&[!byte[0]], offset).trying(story)?;
    file.sync_all().trying(story)
}

/// SHA-256 of a file, by coreutils.
///
/// # Errors
/// If it cannot be read.
pub fn digest(path: &Path) -> Outcome<String> {
    let text = tools::run(tools::program("sha256sum").arg("--").arg(path))?;
    first_word(&text)
}

/// SHA-256 of an export, copied out by nbdcopy and summed by coreutils.
///
/// # Errors
/// If it cannot be read to its end.
pub fn digest_export(uri: &str) -> Outcome<String> {
    let mut copy = tools::program("nbdcopy");
    copy.args([uri, "-"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let mut copying = copy.spawn().trying(|| format!("start nbdcopy of {uri}"))?;
    let pipe = copying
        .stdout
        .take()
        .ok_or_else(|| Fault::wrong("nbdcopy has no stdout"))?;
    let mut sum = Command::new("sha256sum");
    let summed = sum.stdin(pipe).output().trying(|| "run sha256sum".into())?;
    let output = copying
        .wait_with_output()
        .trying(|| "wait for nbdcopy".into())?;
    let complaint = String::from_utf8_lossy(&output.stderr);
    ensure!(
        output.status.success(),
        "nbdcopy of {uri} ended with {}: {complaint}",
        output.status
    );
    first_word(&String::from_utf8_lossy(&summed.stdout))
}

fn first_word(text: &str) -> Outcome<String> {
    let word = text.split_whitespace().next();
    word.map(str::to_owned)
        .ok_or_else(|| Fault::wrong("sha256sum said nothing"))
}
