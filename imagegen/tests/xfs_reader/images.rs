//! Images made by mkfs.xfs and filled by the kernel, and their mounts.

use std::fs::File;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output};

/// Counts the running test as skipped, for the summary of `make test`.
pub(crate) fn skip(reason: &str) {
    let program = std::env::current_exe().unwrap();
    let notes = program.ancestors().nth(3).unwrap().join("e2e/skipped.tsv");
    std::fs::create_dir_all(notes.parent().unwrap()).unwrap();
    let mut options = File::options();
    let file = options.create(true).append(true).open(notes);
    let thread = std::thread::current();
    let test = thread.name().unwrap_or("a test");
    writeln!(file.unwrap(), "{test}\t{reason}").unwrap();
    println!("SKIPPED: {reason}");
}

/// A command of xfsprogs.
pub(crate) fn xfsprogs(tool: &str) -> Command {
    let prefix = std::env::var("XFSPROGS").unwrap_or_default();
    let mut words = prefix.split_whitespace();
    let Some(first) = words.next() else {
        return Command::new(tool);
    };
    let mut command = Command::new(first);
    command.args(words).arg(tool);
    command
}

/// What a command printed; the test fails if it failed.
pub(crate) fn run(command: &mut Command) -> String {
    let Output {
        status,
        stdout,
        stderr,
    } = command.output().unwrap();
    let errors = String::from_utf8_lossy(&stderr);
    assert!(status.success(), "{command:?}: {status}: {errors}");
    String::from_utf8_lossy(&stdout).into_owned()
}

/// A file system in a file.
pub(crate) struct Image {
    pub(crate) path: PathBuf,
    _dir: tempfile::TempDir,
}

/// Options of mkfs.xfs for the features that Debian 12's kernel and tools know.
pub(crate) const FEATURES: &str =
    "-m rmapbt=1,reflink=1,finobt=1,inobtcount=1,bigtime=1 -i sparse=1,nrext64=1";

impl Image {
    /// A file system of `size` bytes, made with `options`; none if it cannot be made or
    /// this machine cannot mount it, which is noted as skipped.
    pub(crate) fn made(size: u64, options: &str) -> Option<Self> {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("image");
        File::create(&path).unwrap().set_len(size).unwrap();
        let mut mkfs = xfsprogs("mkfs.xfs");
        mkfs.arg("-q").args(options.split_whitespace()).arg(&path);
        match mkfs.output() {
            Ok(output) if output.status.success() => Some(Self { path, _dir: dir }),
            Ok(output) => {
                let errors = String::from_utf8_lossy(&output.stderr).into_owned();
                skip(&format!(
                    "mkfs.xfs {options}: {}",
                    errors.lines().next().unwrap_or("")
                ));
                None
            }
            Err(error) => {
                skip(&format!("mkfs.xfs: {error}"));
                None
            }
        }
    }

    /// One that was filled by the kernel, as `fill.py` does; `scale` 1 makes some ten
    /// thousand inodes.
    pub(crate) fn filled(size: u64, options: &str, scale: f64) -> Option<Self> {
        let image = Self::made(size, options)?;
        let mount = image.mount("loop")?;
        mount.python("fill.py", &[&scale.to_string(), "1"]);
        drop(mount);
        Some(image)
    }

    /// Mounted with `options`; none, noted as skipped, if this machine cannot.
    pub(crate) fn mount(&self, options: &str) -> Option<Mount> {
        let dir = tempfile::tempdir().unwrap();
        let mut mount = Command::new("mount");
        mount.arg("-o").arg(options).arg(&self.path).arg(dir.path());
        let output = mount.output().unwrap();
        if !output.status.success() {
            let errors = String::from_utf8_lossy(&output.stderr).into_owned();
            skip(&format!("mount: {}", errors.lines().next().unwrap_or("")));
            return None;
        }
        Some(Mount { dir: Some(dir) })
    }

    pub(crate) fn open(&self) -> File {
        File::open(&self.path).unwrap()
    }
}

/// A mounted file system; unmounted when dropped.
pub(crate) struct Mount {
    dir: Option<tempfile::TempDir>,
}

impl Mount {
    pub(crate) fn path(&self) -> &Path {
        self.dir.as_ref().unwrap().path()
    }

    /// Runs a script that lies beside this file, the mount point its first argument.
    pub(crate) fn python(&self, script: &str, args: &[&str]) -> String {
        let here = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/xfs_reader");
        let mut command = Command::new("python3");
        command.arg(here.join(script)).arg(self.path()).args(args);
        run(&mut command)
    }
}

impl Drop for Mount {
    fn drop(&mut self) {
        let path = self.path().to_owned();
        let done = Command::new("umount").arg(&path).status().unwrap();
        if !done.success() {
            // The directory must not be removed with a file system on it.
            std::mem::forget(self.dir.take());
            panic!("umount {}: {done}", path.display());
        }
    }
}
