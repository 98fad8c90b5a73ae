//! A tree with every kind of object, and with directories, attributes and files large
//! enough for each form that XFS keeps them in. What it holds depends on the seed alone.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::Write;
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::path::{Path, PathBuf};

use rand::{Rng, RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rustix::fs::{AtFlags, CWD, FileType, Mode, Timespec, Timestamps};

use crate::e2e::fault::Trying;
use crate::e2e::{Outcome, tools};

/// Entries of the directory that needs a node above its leaves: a block of 4 KiB has
/// room for some 500 in a leaf.
const NODE_ENTRIES: u32 = 1500;
/// Extents of the file that needs a B-tree: an inode of 512 bytes has room for about 20,
/// a block for some 250.
const EXTENTS: u64 = 600;
/// Largest value of an attribute.
const LARGEST_VALUE: usize = 64 << 10;

/// Makes the tree below `root`, an empty directory.
///
/// # Errors
/// If the file system refuses any of it.
pub fn plant(root: &Path, seed: u64) -> Outcome {
    let mut planter = Planter {
        root: root.to_path_buf(),
        random: ChaCha8Rng::seed_from_u64(seed),
    };
    planter.files()?;
    planter.sparse()?;
    planter.names()?;
    planter.links()?;
    planter.symlinks()?;
    planter.special()?;
    planter.attributes()?;
    planter.access_lists()?;
    planter.modes()?;
    planter.times()
}

struct Planter {
    root: PathBuf,
    random: ChaCha8Rng,
}

impl Planter {
    fn dir(&self, name: &str) -> Outcome<PathBuf> {
        let dir = self.root.join(name);
        fs::create_dir_all(&dir).trying(|| format!("make {}", dir.display()))?;
        Ok(dir)
    }

    fn noise(&mut self, length: usize) -> Vec<u8> {
        let mut bytes = vec![0; length];
        self.random.fill_bytes(&mut bytes);
        bytes
    }

    fn file(&mut self, path: &Path, length: usize) -> Outcome {
        let bytes = self.noise(length);
        fs::write(path, bytes).trying(|| format!("write {}", path.display()))
    }

    /// Sizes around sectors, blocks and the size up to which a source is read at once.
    fn files(&mut self) -> Outcome {
        let dir = self.dir("files")?;
        for edge in [512, 4096, 16 << 10, 64 << 10, 1 << 20] {
            for size in [edge - 1, edge, edge + 1] {
                self.file(&dir.join(format!("of{size}")), size)?;
            }
        }
        for size in [0, 1, 5 << 20] {
            self.file(&dir.join(format!("of{size}")), size)?;
        }
        for number in 0..300 {
            let below = self.dir(&format!("files/d{}", number % 9))?;
            let size = self.random.random_range(0..20_000);
            self.file(&below.join(format!("f{number}")), size)?;
        }
        Ok(())
    }

    fn sparse(&mut self) -> Outcome {
        let dir = self.dir("sparse")?;
        let pieces: [(&str, u64, &[u64]); 5] = [
            ("hole", 1 << 30, &[]),
            ("middle", 1 << 40, &[1 << 33]),
            ("begin", 1 << 30, &[0]),
            ("end", (1 << 20) + 4096, &[1 << 20]),
            ("few", 1 << 20, &[0, 8192, 16384, 65536, 1 << 18]),
        ];
        for (name, size, at) in pieces {
            self.scattered(&dir.join(name), size, at.iter().copied())?;
        }
        let many = (0..EXTENTS).map(|number| number * 8192);
        self.scattered(&dir.join("many"), EXTENTS * 8192 + 100, many)
    }

    /// A file with a block of data at each of these places.
    fn scattered(&mut self, path: &Path, size: u64, at: impl Iterator<Item = u64>) -> Outcome {
        let story = || format!("write {}", path.display());
        let file = File::create(path).trying(story)?;
        file.set_len(size).trying(story)?;
        for at in at {
            let block = self.noise(4096);
            file.write_all_at(&block, at).trying(story)?;
        }
        Ok(())
    }

    /// A directory in node form, names of every kind of bytes, a deep path.
    fn names(&mut self) -> Outcome {
        let dir = self.dir("many")?;
        for number in 0..NODE_ENTRIES {
            let name = format!("an-entry-with-a-longer-name-{number:08}");
            let path = dir.join(&name);
            fs::write(&path, name).trying(|| format!("write {}", path.display()))?;
        }
        let dir = self.dir("names")?;
        let names: [&[u8]; 6] = [
            b"\xff\xfe\x80",
            b"new\nline",
            b" ",
            b"...",
            &[b'x'; 255],
            "ä€𝄞".as_bytes(),
        ];
        for name in names {
            self.file(&dir.join(OsStr::from_bytes(name)), 10)?;
        }
        let deep = self.dir(&format!("deep/{}", ["down"; 40].join("/")))?;
        self.file(&deep.join("below"), 10)?;
        self.dir("empty").map(drop)
    }

    /// Names in one directory and in many; of a symbolic link and a device as well.
    fn links(&mut self) -> Outcome {
        let dir = self.dir("links")?;
        self.file(&dir.join("origin"), 5000)?;
        self.special_at(&dir.join("pipe"), FileType::Fifo, 0)?;
        std::os::unix::fs::symlink("origin", dir.join("short"))
            .trying(|| "make a symbolic link".into())?;
        for number in 0..120 {
            let below = self.dir(&format!("links/d{}", number % 11))?;
            for name in ["origin", "pipe", "short"] {
                let link = below.join(format!("{name}{number}"));
                let story = || format!("link {}", link.display());
                fs::hard_link(dir.join(name), &link).trying(story)?;
            }
        }
        Ok(())
    }

    /// Targets in the inode and in a block of their own.
    fn symlinks(&mut self) -> Outcome {
        let dir = self.dir("symlinks")?;
        for length in [1, 60, 255, 320, 335, 336, 337, 600, 1023] {
            let target: Vec<u8> = (0..length)
                .map(|at| [b'a' + (at % 26) as u8, b'/'][usize::from(at % 100 == 99)])
                .collect();
            let target = OsString::from_vec(target);
            let path = dir.join(format!("to{length}"));
            let story = || format!("make {}", path.display());
            std::os::unix::fs::symlink(&target, &path).trying(story)?;
        }
        Ok(())
    }

    fn special(&mut self) -> Outcome {
        let dir = self.dir("special")?;
        let kinds = [
            ("null", FileType::CharacterDevice, (1, 3)),
            // XFS has 18 bits for the minor number.
            ("large", FileType::CharacterDevice, (511, (1 << 18) - 1)),
            ("disk", FileType::BlockDevice, (8, 17)),
            ("other", FileType::BlockDevice, (259, 70_000)),
            ("pipe", FileType::Fifo, (0, 0)),
            ("socket", FileType::Socket, (0, 0)),
        ];
        for (name, kind, (major, minor)) in kinds {
            let device = rustix::fs::makedev(major, minor);
            self.special_at(&dir.join(name), kind, device)?;
        }
        Ok(())
    }

    fn special_at(&self, path: &Path, kind: FileType, device: u64) -> Outcome {
        let made = rustix::fs::mknodat(CWD, path, kind, Mode::from_raw_mode(0o640), device);
        made.map_err(Into::into)
            .trying(|| format!("make {}", path.display()))
    }

    /// Few in the inode, many in leaves and nodes, large values in blocks of their own.
    fn attributes(&mut self) -> Outcome {
        let dir = self.dir("attributes")?;
        let forms: [(&str, usize, usize); 5] = [
            ("few", 2, 10),
            ("leaf", 20, 60),
            ("node", 400, 40),
            ("remote", 3, 5000),
            ("largest", 1, LARGEST_VALUE),
        ];
        for (name, count, length) in forms {
            let path = dir.join(name);
            self.file(&path, 100)?;
            for number in 0..count {
                let name = format!("{}.of-{number}", ["user", "trusted"][number % 2]);
                let value = self.noise(length);
                set_xattr(&path, &name, &value)?;
            }
        }
        let path = dir.join("security");
        self.file(&path, 100)?;
        set_xattr(&path, "security.selinux", b"system_u:object_r:etc_t:s0\0")?;
        // cap_net_raw, permitted and effective (VFS_CAP_REVISION_2 of linux/capability.h).
        let capability = [
            1, 0, 0, 2, 0, 0x20, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0,
        ];
        set_xattr(&path, "security.capability", &capability)?;
        set_xattr(&dir, "user.of-a-directory", b"")?;
        let pipe = dir.join("pipe");
        self.special_at(&pipe, FileType::Fifo, 0)?;
        set_xattr(&pipe, "trusted.of-a-pipe", b"value")?;
        let link = dir.join("link");
        std::os::unix::fs::symlink("nowhere", &link)
            .trying(|| format!("make {}", link.display()))?;
        set_xattr(&link, "trusted.of-a-link", b"value")
    }

    fn access_lists(&mut self) -> Outcome {
        let dir = self.dir("lists")?;
        let file = dir.join("file");
        self.file(&file, 10)?;
        setfacl(&["-m", "u:1000:rwx,g:2000:r--,m::rwx"], &file)?;
        setfacl(&["-d", "-m", "u:1001:r-x,g:2001:---"], &dir)?;
        let many: Vec<String> = (3000..3020).map(|id| format!("u:{id}:r--")).collect();
        let other = dir.join("inherits");
        self.file(&other, 10)?;
        setfacl(&["-m", &many.join(",")], &other)
    }

    fn modes(&mut self) -> Outcome {
        let dir = self.dir("modes")?;
        for mode in [0o4755, 0o2755, 0o6711, 0o1777, 0o000, 0o777] {
            let file = dir.join(format!("file{mode:o}"));
            self.file(&file, 10)?;
            let below = self.dir(&format!("modes/dir{mode:o}"))?;
            for path in [file, below] {
                let owner = Some(self.random.random_range(0..70_000));
                let story = || format!("set the mode of {}", path.display());
                std::os::unix::fs::chown(&path, owner, owner).trying(story)?;
                let mode = fs::Permissions::from_mode(mode);
                fs::set_permissions(&path, mode).trying(story)?;
            }
        }
        Ok(())
    }

    fn times(&mut self) -> Outcome {
        let dir = self.dir("times")?;
        // From 1901 on, beyond 2038, up to nearly the end of bigtime in 2486.
        let seconds = [-2_147_483_000, -1, 0, 1, 2_147_483_648, 16_299_000_000];
        for (second, nanosecond) in seconds.into_iter().zip([0, 1, 999_999_999, 5, 6, 7]) {
            let path = dir.join(format!("at{second}"));
            self.file(&path, 10)?;
            let time = Timespec {
                tv_sec: second,
                tv_nsec: nanosecond,
            };
            let times = Timestamps {
                last_access: time,
                last_modification: time,
            };
            rustix::fs::utimensat(CWD, &path, &times, AtFlags::empty())
                .map_err(Into::into)
                .trying(|| format!("set the time of {}", path.display()))?;
        }
        let mut file = File::create(dir.join("now")).trying(|| "make a file".into())?;
        file.write_all(b"now").trying(|| "write a file".into())
    }
}

fn set_xattr(path: &Path, name: &str, value: &[u8]) -> Outcome {
    xattr::set(path, name, value).trying(|| format!("set {name} of {}", path.display()))
}

fn setfacl(words: &[&str], path: &Path) -> Outcome {
    tools::run(tools::program("setfacl").args(words).arg(path)).map(drop)
}
