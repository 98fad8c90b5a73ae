//! Digests of files as fs-verity computes them: the root of a tree of SHA-256 hashes over
//! blocks of 4096 bytes, in a descriptor that is hashed too (Documentation/filesystems/
//! fsverity.rst, "fs-verity descriptor").

use std::io::{self, Read};

use sha2::{Digest, Sha256};

const BLOCK: usize = 4096;
const HASH: usize = 32;

/// The blocks of one level of the tree that are not complete.
struct Level {
    block: Vec<u8>,
    /// How many blocks came before.
    full: u64,
}

/// The digest of `file`, with how long it is.
pub(super) fn digest(mut file: impl Read) -> io::Result<([u8; HASH], u64)> {
    let mut levels: Vec<Level> = Vec::new();
    let mut block = vec![0; BLOCK];
    let mut size = 0;
    loop {
        let length = fill(&mut file, &mut block)?;
        if length == 0 {
            break;
        }
        size += length as u64;
        block[length..].fill(0);
        add(&mut levels, 0, Sha256::digest(&block).into());
        if length < BLOCK {
            break;
        }
    }
    let root = root(levels);
    let mut descriptor = [0; 256];
    descriptor[0] = 1; // version
    descriptor[1] = 1; // SHA-256
    descriptor[2] = 12; // 4096 as a power of two
    descriptor[8..16].copy_from_slice(&size.to_le_bytes());
    descriptor[16..16 + HASH].copy_from_slice(&root);
    Ok((Sha256::digest(descriptor).into(), size))
}

/// Adds the hash of a block to the level above it.
fn add(levels: &mut Vec<Level>, at: usize, hash: [u8; HASH]) {
    if levels.len() == at {
        let block = Vec::with_capacity(BLOCK);
        levels.push(Level { block, full: 0 });
    }
    let level = &mut levels[at];
    if level.block.len() == BLOCK {
        let hash = Sha256::digest(&level.block).into();
        level.block.clear();
        level.full += 1;
        add(levels, at + 1, hash);
    }
    levels[at].block.extend_from_slice(&hash);
}

/// The hash over all levels; zeroes for a file of no bytes.
fn root(mut levels: Vec<Level>) -> [u8; HASH] {
    let mut at = 0;
    while at < levels.len() {
        let level = &levels[at];
        if level.full == 0 && level.block.len() == HASH {
            break; // one block below: its hash is the root
        }
        let mut block = level.block.clone();
        block.resize(BLOCK, 0);
        add(&mut levels, at + 1, Sha256::digest(&block).into());
        at += 1;
    }
    let top = levels.last().map_or(&[][..], |level| &level.block);
    <[u8; HASH]>::try_from(top).unwrap_or([0; HASH])
}

/// Reads until the buffer is full or the file ends.
fn fill(file: &mut impl Read, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match file.read(&mut buffer[length..]) {
            Ok(0) => break,
            Ok(read) => length += read,
            Err(cause) if cause.kind() == io::ErrorKind::Interrupted => {}
            Err(cause) => return Err(cause),
        }
    }
    Ok(length)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::testing::have;
    use std::process::Command;

    fn hex(bytes: &[u8]) -> String {
        bytes.iter().map(|byte| format!("{byte:02x}")).collect()
    }

    #[test]
    fn of_no_bytes_it_is_the_known_one() {
        let (digest, size) = digest(&[][..]).unwrap();
        let wanted = "3d248ca542a24fc62d1c43b916eae5016878e2533c88238480b26128a1f1af95";
        assert_eq!((hex(&digest).as_str(), size), (wanted, 0));
    }

    /// Around the sizes at which levels fill: 1 block, 128 blocks, 128 * 128 blocks.
    #[test]
    fn it_is_that_of_the_fsverity_tool() {
        if !have("fsverity") {
            return;
        }
        let level = 128 * 4096;
        for size in [
            1,
            4095,
            4096,
            4097,
            level - 1,
            level,
            level + 1,
            3 * level + 5,
            128 * level,
            128 * level + 1,
        ] {
            let bytes: Vec<u8> = (0..size).map(|at| (at / 3 % 251) as u8).collect();
            let file = tempfile::NamedTempFile::new().unwrap();
            std::fs::write(file.path(), &bytes).unwrap();
            let out = Command::new("fsverity")
                .args(["digest", "--compact"])
                .arg(file.path())
                .output();
            let wanted = String::from_utf8(out.unwrap().stdout).unwrap();
            assert_eq!(hex(&digest(&bytes[..]).unwrap().0), wanted.trim(), "{size}");
        }
    }
}
