//! The command line. Help texts are part of the product: every option says what it does
//! and which word of mkfs.xfs it is.
//!
//! [`inputs`] are the arguments that images of all formats take. [`make`] and [`read`] (of
//! XFS) and [`erofs_make`] hold the others and turn them into what the library takes,
//! without touching anything; [`places`] is where images go; [`sources`], [`xfs`] and
//! [`erofs`] call the library.

mod composefs;
mod composefs_info;
mod erofs;
mod erofs_compress;
mod erofs_make;
mod erofs_read;
mod erofs_verbs;
mod failure;
mod inputs;
mod make;
mod output;
mod places;
mod progress;
mod qcow2;
mod qcow2_convert;
mod qcow2_places;
mod qcow2_verbs;
mod read;
mod sources;
mod values;
mod verity;
mod xfs;

pub(crate) use failure::Failure;

use clap::{Args, Parser, Subcommand};
use erofs_make::ErofsMake;

const AFTER: &str = "\
Exit codes:
  0  done                         4  the target exists, or is in use
  1  any other error              5  no space in the image, or where it lies
  2  wrong usage                  6  what was read is damaged
  3  a source cannot be read

Results go to standard output, everything else to standard error.";

const XFS_AFTER: &str = "\
Examples:
  imagegen xfs root.img rootfs/                       as large as needed, a fifth of it free
  imagegen xfs --size 20G root.img rootfs.tar         a tar file into 20 GiB
  tar -c -C rootfs . | imagegen xfs root.img -        the same from a pipe
  imagegen xfs --minimal root.img oci:layout:latest   the smallest image that holds it
  imagegen xfs --size 1T --label data /dev/sdb        an empty file system on a device
  imagegen xfs fsmap --paths root.img                 who owns which blocks
  imagegen xfs check root.img                         whether all of it is sound

Sizes are in bytes, or with k, m, g, t or p in powers of 1024: 64m, 20G. An image called
`fsmap` or `check` is named ./fsmap or ./check. The same tree and options give the same
bytes; SOURCE_DATE_EPOCH is obeyed.";

const EROFS_AFTER: &str = "\
Examples:
  imagegen erofs root.erofs rootfs/                   a directory, ends of files beside inodes
  imagegen erofs root.erofs base.tar changes/         one source over the other
  imagegen erofs --times 0 root.erofs oci:layout      all times the same: short inodes
  imagegen erofs --dedupe root.erofs rootfs/          equal blocks once
  imagegen erofs --verity root.erofs rootfs/          with a hash tree of dm-verity
  imagegen erofs ls -l root.erofs etc                 what a directory holds
  imagegen erofs cat root.erofs etc/hostname          a file's contents
  imagegen erofs extract root.erofs rootfs            all of it, into a directory
  imagegen erofs composefs --digest-store objects root.cfs rootfs/
                                                      metadata alone, files in a store

An image called as a word that is a verb is named with ./ before it. The same tree and
options give the same bytes, whatever the number of threads; SOURCE_DATE_EPOCH is obeyed.
Data on other devices is read from those given with --device, in the order of the image's
table. Paths in an image lead from its root; symbolic links are not followed.";

const QCOW2_AFTER: &str = "\
Examples:
  imagegen qcow2 info disk.qcow2                      sizes, features, snapshots, bitmaps
  imagegen qcow2 check disk.qcow2                     whether tables and refcounts are right
  imagegen qcow2 map disk.qcow2                       what of the disk is data, and where
  imagegen qcow2 map -l monday disk.qcow2             the same of a snapshot in it
  imagegen qcow2 compare disk.qcow2 disk.raw          whether both hold the same
  imagegen qcow2 convert -f raw disk.raw disk.qcow2   a disk, zeroes left out
  imagegen qcow2 convert -c zstd /dev/vg/disk d.qcow2 compressed, from a device
  imagegen qcow2 convert -l monday d.qcow2 monday.raw a snapshot inside an image, as bytes

Backing files are read as the format that the image states; an image that states none is
refused, because what a guest wrote must not decide which file is read. For the same reason
a device is raw unless --format says otherwise, and an image that leads to other files must
be said to be one: -f qcow2. No lock is taken: an image that is in use may be seen half
changed. `compare` ends with 0 (the same), 1 (different) or another exit code (it cannot be
told).";

/// Makes images of file systems from trees of files, without mounting anything and
/// without root.
#[derive(Debug, Parser)]
#[command(name = "imagegen", version, after_help = AFTER, max_term_width = 100)]
pub(crate) struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// XFS: make one, map who owns what, check one
    #[command(after_help = XFS_AFTER)]
    Xfs(Box<Xfs>),
    /// EROFS: make one, read, extract and check any
    #[command(after_help = EROFS_AFTER)]
    Erofs(Box<Erofs>),
    /// QCOW2: make one, look into it, check it, compare two
    #[command(after_help = QCOW2_AFTER, subcommand)]
    Qcow2(qcow2::Verb),
}

/// Makes an EROFS file system in a file or on a block device, from trees of files:
/// directories, tar files, OCI image layouts, composefs dumps. It is read-only, as large as
/// what is in it, and keeps one time of an object, that of its contents.
///
/// A file appears under its name when it is whole. Special files of the source are made
/// again, never opened.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Erofs {
    #[command(subcommand)]
    read: Option<erofs_read::Verb>,
    #[command(flatten)]
    make: ErofsMake,
}

/// Makes an XFS file system (version 5) in a file or on a block device, empty or filled
/// from trees of files: directories, tar files, OCI image layouts, composefs dumps.
///
/// A file appears under its name when it is whole. Special files of the source are made
/// again, never opened.
#[derive(Debug, Args)]
#[command(args_conflicts_with_subcommands = true, subcommand_negates_reqs = true)]
struct Xfs {
    #[command(subcommand)]
    read: Option<Read>,
    #[command(flatten)]
    make: make::Make,
}

#[derive(Debug, Subcommand)]
enum Read {
    /// Who owns which blocks, from the reverse mappings
    Fsmap(read::Fsmap),
    /// Whether every structure is sound and agrees with every other
    Check(read::Check),
}

/// Does what was asked for.
///
/// # Errors
/// Why not, with the exit code.
pub(crate) fn run(cli: Cli) -> Result<(), Failure> {
    let xfs = match cli.command {
        Command::Xfs(xfs) => xfs,
        Command::Qcow2(verb) => return qcow2_verbs::run(&verb),
        Command::Erofs(erofs) => {
            return match &erofs.read {
                Some(verb) => erofs_verbs::run(verb),
                None => erofs::make(&erofs.make),
            };
        }
    };
    match xfs.read {
        Some(Read::Fsmap(arguments)) => xfs::fsmap(&arguments),
        Some(Read::Check(arguments)) => xfs::check(&arguments),
        None => xfs::make(&xfs.make),
    }
}

#[cfg(test)]
#[allow(clippy::panic)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_is_well_formed() {
        Cli::command().debug_assert();
    }

    fn parse(words: &[&str]) -> Result<Xfs, String> {
        let words = ["imagegen", "xfs"].iter().chain(words);
        let cli = Cli::try_parse_from(words).map_err(|error| error.to_string())?;
        match cli.command {
            Command::Xfs(xfs) => Ok(*xfs),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn an_image_alone_is_enough_and_needed() {
        let make = parse(&["image"]).unwrap().make;
        assert_eq!(make.inputs.image().unwrap(), "image");
        assert!(make.inputs.sources.is_empty());
        assert!(parse(&[]).is_err());
        assert!(parse(&["--size", "1g"]).is_err());
    }

    #[test]
    fn reading_verbs_take_an_image_and_nothing_of_making() {
        let xfs = parse(&["fsmap", "--paths", "image"]).unwrap();
        assert!(matches!(xfs.read, Some(Read::Fsmap(_))));
        assert!(xfs.make.inputs.image().is_err());
        let xfs = parse(&["check", "image"]).unwrap();
        assert!(matches!(xfs.read, Some(Read::Check(_))));
        assert!(parse(&["check"]).is_err());
        assert!(parse(&["check", "image", "--minimal"]).is_err());
        let make = parse(&["./check", "source"]).unwrap().make;
        assert_eq!(make.inputs.image().unwrap(), "./check");
        // A verb comes first.
        let xfs = parse(&["--minimal", "check", "source"]).unwrap();
        assert!(xfs.read.is_none());
        assert_eq!(xfs.make.inputs.image().unwrap(), "check");
    }
}
