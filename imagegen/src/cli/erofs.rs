//! Calls the library with what was asked for of an EROFS image.

use super::erofs_make::ErofsMake;
use super::{Failure, output, progress, sources};
use imagegen::erofs::make::{make as write, plan, rehearse};
use imagegen::erofs::write::Media;
use imagegen::medium::Medium;
use imagegen::target::{Present, Target, TargetError, capacity};
use std::time::Instant;

/// Makes an image.
pub(crate) fn make(arguments: &ErofsMake) -> Result<(), Failure> {
    arguments.check()?;
    let begin = Instant::now();
    let (run, image) = (&arguments.run, arguments.inputs.image()?);
    let verity = &arguments.verity;
    let times = arguments.content.times(sources::epoch().as_deref())?;
    let request = arguments.request()?;
    request.options.check()?;
    let device = capacity(image)?;
    sources::check_target(image, device, run.overwrite())?;
    let present = match device {
        Some(_) => Some(Present::open(image, run.overwrite())?),
        None => None,
    };
    let (inputs, content) = (&arguments.inputs.sources, &arguments.content);
    let source = sources::open(inputs, content, run, None, times)?;
    let plan = plan(&source, &request)?;
    let target = match present {
        // What a device holds is given up only for a tree that fits.
        Some(present) => {
            let size = verity.room(rehearse(&source, &request, &plan)?.bytes)?;
            let capacity = present.size();
            if size > capacity {
                let path = image.to_owned();
                return Err(TargetError::TooSmall {
                    path,
                    capacity,
                    size,
                }
                .into());
            }
            present.begin(capacity)?
        }
        None => Target::growing(image, plan.at_most(), run.overwrite())?,
    };
    let blob = arguments.format.blob.as_deref();
    let blob = blob.map(|path| Target::growing(path, 0, run.overwrite()));
    let blob = blob.transpose()?;
    let media = Media {
        image: &target,
        blob: blob.as_ref().map(|blob| blob as &dyn Medium),
    };
    let made = progress::shown(&plan.survey().into(), run.is_silent(), |progress| {
        write(&source, &request, &plan, media, progress)
    })?;
    let (overwrite, sync) = (run.overwrite(), !run.no_sync);
    // The image comes last: it is of no use without its data.
    if let Some(blob) = blob {
        blob.finish_at(made.device_bytes, sync)?;
    }
    let sealed = verity.seal(&target, made.bytes, overwrite, sync, run.threads)?;
    target.finish_at(sealed.bytes, sync)?;
    output::erofs_made(run, image, &request, &plan, &made, &sealed, begin.elapsed())?;
    match run.json {
        true => Ok(()),
        false => sealed.say(image),
    }
}
