//! What goes in, opened and changed as the arguments say; and whether the image may go where
//! it shall.

use super::Failure;
use super::inputs::{self, Content, Run};
use super::values::Times;
use imagegen::target::{Overwrite, TargetError};
use imagegen::tree::{
    self, Adjust, Adjusted, Contexts, Empty, Overlay, OwnerMap, Owners, Source, Spec, SpecOptions,
    Time, TreeError, WalkOptions,
};
use std::path::Path;
use std::time::{SystemTime, UNIX_EPOCH};

/// The time that nothing shall be later than, from the environment.
pub(crate) fn epoch() -> Option<String> {
    let epoch = std::env::var("SOURCE_DATE_EPOCH").ok();
    epoch.filter(|epoch| !epoch.is_empty())
}

/// Refuses a name that is taken, and devices that are not there; `device` are the bytes of
/// the one it is.
pub(crate) fn check_target(
    image: &Path,
    device: Option<u64>,
    overwrite: Overwrite,
) -> Result<(), Failure> {
    if device.is_none() && overwrite == Overwrite::Refuse && image.exists() {
        let path = image.to_owned();
        return Err(TargetError::Exists { path }.into());
    }
    if device.is_none() && image.starts_with("/dev") && !image.exists() {
        let shown = image.display();
        return Err(Failure::usage(format!("{shown}: there is no such device")));
    }
    Ok(())
}

/// All sources, one over the other, changed as asked for.
pub(crate) fn open(
    sources: &[Spec],
    content: &Content,
    run: &Run,
    project: Option<u32>,
    times: Times,
) -> Result<Adjusted<Box<dyn Source>>, Failure> {
    let options = SpecOptions {
        walk: WalkOptions {
            one_file_system: content.one_file_system,
            exclude: content.exclude.clone(),
            threads: run.threads,
        },
        platform: content.platform.clone(),
        objects: content.objects.clone(),
    };
    let directory = |spec: &Spec| matches!(spec, Spec::Path(path) if !path.is_file());
    let leaves_out = options.walk.one_file_system || !options.walk.exclude.is_empty();
    if leaves_out && !sources.iter().all(directory) {
        return Err(Failure::usage(
            "--exclude and --one-file-system work on directories only; unpack the other sources, or leave these options out",
        ));
    }
    let opened = sources.iter().map(|spec| spec.open(&options));
    let mut sources = opened.collect::<Result<Vec<_>, TreeError>>()?;
    let source: Box<dyn Source> = match sources.len() {
        0 => Box::new(Empty { time: now() }),
        1 => sources.remove(0),
        _ => Box::new(Overlay::new(sources)),
    };
    Ok(Adjusted::new(source, adjust(content, project, times)?))
}

fn adjust(content: &Content, project: Option<u32>, times: Times) -> Result<Adjust, Failure> {
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
        project,
        labels: match content.labels() {
            None => None,
            Some(inputs::Labels::All(label)) => Some(tree::Labels::All(label)),
            Some(inputs::Labels::File(path)) => {
                Some(tree::Labels::Contexts(Contexts::read(&path)?))
            }
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
