//! Runs in the guest, started by `tests/guest_cuts.rs`: csnapd under a load that keeps a
//! diary, on a disk whose writes are logged or whose power is cut
//! (`csnap_tests::guest_bed::cut`).

use std::path::PathBuf;
use std::time::Duration;

use clap::Parser;
use csnap_tests::e2e::Outcome;
use csnap_tests::guest_bed::cut::{Cut, say};

/// csnapd on a disk whose power is cut.
#[derive(Debug, Parser)]
struct Arguments {
    /// Disks that power cuts left: judged, stopped in order, checked.
    #[arg(long)]
    judge: Vec<PathBuf>,
    /// The disk for the load.
    #[arg(long)]
    disk: Option<PathBuf>,
    /// Where device mapper logs its writes.
    #[arg(long)]
    log: Option<PathBuf>,
    /// The disk is what a power cut left, not empty.
    #[arg(long)]
    again: bool,
    /// Of the load.
    #[arg(long, default_value_t = 1)]
    seed: u64,
    /// How long the load lasts.
    #[arg(long, default_value_t = 10_000)]
    ms: u64,
    /// Cut the power under the load.
    #[arg(long)]
    cut: bool,
}

fn main() -> Outcome {
    let arguments = Arguments::parse();
    for disk in &arguments.judge {
        Cut::on(disk, None)?.again()?.finish()?;
        say(&format!("sound {}", disk.display()))?;
    }
    let Some(disk) = &arguments.disk else {
        return Ok(());
    };
    let cut = Cut::on(disk, arguments.log.as_deref())?;
    let mut served = match arguments.again {
        true => cut.again()?,
        false => cut.first()?,
    };
    say("serving")?;
    let time = Duration::from_millis(arguments.ms);
    served.load(arguments.seed, time, arguments.cut)?;
    served.finish()
}
