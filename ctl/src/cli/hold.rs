//! What is held still around a take.

use std::path::PathBuf;

use clap::Args;

/// What happens around a take.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Around the take")]
pub struct HoldArgs {
    /// Freeze the file system mounted there: the snapshot is complete without its journal
    #[arg(long, value_name = "MOUNTPOINT")]
    pub freeze: Vec<PathBuf>,
    /// Shell command before it all, such as one that makes a database flush and wait
    #[arg(long, value_name = "COMMAND")]
    pub pre: Option<String>,
    /// Shell command after it all, whatever became of the take
    #[arg(long, value_name = "COMMAND")]
    pub post: Option<String>,
    /// Thaw after so many seconds from the beginning, and give the take up
    #[arg(long, value_name = "SECONDS", default_value_t = 30,
          value_parser = clap::value_parser!(u64).range(1..=3600))]
    pub hold_timeout: u64,
}

impl HoldArgs {
    /// Whether there is anything to do around the take.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.freeze.is_empty() && self.pre.is_none() && self.post.is_none()
    }
}

/// The command line of the process that holds; not for people.
#[derive(Debug, Args)]
pub struct HolderArgs {
    /// What to do.
    #[command(flatten)]
    pub hold: HoldArgs,
    /// What is taken, for the commands' environment.
    #[arg(long, default_value = "")]
    pub targets: String,
}
