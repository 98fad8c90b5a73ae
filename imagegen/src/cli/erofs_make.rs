//! Arguments of `imagegen erofs IMAGE [SOURCE...]`, and what they mean to the library.

use super::Failure;
use super::erofs_compress::Compress;
use super::inputs::{self, Content, Inputs, Run};
use super::values;
use super::verity::Verity;
use clap::{Args, ValueEnum};
use imagegen::erofs::make::Request;
use imagegen::erofs::write::{DataIn, InodeForm, Options};
use imagegen::tree::Spec;
use std::ffi::OsString;
use std::fs::File;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Bytes of a tar archive's blocks.
const ARCHIVE_BLOCK: u32 = 512;

/// Everything that can be asked of an image.
#[derive(Debug, Args)]
pub(crate) struct ErofsMake {
    #[command(flatten)]
    pub(crate) inputs: Inputs,
    #[command(flatten)]
    pub(crate) format: Format,
    #[command(flatten)]
    compress: Compress,
    #[command(flatten)]
    pub(crate) content: Content,
    #[command(flatten)]
    pub(crate) verity: Verity,
    #[command(flatten)]
    pub(crate) run: Run,
}

/// The file system.
#[derive(Debug, Args)]
#[command(next_help_heading = "File system")]
pub(crate) struct Format {
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
    /// All data of files goes here, and the image holds the rest: a device to be named when
    /// it is mounted (mkfs.erofs: --blobdev)
    #[arg(long, value_name = "FILE", conflicts_with = "tar_index")]
    pub(crate) blob: Option<PathBuf>,
    /// What the image calls that file, at most 64 bytes
    #[arg(
        long,
        value_name = "TEXT",
        default_value = "",
        hide_default_value = true,
        requires = "blob"
    )]
    blob_tag: String,
    /// All data stays in the tar file that is the source: a device to be named when the image
    /// is mounted (mkfs.erofs: --tar=i)
    #[arg(long, conflicts_with_all = ["chunk_size", "dedupe", "block_size"])]
    tar_index: bool,
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
        self.compress.check(self.format.block_size)?;
        inputs::check_uuid(self.format.uuid)
    }

    /// What to ask of the library.
    pub(crate) fn request(&self) -> Result<Request, Failure> {
        let format = &self.format;
        let prefixes = format.xattr_prefixes.iter().cloned();
        let compression = self.compress.request(format.block_size);
        let data = self.data()?;
        let (block_size, usual_chunk) = match data {
            DataIn::Archive { .. } => (ARCHIVE_BLOCK, None),
            // Equal contents are found chunk by chunk, if they are not compressed.
            _ if self.content.dedupe && compression.is_none() => (format.block_size, Some(4096)),
            DataIn::Blob { .. } => (format.block_size, Some(1 << 20)),
            DataIn::Image => (format.block_size, None),
        };
        let usual_chunk = usual_chunk.map(|chunk: u64| chunk.max(block_size.into()));
        Ok(Request {
            options: Options {
                block_size,
                inodes: format.inodes.into(),
                bit48: format.bit48,
                chunk_size: format.chunk_size.or(usual_chunk),
                dedupe: self.content.dedupe,
                compression,
                metadata: self.compress.metadata(block_size),
                inline_tails: !format.no_inline,
                label: format.label.clone().into_bytes(),
                build_time: format.build_time,
                xattr_prefixes: prefixes.map(OsStringExt::into_vec).collect(),
                xattr_filter: !format.no_xattr_filter,
                data,
                threads: self.run.threads,
            },
            uuid: format.uuid,
        })
    }

    /// What the image is made of and beside, each with what it is for.
    pub(crate) fn places(&self) -> Result<Vec<(&'static str, &Path)>, Failure> {
        let mut places = vec![("the image", self.inputs.image()?)];
        if self.format.tar_index {
            let archives = self
                .inputs
                .sources
                .iter()
                .filter_map(|source| match source {
                    Spec::Path(path) => Some(("the archive that keeps the data", &**path)),
                    _ => None,
                });
            places.extend(archives);
        }
        let blob = self.format.blob.as_deref().map(|path| ("--blob", path));
        let hashes = self.verity.file().map(|path| ("--verity-file", path));
        places.extend(blob.into_iter().chain(hashes));
        Ok(places)
    }

    /// Where the data of files goes.
    fn data(&self) -> Result<DataIn, Failure> {
        if self.format.blob.is_some() {
            let tag = self.format.blob_tag.clone().into_bytes();
            return Ok(DataIn::Blob { tag });
        }
        if !self.format.tar_index {
            return Ok(DataIn::Image);
        }
        let [Spec::Path(archive)] = &self.inputs.sources[..] else {
            return Err(Failure::usage("--tar-index needs one tar file as source"));
        };
        let bytes = archive_size(archive).map_err(|cause| Failure::Open {
            path: archive.clone(),
            cause,
        })?;
        bytes.map(|bytes| DataIn::Archive { bytes }).ok_or_else(|| {
            let archive = archive.display();
            Failure::usage(format!(
                "{archive}: no plain tar file, which --tar-index needs; unpack what is compressed"
            ))
        })
    }
}

/// Bytes of a tar file; none if it is compressed, or no file.
fn archive_size(path: &Path) -> std::io::Result<Option<u64>> {
    let file = File::open(path)?;
    let there = file.metadata()?;
    if !there.is_file() {
        return Ok(None);
    }
    let mut magic = [0; 5];
    let at = 257; // of every header of a tar archive
    let read = file.read_exact_at(&mut magic, at);
    Ok((read.is_ok() && magic == *b"ustar").then_some(there.len()))
}
