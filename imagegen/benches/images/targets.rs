//! What makes images: imagegen, and the programs it is compared with.
//!
//! A target is a list of programs to run for a [`Job`]; another file system's tools are
//! another list.

use std::fs::File;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::measure::Step;
use crate::{Outcome, Trying};

/// What one measurement is about.
pub(crate) struct Job<'a> {
    /// What is put into the image.
    pub(crate) tree: &'a Path,
    /// Where the image goes.
    pub(crate) image: &'a Path,
    /// An empty directory.
    pub(crate) mount: &'a Path,
    /// Bytes of the image.
    pub(crate) size: u64,
}

impl Job<'_> {
    /// Removes what a measurement made.
    pub(crate) fn clear(&self) -> Outcome {
        match std::fs::remove_file(self.image) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(error).trying(self.image.display())
            }
            _ => Ok(()),
        }
    }

    /// Unmounts what a measurement left mounted when it failed.
    pub(crate) fn unmount(&self) {
        Self::unmount_at(self.mount);
    }

    /// The same, given the directory.
    pub(crate) fn unmount_at(mount: &Path) {
        let parent = mount.parent().unwrap_or(mount);
        let device = |path| rustix::fs::stat(path).map(|stat| stat.st_dev);
        if device(mount).is_ok() && device(mount) != device(parent) {
            let _ = Command::new("umount").arg(mount).status();
        }
    }

    /// The image as an empty file of its size.
    fn begin(&self) -> Outcome {
        let file = File::create_new(self.image).trying(self.image.display())?;
        file.set_len(self.size).trying(self.image.display())
    }
}

/// What is run for a job.
type Steps = dyn Fn(&Job<'_>) -> Vec<Step>;

/// A way to make an image, or something that is compared with one.
pub(crate) struct Target {
    /// As in the rows.
    pub(crate) name: &'static str,
    /// What is done before the time is taken.
    pub(crate) prepare: fn(&Job<'_>) -> Outcome,
    /// What is run.
    pub(crate) steps: Box<Steps>,
}

/// A target, or the name of one and why it cannot be measured.
pub(crate) type Found = Result<Target, (&'static str, String)>;

/// imagegen waiting for the disk as it does unless told otherwise.
pub(crate) const IMAGEGEN: &str = "imagegen";
/// imagegen with `--no-sync`.
pub(crate) const NO_SYNC: &str = "imagegen-no-sync";

/// All that make an XFS image, and tar.
pub(crate) fn xfs() -> Vec<Found> {
    vec![imagegen(), imagegen_without_sync(), mkfs(), copy(), tar()]
}

pub(crate) fn imagegen() -> Found {
    imagegen_with(IMAGEGEN, &[])
}

fn imagegen_without_sync() -> Found {
    imagegen_with(NO_SYNC, &["--no-sync"])
}

fn imagegen_with(name: &'static str, options: &'static [&str]) -> Found {
    let program = imagegen_program().map_err(|why| (name, why))?;
    Ok(Target {
        name,
        prepare: |_| Ok(()),
        steps: Box::new(move |job| {
            let size = job.size.to_string();
            let mut step = step(&[&program, "xfs", "--quiet", "--size", &size]);
            step.extend(options.iter().map(|&option| option.to_owned()));
            step.extend([text(job.image), text(job.tree)]);
            vec![step]
        }),
    })
}

/// The imagegen that is measured.
pub(crate) fn imagegen_program() -> Result<String, String> {
    let built = option_env!("CARGO_BIN_EXE_imagegen").map(str::to_owned);
    let program = std::env::var("BENCH_IMAGEGEN").ok().or(built);
    program.ok_or_else(|| "no imagegen was built".to_owned())
}

/// The newest mkfs.xfs, which fills a file system from a directory.
fn mkfs() -> Found {
    let mkfs = newest_mkfs_xfs().map_err(|why| ("mkfs.xfs", why))?;
    Ok(Target {
        name: "mkfs.xfs",
        prepare: |job| job.begin(),
        steps: Box::new(move |job| {
            let mut step = mkfs.clone();
            step.extend(["-q".into(), "-p".into(), text(job.tree), text(job.image)]);
            vec![step]
        }),
    })
}

/// The same mkfs.xfs, a loop mount, and `cp -a`.
fn copy() -> Found {
    let mkfs = newest_mkfs_xfs().map_err(|why| ("cp", why))?;
    if !rustix::process::geteuid().is_root() {
        return Err(("cp", "only root may mount".into()));
    }
    Ok(Target {
        name: "cp",
        prepare: |job| job.begin(),
        steps: Box::new(move |job| {
            let (image, mount) = (text(job.image), text(job.mount));
            let mut make = mkfs.clone();
            make.extend(["-q".to_owned(), image.clone()]);
            vec![
                make,
                step(&["mount", "-o", "loop", &image, &mount]),
                step(&["cp", "-a", &format!("{}/.", text(job.tree)), &mount]),
                step(&["umount", &mount]),
            ]
        }),
    })
}

fn tar() -> Found {
    Ok(Target {
        name: "tar",
        prepare: |_| Ok(()),
        steps: Box::new(|job| {
            let (image, tree) = (text(job.image), text(job.tree));
            vec![step(&["tar", "-cf", &image, "-C", &tree, "."])]
        }),
    })
}

pub(crate) fn step(words: &[&str]) -> Step {
    words.iter().map(|&word| word.to_owned()).collect()
}

pub(crate) fn text(path: &Path) -> String {
    path.to_string_lossy().into_owned()
}

/// Cargo's target directory.
pub(crate) fn cargo_target() -> PathBuf {
    let default = || Path::new(env!("CARGO_MANIFEST_DIR")).join("../target");
    std::env::var_os("CARGO_TARGET_DIR").map_or_else(default, PathBuf::from)
}

fn newest_mkfs_xfs() -> Result<Step, String> {
    newest("xfsprogs", "mkfs.xfs")
}

/// A program as `scripts/judges` puts it there, with its own loader and libraries.
pub(crate) fn newest(package: &str, name: &str) -> Result<Step, String> {
    let root = cargo_target().join(format!("tools/{package}-newest/root"));
    let program = ["usr/sbin", "sbin", "usr/bin"].map(|place| root.join(place).join(name));
    let program = program.into_iter().find(|program| program.is_file());
    let program = program.ok_or_else(|| format!("no newest {name}; run scripts/judges"))?;
    let loader = root.join("usr/lib64/ld-linux-x86-64.so.2");
    let libraries = root.join("usr/lib/x86_64-linux-gnu");
    Ok(step(&[
        &text(&loader),
        "--library-path",
        &text(&libraries),
        &text(&program),
    ]))
}

/// What a program of the newest suite calls itself.
pub(crate) fn version(package: &str, program: &str) -> Option<String> {
    let mkfs = newest(package, program).ok()?;
    let (program, arguments) = mkfs.split_first()?;
    let mut command = Command::new(program);
    command.args(arguments).arg("-V").stdin(Stdio::null());
    let said = command.output().ok()?;
    let said = String::from_utf8_lossy(&said.stdout).into_owned();
    said.lines().next().map(|line| line.trim().to_owned())
}
