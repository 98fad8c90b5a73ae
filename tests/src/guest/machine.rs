//! One qemu process: its command line, its life, its death.
//!
//! qemu dies with the thread that started it (`setpriv --pdeathsig`), so no guest
//! outlives a runner that was interrupted or killed.

use std::ffi::OsString;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::str::FromStr;
use std::sync::mpsc::Sender;

use super::console::{Event, PORTS, Ports};
use super::error::{Error, Result, Trying};
use super::kernels::Kernel;
use super::tool::{tail, tool};

/// An extra disk.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Disk {
    /// Empty, of so many bytes, gone after the run.
    Empty(u64),
    /// A raw file that keeps what is written; with qemu's cache mode.
    File {
        /// The file.
        path: PathBuf,
        /// As `writeback` (the guest sees a volatile cache), `none`, `directsync`.
        cache: String,
    },
    /// A raw file with a volatile cache, and a log of what was written to it, in the
    /// format of dm-log-writes (qemu's `blklogwrites`). What the log counts when qemu is
    /// killed ends with a flush.
    Logged {
        /// The file.
        path: PathBuf,
        /// The log: an empty file.
        log: PathBuf,
    },
}

impl FromStr for Disk {
    type Err = Error;

    /// `SIZE`, as `512M`, or `FILE[,cache=MODE]`.
    fn from_str(text: &str) -> Result<Self> {
        if let Some(bytes) = size(text) {
            return Ok(Self::Empty(bytes));
        }
        let (path, cache) = text.split_once(",cache=").unwrap_or((text, "writeback"));
        let modes = ["writeback", "writethrough", "none", "directsync", "unsafe"];
        if path.is_empty() || path.contains(',') || !modes.contains(&cache) {
            return Err(Error::Argument(format!(
                "{text:?} is neither a size like 512M nor FILE[,cache=MODE] with MODE one of {}",
                modes.join(", ")
            )));
        }
        Ok(Self::File {
            path: path.into(),
            cache: cache.into(),
        })
    }
}

/// Bytes of a size like `4096`, `512M`, `6G`.
#[must_use]
pub fn size(text: &str) -> Option<u64> {
    let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
    let unit = match &text[digits.len()..] {
        "" => 1,
        "K" => 1 << 10,
        "M" => 1 << 20,
        "G" => 1 << 30,
        _ => return None,
    };
    digits.parse::<u64>().ok()?.checked_mul(unit)
}

/// What qemu is told.
#[derive(Clone, Debug)]
pub struct Hardware {
    /// Kernel to boot.
    pub kernel: Kernel,
    /// Root image.
    pub root: PathBuf,
    /// Payload.
    pub payload: PathBuf,
    /// Disk for what comes back.
    pub results: Option<PathBuf>,
    /// Bytes of memory.
    pub memory: u64,
    /// Processors.
    pub cpus: u32,
    /// Extra disks.
    pub disks: Vec<Disk>,
    /// Further kernel arguments.
    pub append: String,
    /// Whether the guest gets this process's terminal.
    pub terminal: bool,
}

/// All that the emulator knows, but the quick string instructions: kernel and libc copy and
/// clear memory with them where they are said to be quick, and it does them a byte at a time.
pub const CPU: &str = "max,-erms,-fsrm,-fsrs,-fzrm,-fsrc";

/// Kernel arguments of every guest. A problem of the kernel ends the guest at once;
/// the limits suit a machine that may be 20 times slower than usual, and shared. The
/// kernel's check of its timer counts ticks in a few milliseconds: on a busy host it
/// finds none and panics. The emulator now and then loses a timer's interrupt: ticks that
/// are not asked for one by one go on after it.
const ARGUMENTS: &str = "console=ttyS0 panic=-1 oops=panic no_timer_check random.trust_cpu=on \
    nohz=off highres=off \
    printk.time=1 sysctl.kernel.hung_task_timeout_secs=120 sysctl.kernel.hung_task_panic=1 \
    sysctl.kernel.watchdog_thresh=60 sysctl.kernel.softlockup_panic=1 \
    rcupdate.rcu_cpu_stall_timeout=120 sysctl.kernel.panic_on_rcu_stall=1 \
    systemd.unit=guest.target systemd.getty_auto=0 systemd.show_status=0 mitigations=off";

/// The guest's time-stamp counter is this machine's. Measured by the guest under load
/// it came out five times too slow, and so did its clock; here it is known, if this
/// machine is a virtual one itself: then `cpu MHz` is the counter's rate and not that
/// of the moment.
fn clock_arguments(cpuinfo: &str) -> String {
    let value = |key: &str| {
        let line = cpuinfo.lines().find(|line| line.starts_with(key))?;
        Some(line.split_once(':')?.1.trim())
    };
    let flags = value("flags").unwrap_or_default();
    let fixed = ["hypervisor", "constant_tsc"];
    let virtual_machine = fixed
        .iter()
        .all(|flag| flags.split(' ').any(|one| one == *flag));
    let megahertz = value("cpu MHz").and_then(|text| text.parse::<f64>().ok());
    match megahertz {
        Some(rate) if virtual_machine && rate > 100.0 => {
            format!("tsc=reliable tsc_early_khz={:.0}", rate * 1000.0)
        }
        _ => String::new(),
    }
}

/// A running guest.
#[derive(Debug)]
pub struct Machine {
    child: Child,
    dir: PathBuf,
}

impl Machine {
    /// Starts qemu; its log and the kernel's are put into `dir`. Dies with the
    /// calling thread.
    ///
    /// # Errors
    /// If it does not start.
    pub fn start(hardware: &Hardware, dir: &Path, events: &Sender<Event>) -> Result<Self> {
        let unique = format!("{}-{}", std::process::id(), name_of(dir));
        let ports = Ports::listen(&unique)?;
        let log = dir.join("qemu.log");
        let log = File::create(&log).trying(|| format!("make {}", log.display()))?;
        let mut command = tool("setpriv");
        command
            .args(["--pdeathsig", "KILL", "qemu-system-x86_64"])
            .args(arguments(hardware, dir, &ports)?)
            .env("TMPDIR", dir)
            .stderr(log);
        if hardware.terminal {
            command.stdin(Stdio::inherit());
        } else {
            command.stdout(Stdio::null());
        }
        let child = command.spawn().trying(|| "start qemu".into())?;
        let mut machine = Self {
            child,
            dir: dir.into(),
        };
        ports.forward(events, || match machine.ended()? {
            true => Err(Error::Qemu(machine.complaint())),
            false => Ok(()),
        })?;
        Ok(machine)
    }

    /// Whether qemu has ended.
    ///
    /// # Errors
    /// If the system does not say.
    pub fn ended(&mut self) -> Result<bool> {
        let status = self.child.try_wait().trying(|| "wait for qemu".into())?;
        Ok(status.is_some())
    }

    /// Kills it: a power cut.
    pub fn kill(&mut self) {
        // It may have ended by itself; either way it is gone then.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }

    /// What qemu complained about.
    #[must_use]
    pub fn complaint(&self) -> String {
        tail(&read(&self.dir.join("qemu.log")), 10)
    }
}

impl Drop for Machine {
    fn drop(&mut self) {
        self.kill();
    }
}

/// A file as text, whatever is in it; empty if it is not there.
#[must_use]
pub fn read(path: &Path) -> String {
    let bytes = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).into_owned()
}

fn name_of(dir: &Path) -> String {
    let name = dir.file_name().unwrap_or_default();
    name.to_string_lossy().into_owned()
}

fn arguments(hardware: &Hardware, dir: &Path, ports: &Ports) -> Result<Vec<OsString>> {
    let mut line = Line::default();
    line.words("-nodefaults -no-user-config -no-reboot -display none -machine pc,usb=off");
    line.words("-accel tcg,thread=multi -cpu");
    line.words(CPU);
    line.pair("-smp", hardware.cpus.to_string());
    line.pair("-m", format!("{}M", hardware.memory >> 20));
    line.pair("-kernel", &hardware.kernel.image);
    line.pair("-initrd", &hardware.kernel.initramfs);
    let clock = clock_arguments(&read(Path::new("/proc/cpuinfo")));
    let append = format!("{ARGUMENTS} {clock} {}", hardware.append);
    line.pair("-append", append);
    let log = dir.join("kernel.log");
    line.pair("-serial", option("file:", &log));
    line.words("-device virtio-serial-pci,max_ports=8");
    for port in PORTS {
        let path = ports.path(port);
        line.pair(
            "-chardev",
            option(&format!("socket,id={port},path="), &path),
        );
        line.pair(
            "-device",
            format!("virtserialport,chardev={port},name={port}"),
        );
    }
    if hardware.terminal {
        line.words("-chardev stdio,id=terminal,signal=off -device virtconsole,chardev=terminal");
    }
    line.disk("root", &hardware.root, "snapshot=on,cache=unsafe");
    line.disk("modules", &hardware.kernel.modules, "readonly=on");
    line.disk("payload", &hardware.payload, "readonly=on");
    if let Some(results) = &hardware.results {
        line.disk("results", results, "cache=unsafe");
    }
    for (index, disk) in hardware.disks.iter().enumerate() {
        let serial = format!("disk{index}");
        match disk {
            Disk::File { path, cache } => line.disk(&serial, path, &format!("cache={cache}")),
            Disk::Logged { path, log } => line.logged_disk(&serial, path, log),
            Disk::Empty(bytes) => {
                let path = dir.join(&serial);
                make_sparse(&path, *bytes)?;
                line.disk(&serial, &path, "cache=writeback");
            }
        }
    }
    Ok(line.words)
}

/// Makes a file of so many bytes that holds nothing.
pub(super) fn make_sparse(path: &Path, bytes: u64) -> Result {
    let story = || format!("make {}", path.display());
    File::create(path)
        .and_then(|f| f.set_len(bytes))
        .trying(story)
}

#[derive(Default)]
struct Line {
    words: Vec<OsString>,
}

impl Line {
    fn words(&mut self, text: &str) {
        self.words
            .extend(text.split_whitespace().map(OsString::from));
    }

    fn pair(&mut self, name: &str, value: impl Into<OsString>) {
        self.words.push(name.into());
        self.words.push(value.into());
    }

    fn disk(&mut self, serial: &str, path: &Path, options: &str) {
        let drive = format!("if=none,id={serial},format=raw,{options},file=");
        self.pair("-drive", option(&drive, path));
        self.device(serial);
    }

    /// Flushes reach the log and no further: this machine is not the one that loses power.
    fn logged_disk(&mut self, serial: &str, path: &Path, log: &Path) {
        let mut node = OsString::from(format!("driver=blklogwrites,node-name={serial}"));
        for (name, path) in [("file", path), ("log", log)] {
            let start = format!(",{name}.driver=file,{name}.cache.no-flush=on,{name}.filename=");
            node.push(option(&start, path));
        }
        self.pair("-blockdev", node);
        self.device(serial);
    }

    fn device(&mut self, drive: &str) {
        let device = format!("virtio-blk-pci,drive={drive},serial={drive}");
        self.pair("-device", device);
    }
}

/// An option that ends in a path; qemu wants its commas doubled.
fn option(start: &str, path: &Path) -> OsString {
    let path = path.to_string_lossy().replace(',', ",,");
    format!("{start}{path}").into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_disk_is_a_size_or_a_file() {
        let disk = |text: &str| text.parse::<Disk>();
        assert_eq!(disk("512M").unwrap(), Disk::Empty(512 << 20));
        assert_eq!(disk("2G").unwrap(), Disk::Empty(2 << 30));
        let file = |path: &str, cache: &str| Disk::File {
            path: path.into(),
            cache: cache.into(),
        };
        assert_eq!(disk("a.img").unwrap(), file("a.img", "writeback"));
        assert_eq!(disk("a.img,cache=none").unwrap(), file("a.img", "none"));
        for wrong in ["", "a,b", "a.img,cache=fast", ",cache=none"] {
            assert!(disk(wrong).is_err(), "{wrong}");
        }
    }

    #[test]
    fn the_clock_is_told_only_where_it_is_known() {
        let text = "cpu MHz\t\t: 2596.144\nflags\t\t: fpu constant_tsc hypervisor lm\n";
        let told = "tsc=reliable tsc_early_khz=2596144";
        assert_eq!(clock_arguments(text), told);
        assert_eq!(clock_arguments(&text.replace("hypervisor", "vmx")), "");
        assert_eq!(clock_arguments(&text.replace("2596.144", "?")), "");
        assert_eq!(clock_arguments(""), "");
    }

    #[test]
    fn sizes_have_units_and_do_not_overflow() {
        assert_eq!(size("6G"), Some(6 << 30));
        assert_eq!(size("4096"), Some(4096));
        for wrong in [
            "",
            "G",
            "6T",
            "1.5G",
            "99999999999999999999",
            "18446744073709551615G",
        ] {
            assert_eq!(size(wrong), None, "{wrong}");
        }
    }
}
