//! The kernel of this machine as a judge: it mounts an image through a loop device, or from
//! the file itself.

use crate::tools::skip;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// A mounted image; unmounted when dropped, but [`Mounted::end`] also returns what the kernel
/// said.
pub(crate) struct Mounted {
    point: PathBuf,
    /// Loop devices; none if a file was mounted.
    devices: Vec<String>,
    mounted: bool,
    log: KernelLog,
}

/// Whether this machine can mount a file system of this kind, else the test is noted as
/// skipped.
pub(crate) fn possible(kind: &str) -> bool {
    let why = if !rustix::process::geteuid().is_root() {
        "mounting needs root".to_owned()
    } else if !Path::new("/dev/loop-control").exists() {
        "mounting needs loop devices".to_owned()
    } else if !knows(kind) {
        format!("this kernel does not know {kind}")
    } else {
        return true;
    };
    skip(&why);
    false
}

fn knows(kind: &str) -> bool {
    let known = || {
        let all = std::fs::read_to_string("/proc/filesystems").unwrap();
        all.contains(&format!("\t{kind}\n"))
    };
    // Loading the module fails where it is built in or there are no modules.
    known() || (Command::new("modprobe").arg(kind).output().is_ok() && known())
}

impl Mounted {
    /// Mounts `image` at `point`, which is made, through a loop device; `more` get one each
    /// and an option `device=`.
    ///
    /// # Errors
    /// What mount and the kernel say.
    pub(crate) fn new(
        kind: &str,
        image: &Path,
        more: &[&Path],
        point: &Path,
        options: &str,
    ) -> Result<Self, String> {
        let mut devices = vec![attach(image)];
        // From here on: before, another test may have had the same device.
        let log = KernelLog::from_now();
        devices.extend(more.iter().map(|file| attach(file)));
        let mut options = options.to_owned();
        for device in devices.iter().skip(1) {
            options.push_str(&format!(",device={device}"));
        }
        let what = devices[0].clone();
        let this = Self {
            point: point.to_owned(),
            devices,
            mounted: false,
            log,
        };
        this.mount(kind, Path::new(&what), &options)
    }

    /// Mounts the file itself, without a device.
    ///
    /// # Errors
    /// What mount says.
    pub(crate) fn file(kind: &str, image: &Path, point: &Path) -> Result<Self, String> {
        let this = Self {
            point: point.to_owned(),
            devices: Vec::new(),
            mounted: false,
            log: KernelLog::from_now(),
        };
        // mount(8) would take a loop device for it.
        this.mount_by_call(kind, image)
    }

    fn mount_by_call(mut self, kind: &str, image: &Path) -> Result<Self, String> {
        std::fs::create_dir_all(&self.point).unwrap();
        let flags = nix::mount::MsFlags::MS_RDONLY;
        let mounted = nix::mount::mount(Some(image), &self.point, Some(kind), flags, None::<&str>);
        match mounted {
            Ok(()) => {
                self.mounted = true;
                Ok(self)
            }
            Err(error) => Err(error.to_string()),
        }
    }

    fn mount(mut self, kind: &str, what: &Path, options: &str) -> Result<Self, String> {
        std::fs::create_dir_all(&self.point).unwrap();
        let mut command = Command::new("mount");
        command.args(["-t", kind, "-o", options]).arg(what);
        let output = command.arg(&self.point).output().unwrap();
        if output.status.success() {
            self.mounted = true;
            return Ok(self);
        }
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        let log = self.detach();
        Err(format!("mount ({options}): {said}\n{}", log.join("\n")))
    }

    /// Where it is mounted.
    pub(crate) fn root(&self) -> &Path {
        &self.point
    }

    /// Unmounts; what the kernel said of the device meanwhile.
    pub(crate) fn end(mut self) -> Vec<String> {
        unmount(&self.point);
        self.mounted = false;
        self.detach()
    }

    /// Lets the devices go; what the kernel said about the first meanwhile.
    fn detach(&mut self) -> Vec<String> {
        let name = self
            .devices
            .first()
            .map(|device| device.replace("/dev/", ""));
        let said = name.map_or(Vec::new(), |name| self.log.about(&name));
        for device in self.devices.drain(..) {
            run(Command::new("losetup").args(["--detach", &device]));
        }
        said
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if self.mounted {
            let _ = Command::new("umount").arg(&self.point).output();
        }
        for device in self.devices.drain(..) {
            let _ = Command::new("losetup").args(["--detach", &device]).output();
        }
    }
}

/// Gives a file a loop device. Others may take the one that was free a moment ago, so it is
/// tried more than once.
fn attach(file: &Path) -> String {
    let mut said = Vec::new();
    for _ in 0..20 {
        let mut losetup = Command::new("losetup");
        let output = losetup
            .args(["--find", "--show"])
            .arg(file)
            .output()
            .unwrap();
        if output.status.success() {
            return String::from_utf8(output.stdout).unwrap().trim().to_owned();
        }
        said = output.stderr;
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    panic!("losetup: {}", String::from_utf8_lossy(&said));
}

/// Unmounts. Whoever looks at all mounts of a machine keeps one busy for a moment, so it is
/// tried more than once.
fn unmount(point: &Path) {
    for _ in 0..20 {
        let output = Command::new("umount").arg(point).output().unwrap();
        if output.status.success() {
            return;
        }
        std::thread::sleep(std::time::Duration::from_millis(100));
    }
    run(Command::new("umount").arg(point));
}

/// Runs a command that has to succeed.
pub(crate) fn run(command: &mut Command) -> Output {
    let output = command
        .output()
        .unwrap_or_else(|error| panic!("{command:?}: {error}"));
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(
        output.status.success(),
        "{command:?}: {}: {said}",
        output.status
    );
    output
}

/// What the kernel says from some moment on.
struct KernelLog(File);

impl KernelLog {
    fn from_now() -> Self {
        let nonblocking = rustix::fs::OFlags::NONBLOCK.bits() as i32;
        let mut file = File::options()
            .read(true)
            .custom_flags(nonblocking)
            .open("/dev/kmsg")
            .unwrap();
        file.seek(SeekFrom::End(0)).unwrap();
        Self(file)
    }

    /// Lines of a file system about a device, and lines of nobody in particular which mean
    /// trouble.
    fn about(&mut self, device: &str) -> Vec<String> {
        let mine = [
            format!("XFS ({device})"),
            format!("erofs (device {device})"),
        ];
        let mut found = Vec::new();
        let mut record = vec![0; 16 << 10];
        loop {
            match self.0.read(&mut record) {
                Ok(0) => break,
                Ok(length) => {
                    let text = String::from_utf8_lossy(&record[..length]).into_owned();
                    let line = text.split_once(';').map_or("", |(_, line)| line);
                    let line = line.lines().next().unwrap_or("");
                    if mine.iter().any(|mine| line.contains(mine))
                        || line.contains("XFS: Assertion")
                    {
                        found.push(line.to_owned());
                    }
                }
                // Overwritten before it was read: whoever writes so much is not us.
                Err(error)
                    if error.raw_os_error() == Some(rustix::io::Errno::PIPE.raw_os_error()) => {}
                Err(error) if error.kind() == ErrorKind::WouldBlock => break,
                Err(error) => panic!("/dev/kmsg: {error}"),
            }
        }
        found
    }
}
