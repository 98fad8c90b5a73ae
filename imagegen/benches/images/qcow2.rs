//! QCOW2: a raw disk in an image, each way by imagegen and by qemu-img, and what is wanted
//! of the one beside the other.

use std::process::{Command, Stdio};

use crate::bars::{Goal, Pair};
use crate::measure::Step;
use crate::targets::{Found, Job, Target, imagegen_program, step, text};

/// The disk's file in its tree.
pub(crate) const DISK: &str = "disk.raw";

/// The same image, as both are asked for it.
struct Setting {
    ours: &'static str,
    theirs: &'static str,
    imagegen: &'static [&'static str],
    qemu: &'static [&'static str],
    wanted: Goal,
}

const SETTINGS: [Setting; 3] = [
    Setting {
        ours: "qcow2",
        theirs: "qemu-img",
        imagegen: &[],
        qemu: &[],
        wanted: Goal::AsGood,
    },
    Setting {
        ours: "qcow2 zlib",
        theirs: "qemu-img zlib",
        imagegen: &["--compress", "zlib"],
        qemu: &["-c"],
        wanted: Goal::HalfAgainAsFast,
    },
    Setting {
        ours: "qcow2 zstd",
        theirs: "qemu-img zstd",
        imagegen: &["--compress", "zstd"],
        qemu: &["-c", "-o", "compression_type=zstd"],
        wanted: Goal::HalfAgainAsFast,
    },
];

/// All that are measured.
pub(crate) fn targets() -> Vec<Found> {
    let both = |one| [ours(one), theirs(one)];
    SETTINGS.iter().flat_map(both).collect()
}

/// Which target is measured by which, and what is wanted of them.
pub(crate) fn pairs() -> Vec<Pair> {
    let pair = |one: &Setting| one.wanted.pair(one.ours, one.theirs);
    SETTINGS.iter().map(pair).collect()
}

fn ours(setting: &'static Setting) -> Found {
    let program = imagegen_program().map_err(|why| (setting.ours, why))?;
    Ok(made_by(setting.ours, move |job| {
        let mut words = step(&[&program, "qcow2", "convert", "--quiet", "-O", "qcow2"]);
        words.extend(step(setting.imagegen));
        words.extend([text(&job.tree.join(DISK)), text(job.image)]);
        words
    }))
}

/// With as many threads as it likes: by itself it compresses in four.
fn theirs(setting: &'static Setting) -> Found {
    let mut command = Command::new("qemu-img");
    let there = command.arg("--version").stdout(Stdio::null()).status();
    there.map_err(|error| (setting.theirs, format!("run qemu-img: {error}")))?;
    Ok(made_by(setting.theirs, move |job| {
        let mut words = step(&["qemu-img", "convert", "-f", "raw", "-O", "qcow2"]);
        words.extend(step(setting.qemu));
        words.extend([text(&job.tree.join(DISK)), text(job.image)]);
        words
    }))
}

fn made_by(name: &'static str, words: impl Fn(&Job<'_>) -> Step + 'static) -> Target {
    Target {
        name,
        prepare: |_| Ok(()),
        steps: Box::new(move |job| vec![words(job)]),
    }
}
