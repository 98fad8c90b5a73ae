//! Images that lie over each other: what can be known of whether they belong together.

use std::fs::File;
use std::path::{Path, PathBuf};

use imagegen::locks::is_written;
use imagegen::qcow2::open::{Format, file};
use imagegen::qcow2::provenance::Provenance;
use imagegen::qcow2::read::{Disk, Layer, What};
use ublk_target::control::protocol::{ErrorCode, Failure};

use crate::Done;

/// What size a disk has for QEMU is a multiple of this.
pub(super) const SECTOR: u64 = 512;

/// Whether the layers, the files of which are `paths`, lie where they were made to.
///
/// # Errors
/// Which does not, and why not.
pub(super) fn belong_together(disk: &Disk<File>, paths: &[PathBuf]) -> Result<(), String> {
    let told: Vec<_> = disk.layers().map(made_of).zip(paths).collect();
    for (place, (over, path)) in told.iter().enumerate() {
        let below = told.get(place + 1);
        let under = match below {
            // What does not tell is believed.
            Some((None, _)) => continue,
            Some((Some(below), _)) => Some(below),
            None => None,
        };
        let Some(Err(why)) = over.map(|over| over.over(under)) else {
            continue;
        };
        let image = path.display();
        let below = below.map(|(_, path)| format!(" over {}", path.display()));
        return Err(format!("{image}{}: {why}", below.unwrap_or_default()));
    }
    match (is_cut_off(disk), paths.last()) {
        (true, Some(path)) => Err(format!(
            "{} is shorter than what the increment over it needs",
            path.display()
        )),
        _ => Ok(()),
    }
}

fn made_of(layer: &Layer<File>) -> Option<Provenance> {
    match layer {
        Layer::Qcow2(image) => image.extensions().provenance,
        Layer::Raw(_) | Layer::Parts(..) => None,
    }
}

/// Whether the lowest image is raw and lacks bytes that an increment over it leaves to it: all
/// by which a volume grew is in the increment itself.
fn is_cut_off(disk: &Disk<File>) -> bool {
    let layers: Vec<_> = disk.layers().collect();
    let [.., over, below @ Layer::Raw(_)] = layers[..] else {
        return false;
    };
    if made_of(over).is_none_or(|made| made.since.is_none()) {
        return false;
    }
    let (Ok(end), Ok(mut at)) = (over.size(), below.size()) else {
        return false;
    };
    at = at.next_multiple_of(SECTOR);
    let end = end.min(disk.size());
    while at < end {
        // What cannot be read is found when it is.
        let Ok(run) = disk.run(at, end - at) else {
            return false;
        };
        if run.what == What::Nothing {
            return true;
        }
        at += run.length.max(1);
    }
    false
}

/// Whether a file that is said to be raw begins as a QCOW2 does.
pub(super) fn is_qcow2(path: &Path) -> bool {
    file(path).is_ok_and(|file| matches!(Format::of(&file), Ok(Format::Qcow2)))
}

/// Refuses files one of which a machine is writing to.
pub(super) fn must_be_still<'a>(files: impl IntoIterator<Item = &'a Path>) -> Done {
    let is_written = |path: &&Path| file(path).is_ok_and(|file| is_written(&file));
    match files.into_iter().find(is_written) {
        None => Ok(()),
        Some(file) => {
            let message = format!("{}: a machine is writing to it", file.display());
            Err(Failure::new(ErrorCode::Busy, message)
                .next("stop the machine; --trust takes what is there"))
        }
    }
}
