//! `make bench`: see `csnap_tests::bench`.
//!
//! `bench`                  runs everything, prints the table, writes
//!                          `target/bench/native.json` and `native.md`
//! `bench --suite native`   only the servers side by side; writes the same files
//! `bench --suite engine`   only the engine and its parts; writes `engine.json`
//!                          and `engine.md`
//! `bench --suite guest`    csnap on ublk beside the kernel's own snapshots, in the
//!                          guest; writes `guest.json` and `guest.md`
//! `bench --doc FILE`       puts the latest `native.md`, `guest.md` and `images.md`
//!                          between their markers in FILE
//! `bench in-guest PLAN`    what `--suite guest` runs inside
//!
//! `BENCH_QUICK=1` takes a few minutes and is for a first look only.
#![allow(clippy::print_stdout, clippy::print_stderr)] // a program for people

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use csnap_tests::bench::cases::Target;
use csnap_tests::bench::plan::Plan;
use csnap_tests::bench::report::{self, Samples};
use csnap_tests::bench::{amplification, engine, guest, parts};
use csnap_tests::e2e::fault::Trying;
use csnap_tests::e2e::{Outcome, tools};
use csnap_tests::ensure;

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] | ["--suite", "all"] => run(Suite::All),
        ["--suite", "native"] => run(Suite::Native),
        ["--suite", "engine"] => run(Suite::Engine),
        ["--suite", "guest"] => in_the_guest(),
        ["in-guest", plan] => guest::inside::run(Path::new(plan)),
        ["--doc", document] => document_it(Path::new(document)),
        _ => {
            eprintln!("usage: bench [--suite engine|native|all|guest | --doc FILE]");
            return ExitCode::from(2);
        }
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("bench: {fault}");
            ExitCode::FAILURE
        }
    }
}

/// What is measured.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Suite {
    /// Servers side by side.
    Native,
    /// The engine and its parts.
    Engine,
    /// Both.
    All,
}

impl Suite {
    /// Name of the files it writes.
    fn name(self) -> &'static str {
        match self {
            Self::Native | Self::All => "native",
            Self::Engine => "engine",
        }
    }
}

fn run(suite: Suite) -> Outcome {
    let plan = Plan::from_environment()?;
    for dir in [&plan.ram, &plan.disk] {
        std::fs::create_dir_all(dir).trying(|| format!("make {}", dir.display()))?;
    }
    let mut samples = Samples::default();
    if suite != Suite::Native {
        eprintln!("bench: the parts of a copyout");
        parts::measure(&plan, &mut samples)?;
        eprintln!("bench: the engine alone");
        engine::measure(&plan, &mut samples)?;
    }
    if suite != Suite::Engine {
        servers(&plan, suite, &mut samples)?;
    }
    println!("{}", write(&plan, suite, &samples)?);
    let _ = std::fs::remove_dir(&plan.ram);
    Ok(())
}

/// Csnap and qemu side by side. Written after each part: a long run that is broken
/// off has something to show.
fn servers(plan: &Plan, suite: Suite, samples: &mut Samples) -> Outcome {
    rounds(plan, samples, Target::all(plan)?, "")?;
    write(plan, suite, samples)?;
    rounds(plan, samples, Target::on_disk(plan)?, "-disk")?;
    write(plan, suite, samples)?;
    eprintln!("bench: amplification");
    amplification::measure(plan, samples)
}

/// Writes the rows and the page; hands back the page.
fn write(plan: &Plan, suite: Suite, samples: &Samples) -> Outcome<String> {
    let rows = samples.rows();
    let text = report::markdown(&rows, &conditions(plan, suite)?);
    let name = suite.name();
    report::write_json(&rows, &results()?.join(format!("{name}.json")))?;
    let page = results()?.join(format!("{name}.md"));
    std::fs::write(&page, &text).trying(|| format!("write {}", page.display()))?;
    Ok(text)
}

/// A B C A B C ...: a slow moment of the machine hits all alike.
fn rounds(plan: &Plan, samples: &mut Samples, mut targets: Vec<Target>, medium: &str) -> Outcome {
    for round in 1..=plan.rounds {
        for target in &mut targets {
            eprintln!(
                "bench: round {round} of {}{medium}: {}",
                plan.rounds,
                name(target)
            );
            target.measure(plan, samples, medium)?;
        }
    }
    targets.into_iter().try_for_each(Target::end)
}

fn name(target: &Target) -> String {
    match target {
        Target::Csnap(_, snapshots) => format!("csnap with {snapshots} snapshots"),
        Target::Raw(_) => "qemu, raw file".into(),
        Target::Overlay(_) => "qemu, qcow2 overlay".into(),
    }
}

fn in_the_guest() -> Outcome {
    let plan = guest::plan::Plan::from_environment()?;
    println!("{}", guest::host::run(&plan, &results()?)?);
    Ok(())
}

/// Puts in what there is; a suite that was not run keeps its older table.
fn document_it(document: &Path) -> Outcome {
    let pages = [
        ("bench", "native.md"),
        ("guest", "guest.md"),
        ("images", "images.md"),
    ];
    let mut put = 0;
    for (name, file) in pages {
        let page = results()?.join(file);
        if !page.exists() {
            eprintln!("bench: no {}: its table stays as it is", page.display());
            continue;
        }
        let table = std::fs::read_to_string(&page);
        let table = table.trying(|| format!("read {}", page.display()))?;
        report::into_document(document, name, &table)?;
        put += 1;
    }
    ensure!(put > 0, "there is no table yet: `make bench` writes one");
    Ok(())
}

fn results() -> Outcome<PathBuf> {
    Ok(tools::target_dir()?.join("bench"))
}

/// What it was measured on.
fn conditions(plan: &Plan, suite: Suite) -> Outcome<String> {
    let kernel = tools::run(tools::program("uname").arg("-srm"))?;
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    let mut text = format!("{cpus} CPUs; {}.", kernel.trim());
    if suite != Suite::Native {
        text += &format!(
            " `engine` and `parts`: median of {} rounds where time is measured; {} chunks are \
             copied in each `engine` case, by one CPU.",
            plan.rounds, plan.inserted
        );
    }
    if suite != Suite::Engine {
        text += &servers_conditions(plan)?;
    }
    Ok(text)
}

fn servers_conditions(plan: &Plan) -> Outcome<String> {
    let qemu = tools::run(tools::program("qemu-storage-daemon").arg("--version"))?;
    let fio = tools::run(tools::program("fio").arg("--version"))?;
    Ok(format!(
        " `csnap` and `qemu`: median of {} interleaved rounds; server and fio share the CPUs; \
         {}; {}. Origins of {} MiB in memory (tmpfs, direct I/O); `-disk`, `-8g`, `-1t` and \
         `-cold-tree` on a disk with a volatile cache. Requests of 4 KiB at queue depth 32; \
         `first-overwrite` writes whole chunks.",
        plan.rounds,
        qemu.lines().next().unwrap_or("qemu").trim(),
        fio.trim(),
        plan.origin >> 20,
    ))
}
