//! Calls the library with what was asked for: the one place that does.

use super::make::{self, Make, Room};
use super::read::{Check, Fsmap};
use super::values::{Free, Times};
use super::{Failure, output, progress};
use imagegen::target::{Overwrite, Present, Target, TargetError, capacity};
use imagegen::tree::{
    self, Adjust, Adjusted, Contexts, Empty, Overlay, OwnerMap, Owners, Source, Spec, SpecOptions,
    Time, TreeError, WalkOptions,
};
use imagegen::xfs::make::{Plan, Progress, Request, Size, make as write, plan, rehearse};
use imagegen::xfs::read::Reader;
use imagegen::xfs::write::Made;
use imagegen::xfs::{check as checker, fsmap as map};
use std::fs::File;
use std::io::{BufWriter, Write, stdout};
use std::path::Path;
use std::time::{Instant, SystemTime, UNIX_EPOCH};
use uuid::Uuid;

/// Makes an image.
pub(crate) fn make(arguments: &Make) -> Result<(), Failure> {
    arguments.check()?;
    let begin = Instant::now();
    let image = arguments.image()?;
    let epoch = std::env::var("SOURCE_DATE_EPOCH")
        .ok()
        .filter(|epoch| !epoch.is_empty());
    let times = arguments.times(epoch.as_deref())?;
    let device = capacity(image)?;
    let request = request(arguments, device)?;
    // What cannot be at all is said before a large tree is read.
    let refuse = arguments.overwrite() == Overwrite::Refuse;
    if device.is_none() && refuse && image.exists() {
        return Err(TargetError::Exists {
            path: image.to_owned(),
        }
        .into());
    }
    if device.is_none() && image.starts_with("/dev") && !image.exists() {
        return Err(Failure::usage(format!(
            "{}: there is no such device",
            image.display()
        )));
    }
    let present = match device {
        Some(_) => Some(Present::open(image, arguments.overwrite())?),
        None => None,
    };
    if let Size::Exact(size) = request.size {
        arguments.options(size, Uuid::nil())?.geometry()?;
    }
    let source = source(arguments, times)?;
    let plan = plan(&source, &request)?;
    let target = match present {
        // What a device holds is given up only for a tree that fits.
        Some(present) => {
            rehearse(&source, &request, &plan)?;
            present.begin(plan.bytes())?
        }
        None => Target::create(image, plan.bytes(), arguments.overwrite())?,
    };
    let made = with_bar(arguments, &plan, |progress| {
        write(&source, &request, &plan, &target, progress)
    })?;
    target.finish(!arguments.no_sync)?;
    output::made(arguments, image, &plan, &made, begin.elapsed())
}

/// What to ask of the library for an image; `device` are the bytes of the device it is.
fn request(arguments: &Make, device: Option<u64>) -> Result<Request, Failure> {
    Ok(Request {
        options: arguments.options(0, Uuid::nil())?,
        size: match arguments.room(device)? {
            Room::Size(size) => Size::Exact(size),
            Room::Minimal => Size::Minimal,
            Room::Free(Free::Bytes(bytes)) => Size::Free(bytes),
            Room::Free(Free::Percent(percent)) => Size::FreePercent(percent),
        },
        uuid: arguments.format.uuid,
        free_inodes: arguments.space.free_inodes,
        dedupe: arguments.content.dedupe,
        autofsck: true,
        threads: arguments.threads,
    })
}

/// All sources, one over the other, changed as asked for.
fn source(arguments: &Make, times: Times) -> Result<Adjusted<Box<dyn Source>>, Failure> {
    let options = SpecOptions {
        walk: WalkOptions {
            one_file_system: arguments.content.one_file_system,
            exclude: arguments.content.exclude.clone(),
            threads: arguments.threads,
        },
        platform: arguments.content.platform.clone(),
        objects: arguments.content.objects.clone(),
    };
    let directory = |spec: &Spec| matches!(spec, Spec::Path(path) if !path.is_file());
    let leaves_out = options.walk.one_file_system || !options.walk.exclude.is_empty();
    if leaves_out && !arguments.sources.iter().all(directory) {
        return Err(Failure::usage(
            "--exclude and --one-file-system work on directories only; unpack the other sources, or leave these options out",
        ));
    }
    let opened = arguments.sources.iter().map(|spec| spec.open(&options));
    let mut sources = opened.collect::<Result<Vec<_>, TreeError>>()?;
    let source: Box<dyn Source> = match sources.len() {
        0 => Box::new(Empty { time: now() }),
        1 => sources.remove(0),
        _ => Box::new(Overlay::new(sources)),
    };
    Ok(Adjusted::new(source, adjust(arguments, times)?))
}

fn adjust(arguments: &Make, times: Times) -> Result<Adjust, Failure> {
    let content = &arguments.content;
    let at = |seconds| Time {
        seconds,
        nanoseconds: 0,
    };
    Ok(Adjust {
        owners: match (content.owner, &content.owner_map) {
            (Some(owner), _) => Owners::All {
                uid: owner.uid,
                gid: owner.gid,
            },
            (None, Some(map)) => Owners::Map(OwnerMap::read(map)?),
            (None, None) => Owners::Keep,
        },
        times: match times {
            Times::Keep => tree::Times::Keep,
            Times::Clamp(seconds) => tree::Times::Clamp(at(seconds)),
            Times::Fixed(seconds) => tree::Times::Fixed(at(seconds)),
        },
        project: content.project,
        labels: match arguments.labels() {
            None => None,
            Some(make::Labels::All(label)) => Some(tree::Labels::All(label)),
            Some(make::Labels::File(path)) => Some(tree::Labels::Contexts(Contexts::read(&path)?)),
        },
        drop_xattrs: content.drop_xattrs.clone(),
        mounted_at: String::new(),
    })
}

fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    since.map_or(Time::default(), |since| Time {
        seconds: since.as_secs() as i64,
        nanoseconds: since.subsec_nanos(),
    })
}

/// Writes the image while a bar shows how far it is.
fn with_bar<E>(
    arguments: &Make,
    plan: &Plan,
    work: impl FnOnce(&Progress) -> Result<Made, E>,
) -> Result<Made, E> {
    let bar = progress::bar(plan.survey.data, arguments.quiet || arguments.json);
    let progress = Progress::default();
    let made = progress::watch(&bar, &progress, plan.survey.objects, || work(&progress));
    bar.finish_and_clear();
    made
}

/// Lists owners.
pub(crate) fn fsmap(arguments: &Fsmap) -> Result<(), Failure> {
    let reader = Reader::open(open(&arguments.image)?);
    let reader = reader.map_err(|cause| Failure::read(&arguments.image, cause))?;
    let fsmap = map::Fsmap::open(reader);
    let options = map::Options {
        range: arguments.range.clone(),
        paths: arguments.paths,
        json: arguments.json,
    };
    let mut out = BufWriter::new(stdout().lock());
    match map::run(&fsmap, &options, &mut out) {
        Ok(()) => Ok(out.flush()?),
        Err(map::RunError::Write(cause)) => Err(cause.into()),
        Err(map::RunError::Read(cause)) => {
            out.flush()?;
            Err(Failure::read(&arguments.image, cause))
        }
    }
}

/// Checks an image.
pub(crate) fn check(arguments: &Check) -> Result<(), Failure> {
    let image = open(&arguments.image)?;
    let mut out: Box<dyn Write> = match arguments.quiet {
        true => Box::new(std::io::sink()),
        false => Box::new(BufWriter::new(stdout().lock())),
    };
    let code = checker::run(image, arguments.json, &mut out)?;
    out.flush()?;
    let shown = arguments.image.display();
    match code {
        0 => Ok(()),
        1 => Err(Failure::Damaged(format!("{shown}: problems were found"))),
        _ => Err(Failure::Unreadable(format!(
            "{shown}: it could not be checked"
        ))),
    }
}

fn open(path: &Path) -> Result<File, Failure> {
    File::open(path).map_err(|cause| Failure::Open {
        path: path.to_owned(),
        cause,
    })
}
