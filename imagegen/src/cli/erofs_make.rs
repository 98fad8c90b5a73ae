//! Arguments of `imagegen erofs IMAGE [SOURCE...]`, and what they mean to the library.

use super::Failure;
use super::erofs_compress::Compress;
use super::inputs::{self, Content, Inputs, Run};
use super::values;
use clap::{Args, ValueEnum};
use imagegen::erofs::make::Request;
use imagegen::erofs::write::{InodeForm, Options};
use std::ffi::OsString;
use std::os::unix::ffi::OsStringExt;
use uuid::Uuid;

/// Everything that can be asked of an image.
#[derive(Debug, Args)]
pub(crate) struct ErofsMake {
    #[command(flatten)]
    pub(crate) inputs: Inputs,
    #[command(flatten)]
    format: Format,
    #[command(flatten)]
    compress: Compress,
    #[command(flatten)]
    pub(crate) content: Content,
    #[command(flatten)]
    pub(crate) run: Run,
}

/// The file system.
#[derive(Debug, Args)]
#[command(next_help_heading = "File system")]
struct Format {
    /// At most 16 bytes (mkfs.erofs: -L)
    #[arg(long, default_value = "", hide_default_value = true)]
    label: String,
    /// Identity; derived from the tree and the options if not given (mkfs.erofs: -U)
    #[arg(long)]
    uuid: Option<Uuid>,
    /// 512 to 64k; kernels mount up to a page, 4k on most machines (mkfs.erofs: -b)
    #[arg(long, value_name = "SIZE", value_parser = values::small_size, default_value = "4k")]
    block_size: u32,
    /// Short inodes where nothing is lost by them, or all short, or all long (mkfs.erofs:
    /// -E force-inode-compact, force-inode-extended)
    #[arg(long, value_name = "FORM", value_enum, default_value = "auto")]
    inodes: FormName,
    /// Block numbers of 48 bits, and short inodes with times of their own: from Linux 6.15
    /// on (mkfs.erofs: -E 48bit)
    #[arg(long = "48bit")]
    bit48: bool,
    /// Files in chunks of so many bytes, of more in files with a million of these; without,
    /// only where holes make it worth it (mkfs.erofs: --chunksize)
    #[arg(long, value_name = "SIZE", value_parser = values::size)]
    chunk_size: Option<u64>,
    /// No ends of files beside their inodes, for access past the page cache (mkfs.erofs:
    /// -E noinline_data)
    #[arg(long)]
    no_inline: bool,
    /// Keep attribute names that begin so without it, as user.some. (mkfs.erofs:
    /// --xattr-prefix)
    #[arg(long = "xattr-prefix", value_name = "PREFIX")]
    xattr_prefixes: Vec<OsString>,
    /// No filters of attribute names beside inodes
    #[arg(long)]
    no_xattr_filter: bool,
    /// When the image was made, in seconds since 1970; the newest time of the tree if not
    /// given (mkfs.erofs: --mkfs-time -T)
    #[arg(long, value_name = "SECONDS", allow_hyphen_values = true)]
    build_time: Option<i64>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormName {
    Auto,
    Compact,
    Extended,
}

impl From<FormName> for InodeForm {
    fn from(name: FormName) -> Self {
        match name {
            FormName::Auto => Self::Auto,
            FormName::Compact => Self::Compact,
            FormName::Extended => Self::Extended,
        }
    }
}

impl ErofsMake {
    /// What clap does not see: arguments that need or forbid each other by their values.
    pub(crate) fn check(&self) -> Result<(), Failure> {
        self.inputs.check(&self.content)?;
        inputs::check_uuid(self.format.uuid)
    }

    /// What to ask of the library.
    pub(crate) fn request(&self) -> Request {
        let format = &self.format;
        let prefixes = format.xattr_prefixes.iter().cloned();
        let compression = self.compress.request(format.block_size);
        // Equal contents are found chunk by chunk, if they are not compressed.
        let usual = (self.content.dedupe && compression.is_none())
            .then_some(u64::from(format.block_size).max(4096));
        Request {
            options: Options {
                block_size: format.block_size,
                inodes: format.inodes.into(),
                bit48: format.bit48,
                chunk_size: format.chunk_size.or(usual),
                dedupe: self.content.dedupe,
                compression,
                inline_tails: !format.no_inline,
                label: format.label.clone().into_bytes(),
                build_time: format.build_time,
                xattr_prefixes: prefixes.map(OsStringExt::into_vec).collect(),
                xattr_filter: !format.no_xattr_filter,
                threads: self.run.threads,
            },
            uuid: format.uuid,
        }
    }
}
