//! Worlds of both kinds for as long as you like: `soak --minutes 10`, or one again:
//! `soak --kind lanes --seed 42 --worlds 1 --trace`.
#![allow(clippy::print_stdout, clippy::print_stderr)] // a command's output

use std::process::ExitCode;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use clap::Parser;
use csnap_tests::sim::daemon::Kind;
use csnap_tests::sim::judge::{Failure, live};
use csnap_tests::sim::world::{Config, Stats};

/// The kinds of worlds.
#[derive(Clone, Copy, Debug, clap::ValueEnum)]
enum Which {
    /// A stand-in for the I/O threads.
    StandIn,
    /// The real lanes.
    Lanes,
}

/// Runs simulated worlds until one breaks a promise, or the time is over.
#[derive(Debug, Parser)]
struct Arguments {
    /// First seed; fresh by default.
    #[arg(long)]
    seed: Option<u64>,
    /// What runs the engine; by default both in turn.
    #[arg(long, value_enum)]
    kind: Option<Which>,
    /// Worlds of each kind to run; by default as many as the time allows.
    #[arg(long)]
    worlds: Option<u64>,
    /// Minutes to run.
    #[arg(long, default_value_t = 1.0)]
    minutes: f64,
    /// Print what happens in each world.
    #[arg(long)]
    trace: bool,
    /// Go on after a failure, printing one line for each.
    #[arg(long)]
    survey: bool,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let fresh = || {
        SystemTime::now()
            .duration_since(UNIX_EPOCH)
            .map_or(1, |d| d.as_micros() as u64)
    };
    let first = arguments.seed.unwrap_or_else(fresh);
    println!("first seed {first}");
    let start = Instant::now();
    let end = Duration::from_secs_f64(arguments.minutes.max(0.0) * 60.0);
    let kinds = match arguments.kind {
        Some(Which::StandIn) => vec![Kind::StandIn],
        Some(Which::Lanes) => vec![Kind::Lanes],
        None => vec![Kind::StandIn, Kind::Lanes],
    };
    let mut seen = vec![Stats::default(); kinds.len()];
    let mut failures = 0u64;
    if arguments.survey {
        std::panic::set_hook(Box::new(|_| {}));
    }
    for index in 0..arguments.worlds.unwrap_or(u64::MAX) {
        if arguments.worlds.is_none() && start.elapsed() >= end {
            break;
        }
        let seed = first.wrapping_add(index);
        for (kind, stats) in kinds.iter().zip(&mut seen) {
            match live(Config::of_kind(seed, *kind), arguments.trace) {
                Ok(more) => stats.add(&more),
                Err(failure) if arguments.survey => {
                    failures += 1;
                    tell(&failure);
                }
                Err(failure) => {
                    println!("{stats:?}\n{failure}");
                    return ExitCode::FAILURE;
                }
            }
        }
    }
    let mut all = Stats::default();
    for (kind, stats) in kinds.iter().zip(&seen) {
        println!("{kind}: {stats:#?}");
        all.add(stats);
    }
    println!("{}", summary(&all));
    println!("{failures} failures in {:.1?}", start.elapsed());
    if failures == 0 {
        ExitCode::SUCCESS
    } else {
        ExitCode::FAILURE
    }
}

/// What all worlds saw and went through, in one sentence.
fn summary(all: &Stats) -> String {
    let Stats {
        worlds,
        actions,
        crashes,
        stops,
        faults,
        takes,
        checks,
        lost,
        rotten,
        disturbed,
        doubted,
        refused,
        ..
    } = all;
    format!(
        "{worlds} worlds, {actions} actions, {takes} takes, {crashes} crashes, {stops} orderly \
         stops, {checks} checks of the whole store; {faults} I/O errors given, {disturbed} \
         recoveries disturbed by them, {rotten} blocks of the store damaged, {doubted} \
         of its journal and superblocks in copies ({refused} refused), {lost} old chunks lost \
         to their snapshots because the origin could not be read"
    )
}

/// A failure in one line.
fn tell(failure: &Failure) {
    let Failure {
        config,
        violation,
        history,
        ..
    } = failure;
    let text: String = violation.to_string().chars().take(240).collect();
    println!(
        "{} seed {} {:?} {}: {}",
        config.kind,
        config.seed,
        config.trouble,
        history.len(),
        text.replace('\n', " ")
    );
}
