//! What the library refuses, in csnapctl's words: with the origin's name, what to do
//! next, and options that csnapctl has.

use std::io;

use imagegen::erofs;
use imagegen::target::TargetError;
use imagegen::tree::TreeError;
use imagegen::xfs::geometry::OptionError;
use imagegen::xfs::make::MakeError;
use imagegen::xfs::write::WriteError;
use ublk_target::control::protocol::{ErrorCode, Failure};

use crate::cli::FormatArg;
use crate::output::human;
use crate::run::code_of;

/// About which origin.
pub(super) struct Words<'a> {
    pub(super) origin: &'a str,
    pub(super) size: u64,
    pub(super) kind: FormatArg,
}

impl Words<'_> {
    pub(super) fn tree(&self, error: &TreeError) -> Failure {
        let code = match error {
            TreeError::Io { cause, .. } => code_of(cause),
            _ => ErrorCode::Error,
        };
        Failure::new(code, error.to_string())
    }

    pub(super) fn target(&self, error: &TargetError) -> Failure {
        let origin = self.origin;
        match error {
            TargetError::Holds { found, .. } => {
                let message = format!("{origin} seems to hold {found}");
                Failure::new(ErrorCode::Busy, message).next(
                    "if that is really to be lost, repeat with --force; to keep it, leave out --format",
                )
            }
            TargetError::InUse { .. } => {
                Failure::new(ErrorCode::Busy, format!("{origin} is in use"))
                    .next("unmount or release it first (see lsblk); --force does not override this")
            }
            TargetError::TooSmall { size, .. } => self.too_small(*size),
            TargetError::Unsuitable { .. } => Failure::new(ErrorCode::Usage, error.to_string()),
            TargetError::Io { cause, .. } => Failure::new(code_of(cause), error.to_string()),
            _ => Failure::new(ErrorCode::Error, error.to_string()),
        }
    }

    pub(super) fn make(&self, error: &MakeError) -> Failure {
        match error {
            MakeError::Option(error) => self.option(error),
            MakeError::Tree(error) | MakeError::Write(WriteError::Tree(error)) => self.tree(error),
            MakeError::Write(WriteError::Full { path }) => {
                let (origin, size) = (self.origin, human::size(self.size));
                let message = format!("{origin} ({size}) has no room for {path}");
                Failure::new(ErrorCode::NoSpace, message).next(
                    "use a larger origin, or a smaller tree; --dedupe keeps equal blocks once",
                )
            }
            MakeError::Write(WriteError::Write(cause)) => self.unwritable(cause),
            MakeError::Write(_) | MakeError::NoSize { .. } => {
                Failure::new(ErrorCode::Error, error.to_string())
            }
        }
    }

    pub(super) fn erofs(&self, error: &erofs::write::WriteError) -> Failure {
        use erofs::write::WriteError;
        match error {
            WriteError::Option(_) | WriteError::Invalid { .. } => {
                Failure::new(ErrorCode::Usage, error.to_string())
            }
            WriteError::Tree(error) => self.tree(error),
            WriteError::Write(cause) => self.unwritable(cause),
            _ => Failure::new(ErrorCode::Error, error.to_string()),
        }
    }

    fn unwritable(&self, cause: &io::Error) -> Failure {
        let message = format!("{}: cannot write: {cause}", self.origin);
        Failure::new(code_of(cause), message)
    }

    /// An image of `needed` bytes does not fit.
    fn too_small(&self, needed: u64) -> Failure {
        let (size, needed) = (human::size(self.size), human::size(needed));
        let message = format!("{} ({size}) has no room for {needed}", self.origin);
        let next = match self.kind {
            FormatArg::Erofs => "use a larger origin, a smaller tree, or --compress zstd",
            FormatArg::Xfs => "use a larger origin, or a smaller tree",
        };
        Failure::new(ErrorCode::NoSpace, message).next(next)
    }

    /// It went wrong, as `failure` says, while the origin was written.
    pub(super) fn cut_off(&self, failure: Failure) -> Failure {
        let now = format!(
            "{} holds no file system now, and no volume was created; repeat the command",
            self.origin
        );
        let next = match &failure.next {
            Some(first) => format!("{first}; {now}"),
            None => now,
        };
        Failure::new(failure.code, failure.message).next(next)
    }

    fn option(&self, error: &OptionError) -> Failure {
        let (origin, size) = (self.origin, self.size);
        let OptionError {
            option,
            value,
            problem,
            remedy,
        } = error;
        match *option {
            "--label" => {
                let message = format!("{option} {value}: {problem}");
                Failure::new(ErrorCode::Usage, message).next(*remedy)
            }
            "--sector-size" => {
                let message = format!("{origin} has blocks of {value} bytes: XFS cannot use them");
                Failure::new(ErrorCode::Error, message)
            }
            // All others follow from the size.
            _ => {
                let message = format!("{origin} has {size} bytes, too few for XFS: {problem}");
                Failure::new(ErrorCode::NoSpace, message).next("use a larger origin")
            }
        }
    }
}
