//! Sources as a person names them in one word, on whatever command line.
//!
//! `DIR` or `FILE.tar`, `-` (a tar stream on standard input), `oci:DIR[:TAG]`,
//! `dump:FILE`. What is called like one of the latter is named `./oci:x`.

use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::os::fd::AsFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::FileTypeExt;
use std::path::PathBuf;

use super::{Directory, Dump, Oci, OciOptions, Source, Tar, TreeError, WalkOptions};

/// Where a tree comes from. Made of a word without a look at anything.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Spec {
    /// A directory or a tar file; which, is seen when it is opened.
    Path(PathBuf),
    /// A tar stream on standard input.
    Stdin,
    /// An OCI image layout, and which image of it.
    Oci {
        /// The directory.
        dir: PathBuf,
        /// The image's tag; the only image if not given.
        tag: Option<String>,
    },
    /// A composefs dump.
    Dump(PathBuf),
}

/// What a word does not say.
#[derive(Debug, Clone, Default)]
pub struct SpecOptions {
    /// How a directory is walked.
    pub walk: WalkOptions,
    /// For which machines an OCI image is, as in [`OciOptions::platform`].
    pub platform: Option<String>,
    /// Where the contents of a composefs dump lie.
    pub objects: Option<PathBuf>,
}

impl From<OsString> for Spec {
    fn from(text: OsString) -> Self {
        let bytes = text.as_bytes();
        let path = |bytes: &[u8]| PathBuf::from(OsStr::from_bytes(bytes));
        if bytes == b"-" {
            return Self::Stdin;
        }
        if let Some(dump) = bytes.strip_prefix(b"dump:") {
            return Self::Dump(path(dump));
        }
        let Some(oci) = bytes.strip_prefix(b"oci:") else {
            return Self::Path(text.into());
        };
        // A tag has no slash; a colon before one belongs to the path.
        let colon = oci.iter().rposition(|byte| *byte == b':');
        let parts = colon.and_then(|at| {
            let tag = std::str::from_utf8(oci.get(at + 1..)?).ok()?;
            (!tag.is_empty() && !tag.contains('/')).then(|| (oci.get(..at), tag.to_owned()))
        });
        match parts {
            Some((Some(dir), tag)) => Self::Oci {
                dir: path(dir),
                tag: Some(tag),
            },
            _ => Self::Oci {
                dir: path(oci),
                tag: None,
            },
        }
    }
}

impl Spec {
    /// The source, ready to be walked; archives and layouts are read as far as that needs.
    ///
    /// # Errors
    /// If it cannot be opened, or is not what it should be.
    pub fn open(&self, options: &SpecOptions) -> Result<Box<dyn Source>, TreeError> {
        Ok(match self {
            Self::Path(path) => {
                let failed = |cause| TreeError::io(path.as_os_str().as_bytes(), "look at", cause);
                let kind = std::fs::metadata(path).map_err(failed)?.file_type();
                if kind.is_char_device() {
                    let name = path.as_os_str().as_bytes();
                    return Err(TreeError::invalid(name, "a character device holds no tree"));
                }
                match kind.is_dir() {
                    true => Box::new(Directory::open(path, &options.walk)?),
                    false => Box::new(Tar::open(path)?),
                }
            }
            Self::Stdin => Box::new(stdin()?),
            Self::Oci { dir, tag } => {
                let image = OciOptions {
                    reference: tag.clone(),
                    platform: options.platform.clone(),
                };
                Box::new(Oci::open(dir, &image)?)
            }
            Self::Dump(path) => Box::new(Dump::open(path, options.objects.as_deref())?),
        })
    }
}

fn stdin() -> Result<Tar, TreeError> {
    let name = b"standard input";
    let file = std::io::stdin().as_fd().try_clone_to_owned();
    let file = file.map_err(|cause| TreeError::io(name, "open", cause))?;
    Tar::from_file(File::from(file), name)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::tree::{Detail, Survey};

    fn spec(text: &str) -> Spec {
        Spec::from(OsString::from(text))
    }

    #[test]
    fn kinds_are_told_by_their_prefix() {
        let oci = |dir: &str, tag: Option<&str>| Spec::Oci {
            dir: dir.into(),
            tag: tag.map(str::to_owned),
        };
        assert_eq!(spec("-"), Spec::Stdin);
        assert_eq!(spec("dir"), Spec::Path("dir".into()));
        assert_eq!(spec("a.tar"), Spec::Path("a.tar".into()));
        assert_eq!(spec("./oci:x"), Spec::Path("./oci:x".into()));
        assert_eq!(spec("dump:a/b"), Spec::Dump("a/b".into()));
        assert_eq!(spec("oci:layout"), oci("layout", None));
        assert_eq!(spec("oci:layout:v1.2"), oci("layout", Some("v1.2")));
        assert_eq!(spec("oci:a:b/layout"), oci("a:b/layout", None));
        assert_eq!(spec("oci:layout:"), oci("layout:", None));
        let bytes = OsStr::from_bytes(b"dir\xff").to_owned();
        assert_eq!(Spec::from(bytes.clone()), Spec::Path(bytes.into()));
    }

    #[test]
    fn a_directory_and_a_tar_file_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let path = |name: &str| dir.path().join(name).to_str().unwrap().to_owned();
        let tree = path("tree");
        std::fs::create_dir(&tree).unwrap();
        std::fs::write(format!("{tree}/file"), "seven b").unwrap();
        let tar = path("tree.tar");
        let mut command = std::process::Command::new("tar");
        let made = command.args(["-C", &tree, "-cf", &tar, "."]).status();
        assert!(made.unwrap().success());
        for word in [&tree, &tar] {
            let source = spec(word).open(&SpecOptions::default()).unwrap();
            let survey = Survey::of(&*source, Detail::Names).unwrap();
            assert_eq!((survey.objects, survey.data), (2, 7), "{word}");
        }
        let open = |word: &str| spec(word).open(&SpecOptions::default());
        for word in ["missing", "oci:missing", "dump:missing"] {
            let name = path("missing");
            let word = word.replace("missing", &name);
            let refused = open(&word).err().unwrap().to_string();
            assert!(refused.contains(&name), "{refused}");
        }
        let refused = open(&format!("{tree}/file")).err().unwrap().to_string();
        assert!(refused.contains("/file"), "{refused}");
    }
}
