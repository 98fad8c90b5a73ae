//! Why an end-to-end test failed.

use std::io;

/// Result of a test and of every step of one.
pub type Outcome<T = ()> = Result<T, Fault>;

/// A failed step. `Debug` prints like `Display`, because that is what the test
/// runner shows of a returned error.
#[derive(thiserror::Error)]
pub enum Fault {
    /// The system refused something.
    #[error("{what}: {source}")]
    Io {
        /// What was tried.
        what: String,
        /// What the system said.
        source: io::Error,
    },
    /// A program ended otherwise than it should.
    #[error("`{command}` {how}\n--- its stdout\n{stdout}\n--- its stderr\n{stderr}")]
    Program {
        /// The command line.
        command: String,
        /// How it ended.
        how: String,
        /// What it printed.
        stdout: String,
        /// What it complained about.
        stderr: String,
    },
    /// What was seen is not what should be.
    #[error("{0}")]
    Wrong(String),
}

impl Fault {
    /// A finding of a test.
    #[must_use]
    pub fn wrong(reason: impl Into<String>) -> Self {
        Self::Wrong(reason.into())
    }
}

impl std::fmt::Debug for Fault {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        std::fmt::Display::fmt(self, f)
    }
}

impl From<serde_json::Error> for Fault {
    fn from(error: serde_json::Error) -> Self {
        Self::wrong(format!("not the JSON it should be: {error}"))
    }
}

/// Adds what was tried to an [`io::Error`].
pub trait Trying<T> {
    /// Names what was tried.
    ///
    /// # Errors
    /// The same error, with its story.
    fn trying(self, what: impl FnOnce() -> String) -> Outcome<T>;
}

impl<T> Trying<T> for io::Result<T> {
    fn trying(self, what: impl FnOnce() -> String) -> Outcome<T> {
        self.map_err(|source| Fault::Io {
            what: what(),
            source,
        })
    }
}
