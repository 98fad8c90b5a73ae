//! `csnapctl volume create --format`: a file system on the origin, then the volume.
//!
//! Order: all that can be refused is refused while nothing has been written; then the
//! origin is formatted, durably; then csnapd is asked for the volume. From the look at
//! the origin to the end of the formatting nobody else can have it.
//!
//! [`xfs`] and [`erofs`] know what their kind is made of; all else is the same for both.

mod erofs;
mod preflight;
mod words;
mod xfs;

use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

use imagegen::target::{Overwrite, Present};
use imagegen::tree::{Empty, Progress, Source, Spec, SpecOptions, Survey, Time};
use serde::Serialize;
use ublk_target::control::protocol::{ErrorCode, Failure};
use ublk_target::control::views::VolumeView;

use super::counted;
use super::volume::New;
use crate::Done;
use crate::cli::{FormatArg, FormatArgs};
use crate::output::human;
use crate::output::table::{Column, Row};
use crate::progress::watched;
use crate::session::Session;
use words::Words;

/// A volume with what was made on its origin.
#[derive(Serialize)]
struct Formatted {
    #[serde(flatten)]
    volume: VolumeView,
    file_system: FileSystem,
}

impl Row for Formatted {
    const NAME: &'static str = VolumeView::NAME;
    const COLUMNS: &'static [Column] = VolumeView::COLUMNS;
}

/// What was made. Sizes are bytes.
#[derive(Debug, Clone, Serialize)]
struct FileSystem {
    kind: &'static str,
    uuid: String,
    label: String,
    /// The oldest kernel that mounts it.
    oldest_kernel: &'static str,
    size: u64,
    free_bytes: u64,
    /// Objects, each once however many names it has.
    inodes: u64,
    directories: u64,
    files: u64,
    data_bytes: u64,
    /// Not needed, because blocks are shared.
    shared_bytes: u64,
}

/// An origin that is to be formatted.
struct Job<'a> {
    args: &'a FormatArgs,
    origin: preflight::Origin,
    source: Box<dyn Source>,
    present: Present,
    words: Words<'a>,
}

/// Formats the origin, then creates the volume.
pub(super) fn create(session: &mut Session, new: New, kind: FormatArg, args: &FormatArgs) -> Done {
    must_fit_together(kind, args)?;
    let origin = preflight::origin(session, &new, args.from.as_ref())?;
    let words = Words {
        origin: &new.origin,
        size: origin.size,
        kind,
    };
    let source = source(args.from.as_ref()).map_err(|error| words.tree(&error))?;
    let overwrite = match args.force {
        true => Overwrite::Force,
        false => Overwrite::Refuse,
    };
    let present = Present::open(Path::new(&new.origin), overwrite);
    let job = Job {
        args,
        origin,
        source,
        present: present.map_err(|error| words.target(&error))?,
        words,
    };
    let file_system = match kind {
        FormatArg::Xfs => xfs::format(job)?,
        FormatArg::Erofs => erofs::format(job)?,
    };
    session.say(&file_system.describe(&new.origin));
    let volume = new.clone().create(session);
    let volume = volume.map_err(|failure| go_on(failure, &new))?;
    session.show(&[Formatted {
        volume,
        file_system,
    }])
}

/// Options that only one kind has.
fn must_fit_together(kind: FormatArg, args: &FormatArgs) -> Done {
    let refuse = |message: &str, next: &str| {
        Err(Failure::new(ErrorCode::Usage, message.to_owned()).next(next.to_owned()))
    };
    match kind {
        FormatArg::Xfs if args.compress.is_some() => refuse(
            "XFS does not compress",
            "leave out --compress, or choose --format erofs",
        ),
        FormatArg::Erofs if args.from.is_none() => refuse(
            "an EROFS that nothing is put into stays empty: it is read-only",
            "say with --from what goes in",
        ),
        FormatArg::Erofs if args.kernel.is_some() => refuse(
            "--for is about XFS",
            "leave it out: lz4 is read from Linux 5.13 on, lzma from 5.16, deflate from 6.6, zstd \
             from 6.10",
        ),
        _ => Ok(()),
    }
}

fn source(from: Option<&Spec>) -> Result<Box<dyn Source>, imagegen::tree::TreeError> {
    match from {
        Some(spec) => spec.open(&SpecOptions::default()),
        None => Ok(Box::new(Empty { time: now() })),
    }
}

fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let since = since.unwrap_or_default();
    Time {
        seconds: since.as_secs() as i64,
        nanoseconds: since.subsec_nanos(),
    }
}

/// Has it written by `work`, and shows how far that is.
fn shown<T: Send>(survey: &Survey, work: impl FnOnce(&Progress) -> T + Send) -> T {
    watched("Formatting", survey.objects, survey.data, work)
}

/// The origin is formatted, but there is no volume of it.
fn go_on(failure: Failure, new: &New) -> Failure {
    let store = new.store.as_ref();
    let store = store.map_or_else(String::new, |store| format!(" --store {store}"));
    let again = format!(
        "the origin is formatted and keeps what it holds; go on with: \
         csnapctl volume create {} {}{store}",
        new.name, new.origin
    );
    let next = match &failure.next {
        Some(first) => format!("{first}; {again}"),
        None => again,
    };
    Failure::new(failure.code, failure.message).next(next)
}

impl FileSystem {
    fn describe(&self, origin: &str) -> String {
        let free = match self.free_bytes {
            0 => "read-only".to_owned(),
            free => format!("{} free", human::size(free)),
        };
        format!(
            "{origin} is formatted: {} {} for {}, {} with {}, {free}",
            self.kind.to_uppercase(),
            self.uuid,
            self.oldest_kernel,
            counted(self.files, "file"),
            human::size(self.data_bytes),
        )
    }
}
