//! A real file system, made by mkfs.xfs and the kernel, into which encoded forks are put
//! in place of what the kernel wrote; then xfs_repair and the kernel say what they think.
//!
//! Blocks come from a file `blocks` which the kernel allocated and which loses some, so
//! that all counters stay right. The tools are those in PATH, or what the variable
//! `XFSPROGS` names as the first words of a command ("/opt/run-in new").

mod attributes;
mod directory;
mod extents;

use crate::naive::{be16, be32, be64};
use crate::placed::Layout;
use imagegen::xfs::format::extent::{Extent, Packed};
use imagegen::xfs::format::inode::{self, Inode};
use imagegen::xfs::format::superblock::Superblock;
use imagegen::xfs::format::{checksum, superblock::ro_compat};
use imagegen::xfs::geometry::{Features, Geometry};
use imagegen::xfs::write::fork_map;
use std::fs::File;
use std::io::Write;
use std::os::unix::fs::{FileExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Output};
use tempfile::TempDir;
use uuid::Uuid;
use zerocopy::FromBytes;

/// Where a test's image lies.
pub(crate) struct Image {
    dir: TempDir,
    pub(crate) geometry: Geometry,
}

/// A tool of xfsprogs.
fn tool(name: &str) -> Command {
    let prefix = std::env::var("XFSPROGS").unwrap_or_default();
    let mut words = prefix.split_whitespace().chain([name]);
    let mut command = Command::new(words.next().unwrap());
    command.args(words);
    command
}

fn run(command: &mut Command) -> Output {
    let output = command.output().unwrap();
    assert!(output.status.success(), "{command:?}: {output:?}");
    output
}

/// Notes that `test` could not run, where the summary of all tests finds it.
#[allow(clippy::print_stdout)] // a note for whoever runs the tests
fn skip(test: &str, why: &str) {
    println!("SKIPPED: {test}: {why}");
    let program = std::env::current_exe().unwrap();
    let notes = program.ancestors().nth(3).unwrap().join("e2e");
    std::fs::create_dir_all(&notes).unwrap();
    let notes = notes.join("skipped.tsv");
    let mut file = File::options()
        .create(true)
        .append(true)
        .open(notes)
        .unwrap();
    writeln!(file, "{test}\t{why}").unwrap();
}

impl Image {
    /// A file system of 600 MB made with `options`, or none, with a note, if this host
    /// cannot make or mount it.
    pub(crate) fn make(test: &str, options: &[&str]) -> Option<Self> {
        let dir = TempDir::new_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        let path = dir.path().join("image");
        File::create(&path).unwrap().set_len(600 << 20).unwrap();
        std::fs::create_dir(dir.path().join("mnt")).unwrap();
        let made = tool("mkfs.xfs").arg("-q").args(options).arg(&path).output();
        match made {
            Err(error) => return skip_none(test, &format!("mkfs.xfs: {error}")),
            Ok(output) if !output.status.success() => {
                return skip_none(test, &format!("mkfs.xfs does not know {options:?}"));
            }
            Ok(_) => {}
        }
        let geometry = geometry(&path);
        let image = Self { dir, geometry };
        if !image.mount().status.success() {
            return skip_none(test, "cannot mount through a loop device");
        }
        image.unmount();
        Some(image)
    }

    fn path(&self) -> PathBuf {
        self.dir.path().join("image")
    }

    fn mount(&self) -> Output {
        let mut command = Command::new("mount");
        command.args(["-t", "xfs", "-o", "loop"]);
        command.arg(self.path()).arg(self.dir.path().join("mnt"));
        command.output().unwrap()
    }

    fn unmount(&self) {
        run(Command::new("umount").arg(self.dir.path().join("mnt")));
    }

    /// Does `work` with the file system mounted.
    pub(crate) fn mounted<T>(&self, work: impl FnOnce(&Path) -> T) -> T {
        struct Unmount<'a>(&'a Image);
        impl Drop for Unmount<'_> {
            fn drop(&mut self) {
                self.0.unmount();
            }
        }
        let output = self.mount();
        assert!(output.status.success(), "{output:?}");
        let _unmount = Unmount(self);
        work(&self.dir.path().join("mnt"))
    }

    /// Fails unless xfs_repair has nothing to say.
    pub(crate) fn judge(&self) {
        let mut command = tool("xfs_repair");
        let output = run(command.arg("-n").arg(self.path()));
        let text = [output.stdout, output.stderr].concat();
        let text = String::from_utf8_lossy(&text).into_owned();
        let bad = [
            "bad",
            "would",
            "ERROR",
            "nvalid",
            "orrupt",
            "mismatch",
            "nconsisten",
        ];
        // Of an image in a file it says this always.
        let judgement = text.replace("a sector size mismatch", "");
        let said = bad.iter().find(|bad| judgement.contains(**bad));
        assert_eq!(said, None, "xfs_repair says:\n{text}");
    }

    fn file(&self) -> File {
        File::options()
            .read(true)
            .write(true)
            .open(self.path())
            .unwrap()
    }

    /// The bytes of an inode.
    pub(crate) fn inode(&self, ino: u64) -> Vec<u8> {
        let mut bytes = vec![0; self.geometry.inode_size()];
        let at = self.geometry.inode_byte(ino);
        self.file().read_exact_at(&mut bytes, at).unwrap();
        assert!(checksum::holds(&bytes, inode::CRC_AT));
        bytes
    }

    /// Changes an inode.
    pub(crate) fn patch(&self, ino: u64, change: impl FnOnce(&mut Inode, &mut [u8])) {
        let mut bytes = self.inode(ino);
        let (core, forks) = Inode::mut_from_prefix(&mut bytes).unwrap();
        change(core, forks);
        checksum::seal(&mut bytes, inode::CRC_AT);
        let at = self.geometry.inode_byte(ino);
        self.file().write_all_at(&bytes, at).unwrap();
    }

    /// Writes blocks.
    pub(crate) fn write(&self, fsblock: u64, bytes: &[u8]) {
        let at = self.geometry.byte_of(fsblock);
        self.file().write_all_at(bytes, at).unwrap();
    }

    /// Reads a block.
    pub(crate) fn read(&self, fsblock: u64) -> Vec<u8> {
        let mut bytes = vec![0; self.geometry.block_size()];
        let at = self.geometry.byte_of(fsblock);
        self.file().read_exact_at(&mut bytes, at).unwrap();
        bytes
    }

    /// Takes the last `count` blocks from file `ino`, whose extents its inode holds.
    pub(crate) fn take(&self, ino: u64, count: u64) -> Vec<u64> {
        let all = self.extents(ino).into_iter();
        let all = all.flat_map(|extent| extent.block..extent.block + extent.count);
        let mut kept: Vec<u64> = all.collect();
        let taken = kept.split_off(kept.len() - count as usize);
        let extents = extents(&[(0, kept.len() as u64)], &kept);
        let (_, space) = self.fork(ino, false);
        let nothing = &mut |_, _: &[u8]| panic!("not in the inode");
        let fork = fork_map::encode(&self.geometry, ino, &extents, space, &[], nothing).unwrap();
        self.patch(ino, |core, forks| {
            core.nblocks = (kept.len() as u64).into();
            core.size = ((kept.len() as u64) << self.geometry.block_log).into();
            self.count_extents(core, false, extents.len());
            forks[..space].fill(0);
            forks[..fork.bytes.len()].copy_from_slice(&fork.bytes);
        });
        taken
    }

    /// The extents of a data fork, which the inode holds.
    pub(crate) fn extents(&self, ino: u64) -> Vec<Extent> {
        let bytes = self.inode(ino);
        assert_eq!(bytes[5], 2, "not a list of extents");
        let count = match self.geometry.features.nrext64 {
            true => be64(&bytes, 24) as usize,
            false => be32(&bytes, 76) as usize,
        };
        let packed = &bytes[inode::FORKS_AT..][..count * 16];
        let packed = <[Packed]>::ref_from_bytes(packed).unwrap();
        packed.iter().map(Extent::unpack).collect()
    }

    /// Where in the space for forks a fork begins, and how many bytes it has.
    pub(crate) fn fork(&self, ino: u64, attribute: bool) -> (usize, usize) {
        let all = self.geometry.forks_size();
        match (attribute, usize::from(self.inode(ino)[82]) * 8) {
            (false, 0) => (0, all),
            (false, offset) => (0, offset),
            (true, offset) => (offset, all - offset),
        }
    }

    /// Says in an inode how many extents a fork has.
    fn count_extents(&self, core: &mut Inode, attribute: bool, count: usize) {
        match (self.geometry.features.nrext64, attribute) {
            (true, false) => core.big_nextents = (count as u64).into(),
            (true, true) | (false, false) => core.nextents = (count as u32).into(),
            (false, true) => core.small_anextents = (count as u16).into(),
        }
    }
}

/// The extents of a fork whose `ranges` have `blocks`.
fn extents(ranges: &[(u64, u64)], blocks: &[u64]) -> Vec<Extent> {
    let offsets = ranges
        .iter()
        .flat_map(|(offset, count)| *offset..offset + count);
    let pairs: Vec<(u64, u64)> = offsets.zip(blocks.iter().copied()).collect();
    let follows = |a: &(u64, u64), b: &(u64, u64)| a.0 + 1 == b.0 && a.1 + 1 == b.1;
    let extent = |run: &[(u64, u64)]| Extent {
        offset: run[0].0,
        block: run[0].1,
        count: run.len() as u64,
        unwritten: false,
    };
    pairs.chunk_by(follows).map(extent).collect()
}

/// The blocks of a fork.
pub(crate) struct Placing {
    extents: Vec<Extent>,
}

impl Placing {
    /// Gives `ranges` of a fork blocks of file `spare`, in their order or backwards.
    pub(crate) fn of(image: &Image, ranges: &[(u64, u64)], spare: u64, layout: Layout) -> Self {
        let mut blocks = image.take(spare, sum(ranges));
        if layout == Layout::Scattered {
            blocks.reverse();
        }
        Self::at(ranges, &blocks)
    }

    /// Gives `ranges` of a fork `blocks`.
    pub(crate) fn at(ranges: &[(u64, u64)], blocks: &[u64]) -> Self {
        Self {
            extents: extents(ranges, blocks),
        }
    }

    pub(crate) fn place(&self, offset: u64) -> u64 {
        let after = self
            .extents
            .partition_point(|extent| extent.offset <= offset);
        let extent = &self.extents[after - 1];
        assert!(offset < extent.offset + extent.count);
        extent.block + (offset - extent.offset)
    }

    /// Puts the map into the inode's fork, its tree into blocks of file `spare`.
    pub(crate) fn map(&self, image: &Image, ino: u64, attribute: bool, spare: u64) {
        let geometry = &image.geometry;
        let (fork_offset, space) = image.fork(ino, attribute);
        let needed = fork_map::blocks_needed(geometry, self.extents.len(), space).unwrap();
        let tree = image.take(spare, needed);
        let mut write = |fsblock, bytes: &[u8]| image.write(fsblock, bytes);
        let extents = &self.extents;
        let fork = fork_map::encode(geometry, ino, extents, space, &tree, &mut write).unwrap();
        let blocks: u64 = extents.iter().map(|extent| extent.count).sum();
        image.patch(ino, |core, forks| {
            let at = fork_offset;
            forks[at..at + space].fill(0);
            forks[at..at + fork.bytes.len()].copy_from_slice(&fork.bytes);
            match attribute {
                true => core.attr_format = fork.format,
                false => core.format = fork.format,
            }
            core.nblocks = (core.nblocks.get() + blocks + needed).into();
            image.count_extents(core, attribute, extents.len());
        });
    }
}

/// How many blocks `ranges` of a fork have.
pub(crate) fn sum(ranges: &[(u64, u64)]) -> u64 {
    ranges.iter().map(|(_, count)| count).sum()
}

fn skip_none(test: &str, why: &str) -> Option<Image> {
    skip(test, why);
    None
}

/// The geometry a superblock speaks of.
fn geometry(path: &Path) -> Geometry {
    let mut bytes = vec![0; 512];
    File::open(path)
        .unwrap()
        .read_exact_at(&mut bytes, 0)
        .unwrap();
    assert!(checksum::holds(&bytes, superblock_crc_at()));
    let (sb, _) = Superblock::ref_from_prefix(&bytes).unwrap();
    let (ro, incompat) = (sb.features_ro_compat.get(), sb.features_incompat.get());
    Geometry {
        features: Features {
            finobt: ro & ro_compat::FINOBT != 0,
            inobtcount: ro & ro_compat::INOBT_COUNT != 0,
            sparse: incompat & 2 != 0,
            rmapbt: ro & ro_compat::RMAPBT != 0,
            reflink: ro & ro_compat::REFLINK != 0,
            bigtime: incompat & 8 != 0,
            nrext64: incompat & 0x20 != 0,
            exchange: incompat & 0x40 != 0,
            parent: incompat & 0x80 != 0,
            ascii_ci: be16(&bytes, 100) & 0x4000 != 0,
        },
        uuid: Uuid::from_bytes(sb.uuid),
        label: sb.label,
        sector_log: sb.sector_log,
        block_log: sb.block_log,
        inode_log: sb.inode_log,
        dir_block_log: sb.dir_block_log,
        blocks: sb.dblocks.get(),
        ag_count: sb.ag_count.get(),
        ag_blocks: sb.ag_blocks.get(),
        log_start: sb.log_start.get(),
        log_blocks: sb.log_blocks.get(),
        log_unit: sb.log_unit.get(),
        stripe_unit: sb.unit.get(),
        stripe_width: sb.width.get(),
        imax_percent: sb.imax_percent,
        inode_align: sb.inode_align.get(),
        sparse_align: sb.sparse_align.get(),
    }
}

fn superblock_crc_at() -> usize {
    imagegen::xfs::format::superblock::CRC_AT
}

/// A file of `bytes` bytes, none written; returns its inode.
pub(crate) fn allocate(path: &Path, bytes: u64) -> u64 {
    let bytes = bytes.to_string();
    run(Command::new("fallocate").arg("-l").arg(bytes).arg(path));
    number(path)
}

/// A file's inode.
pub(crate) fn number(path: &Path) -> u64 {
    path.symlink_metadata().unwrap().ino()
}
