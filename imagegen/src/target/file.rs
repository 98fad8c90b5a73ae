//! A file without a name, which gets one when it is whole.
//!
//! Where the file system cannot make one (`O_TMPFILE`), a hidden one beside it is renamed;
//! only that one can be left behind, by a process that is killed.

use super::error::LASTING;
use super::replaced::Replaced;
use super::{Overwrite, TargetError, failed};
use rustix::fs::{AtFlags, CWD, Mode, OFlags, linkat, open};
use rustix::io::Errno;
use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;
use std::path::{Path, PathBuf};
use tempfile::NamedTempFile;

/// Rights of a new image, less what the umask takes.
const MODE: u32 = 0o666;

/// The file, with the name it shall get.
#[derive(Debug)]
pub(super) struct Unnamed {
    path: PathBuf,
    dir: PathBuf,
    overwrite: Overwrite,
    kind: Kind,
    /// What is there now, held until it is replaced.
    replaced: Option<Replaced>,
}

#[derive(Debug)]
enum Kind {
    Nameless(File),
    Hidden(NamedTempFile),
}

impl Unnamed {
    /// One of `size` bytes, all of them hole.
    pub(super) fn create(
        path: &Path,
        size: u64,
        overwrite: Overwrite,
    ) -> Result<Self, TargetError> {
        // What a symbolic link leads to is replaced, not the link.
        let path = std::fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let dir = match path.parent() {
            Some(dir) if !dir.as_os_str().is_empty() => dir.to_owned(),
            _ => PathBuf::from("."),
        };
        let replaced = match overwrite {
            Overwrite::Force => Replaced::open(&path)?,
            Overwrite::Refuse => None,
        };
        let made = nameless(&dir).or_else(|error| match error {
            Errno::OPNOTSUPP | Errno::ISDIR | Errno::INVAL => hidden(&dir, &path),
            error => Err(error.into()),
        });
        let kind = made.map_err(|error| failed(&path, "make it", error))?;
        let unnamed = Self {
            path,
            dir,
            overwrite,
            kind,
            replaced,
        };
        if let Some(old) = &unnamed.replaced {
            let handed = old.hand_on(unnamed.file());
            let action = "give it the owner and mode of what it replaces (or remove that first)";
            handed.map_err(|error| failed(&unnamed.path, action, error))?;
        }
        let sized = unnamed.file().set_len(size);
        sized.map_err(|error| failed(&unnamed.path, "give it its size", error))?;
        Ok(unnamed)
    }

    pub(super) fn file(&self) -> &File {
        match &self.kind {
            Kind::Nameless(file) => file,
            Kind::Hidden(file) => file.as_file(),
        }
    }

    /// Gives it its name; with `sync` that lasts.
    pub(super) fn name(self, sync: bool) -> Result<(), TargetError> {
        let Self {
            path,
            dir,
            overwrite,
            kind,
            replaced: _held,
        } = self;
        let named = match (kind, overwrite) {
            (Kind::Nameless(file), Overwrite::Refuse) => link(&file, &path),
            (Kind::Nameless(file), Overwrite::Force) => replace(&file, &dir, &path),
            (Kind::Hidden(file), Overwrite::Refuse) => {
                file.persist_noclobber(&path).map(drop).map_err(|e| e.error)
            }
            (Kind::Hidden(file), Overwrite::Force) => {
                file.persist(&path).map(drop).map_err(|e| e.error)
            }
        };
        named.map_err(|error| match error.kind() {
            io::ErrorKind::AlreadyExists => TargetError::Exists { path: path.clone() },
            _ => failed(&path, "give it its name", error),
        })?;
        if sync {
            let synced = File::open(&dir).and_then(|dir| dir.sync_all());
            synced.map_err(|error| failed(&path, LASTING, error))?;
        }
        Ok(())
    }
}

fn nameless(dir: &Path) -> Result<Kind, Errno> {
    let flags = OFlags::TMPFILE | OFlags::RDWR | OFlags::CLOEXEC;
    let file = open(dir, flags, Mode::from_raw_mode(MODE))?;
    Ok(Kind::Nameless(File::from(file)))
}

fn hidden(dir: &Path, path: &Path) -> io::Result<Kind> {
    use std::os::unix::fs::PermissionsExt;
    let file = tempfile::Builder::new()
        .prefix(&hidden_name(path))
        .suffix(".part")
        .permissions(std::fs::Permissions::from_mode(MODE))
        .tempfile_in(dir)?;
    Ok(Kind::Hidden(file))
}

fn hidden_name(path: &Path) -> String {
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    // Names end at 255 bytes.
    let short: String = name.chars().take(40).collect();
    format!(".{short}.")
}

/// Links a nameless file; fails if the name is taken.
fn link(file: &File, path: &Path) -> io::Result<()> {
    let own = format!("/proc/self/fd/{}", file.as_raw_fd());
    Ok(linkat(CWD, own, CWD, path, AtFlags::SYMLINK_FOLLOW)?)
}

/// Links it under a hidden name and renames that over the other.
fn replace(file: &File, dir: &Path, path: &Path) -> io::Result<()> {
    let maker = tempfile::Builder::new()
        .prefix(&hidden_name(path))
        .suffix(".part")
        .make_in(dir, |hidden| link(file, hidden))?;
    maker.persist(path).map(drop).map_err(|error| error.error)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(dir: &Path) -> Vec<String> {
        let names = std::fs::read_dir(dir).unwrap();
        names
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect()
    }

    fn made(dir: &Path, overwrite: Overwrite) -> Unnamed {
        let path = dir.join("image");
        Unnamed {
            kind: hidden(dir, &path).unwrap(),
            path,
            dir: dir.to_owned(),
            overwrite,
            replaced: None,
        }
    }

    #[test]
    fn hidden_ones_do_as_nameless_ones() {
        let dir = tempfile::tempdir().unwrap();
        let dir = dir.path();
        drop(made(dir, Overwrite::Refuse));
        assert_eq!(names(dir), Vec::<String>::new());
        made(dir, Overwrite::Refuse).name(true).unwrap();
        assert_eq!(names(dir), ["image"]);
        let refused = made(dir, Overwrite::Refuse).name(true).unwrap_err();
        assert!(matches!(refused, TargetError::Exists { .. }));
        let newer = made(dir, Overwrite::Force);
        newer.file().set_len(10).unwrap();
        newer.name(false).unwrap();
        assert_eq!(names(dir), ["image"]);
        assert_eq!(std::fs::metadata(dir.join("image")).unwrap().len(), 10);
    }
}
