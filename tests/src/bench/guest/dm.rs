//! `dmsetup`, in a guest without udev.
//!
//! Nobody makes nodes there but `dmsetup` itself, and only if told not to wait for
//! udev; every device is therefore looked at before it is used.

use std::path::{Path, PathBuf};
use std::process::Command;

use super::media;
use crate::e2e::{Outcome, tools};
use crate::ensure;

/// A device of device mapper. Dropping it leaves it; [`Mapped::remove`] removes it.
#[derive(Debug)]
pub struct Mapped {
    name: String,
    path: PathBuf,
}

impl Mapped {
    /// Makes one with a single target over its first `bytes`.
    ///
    /// # Errors
    /// If the kernel refuses it or no node appears.
    pub fn create(name: &str, bytes: u64, target: &str) -> Outcome<Self> {
        let table = format!("0 {} {target}", media::sectors(bytes));
        tools::run(dmsetup("create").arg(name).args(["--table", &table]))?;
        let path = Path::new("/dev/mapper").join(name);
        ensure!(
            media::is_block(&path),
            "`dmsetup create {name}` made no node"
        );
        let name = name.to_owned();
        Ok(Self { name, path })
    }

    /// Its node.
    #[must_use]
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Holds its I/O back.
    ///
    /// # Errors
    /// If it cannot be suspended.
    pub fn suspend(&self) -> Outcome {
        tools::run(dmsetup("suspend").arg(&self.name)).map(|_| ())
    }

    /// Lets its I/O go on.
    ///
    /// # Errors
    /// If it cannot be resumed.
    pub fn resume(&self) -> Outcome {
        tools::run(dmsetup("resume").arg(&self.name)).map(|_| ())
    }

    /// Sends its target a message.
    ///
    /// # Errors
    /// If the target refuses it.
    pub fn message(&self, words: &str) -> Outcome {
        tools::run(dmsetup("message").args([&self.name, "0", words])).map(|_| ())
    }

    /// The state its target reports.
    ///
    /// # Errors
    /// If it has none.
    pub fn status(&self) -> Outcome<String> {
        tools::run(dmsetup("status").arg(&self.name))
    }

    /// Removes it.
    ///
    /// # Errors
    /// If it is still in use.
    pub fn remove(self) -> Outcome {
        tools::run(dmsetup("remove").args(["--retry", &self.name])).map(|_| ())
    }
}

fn dmsetup(verb: &str) -> Command {
    let mut command = tools::program("dmsetup");
    command.env("DM_DISABLE_UDEV", "1").arg(verb);
    command.arg("--noudevsync");
    command
}
