//! `make bench`: see `csnap_tests::bench`.
//!
//! `bench`                runs everything, prints the table, writes
//!                        `target/bench/native.json` and `native.md`
//! `bench --doc FILE`     puts the latest `native.md` between the markers of FILE
//!
//! `BENCH_QUICK=1` takes under three minutes and is for a first look only.
#![allow(clippy::print_stdout, clippy::print_stderr)] // a program for people

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use csnap_tests::bench::amplification;
use csnap_tests::bench::cases::Target;
use csnap_tests::bench::plan::Plan;
use csnap_tests::bench::report::{self, Samples};
use csnap_tests::e2e::fault::Trying;
use csnap_tests::e2e::{Outcome, tools};

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().skip(1).collect();
    let done = match arguments.iter().map(String::as_str).collect::<Vec<_>>()[..] {
        [] => run(),
        ["--doc", document] => document_it(Path::new(document)),
        _ => {
            eprintln!("usage: bench [--doc FILE]");
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

fn run() -> Outcome {
    let plan = Plan::from_environment()?;
    for dir in [&plan.ram, &plan.disk] {
        std::fs::create_dir_all(dir).trying(|| format!("make {}", dir.display()))?;
    }
    let mut samples = Samples::default();
    // Written after each part: a long run that is broken off has something to show.
    rounds(&plan, &mut samples, Target::all(&plan)?, "")?;
    write(&plan, &samples)?;
    rounds(&plan, &mut samples, Target::on_disk(&plan)?, "-disk")?;
    write(&plan, &samples)?;
    amplification::measure(&plan, &mut samples)?;
    println!("{}", write(&plan, &samples)?);
    let _ = std::fs::remove_dir(&plan.ram);
    Ok(())
}

/// Writes the rows and the page; hands back the page.
fn write(plan: &Plan, samples: &Samples) -> Outcome<String> {
    let rows = samples.rows();
    let text = report::markdown(&rows, &conditions(plan)?);
    report::write_json(&rows, &results()?.join("native.json"))?;
    let page = results()?.join("native.md");
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

fn document_it(document: &Path) -> Outcome {
    let page = results()?.join("native.md");
    let table = std::fs::read_to_string(&page)
        .trying(|| format!("read {} (`make bench` writes it)", page.display()))?;
    report::into_document(document, &table)
}

fn results() -> Outcome<PathBuf> {
    Ok(tools::target_dir()?.join("bench"))
}

/// What it was measured on.
fn conditions(plan: &Plan) -> Outcome<String> {
    let kernel = tools::run(tools::program("uname").arg("-srm"))?;
    let qemu = tools::run(tools::program("qemu-storage-daemon").arg("--version"))?;
    let fio = tools::run(tools::program("fio").arg("--version"))?;
    let cpus = std::thread::available_parallelism().map_or(0, std::num::NonZero::get);
    Ok(format!(
        "Median of {} interleaved rounds; {cpus} CPUs shared by server and fio; {}; {}; {}. \
         Origins of {} MiB in memory (tmpfs, direct I/O); `-disk`, `-8g`, `-1t` and `-cold-tree` \
         on a disk with a volatile cache. Requests of 4 KiB at queue depth 32; \
         `first-overwrite` writes whole chunks.",
        plan.rounds,
        kernel.trim(),
        qemu.lines().next().unwrap_or("qemu").trim(),
        fio.trim(),
        plan.origin >> 20,
    ))
}
