//! Programs in a virtual machine: `guest run --kernel 6.12 -- uname -r`.
#![allow(clippy::print_stdout, clippy::print_stderr)] // a command's output

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::{Duration, Instant};

use clap::{Args, Parser, Subcommand};
use csnap_tests::guest::cache::{Cache, target_dir};
use csnap_tests::guest::console::Event;
use csnap_tests::guest::error::{Error, Result};
use csnap_tests::guest::kernels::{self, Series, TESTED};
use csnap_tests::guest::machine::{Disk, read, size};
use csnap_tests::guest::payload::{Init, Put};
use csnap_tests::guest::run::{End, Job, Outcome, run};
use csnap_tests::guest::{host, judges, libnbd, root};

/// Runs programs in a virtual machine with a kernel that has ublk.
#[derive(Debug, Parser)]
#[command(name = "guest", after_help = STATUSES)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

const STATUSES: &str = "\
Exit status of `run`: the program's (128 + N if signal N ended it); 0 after a power cut
that the program asked for; 124 the guest was killed because its time was over;
125 the harness itself failed; 126 the guest died without a word (a kernel panic).";

#[derive(Debug, Subcommand)]
enum Command {
    /// Fetch and build everything beforehand (as root; minutes the first time).
    Prepare,
    /// Run a program; its output comes live, its exit status is the command's.
    Run(Run),
    /// Fetch what judges images, of Debian's stable and newest suites, into target/tools.
    Judges,
    /// An interactive shell on this terminal, csnapd and csnapctl in its PATH.
    Shell(Options),
}

#[derive(Args, Debug)]
struct Run {
    #[command(flatten)]
    options: Options,
    /// Kill the guest after so many seconds, boot included.
    #[arg(long, default_value_t = 600)]
    timeout: u64,
    /// Kill the guest when the program was silent for so many seconds.
    #[arg(long)]
    idle_timeout: Option<u64>,
    /// Bring what the program left in /results into this directory.
    #[arg(long, value_name = "DIR")]
    get: Option<PathBuf>,
    /// Program and its arguments.
    #[arg(last = true, required = true)]
    program: Vec<String>,
}

#[derive(Args, Debug)]
struct Options {
    /// Kernel series, as 7.2 or 6.12; `all` runs on each in turn.
    #[arg(long, default_value = "7.2")]
    kernel: String,
    /// Memory.
    #[arg(long, default_value = "4G", value_parser = parse_size)]
    memory: u64,
    /// Processors.
    #[arg(long, default_value_t = 2)]
    cpus: u32,
    /// Put a file or directory into the guest; into /root by default.
    #[arg(long, value_name = "HOST[:GUEST]")]
    put: Vec<Put>,
    /// Set a variable for the program.
    #[arg(long, value_name = "NAME=VALUE", value_parser = parse_variable)]
    env: Vec<(String, String)>,
    /// An extra disk, /dev/guest/disk0 and on: empty of a size, or a file that keeps
    /// what is written.
    #[arg(long, value_name = "SIZE|FILE[,cache=MODE]")]
    disk: Vec<Disk>,
    /// Further arguments for the kernel.
    #[arg(long, default_value = "", allow_hyphen_values = true)]
    append: String,
    /// Boot systemd; the program runs after multi-user.target.
    #[arg(long, conflicts_with = "udev")]
    systemd: bool,
    /// Run systemd-udevd.
    #[arg(long)]
    udev: bool,
    /// Do not put the release build's csnapd and csnapctl into /usr/local.
    #[arg(long)]
    bare: bool,
}

fn parse_size(text: &str) -> std::result::Result<u64, String> {
    size(text).ok_or_else(|| "a size is a number with K, M or G".into())
}

fn parse_variable(text: &str) -> std::result::Result<(String, String), String> {
    let (name, value) = text.split_once('=').ok_or("a variable is NAME=VALUE")?;
    let fine = |c: char| c.is_ascii_alphanumeric() || c == '_';
    if name.is_empty() || !name.chars().all(fine) {
        return Err(format!("{name:?} is no name of a variable"));
    }
    Ok((name.to_owned(), value.to_owned()))
}

fn main() -> ExitCode {
    let status = match Arguments::parse().command {
        Command::Prepare => prepare(&TESTED).map(|_| 0),
        Command::Run(arguments) => run_all(&arguments),
        Command::Judges => judges().map(|()| 0),
        Command::Shell(options) => shell(&options),
    };
    match status {
        Ok(status) => ExitCode::from(status),
        Err(error) => {
            eprintln!("guest: {error}");
            ExitCode::from(125)
        }
    }
}

fn say(text: &str) {
    eprintln!("guest: {text}");
}

fn prepare(series: &[Series]) -> Result<Cache> {
    let cache = Cache::open()?;
    let _lock = cache.lock()?;
    let start = Instant::now();
    host::prepare(&cache, &say)?;
    let (mirror, suite) = (host::mirror()?, host::suite()?);
    if !root::image(&cache, &suite).is_file() {
        say(&format!(
            "building the root, {suite} (once, about a minute)"
        ));
    }
    root::prepare(&cache, &mirror, &suite)?;
    for series in series {
        let kernel = kernels::prepare(&cache, &mirror, *series)?;
        say(&format!("{series} is {}", kernel.release));
    }
    say(&format!(
        "ready after {:.1} s",
        start.elapsed().as_secs_f64()
    ));
    Ok(cache)
}

/// All are tried, whatever becomes of the first.
fn judges() -> Result<()> {
    let cache = Cache::open()?;
    let _lock = cache.lock()?;
    let mirror = host::mirror()?;
    let mut outcome = Ok(());
    for package in &judges::PACKAGES {
        for (name, suite) in package.suites {
            match judges::prepare(&cache, &mirror, package, name, suite) {
                Ok(version) => say(&format!("{}, {name}: {version}", package.name)),
                Err(error) => outcome = Err(error),
            }
        }
    }
    let tests = libnbd::prepare(&cache, &mirror);
    outcome.and(tests)
}

/// The cache with everything there; fetched now only what was never fetched.
fn prepared(series: &[Series]) -> Result<Cache> {
    let cache = Cache::open()?;
    let there = root::image(&cache, &host::suite()?).is_file()
        && series
            .iter()
            .all(|one| kernels::cached(&cache, *one).is_some());
    if there { Ok(cache) } else { prepare(series) }
}

fn series_of(options: &Options) -> Result<Vec<Series>> {
    match options.kernel.as_str() {
        "all" => Ok(TESTED.to_vec()),
        one => Ok(vec![one.parse()?]),
    }
}

fn job(options: &Options, series: Series, program: &[String]) -> Job {
    let mut job = Job::new(series, &[]);
    job.memory = options.memory;
    job.cpus = options.cpus;
    job.disks = options.disk.clone();
    job.append = options.append.clone();
    job.payload.program = program.to_vec();
    job.payload.environment = options.env.clone();
    job.payload.puts = options.put.clone();
    job.payload.init = match (options.systemd, options.udev) {
        (true, _) => Init::Systemd,
        (_, true) => Init::Udev,
        _ => Init::Plain,
    };
    if !options.bare {
        job.payload.puts.extend(programs());
    }
    job
}

/// The release build's programs, if there.
fn programs() -> Vec<Put> {
    let release = target_dir().join("release");
    let places = [
        ("csnapd", "/usr/local/sbin"),
        ("csnapctl", "/usr/local/bin"),
    ];
    let puts = places.iter().map(|(name, place)| Put {
        host: release.join(name),
        guest: Path::new(place).join(name),
    });
    puts.filter(|put| put.host.is_file()).collect()
}

fn run_all(arguments: &Run) -> Result<u8> {
    let series = series_of(&arguments.options)?;
    let cache = prepared(&series)?;
    let mut status = 0;
    for one in &series {
        let mut job = job(&arguments.options, *one, &arguments.program);
        job.timeout = Duration::from_secs(arguments.timeout);
        job.idle_timeout = arguments.idle_timeout.map(Duration::from_secs);
        job.get = arguments.get.as_ref().map(|dir| match series.len() {
            1 => dir.clone(),
            _ => dir.join(one.to_string()),
        });
        if series.len() > 1 {
            say(&format!("kernel {one}"));
        }
        let this = report(&run(&cache, &job, &mut pass_on)?);
        status = if status == 0 { this } else { status };
    }
    Ok(status)
}

fn pass_on(event: &Event) {
    // Who closed our output does not want it.
    let _ = match event {
        Event::Stdout(bytes) => {
            let mut out = std::io::stdout().lock();
            out.write_all(bytes).and_then(|()| out.flush())
        }
        Event::Stderr(bytes) => std::io::stderr().write_all(bytes),
        _ => Ok(()),
    };
}

fn report(outcome: &Outcome) -> u8 {
    let log = &outcome.kernel_log;
    let killed = |why: &str| {
        eprintln!("{}", read(log).trim_end());
        say(&format!(
            "{why} after {:.1} s on {}; the kernel's log above is {}",
            outcome.total.as_secs_f64(),
            outcome.release,
            log.display()
        ));
    };
    match outcome.end {
        End::Exited(status) => {
            for line in outcome.complaints() {
                say(&format!("the kernel complained: {line}"));
            }
            u8::try_from(status).unwrap_or(255)
        }
        End::PowerCut => 0,
        End::TimedOut => {
            killed("killed because its time was over");
            124
        }
        End::Silent => {
            killed("killed because it was silent too long");
            124
        }
        End::Died => {
            killed("the guest died");
            126
        }
    }
}

fn shell(options: &Options) -> Result<u8> {
    let series = series_of(options)?;
    let [one] = series[..] else {
        return Err(Error::Argument("a shell runs on one kernel".into()));
    };
    let cache = prepared(&series)?;
    let mut job = job(options, one, &["bash".into(), "-l".into()]);
    job.timeout = Duration::MAX;
    job.payload.terminal = Some(terminal_size());
    let term = std::env::var("TERM").unwrap_or_else(|_| "linux".into());
    job.payload.environment.push(("TERM".into(), term));
    say(&format!("kernel {one}; leave with Ctrl-D"));
    Ok(report(&run(&cache, &job, &mut pass_on)?))
}

/// Rows and columns, as `stty` says.
fn terminal_size() -> (u16, u16) {
    let stty = std::process::Command::new("stty").arg("size").output();
    let text = stty.map(|output| String::from_utf8_lossy(&output.stdout).into_owned());
    let text = text.unwrap_or_default();
    let mut words = text.split_whitespace().map(str::parse);
    match (words.next(), words.next()) {
        (Some(Ok(rows)), Some(Ok(columns))) if rows > 0 && columns > 0 => (rows, columns),
        _ => (24, 80),
    }
}
