//! csnapd: serves live origins and their snapshots. See `--help`.
//!
//! Order: options, log, protections, one instance, I/O threads, stores, sockets, wait for a
//! signal, and everything back in reverse. The sockets come last, so that a
//! client that can connect finds everything served.

use std::io::IsTerminal;
use std::net::SocketAddr;
use std::os::unix::net::UnixListener;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;

use clap::{Parser, ValueEnum};
use nix::sys::signal::SigSet;
use snapstore::engine::Config;
use tracing_subscriber::EnvFilter;
use ublk_target::control::client::{DEFAULT_RUN_DIR, socket_path};
use ublk_target::control::listener::{ListenError, Listener, private_directory};
use ublk_target::control::server::{self, Patience};
use ublk_target::daemon::devices::{self, DeviceOptions};
use ublk_target::daemon::front::Wish;
use ublk_target::daemon::nbd_tcp::{Security, Tcp};
use ublk_target::daemon::safety::Safety;
use ublk_target::daemon::state::StateFile;
use ublk_target::daemon::{Daemon, Settings, activation, nbd_socket, process};
use ublk_target::runtime::{Runtime, RuntimeConfig, Spread};
use ublk_target::size::{BadSize, ByteSize};
use ublk_target::tls;
use ublk_target::ublk::ZeroCopy;

const HELP: &str = "\
csnapd runs in the foreground and logs to standard error. SIGTERM or SIGINT stops
it in good order: origins are flushed, stores are closed. A block device that is open
stays and its I/O waits for the next csnapd; so does every one when csnapd is killed.
Neither loses or fails a request. NBD clients are disconnected and must come again.

It serves what was attached with `csnapctl store attach`, again after every start.
The state directory must not lie on an origin it serves.

A control socket passed by systemd under the name \"control\" is used instead of
RUN-DIR/control.sock.";

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
    /// Serve NBD to other machines too, here: ADDRESS:PORT, usually port 10809
    #[arg(long, value_name = "ADDRESS", help_heading = NETWORK)]
    nbd_listen: Option<SocketAddr>,
    /// Certificate of this server, and those up to its authority, as PEM
    #[arg(long, value_name = "FILE", help_heading = NETWORK,
          requires_all = ["nbd_listen", "nbd_tls_key", "nbd_tls_ca"])]
    nbd_tls_cert: Option<PathBuf>,
    /// Private key of that certificate, as PEM
    #[arg(long, value_name = "FILE", help_heading = NETWORK, requires = "nbd_tls_cert")]
    nbd_tls_key: Option<PathBuf>,
    /// Authorities that sign the certificates of clients, as PEM. Nobody without one is
    /// let in
    #[arg(long, value_name = "FILE", help_heading = NETWORK, requires = "nbd_tls_cert")]
    nbd_tls_ca: Option<PathBuf>,
    /// Without encryption, and for everybody: whoever can connect may read and overwrite
    /// every volume
    #[arg(long, help_heading = NETWORK, requires = "nbd_listen", conflicts_with = "nbd_tls_cert")]
    nbd_plaintext: bool,
    /// How clients reach what is served
    #[arg(long, value_enum, value_name = "WHICH", default_value = "auto")]
    frontend: Wish,
    /// How the data of block devices moves, where the kernel can
    #[arg(long, value_enum, value_name = "HOW", default_value = "auto")]
    zero_copy: ZeroCopy,
    /// Requests each queue of a block device can hold
    #[arg(long, value_name = "N", default_value_t = 128,
          value_parser = clap::value_parser!(u16).range(1..=4096))]
    ublk_depth: u16,
    /// Which I/O threads serve the requests of one block device
    #[arg(long, value_enum, value_name = "HOW", default_value = "auto")]
    ublk_spread: SpreadArg,
    /// Directory of links to block devices, by name
    #[arg(long, value_name = "DIR", default_value = devices::DEFAULT_DIR)]
    link_dir: PathBuf,
    /// I/O threads, at most 64; 0 means one per processor, at most 8
    #[arg(long, value_name = "N", default_value_t = 0,
          value_parser = clap::builder::RangedU64ValueParser::<usize>::new().range(0..=64))]
    threads: usize,
    /// Requests one I/O thread can have queued at once
    #[arg(long, value_name = "N", default_value_t = 256,
          value_parser = clap::value_parser!(u32).range(16..=4096))]
    queue_depth: u32,
    /// I/O buffers of each thread, in MiB
    #[arg(long, value_name = "MIB", default_value_t = 32,
          value_parser = clap::value_parser!(u32).range(12..=4096))]
    buffer_mib: u32,
    /// Memory for the tree nodes of each store, 1M to 1T
    #[arg(long, value_name = "SIZE", default_value = "256M", value_parser = cache_size)]
    cache: ByteSize,
    /// Stay in the machine's view of the mounts. Only where no file system on a device
    /// of csnapd is mounted on this machine: its end could wait for itself
    #[arg(long)]
    no_isolation: bool,
    /// What to log: error, warn, info, debug or trace, or a tracing filter
    #[arg(long, env = "CSNAP_LOG", value_name = "FILTER", default_value = "info")]
    log: String,
}

/// What belongs to `--nbd-listen`.
const NETWORK: &str = "NBD over the network";

impl Options {
    /// How NBD is protected on the network.
    fn security(&self) -> Result<Security, Failure> {
        let files = (&self.nbd_tls_cert, &self.nbd_tls_key, &self.nbd_tls_ca);
        match files {
            (Some(certificate), Some(key), Some(authority)) => {
                Ok(Security::Tls(tls::server(&tls::Files {
                    certificate: certificate.clone(),
                    key: key.clone(),
                    authority: authority.clone(),
                })?))
            }
            _ if self.nbd_plaintext => Ok(Security::Plain),
            _ => Err(
                "--nbd-listen needs --nbd-tls-cert, --nbd-tls-key and --nbd-tls-ca, or \
                      --nbd-plaintext if everybody who can connect may use every volume"
                    .into(),
            ),
        }
    }

    fn nbd_path(&self) -> PathBuf {
        let default = || self.run_dir.join("nbd.sock");
        self.nbd_socket.clone().unwrap_or_else(default)
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum SpreadArg {
    /// `tags` with four I/O threads or more, else `queues`
    Auto,
    /// Neighbouring requests go to different threads, where the kernel can do that
    Tags,
    /// What one processor asks for goes to one thread
    Queues,
}

impl From<SpreadArg> for Spread {
    fn from(arg: SpreadArg) -> Self {
        match arg {
            SpreadArg::Auto => Self::Auto,
            SpreadArg::Tags => Self::Tags,
            SpreadArg::Queues => Self::Queues,
        }
    }
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
    let network = options.nbd_listen.map(|_| options.security()).transpose()?;
    let socket = activation::passed("control")?;
    process::private_files();
    let signals = process::block_signals()?;
    let safety = Safety::establish(!options.no_isolation);
    private_directory(&options.run_dir)?;
    private_directory(&options.state_dir)?;
    let _run_lock = process::lock(&options.run_dir)?;
    let _state_lock = (options.state_dir != options.run_dir)
        .then(|| process::lock(&options.state_dir))
        .transpose()?;
    let state = Arc::new(StateFile::open(&options.state_dir)?);
    let runtime = Arc::new(Runtime::start(RuntimeConfig {
        lanes: options.threads,
        queue_depth: options.queue_depth,
        buffer_bytes: (options.buffer_mib as usize) << 20,
        clients: most_clients(),
    })?);
    let settings = Settings {
        nbd_socket: options.nbd_path(),
        engine: engine_config(options),
        frontend: options.frontend,
        devices: DeviceOptions {
            zero_copy: options.zero_copy,
            queue_depth: options.ublk_depth,
            spread: options.ublk_spread.into(),
            link_dir: options.link_dir.clone(),
            run_dir: options.run_dir.clone(),
        },
        safety,
    };
    let daemon = Arc::new(Daemon::new(settings, runtime.clone(), state)?);
    daemon.attach_listed();
    let served = serve_until_told(options, socket, &signals, &daemon, runtime, network);
    daemon.stop();
    served
}

/// Serves the sockets until a signal comes. On return, with an error too, they are
/// closed.
fn serve_until_told(
    options: &Options,
    passed: Option<UnixListener>,
    signals: &SigSet,
    daemon: &Arc<Daemon>,
    runtime: Arc<Runtime>,
    network: Option<Security>,
) -> Result<(), Failure> {
    let nbd_path = options.nbd_path();
    let nbd = nbd_socket::serve(&nbd_path, daemon.clone(), runtime.clone())?;
    let tcp = match serve_tcp(options, network, daemon, runtime) {
        Ok(tcp) => tcp,
        Err(error) => {
            nbd.stop();
            return Err(error);
        }
    };
    let control = match serve_control(passed, &options.run_dir, daemon.clone()) {
        Ok(control) => control,
        Err(error) => {
            tcp.into_iter().for_each(Tcp::stop);
            nbd.stop();
            return Err(error.into());
        }
    };
    tracing::info!(
        control = %socket_path(&options.run_dir).display(),
        nbd = %nbd_path.display(),
        "ready"
    );
    process::notify("READY=1");
    let told = process::wait(signals).inspect(|signal| tracing::info!(%signal, "stopping"));
    process::notify("STOPPING=1");
    daemon.prepare_to_stop();
    tcp.into_iter().for_each(Tcp::stop);
    nbd.stop();
    control.stop();
    told?;
    Ok(())
}

/// The TCP socket, if one is wanted.
fn serve_tcp(
    options: &Options,
    security: Option<Security>,
    daemon: &Arc<Daemon>,
    runtime: Arc<Runtime>,
) -> Result<Option<Tcp>, Failure> {
    let (Some(address), Some(security)) = (options.nbd_listen, security) else {
        return Ok(None);
    };
    if matches!(security, Security::Plain) {
        tracing::warn!(%address, "NBD is served without encryption, to everybody");
    }
    let tcp = Tcp::serve(address, security, daemon.clone(), runtime)
        .map_err(|error| format!("cannot listen at {address}: {error}"))?;
    tracing::info!(address = %tcp.address(), "NBD is served over TCP");
    Ok(Some(tcp))
}

fn serve_control(
    passed: Option<UnixListener>,
    run_dir: &Path,
    daemon: Arc<Daemon>,
) -> Result<Listener, ListenError> {
    match passed {
        Some(socket) => server::serve_on(socket, daemon, Patience::default()),
        None => server::serve(&socket_path(run_dir), daemon, Patience::default()),
    }
}

/// As many NBD clients as leave descriptors for everything else.
fn most_clients() -> usize {
    const OTHERS: u64 = 256;
    const OF_A_CLIENT: u64 = 3;
    let files = process::allow_open_files().unwrap_or_else(|error| {
        tracing::warn!(%error, "the limit of open files (RLIMIT_NOFILE) cannot be raised");
        1024
    });
    let most = files.saturating_sub(OTHERS) / OF_A_CLIENT;
    if most < 64 {
        tracing::warn!(
            files,
            most,
            "few NBD clients can connect: raise the limit of open files"
        );
    }
    most.max(1) as usize
}

fn engine_config(options: &Options) -> Config {
    Config {
        cache_blocks: Config::nodes_in(options.cache.0),
        ..Config::default()
    }
}

fn cache_size(text: &str) -> Result<ByteSize, String> {
    let allowed = ByteSize(1 << 20)..=ByteSize(1 << 40);
    let size: ByteSize = text.parse().map_err(|bad: BadSize| bad.to_string())?;
    if allowed.contains(&size) {
        Ok(size)
    } else {
        Err(format!(
            "the cache may be {} to {}",
            allowed.start(),
            allowed.end()
        ))
    }
}
