//! Calls the library with what was asked for of an EROFS image.

use super::erofs_make::ErofsMake;
use super::places::{Destination, apart};
use super::{Failure, output, progress, sources};
use imagegen::erofs::make::{make as write, plan, rehearse};
use imagegen::erofs::write::Media;
use imagegen::medium::Medium;
use std::time::Instant;

/// Makes an image.
pub(crate) fn make(arguments: &ErofsMake) -> Result<(), Failure> {
    arguments.check()?;
    let begin = Instant::now();
    let (run, image) = (&arguments.run, arguments.inputs.image()?);
    let (verity, overwrite) = (&arguments.verity, run.overwrite());
    let times = arguments.content.times(sources::epoch().as_deref())?;
    let request = arguments.request()?;
    request.options.check()?;
    apart(&arguments.places()?)?;
    let place = Destination::open(image, overwrite)?;
    let blob = arguments.format.blob.as_deref();
    let blob = blob.map(|path| Destination::open(path, overwrite));
    let blob = blob.transpose()?;
    let (inputs, content) = (&arguments.inputs.sources, &arguments.content);
    let source = sources::open(inputs, content, run, None, times)?;
    let plan = plan(&source, &request)?;
    // What a device holds is given up only for a tree that fits.
    let any_device = place.is_device() || blob.as_ref().is_some_and(Destination::is_device);
    let (size, beside) = if any_device {
        let laid_out = rehearse(&source, &request, &plan)?;
        (verity.room(laid_out.bytes)?, laid_out.device_bytes)
    } else {
        (0, 0)
    };
    let blob = blob.map(|place| place.begin(beside, 0, overwrite));
    let blob = blob.transpose()?;
    let target = place.begin(size, plan.at_most(), overwrite)?;
    let media = Media {
        image: &target,
        blob: blob.as_ref().map(|blob| blob as &dyn Medium),
    };
    let made = progress::shown(&plan.survey().into(), run.is_silent(), |progress| {
        write(&source, &request, &plan, media, progress)
    })?;
    let sync = !run.no_sync;
    let sealed = verity.seal(&target, made.bytes, overwrite, sync, run.threads)?;
    // The image comes last: it is of no use without its data.
    if let Some(blob) = blob {
        blob.finish_at(made.device_bytes, sync)?;
    }
    target.finish_at(sealed.bytes, sync)?;
    output::erofs_made(run, image, &request, &plan, &made, &sealed, begin.elapsed())?;
    match run.json {
        true => Ok(()),
        false => sealed.say(image),
    }
}
