//! `make bench-images`: what an image of a tree of files costs, beside the programs that
//! make the same.
//!
//! For each tree the targets are measured in turn, round after round (A B C A B C ...), so
//! that a slow moment of the machine hits all alike; a row is the median of the rounds.
//! Tree and images lie on the same disk, the tree is in the page cache, and before each
//! measurement what the one before made is removed and all is synced.
//!
//! - [`trees`]: what is put into images
//! - [`targets`]: what makes XFS images of them, [`mod@erofs`]: EROFS images,
//!   [`mod@qcow2`]: QCOW2 images of a disk, [`export`]: of a volume that csnapd serves
//! - [`measure`]: one run of a target
//! - [`report`]: rows, table, JSON; [`bars`]: what they must reach
//!
//! Settings: `BENCH_QUICK=1` (2 rounds), `BENCH_ROUNDS` (5), `BENCH_DISK` (a directory),
//! `BENCH_ONLY` (names of trees with commas between), `BENCH_TARGETS` (a text that the names
//! of targets have, as `erofs`), `BENCH_IMAGEGEN` (another imagegen
//! than the one built from here).
#![allow(clippy::print_stdout, clippy::print_stderr)] // a program for people

mod bars;
mod erofs;
mod export;
mod measure;
mod qcow2;
mod report;
mod targets;
mod trees;

use std::fmt::Display;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode};

use report::{Report, Sample};
use targets::{Job, Target};
use trees::{Extent, Tree};

/// What went wrong, for a person.
type Outcome<T = ()> = Result<T, String>;

/// Says what was tried when something failed.
trait Trying<T> {
    fn trying(self, what: impl Display) -> Outcome<T>;
}

impl<T, E: Display> Trying<T> for Result<T, E> {
    fn trying(self, what: impl Display) -> Outcome<T> {
        self.map_err(|error| format!("{what}: {error}"))
    }
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match &*arguments.iter().map(String::as_str).collect::<Vec<_>>() {
        [] | ["--bench"] => run(),
        ["--measure", steps] => measure::inside(steps),
        _ => Err("no arguments are taken; settings stand in the environment".into()),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(why) => {
            eprintln!("images: {why}");
            ExitCode::FAILURE
        }
    }
}

/// Measures every tree; what there is so far is written after each.
fn run() -> Outcome {
    let plan = Plan::from_environment()?;
    let results = targets::cargo_target().join("bench");
    std::fs::create_dir_all(&results).trying(results.display())?;
    let work = Work::new(plan.disk.join("images"))?;
    let mut report = Report::new(conditions(&plan, &work.0)?);
    for tree in Tree::all() {
        if !plan.only.is_empty() && !plan.only.iter().any(|only| only == tree.name) {
            continue;
        }
        case(&plan, &work, &tree, &mut report)?;
        report.write(&results)?;
    }
    println!("{}", report.markdown());
    Ok(())
}

/// Makes a tree, measures every target with it, and removes it.
fn case(plan: &Plan, work: &Work, tree: &Tree, report: &mut Report) -> Outcome {
    let needed = tree.extent()?;
    let free = work.free()?;
    if let Err(why) = needed.fits(free) {
        eprintln!("SKIPPED: {}: {why}", tree.name);
        report.skip(tree.name, "all", &why);
        return Ok(());
    }
    eprintln!("images: making the tree {}", tree.name);
    let root = work.0.join("tree");
    tree.make(&root)?;
    let served = tree.serve(&work.0)?;
    let extent = match served {
        Some(_) => needed,
        None => trees::warm(&root)?,
    };
    let mut targets = Vec::new();
    for target in tree.targets() {
        match target {
            Ok(target) if !target.name.contains(&plan.targets) => {}
            Ok(target) => targets.push(target),
            Err((name, why)) => {
                eprintln!("SKIPPED: {}: {name}: {why}", tree.name);
                report.skip(tree.name, name, &why);
            }
        }
    }
    let job = Job {
        tree: &root,
        image: &work.0.join("image"),
        mount: &work.0.join("mount"),
        size: extent.image_size(),
    };
    for round in 1..=plan.rounds {
        for target in &targets {
            let sample = once(&job, target).trying(format!("{}: {}", tree.name, target.name))?;
            eprintln!(
                "images: {}, round {round} of {}: {:<17} {:7.2} s done {:7.2} s durable",
                tree.name, plan.rounds, target.name, sample.done, sample.durable
            );
            report.add(tree.name, target.name, &extent, sample);
        }
    }
    std::fs::remove_dir_all(&root).trying("remove the tree")
}

/// One measurement, with everything out of the way that the one before made.
fn once(job: &Job<'_>, target: &Target) -> Outcome<Sample> {
    job.clear()?;
    (target.prepare)(job)?;
    measure::sync(job.image)?;
    // Some machines take the page cache away from whoever does not use it.
    trees::warm(job.tree)?;
    let sample = measure::run(&(target.steps)(job), job.image);
    job.unmount();
    let sample = sample?;
    job.clear()?;
    Ok(sample)
}

/// How much, how often, where.
struct Plan {
    rounds: u32,
    disk: PathBuf,
    only: Vec<String>,
    /// What the names of targets have.
    targets: String,
}

impl Plan {
    fn from_environment() -> Outcome<Self> {
        let variable = |name| std::env::var(name).ok();
        let quick = variable("BENCH_QUICK").is_some_and(|value| value == "1");
        let rounds = match variable("BENCH_ROUNDS") {
            Some(rounds) => rounds.parse().trying("BENCH_ROUNDS")?,
            None if quick => 2,
            None => 5,
        };
        let disk = std::env::var_os("BENCH_DISK").map(PathBuf::from);
        let only = variable("BENCH_ONLY").unwrap_or_default();
        let only = only.split(',').filter(|name| !name.is_empty());
        Ok(Self {
            rounds: u32::max(rounds, 1),
            disk: disk.unwrap_or_else(|| targets::cargo_target().join("bench/work")),
            only: only.map(str::to_owned).collect(),
            targets: variable("BENCH_TARGETS").unwrap_or_default(),
        })
    }
}

/// The directory on the disk; empty at first, gone at the end.
struct Work(PathBuf);

impl Work {
    fn new(path: PathBuf) -> Outcome<Self> {
        let mount = path.join("mount");
        if path.exists() {
            Job::unmount_at(&mount);
            std::fs::remove_dir_all(&path).trying(format!("remove {}", path.display()))?;
        }
        std::fs::create_dir_all(&mount).trying(format!("make {}", mount.display()))?;
        let path = path.canonicalize().trying(path.display())?;
        Ok(Self(path))
    }

    /// What is free on the disk.
    fn free(&self) -> Outcome<Extent> {
        let free = rustix::fs::statvfs(&self.0).trying(self.0.display())?;
        Ok(Extent {
            bytes: free.f_bavail * free.f_frsize,
            // Some file systems have no limit, which they tell as 0.
            objects: if free.f_files == 0 {
                u64::MAX
            } else {
                free.f_favail
            },
        })
    }
}

impl Drop for Work {
    fn drop(&mut self) {
        Job::unmount_at(&self.0.join("mount"));
        let _ = std::fs::remove_dir_all(&self.0);
    }
}

/// What it is measured on.
fn conditions(plan: &Plan, work: &Path) -> Outcome<report::Conditions> {
    let text = |program: &str, arguments: &[&str]| {
        let output = Command::new(program).args(arguments).output();
        let output = output.trying(format!("run {program}"))?;
        Ok::<_, String>(String::from_utf8_lossy(&output.stdout).trim().to_owned())
    };
    let load = std::fs::read_to_string("/proc/loadavg").trying("read the load")?;
    let load = load.split(' ').next().and_then(|load| load.parse().ok());
    let place = work.to_string_lossy();
    Ok(report::Conditions {
        commit: text("git", &["describe", "--always", "--dirty"]).unwrap_or_default(),
        kernel: text("uname", &["-srm"])?,
        cpus: std::thread::available_parallelism().map_or(0, std::num::NonZero::get),
        disk: text("findmnt", &["-no", "FSTYPE", "-T", &place]).unwrap_or_default(),
        mkfs: [("xfsprogs", "mkfs.xfs"), ("erofs-utils", "mkfs.erofs")]
            .map(|(package, program)| {
                let version = targets::version(package, program);
                version.unwrap_or_else(|| format!("no {program}"))
            })
            .join(", "),
        load: load.unwrap_or(f64::NAN),
        rounds: plan.rounds,
    })
}
