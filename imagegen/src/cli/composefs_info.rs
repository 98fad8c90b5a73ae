//! `imagegen erofs composefs-info`: what images of composefs hold.

use super::Failure;
use clap::{Args, Subcommand};
use imagegen::erofs::composefs::{ComposefsError, Tree, load};
use imagegen::erofs::read::ReadError;
use imagegen::verity::{Algorithm, fs};
use std::collections::BTreeSet;
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{BufWriter, Write, stdout};
use std::os::unix::ffi::{OsStrExt, OsStringExt};
use std::path::{Path, PathBuf};

/// Shows images of composefs as composefs-info does.
#[derive(Debug, Args)]
pub(crate) struct ComposefsInfo {
    #[command(subcommand)]
    what: What,
}

#[derive(Debug, Subcommand)]
enum What {
    /// Paths, with targets of symbolic links and paths of objects
    Ls(Images),
    /// A dump, of which composefs --from-dump makes the same image
    Dump(Images),
    /// Paths of all objects that the images need, sorted
    Objects(Images),
    /// Those that are not in a store
    MissingObjects(Missing),
    /// fs-verity digests of files
    MeasureFile(Files),
}

#[derive(Debug, Args)]
struct Images {
    #[arg(required = true)]
    images: Vec<PathBuf>,
    /// Of the root only what is called so; may be given several times
    #[arg(long, value_name = "NAME")]
    filter: Vec<OsString>,
}

#[derive(Debug, Args)]
struct Missing {
    #[command(flatten)]
    images: Images,
    /// The object store
    #[arg(long, value_name = "DIR")]
    basedir: PathBuf,
}

#[derive(Debug, Args)]
struct Files {
    #[arg(required = true)]
    files: Vec<PathBuf>,
}

/// Does what was asked for.
pub(crate) fn run(arguments: &ComposefsInfo) -> Result<(), Failure> {
    let mut out = BufWriter::new(stdout().lock());
    match &arguments.what {
        What::Ls(images) => images.each(|tree| tree.list(&mut out))?,
        What::Dump(images) => images.each(|tree| tree.dump(&mut out))?,
        What::Objects(images) => {
            let objects = images.objects()?;
            objects.iter().try_for_each(|path| line(path, &mut out))?;
        }
        What::MissingObjects(missing) => {
            for path in missing.images.objects()? {
                if !missing.basedir.join(relative(&path)).exists() {
                    line(&path, &mut out)?;
                }
            }
        }
        What::MeasureFile(files) => {
            for path in &files.files {
                let failed = |cause| Failure::Open {
                    path: path.clone(),
                    cause,
                };
                let file = File::open(path).map_err(failed)?;
                let (digest, _) = fs::digest(file, Algorithm::Sha256).map_err(failed)?;
                writeln!(out, "{digest}")?;
            }
        }
    }
    Ok(out.flush()?)
}

fn line(path: &[u8], out: &mut dyn Write) -> std::io::Result<()> {
    out.write_all(path)?;
    writeln!(out)
}

/// A path in a store, whatever it begins with.
fn relative(path: &[u8]) -> &Path {
    let begin = path.iter().position(|byte| *byte != b'/');
    let rest = begin.and_then(|at| path.get(at..)).unwrap_or_default();
    Path::new(OsStr::from_bytes(rest))
}

impl Images {
    fn each(&self, mut show: impl FnMut(&Tree) -> std::io::Result<()>) -> Result<(), Failure> {
        let names: Vec<_> = self
            .filter
            .iter()
            .cloned()
            .map(OsString::into_vec)
            .collect();
        if names.iter().any(|name| name.contains(&b'/')) {
            return Err(Failure::usage(
                "--filter: a name of the root, without slash",
            ));
        }
        for path in &self.images {
            let open = |cause| Failure::Open {
                path: path.clone(),
                cause,
            };
            let file = File::open(path).map_err(open)?;
            let tree = load(file, &names).map_err(|cause| unreadable(path, cause))?;
            show(&tree)?;
        }
        Ok(())
    }

    fn objects(&self) -> Result<BTreeSet<Vec<u8>>, Failure> {
        let mut objects = BTreeSet::new();
        self.each(|tree| {
            objects.append(&mut tree.payloads());
            Ok(())
        })?;
        Ok(objects)
    }
}

fn unreadable(image: &Path, cause: ComposefsError) -> Failure {
    let text = format!("{}: {cause}", image.display());
    match cause {
        ComposefsError::Read {
            cause: ReadError::Damaged { .. },
            ..
        }
        | ComposefsError::Forbidden { .. } => Failure::Damaged(text),
        _ => Failure::Unreadable(text),
    }
}
