//! Arguments of `imagegen erofs composefs`, and what they ask of the library.

use super::inputs::{Content, Run};
use super::{Failure, output, progress, sources};
use clap::{Args, ValueEnum};
use imagegen::erofs::composefs::{
    Collect, Format, HardLinks, Prepared, Store, Tree, Version, collect, read_dump,
};
use imagegen::target::Target;
use imagegen::tree::{Detail, Spec, Survey};
use std::ffi::{OsStr, OsString};
use std::fs::File;
use std::io::{Write, stdin, stdout};
use std::path::{Path, PathBuf};
use std::time::Instant;

/// Makes an image of metadata alone, as composefs has them: files of more than 64 bytes are
/// referred to by their fs-verity digests, and lie in an object store. The bytes are those of
/// mkcomposefs (v0, v1) or of the Rust crate (v2).
#[derive(Debug, Args)]
pub(crate) struct Composefs {
    /// The file to make; not given with --digest-only
    image: PathBuf,
    /// What goes in, one over the other: a directory, a tar file or - for one on standard
    /// input, oci:DIR[:TAG]; or one dump:FILE, whose objects need not be there
    #[arg(value_name = "SOURCE")]
    sources: Vec<OsString>,
    /// auto is v0, or v1 for a tree with whiteouts (mkcomposefs: --min-version,
    /// --max-version)
    #[arg(long, value_name = "FORMAT", value_enum, default_value = "auto")]
    format: FormatName,
    /// Put files into this object store, which is made if it is not there (mkcomposefs:
    /// --digest-store)
    #[arg(long, value_name = "DIR")]
    digest_store: Option<PathBuf>,
    /// The source is a dump, - for one on standard input (mkcomposefs: --from-file)
    #[arg(long, conflicts_with = "digest_store")]
    from_dump: bool,
    /// Print the image's fs-verity digest (mkcomposefs: --print-digest)
    #[arg(long, conflicts_with = "json")]
    print_digest: bool,
    /// Print it and write no image (mkcomposefs: --print-digest-only)
    #[arg(long, conflicts_with = "json")]
    digest_only: bool,
    /// Keep objects with several names, or split them as mkcomposefs does; v2 keeps them if
    /// not told
    #[arg(long, value_name = "WHAT", value_enum)]
    hard_links: Option<LinksName>,
    #[command(flatten)]
    content: Content,
    #[command(flatten)]
    run: Run,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum FormatName {
    Auto,
    V0,
    V1,
    V2,
}

impl From<FormatName> for Format {
    fn from(name: FormatName) -> Self {
        match name {
            FormatName::Auto => Self::Auto,
            FormatName::V0 => Self::Exactly(Version::V0),
            FormatName::V1 => Self::Exactly(Version::V1),
            FormatName::V2 => Self::Exactly(Version::V2),
        }
    }
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum LinksName {
    Keep,
    Split,
}

/// Where a tree comes from.
enum Origin {
    Dump(PathBuf),
    Sources(Vec<Spec>),
}

/// Makes an image, or says its digest.
pub(crate) fn make(arguments: &Composefs) -> Result<(), Failure> {
    let begin = Instant::now();
    let from = arguments.from()?;
    let image = (!arguments.digest_only).then_some(arguments.image.as_path());
    if let Some(image) = image {
        sources::check_target(image, None, arguments.run.overwrite())?;
    }
    let (tree, new) = arguments.tree(&from)?;
    let prepared = Prepared::new(tree, arguments.format.into())?;
    let laid = prepared.lay_out()?;
    let digest = match image {
        None => laid.digest(),
        Some(image) => {
            let target = Target::create(image, laid.length(), arguments.run.overwrite())?;
            let digest = laid.write_to(&target)?;
            target.finish(!arguments.run.no_sync)?;
            digest
        }
    };
    if arguments.print_digest || arguments.digest_only {
        writeln!(stdout(), "{digest}")?;
    }
    let Some(image) = image else {
        return Ok(());
    };
    output::composefs_made(
        &arguments.run,
        &output::Composefs {
            image,
            version: prepared.version().number(),
            size: laid.length(),
            objects: laid.objects(),
            new_in_store: new,
            digest: &digest.to_string(),
        },
        begin.elapsed(),
    )
}

impl Composefs {
    /// What clap does not see: arguments that need or forbid each other by their values.
    fn from(&self) -> Result<Origin, Failure> {
        let mut words: Vec<&OsStr> = self.sources.iter().map(|word| &**word).collect();
        if self.digest_only {
            words.insert(0, self.image.as_os_str());
        }
        if self.content.dedupe {
            return Err(Failure::usage(
                "--dedupe: an object store holds equal files once anyway; leave it out",
            ));
        }
        if let (true, [dump]) = (self.from_dump, &words[..]) {
            return self.dump(Path::new(dump));
        }
        if self.from_dump {
            return Err(Failure::usage("--from-dump takes one SOURCE"));
        }
        let specs: Vec<Spec> = words
            .iter()
            .map(|word| Spec::from(word.to_os_string()))
            .collect();
        if specs.iter().filter(|spec| **spec == Spec::Stdin).count() > 1 {
            return Err(Failure::usage("standard input can be a source only once"));
        }
        let dump = specs.iter().find_map(|spec| match spec {
            Spec::Dump(path) => Some(path),
            _ => None,
        });
        match (dump, &specs[..], &self.content.objects, &self.digest_store) {
            (Some(dump), [_], None, None) => self.dump(dump),
            (Some(_), _, None, _) => Err(Failure::usage(
                "dump: beside other sources, or with --digest-store, needs --objects DIR",
            )),
            (None, _, Some(_), _) => Err(Failure::usage("--objects needs a source dump:FILE")),
            _ => Ok(Origin::Sources(specs)),
        }
    }

    /// A dump says all of a tree, and is taken as it is.
    fn dump(&self, path: &Path) -> Result<Origin, Failure> {
        match self.content.changes() || self.hard_links.is_some() {
            true => Err(Failure::usage(
                "a dump is taken as it is; change the dump, or leave out what changes its objects",
            )),
            false => Ok(Origin::Dump(path.to_owned())),
        }
    }

    /// The tree, and how many objects the store got.
    fn tree(&self, from: &Origin) -> Result<(Tree, u64), Failure> {
        let format = self.format.into();
        let specs = match from {
            Origin::Dump(path) if path.as_os_str() == "-" => {
                return Ok((read_dump(stdin().lock(), b"standard input", format)?, 0));
            }
            Origin::Dump(path) => {
                let name = path.as_os_str().as_encoded_bytes();
                let open = |cause| Failure::Open {
                    path: path.clone(),
                    cause,
                };
                return Ok((read_dump(File::open(path).map_err(open)?, name, format)?, 0));
            }
            Origin::Sources(specs) => specs,
        };
        let times = self.content.times(sources::epoch().as_deref())?;
        let source = sources::open(specs, &self.content, &self.run, None, times)?;
        let survey = Survey::of(&source, Detail::Names)?;
        let store = self.digest_store.as_deref().map(Store::open).transpose()?;
        let hard_links = match (self.hard_links, self.format) {
            (Some(LinksName::Keep), _) | (None, FormatName::V2) => HardLinks::Keep,
            (Some(LinksName::Split), _) | (None, _) => HardLinks::Split,
        };
        let how = Collect {
            hard_links,
            store: store.as_ref(),
            threads: self.run.threads,
        };
        let silent = self.run.is_silent();
        let tree = progress::shown(&(&survey).into(), silent, |progress| {
            collect(&source, &how, progress)
        })?;
        let new = store
            .map(|store| store.finish(!self.run.no_sync))
            .transpose()?;
        Ok((tree, new.unwrap_or_default()))
    }
}
