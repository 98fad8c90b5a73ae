//! EROFS images that imagegen writes onto devices, and what of a tree they show.

use std::path::Path;

use imagegen::erofs::check::check;
use imagegen::erofs::make::{Request, make, plan};
use imagegen::erofs::write::{Media, Options};
use imagegen::target::{Overwrite, Target};
use imagegen::tree::{Directory, Progress, WalkOptions};

use super::Device;
use super::image::{Original, failed, opened};
use super::view::{Contents, View};
use crate::e2e::Outcome;
use crate::ensure;

/// What of an original's tree is left out: attributes that EROFS has no room for, beyond a
/// block or of more than 65,535 bytes; and holes of a GiB and more, in which Linux 6.12 looks
/// for data block by block, which takes a guest most of a minute each time.
const TOO_MUCH: [&str; 6] = [
    "attributes/node",
    "attributes/remote",
    "attributes/largest",
    "sparse/hole",
    "sparse/begin",
    "sparse/middle",
];

/// Writes an image of the tree onto a device; nobody else may find a flaw in it.
///
/// # Errors
/// If imagegen refuses, or its checker does.
pub fn write(original: &Original, device: &Device, options: &Options) -> Outcome {
    let walk = WalkOptions {
        exclude: TOO_MUCH.iter().map(|path| format!("/{path}")).collect(),
        ..WalkOptions::default()
    };
    let source = Directory::open(original.dir(), &walk);
    let source = source.map_err(|error| failed("open the tree", &error))?;
    let request = Request {
        options: options.clone(),
        uuid: None,
    };
    let plan = plan(&source, &request).map_err(|error| failed("plan an image", &error))?;
    let target = Target::create(&device.path, device.size()?, Overwrite::Force);
    let target = target.map_err(|error| failed("begin an image", &error))?;
    let media = Media {
        image: &target,
        blob: None,
    };
    make(&source, &request, &plan, media, &Progress::default())
        .map_err(|error| failed("write an image", &error))?;
    let finished = target.finish(true);
    finished.map_err(|error| failed("finish an image", &error))?;
    let report = check(opened(device)?, Vec::new(), &Progress::default());
    ensure!(
        report.exit_code() == 0,
        "imagegen's checker finds {} problems: {:?}",
        report.found,
        report.problems
    );
    Ok(())
}

/// What an image of the tree must show: one time, and contents whatever holes they have.
#[must_use]
pub fn expected(tree: &View) -> View {
    let kept = |path: &Path| TOO_MUCH.iter().all(|other| path != Path::new(other));
    let objects = tree.iter().filter(|(path, _)| kept(path));
    let objects = objects.map(|(path, seen)| {
        let mut seen = seen.clone();
        seen.ctime = seen.mtime;
        if let Contents::File { data, .. } = &mut seen.contents {
            data.clear();
        }
        (path.clone(), seen)
    });
    objects.collect()
}
