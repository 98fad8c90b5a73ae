//! EROFS: settings, each of imagegen and of the newest mkfs.erofs, and what is wanted of
//! the one beside the other.

use crate::bars::{Goal, Pair};
use crate::measure::Step;
use crate::targets::{Found, Target, imagegen_program, newest, step, text};

/// The same image, as both are asked for it.
pub(crate) struct Setting {
    ours: &'static str,
    theirs: &'static str,
    imagegen: &'static [&'static str],
    mkfs: &'static [&'static str],
    wanted: Goal,
}

const SETTINGS: [Setting; 6] = [
    Setting {
        ours: PLAIN,
        theirs: "mkfs.erofs",
        imagegen: &[],
        mkfs: &[],
        wanted: Goal::AsGood,
    },
    Setting {
        ours: "erofs lz4",
        theirs: "mkfs.erofs lz4",
        imagegen: &["--compress", "lz4", "--cluster-size", "4k"],
        mkfs: &["-zlz4"],
        wanted: Goal::AsGood,
    },
    Setting {
        ours: "erofs lz4 64K",
        theirs: "mkfs.erofs lz4 64K",
        imagegen: &["--compress", "lz4", "--cluster-size", "64k"],
        mkfs: &["-zlz4", "-C65536"],
        wanted: Goal::AsGood,
    },
    Setting {
        ours: "erofs lz4hc,12 64K",
        theirs: "mkfs.erofs lz4hc,12 64K",
        imagegen: &["--compress", "lz4hc,12", "--cluster-size", "64k"],
        mkfs: &["-zlz4hc,12", "-C65536"],
        wanted: Goal::AsGood,
    },
    Setting {
        ours: "erofs zstd,3 64K",
        theirs: "mkfs.erofs zstd,3 64K",
        imagegen: &["--compress", "zstd,3", "--cluster-size", "64k"],
        mkfs: &["-zzstd,3", "-C65536"],
        wanted: Goal::LittleProcessor,
    },
    Setting {
        ours: "erofs lz4 64K dedupe",
        theirs: "mkfs.erofs lz4 64K dedupe",
        imagegen: &["--compress", "lz4", "--cluster-size", "64k", "--dedupe"],
        mkfs: &["-zlz4", "-C65536", "-Ededupe"],
        wanted: Goal::FiveTimesAsFast,
    },
];

/// The name of the plain image, imagegen's.
pub(crate) const PLAIN: &str = "erofs";

/// All that are measured with trees of a system.
pub(crate) fn targets() -> Vec<Found> {
    let both = |one| [ours(one), theirs(one)];
    SETTINGS.iter().flat_map(both).collect()
}

/// The plain image alone.
pub(crate) fn plain() -> Found {
    ours(&SETTINGS[0])
}

/// Which target is measured by which, and what is wanted of them.
pub(crate) fn pairs() -> Vec<Pair> {
    let pair = |one: &Setting| one.wanted.pair(one.ours, one.theirs);
    SETTINGS.iter().map(pair).collect()
}

fn ours(setting: &Setting) -> Found {
    let program = imagegen_program().map_err(|why| (setting.ours, why))?;
    let options = setting.imagegen;
    Ok(made_by(setting.ours, move || {
        let mut words = step(&[&program, "erofs", "--quiet"]);
        words.extend(step(options));
        words
    }))
}

fn theirs(setting: &Setting) -> Found {
    let mkfs = newest("erofs-utils", "mkfs.erofs").map_err(|why| (setting.theirs, why))?;
    let options = setting.mkfs;
    Ok(made_by(setting.theirs, move || {
        let mut words = mkfs.clone();
        words.push("--quiet".into());
        words.extend(step(options));
        words
    }))
}

/// What is run with the image and the tree as its last words.
fn made_by(name: &'static str, words: impl Fn() -> Step + 'static) -> Target {
    Target {
        name,
        prepare: |_| Ok(()),
        steps: Box::new(move |job| {
            let mut step = words();
            step.extend([text(job.image), text(job.tree)]);
            vec![step]
        }),
    }
}
