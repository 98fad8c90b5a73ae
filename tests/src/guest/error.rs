//! Why a guest could not be made or run.

use std::io;
use std::path::PathBuf;

/// Result of every step of the harness.
pub type Result<T = ()> = std::result::Result<T, Error>;

/// A failed step. The harness's own failures only: what the program in the guest
/// did is an [`super::run::End`].
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The system refused something.
    #[error("cannot {what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program of the host ended with an error.
    #[error("`{command}` {how}\n{stderr}")]
    Program {
        /// The command line.
        command: String,
        /// How it ended.
        how: String,
        /// The end of what it complained about.
        stderr: String,
    },
    /// Programs are missing and this user cannot install them.
    #[error("missing on this machine: {programs}; as root run `{command}`")]
    Missing {
        /// The programs.
        programs: String,
        /// What installs them.
        command: String,
    },
    /// The root image is built by debootstrap, which enters it with chroot.
    #[error("{0} must be built as root once; run `guest prepare` as root")]
    NeedsRoot(PathBuf),
    /// The machine's apt configuration names no Debian mirror.
    #[error(
        "no `deb` entry of {suite} main in {places}; the harness takes the Debian mirror from there"
    )]
    NoMirror {
        /// The suite looked for.
        suite: String,
        /// Where it was looked for.
        places: String,
    },
    /// No kernel package fits.
    #[error("no cloud kernel {series} in {suites}; there are: {present}")]
    NoKernel {
        /// What was asked for.
        series: String,
        /// The suites searched.
        suites: String,
        /// What they have.
        present: String,
    },
    /// An argument cannot be used.
    #[error("{0}")]
    Argument(String),
    /// qemu ended before the guest said that it is up, or could not be talked to.
    #[error("qemu did not start: {0}")]
    Qemu(String),
    /// A package or an image is not what it should be.
    #[error("{path}: {problem}; remove it and run `guest prepare`")]
    Broken {
        /// The file.
        path: PathBuf,
        /// What is wrong with it.
        problem: String,
    },
}

/// Adds what was tried to an [`io::Error`].
pub(super) trait Trying<T> {
    fn trying(self, what: impl FnOnce() -> String) -> Result<T>;
}

impl<T> Trying<T> for io::Result<T> {
    fn trying(self, what: impl FnOnce() -> String) -> Result<T> {
        self.map_err(|source| Error::Io {
            what: what(),
            source,
        })
    }
}
