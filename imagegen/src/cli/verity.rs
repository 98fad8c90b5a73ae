//! Options that make an image one that Linux can verify, and what is said of it.

use super::{Failure, values};
use clap::{Args, ValueEnum};
use imagegen::medium::Medium;
use imagegen::target::{Overwrite, Target};
use imagegen::verity;
use imagegen::verity::dm::{self, Area, DmError, Layout};
use serde::Serialize;
use std::io::{Write, stdout};
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// What is hashed, and how.
#[derive(Debug, Args)]
#[command(next_help_heading = "Verification")]
pub(crate) struct Verity {
    /// Append a hash tree of dm-verity, and print its root hash (veritysetup format)
    #[arg(long)]
    verity: bool,
    /// Put the hash tree into this file instead
    #[arg(long, value_name = "FILE", requires = "verity")]
    verity_file: Option<PathBuf>,
    /// Up to 256 bytes in hexadecimal, - for none; derived from the image if not given
    /// (veritysetup: --salt)
    #[arg(long, value_name = "HEX", requires = "verity", value_parser = salt, allow_hyphen_values = true)]
    verity_salt: Option<Salt>,
    /// Of the hash tree; derived from the root hash if not given (veritysetup: --uuid)
    #[arg(long, value_name = "UUID", requires = "verity")]
    verity_uuid: Option<Uuid>,
    /// What is hashed at a time, 512 to 512k; kernels map up to a page (veritysetup:
    /// --data-block-size)
    #[arg(long, value_name = "SIZE", requires = "verity", value_parser = values::small_size, default_value = "4k")]
    verity_data_block: u32,
    /// 512 to 512k (veritysetup: --hash-block-size)
    #[arg(long, value_name = "SIZE", requires = "verity", value_parser = values::small_size, default_value = "4k")]
    verity_hash_block: u32,
    /// Of the hash tree (veritysetup: --hash)
    #[arg(
        long,
        value_name = "NAME",
        requires = "verity",
        value_enum,
        default_value = "sha256"
    )]
    verity_hash: Function,
    /// Print the digest by which fs-verity will know the image (fsverity digest)
    #[arg(
        long,
        value_name = "HASH",
        value_enum,
        num_args = 0..=1,
        require_equals = true,
        default_missing_value = "sha256"
    )]
    fsverity: Option<Function>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Function {
    Sha256,
    Sha512,
}

impl From<Function> for verity::Algorithm {
    fn from(function: Function) -> Self {
        match function {
            Function::Sha256 => Self::Sha256,
            Function::Sha512 => Self::Sha512,
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Salt(Vec<u8>);

fn salt(text: &str) -> Result<Salt, String> {
    let wrong = || format!("{text:?} is no salt; write pairs of hexadecimal digits, or -");
    if text == "-" {
        return Ok(Salt(Vec::new()));
    }
    let digit = |byte: &u8| char::from(*byte).to_digit(16).ok_or_else(wrong);
    let bytes = text.as_bytes().chunks(2).map(|pair| match pair {
        [high, low] => Ok((digit(high)? * 16 + digit(low)?) as u8),
        _ => Err(wrong()),
    });
    bytes.collect::<Result<_, _>>().map(Salt)
}

/// What an image got, as `--json` tells it. Positions and sizes are in bytes.
#[derive(Debug, Default, Serialize)]
pub(crate) struct Sealed {
    /// Bytes of the image, with its hash tree if that is appended.
    #[serde(skip)]
    pub(crate) bytes: u64,
    #[serde(skip)]
    area: Option<Area>,
    #[serde(skip_serializing_if = "Option::is_none")]
    verity: Option<Tree>,
    #[serde(skip_serializing_if = "Option::is_none")]
    fsverity: Option<String>,
}

#[derive(Debug, Serialize)]
struct Tree {
    root_hash: String,
    algorithm: &'static str,
    salt: String,
    uuid: String,
    hash_offset: u64,
    data_blocks: u64,
    data_block_size: u32,
    hash_block_size: u32,
}

impl Verity {
    fn options(&self) -> dm::Options {
        dm::Options {
            algorithm: self.verity_hash.into(),
            data_block: self.verity_data_block,
            hash_block: self.verity_hash_block,
            salt: self.verity_salt.clone().map(|salt| salt.0),
            uuid: self.verity_uuid,
        }
    }

    /// Where the hash tree goes, if not behind the image.
    pub(crate) fn file(&self) -> Option<&Path> {
        self.verity_file.as_deref()
    }

    /// Bytes that an image of `bytes` has in the end.
    pub(crate) fn room(&self, bytes: u64) -> Result<u64, Failure> {
        match (self.verity, &self.verity_file) {
            (false, _) => Ok(bytes),
            (true, None) => {
                let layout = Layout::new(bytes, &self.options())?;
                Ok(layout.behind() + layout.length())
            }
            (true, Some(_)) => Ok(Layout::new(bytes, &self.options())?.data_length()),
        }
    }

    /// Hashes an image of `bytes` that is whole but for its name.
    pub(crate) fn seal(
        &self,
        target: &Target,
        bytes: u64,
        overwrite: Overwrite,
        sync: bool,
        threads: usize,
    ) -> Result<Sealed, Failure> {
        let mut sealed = Sealed {
            bytes: self.room(bytes)?,
            ..Sealed::default()
        };
        if self.verity {
            let options = self.options();
            let layout = Layout::new(bytes, &options)?;
            let filled = layout.data_length().max(match self.verity_file {
                None => layout.behind(),
                Some(_) => 0,
            });
            let zeroed = target.zero(bytes, filled - bytes);
            zeroed.map_err(DmError::from)?;
            let (area, at) = match &self.verity_file {
                None => {
                    let at = layout.behind();
                    (dm::write(target, bytes, target, at, &options, threads)?, at)
                }
                Some(path) => {
                    let file = Target::create(path, layout.length(), overwrite)?;
                    let area = dm::write(target, bytes, &file, 0, &options, threads)?;
                    file.finish(sync)?;
                    (area, 0)
                }
            };
            sealed.verity = Some(Tree::new(&area, at));
            sealed.area = Some(area);
        }
        if let Some(function) = self.fsverity {
            let digest = verity::fs::digest_image(target, sealed.bytes, function.into(), threads);
            let digest = digest.map_err(DmError::from)?;
            sealed.fsverity = Some(format!("{}:{digest}", digest.algorithm().name()));
        }
        Ok(sealed)
    }
}

impl Tree {
    fn new(area: &Area, hash_offset: u64) -> Self {
        Self {
            root_hash: area.root.to_string(),
            algorithm: area.root.algorithm().name(),
            salt: area.salt.iter().map(|byte| format!("{byte:02x}")).collect(),
            uuid: area.uuid.to_string(),
            hash_offset,
            data_blocks: area.data_blocks,
            data_block_size: area.data_block,
            hash_block_size: area.hash_block,
        }
    }
}

impl Sealed {
    /// Says what came of it, in the words of `veritysetup` and `fsverity`.
    pub(crate) fn say(&self, image: &Path) -> Result<(), Failure> {
        let mut out = stdout().lock();
        if let (Some(area), Some(tree)) = (&self.area, &self.verity) {
            writeln!(out, "{area}")?;
            writeln!(out, "Hash offset:     \t{} [bytes]", tree.hash_offset)?;
        }
        if let Some(digest) = &self.fsverity {
            writeln!(out, "{digest} {}", image.display())?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn salts() {
        assert_eq!(salt("-"), Ok(Salt(Vec::new())));
        assert_eq!(salt("00fF"), Ok(Salt(vec![0, 255])));
        for text in ["0", "0x", "zz", "0011 "] {
            assert!(salt(text).unwrap_err().contains("no salt"), "{text}");
        }
    }
}
