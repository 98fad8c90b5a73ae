//! ublk-bare: the bare target, for benchmarks. See `ublk_target::bare`.

use std::path::PathBuf;
use std::process::ExitCode;

use clap::Parser;
use ublk_target::bare;
use ublk_target::runtime::Spread;
use ublk_target::ublk::{self, Control, ZeroCopy};

/// Serve a device over ublk without snapshots: for benchmarks only
///
/// Prints the path of the block device when it is live. SIGTERM stops it.
#[derive(Debug, Parser)]
#[command(name = "ublk-bare", version, max_term_width = 100)]
struct Options {
    /// Device or file to pass requests on to
    #[arg(long, value_name = "DEV", required_unless_present_any = ["list", "remove"])]
    origin: Option<PathBuf>,
    /// Device or file old contents are copied to before the first write to a chunk
    #[arg(long, value_name = "DEV")]
    store: Option<PathBuf>,
    /// Bytes of a chunk (4K..256K)
    #[arg(long, value_name = "SIZE", default_value = "16K", value_parser = chunk)]
    chunk: u64,
    /// Flush the store before the origin is written
    #[arg(long)]
    flush: bool,
    /// Threads, each with a queue
    #[arg(long, value_name = "N", default_value_t = 1,
          value_parser = clap::value_parser!(u16).range(1..=64))]
    threads: u16,
    /// Requests at once
    #[arg(long, value_name = "N", default_value_t = 128,
          value_parser = clap::value_parser!(u16).range(1..=1024))]
    depth: u16,
    /// How data reaches the origin
    #[arg(long, value_enum, default_value_t = ZeroCopy::Auto)]
    zero_copy: ZeroCopy,
    /// Go on with the device of a server that is gone
    #[arg(long, value_name = "N")]
    recover: Option<u32>,
    /// Print every ublk device of the system and what the driver can do
    #[arg(long)]
    list: bool,
    /// Stop and remove a device whose server is gone
    #[arg(long, value_name = "N")]
    remove: Option<u32>,
}

fn main() -> ExitCode {
    let options = Options::parse();
    tracing_subscriber::fmt()
        .with_writer(std::io::stderr)
        .with_ansi(false)
        .with_target(false)
        .init();
    match run(options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: Options) -> Result<(), bare::Failure> {
    if options.list {
        return list();
    }
    if let Some(id) = options.remove {
        return Ok(Control::open()?.delete(id)?);
    }
    let Some(origin) = options.origin else {
        return Err("--origin is missing".into());
    };
    bare::run(&bare::Options {
        origin,
        store: options.store,
        chunk: options.chunk,
        flush: options.flush,
        threads: options.threads,
        spread: Spread::Auto, // as csnapd when it is told nothing
        depth: options.depth,
        zero_copy: options.zero_copy,
        recover: options.recover,
    })
}

fn list() -> Result<(), bare::Failure> {
    let control = Control::open()?;
    tracing::info!(features = %control.features(), "driver");
    for info in control.devices()? {
        let flags = ublk::Features(info.flags);
        let (id, state, pid) = (info.dev_id, info.state, info.ublksrv_pid);
        tracing::info!(id, state, pid, %flags, "device");
    }
    Ok(())
}

fn chunk(text: &str) -> Result<u64, String> {
    let digits = text.trim_end_matches(['K', 'k']);
    let bytes = digits.parse::<u64>().map_err(|e| e.to_string())?;
    let bytes = bytes << if digits.len() < text.len() { 10 } else { 0 };
    if !bytes.is_power_of_two() || !(4096..=256 << 10).contains(&bytes) {
        return Err("a power of two from 4K to 256K".to_owned());
    }
    Ok(bytes)
}
