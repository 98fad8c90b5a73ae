//! Calls the library with what was asked for: the one place that does.

use super::make::{Make, Room};
use super::read::{Check, Fsmap};
use super::values::Free;
use super::{Failure, output, progress, sources};
use imagegen::target::{Present, Target, capacity};
use imagegen::xfs::make::{Request, Size, make as write, plan, rehearse};
use imagegen::xfs::read::Reader;
use imagegen::xfs::{check as checker, fsmap as map};
use std::fs::File;
use std::io::{BufWriter, Write, stdout};
use std::path::Path;
use std::time::Instant;
use uuid::Uuid;

/// Makes an image.
pub(crate) fn make(arguments: &Make) -> Result<(), Failure> {
    arguments.check()?;
    let begin = Instant::now();
    let image = arguments.inputs.image()?;
    let times = arguments.content.times(sources::epoch().as_deref())?;
    let device = capacity(image)?;
    let request = request(arguments, device)?;
    // What cannot be at all is said before a large tree is read.
    sources::check_target(image, device, arguments.run.overwrite())?;
    let present = match device {
        Some(_) => Some(Present::open(image, arguments.run.overwrite())?),
        None => None,
    };
    if let Size::Exact(size) = request.size {
        arguments.options(size, Uuid::nil())?.geometry()?;
    }
    let source = sources::open(
        &arguments.inputs,
        &arguments.content,
        &arguments.run,
        arguments.project,
        times,
    )?;
    let plan = plan(&source, &request)?;
    let target = match present {
        // What a device holds is given up only for a tree that fits.
        Some(present) => {
            rehearse(&source, &request, &plan)?;
            present.begin(plan.bytes())?
        }
        None => Target::create(image, plan.bytes(), arguments.run.overwrite())?,
    };
    let made = progress::shown(
        &(&plan.survey).into(),
        arguments.run.is_silent(),
        |progress| write(&source, &request, &plan, &target, progress),
    )?;
    target.finish(!arguments.run.no_sync)?;
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
        threads: arguments.run.threads,
    })
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
