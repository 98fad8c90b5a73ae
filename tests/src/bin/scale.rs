//! The engine with many snapshots of a large volume and many exceptions:
//! `scale --snapshots 65536 --exceptions 100000000`. See `csnap_tests::scale`.
#![allow(clippy::print_stdout, clippy::print_stderr)] // a program for people

use std::path::PathBuf;
use std::process::{Command, ExitCode, Stdio};

use clap::Parser;
use csnap_tests::e2e::fault::Trying;
use csnap_tests::e2e::{Fault, Outcome};
use csnap_tests::scale::Scale;
use csnap_tests::scale::phases::{self, PHASES, Phase, Row};
use ublk_target::size::ByteSize;

/// Measures the engine at a scale of choice, on a sparse file.
#[derive(Clone, Debug, Parser)]
struct Arguments {
    /// Snapshots of the volume
    #[arg(long, default_value_t = 65536, value_parser = clap::value_parser!(u64).range(1..))]
    snapshots: u64,
    /// Exceptions
    #[arg(long, default_value_t = 1_000_000, value_parser = clap::value_parser!(u64).range(1..))]
    exceptions: u64,
    /// Size of the origin
    #[arg(long, default_value = "8T")]
    origin: ByteSize,
    /// Size of a chunk
    #[arg(long, default_value = "16K")]
    chunk: ByteSize,
    /// Chunks of a write
    #[arg(long, default_value_t = 16, value_parser = clap::value_parser!(u32).range(1..=64))]
    run: u32,
    /// Memory for tree nodes
    #[arg(long, default_value = "256M")]
    cache: ByteSize,
    /// Where the store is made; it is removed at the end
    #[arg(long, default_value = "target/scale.store")]
    store: PathBuf,
    /// Keep the store
    #[arg(long)]
    keep: bool,
    /// A line of JSON for each figure instead of a table
    #[arg(long)]
    json: bool,
    /// Only this, of a store that is there
    #[arg(long, value_enum)]
    phase: Option<Phase>,
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    let done = match arguments.phase {
        Some(phase) => one(phase, &arguments),
        None => all(&arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(fault) => {
            eprintln!("scale: {fault}");
            ExitCode::FAILURE
        }
    }
}

fn one(phase: Phase, arguments: &Arguments) -> Outcome {
    let scale = Scale {
        snapshots: arguments.snapshots,
        exceptions: arguments.exceptions,
        origin: arguments.origin.0,
        chunk: arguments.chunk.0,
        run: arguments.run,
        cache: arguments.cache.0,
        store: arguments.store.clone(),
    };
    for row in phases::run(phase, &scale)? {
        print(&row, arguments.json)?;
    }
    Ok(())
}

fn print(row: &Row, json: bool) -> Outcome {
    if json {
        println!("{}", serde_json::to_string(row)?);
        return Ok(());
    }
    let decimals = if row.value < 100.0 { 2 } else { 0 };
    println!("| {} | {:.decimals$} {} |", row.what, row.value, row.unit);
    Ok(())
}

/// Every phase, each in a process of its own.
fn all(arguments: &Arguments) -> Outcome {
    let own = std::env::current_exe().trying(|| "finding this program".into())?;
    let mut done = Ok(());
    for phase in PHASES {
        let name = format!("{phase:?}").to_lowercase();
        let mut command = Command::new(&own);
        command
            .args(std::env::args_os().skip(1))
            .args(["--phase", &name]);
        let status = command.stdin(Stdio::null()).status();
        let status = status.trying(|| format!("running {}", own.display()))?;
        if !status.success() {
            done = Err(Fault::wrong(format!("the phase {name} failed: {status}")));
            break;
        }
    }
    if !arguments.keep {
        let removed = std::fs::remove_file(&arguments.store);
        removed.trying(|| format!("removing {}", arguments.store.display()))?;
    }
    done
}
