//! What ends the command, and its exit code.

use imagegen::erofs::composefs::ComposefsError;
use imagegen::erofs::extract::ExtractError;
use imagegen::erofs::{read as erofs_read, write as erofs};
use imagegen::qcow2::open::OpenError;
use imagegen::qcow2::{read as qcow2_read, write as qcow2_write};
use imagegen::target::TargetError;
use imagegen::tree::TreeError;
use imagegen::verity::dm::DmError;
use imagegen::xfs::geometry::OptionError;
use imagegen::xfs::make::MakeError;
use imagegen::xfs::read::ReadError;
use imagegen::xfs::write::WriteError;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

/// Why the command could not do what was asked.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Failure {
    /// Arguments that do not go together.
    #[error("{0}")]
    Usage(String),
    /// An option that cannot be as it is.
    #[error(transparent)]
    Option(#[from] OptionError),
    /// A source.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// The target.
    #[error(transparent)]
    Target(#[from] TargetError),
    /// Writing the image.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// Writing an EROFS image.
    #[error(transparent)]
    Erofs(#[from] erofs::WriteError),
    /// An image of composefs.
    #[error(transparent)]
    Composefs(#[from] ComposefsError),
    /// A hash tree.
    #[error(transparent)]
    Verity(#[from] DmError),
    /// No size holds the tree.
    #[error("no size up to {tried} bytes holds the tree; give one (--size)")]
    NoSize {
        /// The largest that was tried.
        tried: u64,
    },
    /// An image to be read cannot be opened.
    #[error("{}: cannot open it: {cause}", path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why not.
        cause: std::io::Error,
    },
    /// A tree cannot be extracted.
    #[error(transparent)]
    Extract(#[from] ExtractError),
    /// A QCOW2 image, or what lies below it.
    #[error(transparent)]
    Qcow2(#[from] OpenError),
    /// Writing a QCOW2 image, or a disk out of one.
    #[error(transparent)]
    Convert(#[from] qcow2_write::WriteError),
    /// What was compared is not the same.
    #[error("{0}")]
    Different(String),
    /// A comparison came to no end.
    #[error(transparent)]
    Compare(Box<Failure>),
    /// Something read is damaged; what, was said already.
    #[error("{0}")]
    Damaged(String),
    /// Something cannot be read, or is nothing csnap reads.
    #[error("{0}")]
    Unreadable(String),
    /// What is said cannot be written.
    #[error("cannot write the answer: {0}")]
    Answer(#[from] std::io::Error),
}

impl Failure {
    /// Wrong usage that clap does not see.
    pub(crate) fn usage(text: impl Into<String>) -> Self {
        Self::Usage(text.into())
    }

    /// An image that cannot be read.
    pub(crate) fn read(image: &Path, cause: ReadError) -> Self {
        let text = format!("{}: {cause}", image.display());
        match cause {
            ReadError::Damaged { .. } => Self::Damaged(text),
            _ => Self::Unreadable(text),
        }
    }

    /// An EROFS image that cannot be read.
    pub(crate) fn read_erofs(image: &Path, cause: erofs_read::ReadError) -> Self {
        let text = format!("{}: {cause}", image.display());
        match cause {
            erofs_read::ReadError::Damaged { .. } => Self::Damaged(text),
            erofs_read::ReadError::Path { .. } | erofs_read::ReadError::Devices { .. } => {
                Self::Usage(text)
            }
            _ => Self::Unreadable(text),
        }
    }

    /// Whether nobody reads what is said any more.
    pub(crate) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Answer(cause) if cause.kind() == ErrorKind::BrokenPipe)
    }

    /// As the help says.
    pub(crate) fn code(&self) -> ExitCode {
        ExitCode::from(self.number())
    }

    fn number(&self) -> u8 {
        let full = |cause: &std::io::Error| {
            matches!(
                cause.kind(),
                ErrorKind::StorageFull | ErrorKind::QuotaExceeded
            )
        };
        match self {
            Self::Usage(_) | Self::Option(_) | Self::NoSize { .. } => 2,
            Self::Tree(_) | Self::Write(WriteError::Tree(_)) => 3,
            Self::Write(WriteError::NoDedupe) | Self::Erofs(erofs::WriteError::Option(_)) => 2,
            Self::Erofs(erofs::WriteError::Tree(_)) => 3,
            Self::Target(TargetError::Io { cause, .. }) if full(cause) => 5,
            Self::Target(TargetError::TooSmall { .. }) | Self::Write(WriteError::Full { .. }) => 5,
            Self::Write(WriteError::Write(cause) | WriteError::Copy { cause, .. })
            | Self::Erofs(
                erofs::WriteError::Write(cause) | erofs::WriteError::Copy { cause, .. },
            ) if full(cause) => 5,
            Self::Target(
                TargetError::Exists { .. } | TargetError::InUse { .. } | TargetError::Holds { .. },
            ) => 4,
            Self::Write(WriteError::Copy { .. }) | Self::Erofs(erofs::WriteError::Copy { .. }) => 3,
            Self::Extract(ExtractError::NotEmpty(_)) => 4,
            Self::Extract(
                ExtractError::Object { cause, .. } | ExtractError::Target { cause, .. },
            ) if full(cause) => 5,
            Self::Extract(_) => 1,
            Self::Composefs(ComposefsError::Tree(_) | ComposefsError::Forbidden { .. }) => 3,
            Self::Composefs(ComposefsError::Store { cause, .. }) if full(cause) => 5,
            Self::Composefs(ComposefsError::Write(cause)) if full(cause) => 5,
            Self::Composefs(ComposefsError::Target(TargetError::Io { cause, .. }))
                if full(cause) =>
            {
                5
            }
            Self::Composefs(_) => 1,
            Self::Verity(DmError::Io(cause)) if full(cause) => 5,
            Self::Verity(DmError::Block { .. } | DmError::Salt(_)) => 2,
            Self::Verity(_) => 1,
            Self::Damaged(_) => 6,
            Self::Qcow2(OpenError::Guessed { .. }) => 2,
            Self::Qcow2(OpenError::Read { cause, .. } | OpenError::Disk(cause)) => {
                match cause.root() {
                    qcow2_read::ReadError::Damaged { .. } => 6,
                    qcow2_read::ReadError::NoSnapshot(_) => 2,
                    _ => 1,
                }
            }
            Self::Convert(qcow2_write::WriteError::Option(_)) => 2,
            Self::Convert(qcow2_write::WriteError::Write(cause)) if full(cause) => 5,
            Self::Convert(qcow2_write::WriteError::Read(_)) => 3,
            Self::Qcow2(_) | Self::Different(_) | Self::Convert(_) => 1,
            Self::Target(_) | Self::Write(_) | Self::Erofs(_) | Self::Open { .. } => 1,
            Self::Unreadable(_) | Self::Answer(_) => 1,
            // 1 says of a comparison that the two differ.
            Self::Compare(cause) => cause.number().max(2),
        }
    }
}

impl From<erofs::OptionError> for Failure {
    fn from(error: erofs::OptionError) -> Self {
        Self::Erofs(error.into())
    }
}

impl From<MakeError> for Failure {
    fn from(error: MakeError) -> Self {
        match error {
            MakeError::Option(error) => Self::Option(error),
            MakeError::Tree(error) => Self::Tree(error),
            MakeError::Write(error) => Self::Write(error),
            MakeError::NoSize { tried } => Self::NoSize { tried },
        }
    }
}
