//! Arguments that images of every format take: what goes in and where it goes.

use super::Failure;
use super::values::{Owner, Times};
use clap::Args;
use clap::builder::{OsStringValueParser, TypedValueParser};
use imagegen::target::Overwrite;
use imagegen::tree::Spec;
use std::path::{Path, PathBuf};
use uuid::Uuid;

/// Where options about what goes in stand in the help.
pub(crate) const CONTENTS: &str = "Contents";

/// Where the image goes, and what goes in.
#[derive(Debug, Args)]
pub(crate) struct Inputs {
    /// The file to make, or a block device
    // Missing only beside a verb.
    #[arg(required = true)]
    image: Option<PathBuf>,
    /// What goes in, one over the other: a directory, a tar file or - for one on standard
    /// input, oci:DIR[:TAG], dump:FILE with --objects. None: empty
    #[arg(value_name = "SOURCE", value_parser = OsStringValueParser::new().map(Spec::from))]
    pub(crate) sources: Vec<Spec>,
}

/// How it is made.
#[derive(Debug, Args)]
#[command(next_help_heading = "Making it")]
pub(crate) struct Run {
    /// Replace a file that exists, or what a device holds; never one in use
    #[arg(long)]
    force: bool,
    /// Do not wait until the image is on stable storage
    #[arg(long)]
    pub(crate) no_sync: bool,
    /// One JSON object about the image on standard output
    #[arg(long)]
    pub(crate) json: bool,
    /// No progress bar and no summary
    #[arg(short, long, conflicts_with = "json")]
    pub(crate) quiet: bool,
    /// Threads that read, and as many that write [default: as there are processors]
    #[arg(
        long,
        value_name = "NUMBER",
        default_value_t = 0,
        hide_default_value = true,
        value_parser = threads
    )]
    pub(crate) threads: usize,
}

/// A number of threads; more than these help nobody.
fn threads(text: &str) -> Result<usize, String> {
    match text.parse() {
        Ok(threads @ ..=256) => Ok(threads),
        _ => Err("write a number up to 256".to_owned()),
    }
}

/// What of the sources goes in, and how.
#[derive(Debug, Args)]
#[command(next_help_heading = CONTENTS)]
pub(crate) struct Content {
    /// Identical files and blocks share their space
    #[arg(long)]
    pub(crate) dedupe: bool,
    /// Leave out, with all below: * and ? within a name, ** across, /... from the root,
    /// .../ directories only
    #[arg(long, value_name = "PATTERN")]
    pub(crate) exclude: Vec<String>,
    /// Directories on other file systems than their source's come empty
    #[arg(long)]
    pub(crate) one_file_system: bool,
    /// All belongs to UID[:GID]
    #[arg(long, value_name = "UID[:GID]", conflicts_with = "owner_map")]
    pub(crate) owner: Option<Owner>,
    /// Owners by a file of lines `uid FROM[-LAST] TO` and `gid FROM[-LAST] TO`
    #[arg(long, value_name = "FILE")]
    pub(crate) owner_map: Option<PathBuf>,
    /// SELinux labels: a file_contexts file, or one label for all (has colons)
    #[arg(long, value_name = "FILE|LABEL")]
    selinux: Option<String>,
    /// keep; clamp:SECONDS, none later (SOURCE_DATE_EPOCH does this); SECONDS, all that
    #[arg(long, value_name = "TIMES", allow_hyphen_values = true)]
    times: Option<Times>,
    /// Leave out attributes whose names begin so, as user. or security.selinux
    #[arg(long = "drop-xattr", value_name = "PREFIX")]
    pub(crate) drop_xattrs: Vec<String>,
    /// Which image of an OCI layout for several machines: OS/ARCH[/VARIANT]
    #[arg(long)]
    pub(crate) platform: Option<String>,
    /// Where the objects of a dump lie
    #[arg(long, value_name = "DIR")]
    pub(crate) objects: Option<PathBuf>,
}

/// SELinux labels asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Labels {
    /// The same for all.
    All(String),
    /// By a file.
    File(PathBuf),
}

impl Inputs {
    /// Where the image goes.
    pub(crate) fn image(&self) -> Result<&Path, Failure> {
        let image = self.image.as_deref();
        image.ok_or_else(|| Failure::usage("name the image to make"))
    }

    /// What clap does not see: arguments that need or forbid each other by their values.
    pub(crate) fn check(&self, content: &Content) -> Result<(), Failure> {
        let stdin = self.sources.iter().filter(|s| **s == Spec::Stdin).count();
        if stdin > 1 {
            return Err(Failure::usage("standard input can be a source only once"));
        }
        let dump = self.sources.iter().any(|s| matches!(s, Spec::Dump(_)));
        match (&content.objects, dump) {
            (None, true) => Err(Failure::usage("dump: needs --objects DIR")),
            (Some(_), false) => Err(Failure::usage("--objects needs a source dump:FILE")),
            _ => Ok(()),
        }
    }
}

/// No kernel mounts a file system without an identity.
pub(crate) fn check_uuid(uuid: Option<Uuid>) -> Result<(), Failure> {
    match uuid {
        Some(uuid) if uuid.is_nil() => Err(Failure::usage(
            "--uuid: no kernel mounts a file system whose UUID is zero",
        )),
        _ => Ok(()),
    }
}

impl Run {
    /// Whether nothing is shown while it goes on.
    pub(crate) fn is_silent(&self) -> bool {
        self.quiet || self.json
    }

    /// What may be replaced.
    pub(crate) fn overwrite(&self) -> Overwrite {
        match self.force {
            true => Overwrite::Force,
            false => Overwrite::Refuse,
        }
    }
}

impl Content {
    /// Times asked for, `SOURCE_DATE_EPOCH` being `epoch`.
    pub(crate) fn times(&self, epoch: Option<&str>) -> Result<Times, Failure> {
        match (self.times, epoch) {
            (Some(times), _) => Ok(times),
            (None, None) => Ok(Times::Keep),
            (None, Some(epoch)) => match epoch.parse() {
                Ok(seconds) => Ok(Times::Clamp(seconds)),
                Err(_) => Err(Failure::usage(format!(
                    "SOURCE_DATE_EPOCH is {epoch:?}; it must be seconds since 1970, or not set"
                ))),
            },
        }
    }

    /// Labels asked for: what has a colon and is no file is a label.
    pub(crate) fn labels(&self) -> Option<Labels> {
        self.selinux.as_ref().map(
            |text| match text.contains(':') && !Path::new(text).exists() {
                true => Labels::All(text.clone()),
                false => Labels::File(text.into()),
            },
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;

    #[derive(Debug, Parser)]
    struct Alone {
        #[command(flatten)]
        inputs: Inputs,
        #[command(flatten)]
        content: Content,
    }

    fn parse(words: &[&str]) -> Alone {
        let words = ["make", "image"].iter().chain(words);
        Alone::try_parse_from(words).unwrap()
    }

    #[test]
    fn times_and_labels() {
        let times = |words: &[&str], epoch| parse(words).content.times(epoch);
        assert_eq!(times(&[], None).unwrap(), Times::Keep);
        assert_eq!(times(&[], Some("100")).unwrap(), Times::Clamp(100));
        assert_eq!(times(&["--times=keep"], Some("100")).unwrap(), Times::Keep);
        assert_eq!(times(&["--times", "-7"], None).unwrap(), Times::Fixed(-7));
        let refused = times(&[], Some("yesterday")).unwrap_err().to_string();
        assert!(refused.contains("SOURCE_DATE_EPOCH"), "{refused}");
        let labels = |word: &str| parse(&["--selinux", word]).content.labels();
        let label = "system_u:object_r:usr_t:s0";
        assert_eq!(labels(label), Some(Labels::All(label.to_owned())));
        assert_eq!(labels("contexts"), Some(Labels::File("contexts".into())));
        assert_eq!(parse(&[]).content.labels(), None);
    }
}
