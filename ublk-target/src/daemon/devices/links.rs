//! Names that stay: `/dev/csnap/web` and `/dev/csnap/web@monday` are symbolic
//! links to whatever `/dev/ublkbN` serves them now.
//!
//! Invariant, kept by the order of the callers: a link is made after its device
//! and goes before it, so one that csnapd left behind when it was killed leads to
//! a device of csnapd that waits in the kernel, or nowhere. A link that leads
//! nowhere is replaced. One that leads to another device that is there belongs to
//! somebody and stays.
//!
//! A link that cannot be made is a warning, never a reason not to serve.

use std::fs;
use std::io;
use std::os::unix::fs::{DirBuilderExt, symlink};
use std::path::{Component, Path, PathBuf};

use snapstore::engine::valid_name;

/// Where the links are unless told otherwise.
pub const DEFAULT_DIR: &str = "/dev/csnap";

/// Why there is no link.
#[derive(Debug, thiserror::Error)]
pub enum LinkError {
    /// The name is not one of a volume or a snapshot.
    #[error("{0:?} cannot be the name of a link")]
    Name(String),
    /// There is something else.
    #[error("{path} is {what}; remove it if it is not needed and attach the store again")]
    Taken {
        /// Where the link was to be.
        path: PathBuf,
        /// What is there.
        what: String,
    },
    /// A system call failed.
    #[error("cannot {action} {path}: {source}")]
    Io {
        /// What was tried.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// What the system said.
        source: io::Error,
    },
}

/// The directory of links.
#[derive(Clone, Debug)]
pub struct Links(PathBuf);

impl Links {
    /// Links in `dir`, which is made when it is needed first.
    #[must_use]
    pub fn new(dir: PathBuf) -> Self {
        Self(dir)
    }

    /// Makes `name` lead to `device`, and no other name of the directory.
    ///
    /// # Errors
    /// See [`LinkError`]; nothing that belongs to somebody else was changed.
    pub fn set(&self, name: &str, device: &Path) -> Result<PathBuf, LinkError> {
        if !is_safe(name) {
            return Err(LinkError::Name(name.to_owned()));
        }
        self.make_dir()?;
        let path = self.0.join(name);
        self.remove_but(&path, device);
        if leads_to(&path, device) {
            return Ok(path);
        }
        free(&path)?;
        // No name of a volume begins with a dot. Renaming replaces what is there
        // in one step: the name never leads nowhere in between.
        let temporary = self.0.join(format!(".{name}.new"));
        let _ = fs::remove_file(&temporary);
        symlink(device, &temporary).map_err(failed("make", &temporary))?;
        fs::rename(&temporary, &path).map_err(failed("make", &path))?;
        Ok(path)
    }

    /// The link called `name`, if it leads to `device`.
    #[must_use]
    pub fn get(&self, name: &str, device: &Path) -> Option<PathBuf> {
        let path = self.0.join(name);
        leads_to(&path, device).then_some(path)
    }

    /// Removes every link that leads to `device`.
    pub fn remove(&self, device: &Path) {
        self.remove_but(Path::new(""), device);
    }

    fn remove_but(&self, keep: &Path, device: &Path) {
        let entries = fs::read_dir(&self.0).into_iter().flatten().flatten();
        let paths = entries.map(|entry| entry.path());
        for path in paths.filter(|path| path != keep && leads_to(path, device)) {
            if let Err(error) = fs::remove_file(&path) {
                tracing::warn!(path = %path.display(), %error, "a link cannot be removed");
            }
        }
    }

    fn make_dir(&self) -> Result<(), LinkError> {
        match fs::DirBuilder::new().mode(0o755).create(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::AlreadyExists => {
                Err(failed("make", &self.0)(error))
            }
            _ => Ok(()),
        }
    }
}

/// Also by way of `..`: udev puts a relative link in the place of ours. By the names
/// alone, because the device may be gone.
fn leads_to(link: &Path, device: &Path) -> bool {
    let Ok(target) = fs::read_link(link) else {
        return false;
    };
    let mut path = link.parent().map(Path::to_owned).unwrap_or_default();
    for component in target.components() {
        match component {
            Component::ParentDir => _ = path.pop(),
            // An absolute target begins anew.
            other => path.push(other),
        }
    }
    path == device
}

/// Whether a link may be put at `path`: nothing is there, or a link that leads
/// nowhere.
fn free(path: &Path) -> Result<(), LinkError> {
    let taken = |what: String| LinkError::Taken {
        path: path.to_owned(),
        what,
    };
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
        Err(error) => Err(failed("look at", path)(error)),
        Ok(meta) if !meta.is_symlink() => Err(taken("no link of csnap".to_owned())),
        Ok(_) => match fs::canonicalize(path) {
            Ok(target) => Err(taken(format!("a link to {}", target.display()))),
            Err(_) => Ok(()),
        },
    }
}

/// `vol` or `vol@snap` of valid names: no slash, no leading dot.
fn is_safe(name: &str) -> bool {
    let (volume, snapshot) = match name.split_once('@') {
        Some((volume, snapshot)) => (volume, Some(snapshot)),
        None => (name, None),
    };
    valid_name(volume) && snapshot.is_none_or(valid_name)
}

fn failed(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> LinkError {
    let path = path.to_owned();
    move |source| LinkError::Io {
        action,
        path,
        source,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A directory with two files that play devices, and links.
    fn world() -> (tempfile::TempDir, Links, PathBuf, PathBuf) {
        let dir = tempfile::tempdir().unwrap();
        let device = |name: &str| {
            let path = dir.path().join(name);
            fs::write(&path, b"").unwrap();
            path
        };
        let (a, b) = (device("ublkb0"), device("ublkb1"));
        let links = Links::new(dir.path().join("csnap"));
        (dir, links, a, b)
    }

    fn names(links: &Links) -> Vec<String> {
        let entries = fs::read_dir(&links.0).unwrap();
        let mut names: Vec<_> = entries
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        names
    }

    #[test]
    fn a_device_has_one_name_until_it_goes() {
        let (_dir, links, a, b) = world();
        let path = links.set("web@monday", &a).unwrap();
        assert_eq!(fs::read_link(&path).unwrap(), a);
        links.set("web", &b).unwrap();
        links.set("web", &b).unwrap();
        assert_eq!(names(&links), ["web", "web@monday"]);
        // The kernel gave the number of a device that is gone to another one.
        links.set("db", &a).unwrap();
        assert_eq!(names(&links), ["db", "web"]);
        links.remove(&a);
        assert_eq!(names(&links), ["web"]);
    }

    #[test]
    fn a_relative_link_that_udev_made_is_the_same_link() {
        let (_dir, links, a, b) = world();
        let path = links.set("web", &a).unwrap();
        fs::remove_file(&path).unwrap();
        symlink("../ublkb0", &path).unwrap();
        assert_eq!(links.get("web", &b), None);
        assert_eq!(links.get("web", &a), Some(path.clone()));
        assert_eq!(links.set("web", &a).unwrap(), path);
        // Also when the device went first.
        fs::remove_file(&a).unwrap();
        links.remove(&a);
        assert_eq!(names(&links), [""; 0]);
    }

    #[test]
    fn a_link_to_nowhere_is_replaced_and_one_to_a_device_is_not() {
        let (_dir, links, a, b) = world();
        links.set("web", &a).unwrap();
        let error = links.set("web", &b).unwrap_err();
        assert!(
            matches!(&error, LinkError::Taken { what, .. } if what.contains("ublkb0")),
            "{error}"
        );
        assert_eq!(fs::read_link(links.0.join("web")).unwrap(), a);
        fs::remove_file(&a).unwrap();
        links.set("web", &b).unwrap();
        assert_eq!(fs::read_link(links.0.join("web")).unwrap(), b);
    }

    #[test]
    fn what_is_no_link_stays_and_bad_names_are_refused() {
        let (dir, links, a, _) = world();
        fs::create_dir(&links.0).unwrap();
        fs::write(links.0.join("web"), b"precious").unwrap();
        assert!(matches!(links.set("web", &a), Err(LinkError::Taken { .. })));
        assert_eq!(fs::read(links.0.join("web")).unwrap(), b"precious");
        for name in ["", "..", "../x", "a/b", "web@", "web@../x", "@x", "a@b@c"] {
            assert!(
                matches!(links.set(name, &a), Err(LinkError::Name(_))),
                "{name:?}"
            );
        }
        let nowhere = Links::new(dir.path().join("not/there"));
        assert!(matches!(nowhere.set("web", &a), Err(LinkError::Io { .. })));
        nowhere.remove(&a);
    }
}
