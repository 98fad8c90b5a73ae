//! The kernel of this machine as a judge: it mounts an image through a loop device, and
//! must have nothing to say about it but that it did.

use crate::image::Image;
use crate::tools::skip;
use std::fs::File;
use std::io::{ErrorKind, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// How to mount.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum How {
    ReadOnly,
    ReadWrite,
}

/// A mounted image; unmounted when dropped, but [`Mounted::end`] also judges the kernel
/// log.
pub(crate) struct Mounted {
    point: PathBuf,
    device: String,
    log: KernelLog,
}

/// Whether this machine can mount, else the test is noted as skipped.
pub(crate) fn possible() -> bool {
    let why = if !rustix::process::geteuid().is_root() {
        "mounting needs root"
    } else if !Path::new("/dev/loop-control").exists() {
        "mounting needs loop devices"
    } else if !knows_xfs() {
        "this kernel does not know XFS"
    } else {
        return true;
    };
    skip(why);
    false
}

fn knows_xfs() -> bool {
    let known = || {
        std::fs::read_to_string("/proc/filesystems")
            .unwrap()
            .contains("\txfs\n")
    };
    // Loading the module fails where it is built in or there are no modules.
    known() || (Command::new("modprobe").arg("xfs").output().is_ok() && known())
}

impl Mounted {
    /// Mounts `image`.
    pub(crate) fn new(image: &Image, how: How) -> Self {
        let point = image.dir().join("mnt");
        std::fs::create_dir_all(&point).unwrap();
        let log = KernelLog::from_now();
        let device = attach(&image.path());
        let options = match how {
            How::ReadOnly => "ro",
            How::ReadWrite => "rw",
        };
        let mounted = Command::new("mount")
            .args(["-t", "xfs", "-o", options, &device])
            .arg(&point)
            .output()
            .unwrap();
        let mounted_ok = mounted.status.success();
        let this = Self { point, device, log };
        if !mounted_ok {
            let said = String::from_utf8_lossy(&mounted.stderr).into_owned();
            let log = this.detach();
            panic!("mount ({options}): {said}\n{}", log.join("\n"));
        }
        this
    }

    /// Where it is mounted.
    pub(crate) fn root(&self) -> &Path {
        &self.point
    }

    /// Unmounts; the kernel must not have complained.
    pub(crate) fn end(self) {
        run(Command::new("umount").arg(&self.point));
        let said = self.detach();
        let harmless = [
            "Mounting V5 Filesystem",
            "Ending clean mount",
            "Unmounting Filesystem",
            "EXPERIMENTAL",
        ];
        let complaints: Vec<&String> = said
            .iter()
            .filter(|line| !harmless.iter().any(|harmless| line.contains(harmless)))
            .collect();
        assert!(complaints.is_empty(), "the kernel says: {complaints:#?}");
        assert!(
            said.iter().any(|line| line.contains("Ending clean mount")),
            "no clean mount: {said:#?}"
        );
    }

    /// Lets the device go; what the kernel said about it meanwhile.
    fn detach(mut self) -> Vec<String> {
        let name = self
            .device
            .strip_prefix("/dev/")
            .unwrap_or(&self.device)
            .to_owned();
        let said = self.log.about(&name);
        run(Command::new("losetup").args(["--detach", &self.device]));
        self.device.clear();
        said
    }
}

impl Drop for Mounted {
    fn drop(&mut self) {
        if !self.device.is_empty() {
            let _ = Command::new("umount").arg(&self.point).output();
            let _ = Command::new("losetup")
                .args(["--detach", &self.device])
                .output();
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

    /// Lines of XFS about a device, and lines of nobody in particular which mean trouble.
    fn about(&mut self, device: &str) -> Vec<String> {
        let mine = format!("XFS ({device})");
        let mut found = Vec::new();
        let mut record = vec![0; 16 << 10];
        loop {
            match self.0.read(&mut record) {
                Ok(0) => break,
                Ok(length) => {
                    let text = String::from_utf8_lossy(&record[..length]).into_owned();
                    let line = text.split_once(';').map_or("", |(_, line)| line);
                    let line = line.lines().next().unwrap_or("");
                    if line.contains(&mine) || line.contains("XFS: Assertion") {
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
