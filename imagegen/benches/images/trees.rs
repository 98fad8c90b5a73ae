//! The trees: two that every system has, copied to the disk, those that are made, and a
//! volume.

use std::collections::HashSet;
use std::fs::{self, File};
use std::io::{Read, Write};
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::Path;
use std::process::{Command, Stdio};

use rustix::fs::{SeekFrom, seek};
use rustix::io::Errno;

use crate::targets::{self, Found};
use crate::{Outcome, Trying, erofs, export, qcow2};

const GIB: u64 = 1 << 30;
/// What lies in one piece in the files of [`Origin::Pieces`].
const PIECE: u64 = 64 << 10;
/// How much data each of them has.
const DATA_IN_A_FILE: u64 = 8 << 20;
/// The trees of such files: with holes of 2 MiB, and without.
pub(crate) const HOLES: &str = "holes";
/// The same data without the holes.
pub(crate) const DENSE: &str = "dense";

/// Files in a generated directory.
const IN_A_DIRECTORY: u64 = 500;

/// A tree of files.
pub(crate) struct Tree {
    /// The `case` of its rows.
    pub(crate) name: &'static str,
    origin: Origin,
}

#[derive(Clone, Copy)]
enum Origin {
    /// A copy of a directory of this system.
    CopyOf(&'static str),
    /// So many files of 0 to 8 KiB, each with a second name in another directory.
    Links(u64),
    /// So many empty files: the metadata is all there is.
    Empty(u64),
    /// 64 files with 8 MiB of data each, in pieces of 64 KiB with a hole of so many bytes
    /// before each.
    Pieces(u64),
    /// A raw disk of 4 GiB, every fourth MiB of it data: an archive of this directory.
    Disk(&'static str),
    /// No tree: a volume that csnapd serves ([`export::Served`]).
    Volume,
}

/// How much there is.
#[derive(Clone, Copy, Default)]
pub(crate) struct Extent {
    /// Allocated on the disk.
    pub(crate) bytes: u64,
    /// Inodes.
    pub(crate) objects: u64,
}

impl Extent {
    /// Whether a tree of this extent and one image of it at a time go into `free`.
    pub(crate) fn fits(self, free: Self) -> Outcome {
        let bytes = self.bytes / 2 * 5 + self.objects * 1024 + GIB / 4;
        let mib = |bytes| bytes >> 20;
        if bytes > free.bytes {
            let (needed, free) = (mib(bytes), mib(free.bytes));
            return Err(format!("needs {needed} MiB of disk, {free} are free"));
        }
        if self.objects > free.objects {
            let (needed, free) = (self.objects, free.objects);
            return Err(format!(
                "needs {needed} inodes of the disk, {free} are free"
            ));
        }
        Ok(())
    }

    /// A size, the same for all, of which every target needs less.
    pub(crate) fn image_size(self) -> u64 {
        (self.bytes / 2 * 3 + self.objects * 1024 + GIB).next_multiple_of(GIB)
    }
}

impl Tree {
    /// All that is measured.
    pub(crate) fn all() -> [Self; 8] {
        let tree = |name, origin| Self { name, origin };
        [
            tree("share", Origin::CopyOf("/usr/share")),
            tree("lib", Origin::CopyOf("/usr/lib")),
            tree("links", Origin::Links(100_000)),
            tree("million", Origin::Empty(1_000_000)),
            tree(DENSE, Origin::Pieces(0)),
            tree("disk", Origin::Disk("/usr/lib")),
            tree(HOLES, Origin::Pieces(2 << 20)),
            tree("volume", Origin::Volume),
        ]
    }

    /// What is measured with it: about a million files only what imagegen takes.
    pub(crate) fn targets(&self) -> Vec<Found> {
        match self.origin {
            Origin::Empty(_) => vec![targets::imagegen()],
            Origin::Pieces(_) => vec![erofs::plain()],
            Origin::Disk(_) => qcow2::targets(),
            Origin::Volume => export::targets(),
            // What is in its files no compression makes smaller.
            Origin::Links(_) => targets::xfs(),
            Origin::CopyOf(_) => [targets::xfs(), erofs::targets()]
                .into_iter()
                .flatten()
                .collect(),
        }
    }

    /// What it will take on the disk, about.
    pub(crate) fn extent(&self) -> Outcome<Extent> {
        match self.origin {
            Origin::CopyOf(path) => survey(Path::new(path), &mut |_| Ok(())),
            Origin::Links(objects) => Ok(Extent {
                bytes: objects * 8192,
                objects,
            }),
            Origin::Empty(objects) => Ok(Extent {
                bytes: objects * 256,
                objects,
            }),
            Origin::Disk(_) => Ok(Extent {
                bytes: GIB,
                objects: 1,
            }),
            Origin::Volume => Ok(Extent {
                bytes: export::VOLUME,
                objects: 1,
            }),
            Origin::Pieces(_) => Ok(Extent {
                bytes: 64 * DATA_IN_A_FILE,
                objects: 64,
            }),
        }
    }

    /// The volume below `work`, if it is one.
    pub(crate) fn serve(&self, work: &Path) -> Outcome<Option<export::Served>> {
        match self.origin {
            Origin::Volume => export::Served::start(work).map(Some),
            _ => Ok(None),
        }
    }

    /// Makes it at `root`, where nothing is yet.
    pub(crate) fn make(&self, root: &Path) -> Outcome {
        match self.origin {
            Origin::CopyOf(path) => {
                let copied = Command::new("cp").arg("-a").arg(path).arg(root).status();
                let copied = copied.trying("run cp")?;
                copied.success().then_some(()).ok_or("cp -a failed".into())
            }
            Origin::Links(files) => {
                generate(root, files, |number, file| file.write_all(&content(number)))?;
                second_names(root, files)
            }
            Origin::Empty(files) => generate(root, files, |_, _| Ok(())),
            Origin::Disk(path) => disk(root, path),
            Origin::Volume => fs::create_dir(root).trying(root.display()),
            Origin::Pieces(hole) => generate(root, 64, |number, file| pieces(number, hole, file)),
        }
    }
}

/// The directory in which a file lies.
fn directory(files: u64, number: u64) -> String {
    let directories = files.div_ceil(IN_A_DIRECTORY);
    format!("d{:05}", spread(number) % directories)
}

/// Files in directories, in an order that is not that of their names.
fn generate(
    root: &Path,
    files: u64,
    fill: impl Fn(u64, &mut File) -> std::io::Result<()>,
) -> Outcome {
    for number in 0..files.div_ceil(IN_A_DIRECTORY) {
        let directory = root.join(format!("d{number:05}"));
        fs::create_dir_all(&directory).trying(directory.display())?;
    }
    for number in 0..files {
        let path = root
            .join(directory(files, number))
            .join(format!("file-{number:07}"));
        let mut file = File::create_new(&path).trying(path.display())?;
        fill(number, &mut file).trying(path.display())?;
    }
    Ok(())
}

/// A second name for each file, in the directory of some other.
fn second_names(root: &Path, files: u64) -> Outcome {
    for number in 0..files {
        let file = root
            .join(directory(files, number))
            .join(format!("file-{number:07}"));
        let link = root
            .join(directory(files, number + files))
            .join(format!("link-{number:07}"));
        fs::hard_link(&file, &link).trying(link.display())?;
    }
    Ok(())
}

/// Scatters numbers (the finaliser of SplitMix64).
pub(crate) fn spread(number: u64) -> u64 {
    let mut mixed = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    mixed = (mixed ^ (mixed >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    mixed ^ (mixed >> 31)
}

/// A disk with 1 GiB of data in 4 GiB.
fn disk(root: &Path, archived: &str) -> Outcome {
    const MIB: u64 = 1 << 20;
    fs::create_dir(root).trying(root.display())?;
    let path = root.join(qcow2::DISK);
    let file = File::create_new(&path).trying(path.display())?;
    file.set_len(4 * GIB).trying(path.display())?;
    let mut tar = Command::new("tar");
    tar.args(["--create", "--sort=name", "--directory", archived, "."]);
    let mut tar = tar.stdout(Stdio::piped()).spawn().trying("run tar")?;
    let mut archive = tar.stdout.take().ok_or("tar has no output")?;
    let mut bytes = vec![0; MIB as usize];
    for piece in 0..GIB / MIB {
        archive
            .read_exact(&mut bytes)
            .trying("read 1 GiB from tar")?;
        file.write_all_at(&bytes, piece * 4 * MIB)
            .trying(path.display())?;
    }
    drop(archive);
    // It is not asked for the rest.
    let _ = tar.kill();
    tar.wait().map(drop).trying("wait for tar")
}

/// Data in pieces, each after a hole.
fn pieces(number: u64, hole: u64, file: &mut File) -> std::io::Result<()> {
    for piece in 0..DATA_IN_A_FILE / PIECE {
        let seed = (number << 20 | piece) << 16;
        let words = (0..PIECE / 8).map(|word| spread(seed | word));
        let bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
        file.write_all_at(&bytes, (hole + PIECE) * piece + hole)?;
    }
    Ok(())
}

/// 0 to 8192 bytes that no two files share.
fn content(number: u64) -> Vec<u8> {
    let length = usize::try_from(spread(!number) % 8193).unwrap_or_default();
    let words = (0..length.div_ceil(8) as u64).map(|word| spread(number << 10 | word));
    let mut bytes: Vec<u8> = words.flat_map(u64::to_le_bytes).collect();
    bytes.truncate(length);
    bytes
}

/// Reads all of a tree, so that it is in the page cache, and tells what there is.
pub(crate) fn warm(root: &Path) -> Outcome<Extent> {
    survey(root, &mut |path| {
        let file = File::open(path).trying(path.display())?;
        read_data(&file).trying(path.display())
    })
}

/// Reads what is not a hole.
fn read_data(file: &File) -> std::io::Result<()> {
    let mut end = 0;
    loop {
        let start = match seek(file, SeekFrom::Data(end)) {
            Err(Errno::NXIO) => return Ok(()),
            found => found?,
        };
        end = seek(file, SeekFrom::Hole(start))?;
        seek(file, SeekFrom::Start(start))?;
        std::io::copy(&mut file.take(end - start), &mut std::io::sink())?;
    }
}

/// Walks through a tree; `visit` is called with each file that is not empty.
fn survey(root: &Path, visit: &mut dyn FnMut(&Path) -> Outcome) -> Outcome<Extent> {
    let mut extent = Extent::default();
    let mut several = HashSet::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).trying(directory.display())? {
            let entry = entry.trying(directory.display())?;
            let path = entry.path();
            let stat = entry.metadata().trying(path.display())?;
            if stat.is_dir() {
                pending.push(path);
            } else if stat.nlink() > 1 && !several.insert((stat.dev(), stat.ino())) {
                continue;
            } else if stat.is_file() && stat.len() > 0 {
                visit(&path)?;
            }
            extent.objects += 1;
            extent.bytes += stat.blocks() * 512;
        }
    }
    Ok(extent)
}
