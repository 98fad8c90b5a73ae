//! csnapd: serves live origins and their snapshots. See `--help`.
//!
//! Order: options, log, one instance, I/O threads, stores, sockets, wait for a
//! signal, and everything back in reverse. The sockets come last, so that a
//! client that can connect finds everything served.

use std::io::IsTerminal;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;

use clap::Parser;
use snapstore::engine::Config;
use tracing_subscriber::EnvFilter;
use ublk_target::control::client::{DEFAULT_RUN_DIR, socket_path};
use ublk_target::control::listener::private_directory;
use ublk_target::control::server::{self, Patience};
use ublk_target::daemon::state::StateFile;
use ublk_target::daemon::{Daemon, Settings, nbd_socket, process};
use ublk_target::runtime::{Runtime, RuntimeConfig};

const HELP: &str = "\
csnapd runs in the foreground and logs to standard error. SIGTERM or SIGINT stops
it in good order: clients are disconnected, origins are flushed, stores are closed.
Killing it loses nothing either; NBD clients must connect again.

It serves what was attached with `csnapctl store attach`, again after every start.
The state directory must not lie on an origin it serves.";

/// Serve live origins and copy-on-write snapshots of them.
#[derive(Debug, Parser)]
#[command(name = "csnapd", version, after_help = HELP, max_term_width = 100)]
struct Options {
    /// Directory of the sockets; private to this user
    #[arg(long, env = "CSNAP_RUN_DIR", value_name = "DIR", default_value = DEFAULT_RUN_DIR)]
    run_dir: PathBuf,
    /// Directory of what outlives the process: which stores to serve
    #[arg(long, value_name = "DIR", default_value = "/var/lib/csnap")]
    state_dir: PathBuf,
    /// Path of the NBD socket [default: RUN-DIR/nbd.sock]
    #[arg(long, value_name = "PATH")]
    nbd_socket: Option<PathBuf>,
    /// I/O threads; 0 means one per processor, at most 8
    #[arg(long, value_name = "N", default_value_t = 0)]
    threads: usize,
    /// Requests one I/O thread can have queued at once
    #[arg(long, value_name = "N", default_value_t = 256,
          value_parser = clap::value_parser!(u32).range(16..=4096))]
    queue_depth: u32,
    /// I/O buffers of each thread, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 32,
          value_parser = clap::value_parser!(u32).range(10..=4096))]
    buffer_mib: u32,
    /// Metadata kept in memory for each store, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 64,
          value_parser = clap::value_parser!(u32).range(1..=1_048_576))]
    cache_mib: u32,
    /// What to log: error, warn, info, debug or trace, or a tracing filter
    #[arg(long, env = "CSNAP_LOG", value_name = "FILTER", default_value = "info")]
    log: String,
}

type Failure = Box<dyn std::error::Error>;

fn main() -> ExitCode {
    let options = Options::parse();
    let filter = EnvFilter::try_new(&options.log).unwrap_or_else(|_| EnvFilter::new("info"));
    let terminal = std::io::stderr().is_terminal();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(terminal)
        .with_target(false)
        .init();
    match run(&options) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("csnapd cannot run: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Result<(), Failure> {
    process::private_files();
    let signals = process::block_signals()?;
    private_directory(&options.run_dir)?;
    private_directory(&options.state_dir)?;
    let _run_lock = process::lock(&options.run_dir)?;
    let _state_lock = (options.state_dir != options.run_dir)
        .then(|| process::lock(&options.state_dir))
        .transpose()?;
    let state = Arc::new(StateFile::open(&options.state_dir)?);
    let nbd_path = options
        .nbd_socket
        .clone()
        .unwrap_or_else(|| options.run_dir.join("nbd.sock"));
    let runtime = Arc::new(Runtime::start(RuntimeConfig {
        lanes: options.threads,
        queue_depth: options.queue_depth,
        buffer_bytes: (options.buffer_mib as usize) << 20,
    })?);
    let settings = Settings {
        nbd_socket: nbd_path.clone(),
        engine: engine_config(options),
    };
    let daemon = Arc::new(Daemon::new(settings, runtime.clone(), state));
    daemon.attach_listed();
    let nbd = nbd_socket::serve(&nbd_path, daemon.exports(), runtime)?;
    let control = server::serve(
        &socket_path(&options.run_dir),
        daemon.clone(),
        Patience::default(),
    );
    let control = match control {
        Ok(control) => control,
        Err(error) => {
            nbd.stop();
            daemon.stop();
            return Err(error.into());
        }
    };
    tracing::info!(control = %socket_path(&options.run_dir).display(), nbd = %nbd_path.display(), "ready");
    process::notify("READY=1");
    let signal = process::wait(&signals)?;
    tracing::info!(%signal, "stopping");
    process::notify("STOPPING=1");
    daemon.prepare_to_stop();
    nbd.stop();
    control.stop();
    daemon.stop();
    Ok(())
}

fn engine_config(options: &Options) -> Config {
    const BLOCKS_PER_MIB: usize = 256;
    Config {
        cache_blocks: options.cache_mib as usize * BLOCKS_PER_MIB,
        ..Config::default()
    }
}
