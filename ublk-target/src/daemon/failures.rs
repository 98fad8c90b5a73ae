//! What went wrong below, as a client is told.

use std::path::Path;

use snapstore::engine::CommandError;
use snapstore::recover::OpenError;

use super::state::StateError;
use crate::control::protocol::{ErrorCode, Failure};
use crate::device::DeviceError;
use crate::runtime::{AttachError, BlockError, ExtendError, ResizeError};
use crate::ublk::UblkError;

impl From<CommandError> for Failure {
    fn from(error: CommandError) -> Self {
        use CommandError as E;
        let code = match &error {
            E::NoVolume(_) | E::NoSnapshot(..) => ErrorCode::NotFound,
            E::BadName(_)
            | E::Invalid(_)
            | E::Shrinks { .. }
            | E::NothingToExtend { .. }
            | E::StoreTooLarge { .. } => ErrorCode::Usage,
            E::Busy(_) | E::NameTaken(_) | E::DrainTimeout | E::Closing => ErrorCode::Busy,
            E::NoSpace => ErrorCode::NoSpace,
            E::Damaged { .. } => ErrorCode::Corruption,
            E::OriginFlush(..)
            | E::StoreFailed(_)
            | E::StoreCutOff { .. }
            | E::NoMemory { .. }
            | E::NewEnd(_) => ErrorCode::Error,
        };
        let next = match &error {
            E::NameTaken(_) => Some("choose another name"),
            E::NoSpace => Some(
                "delete snapshots; `csnapctl snapshot list` shows what each holds. Or `csnapctl store extend`",
            ),
            E::StoreFailed(_) => Some(
                "see `csnapctl events`; the origins go on. Detach the store, check its device and `csnapctl store check` it",
            ),
            E::NoMemory { .. } => {
                Some("give the machine more memory, or extend to less with --size; nothing changed")
            }
            E::OriginFlush(..) => Some("check the origin's device: its writes are not durable"),
            _ => None,
        };
        let failure = Self::new(code, error.to_string());
        match next {
            Some(next) => failure.next(next),
            None => failure,
        }
    }
}

impl From<DeviceError> for Failure {
    fn from(error: DeviceError) -> Self {
        let code = match &error {
            DeviceError::Busy { .. } | DeviceError::Stacked { .. } => ErrorCode::Busy,
            DeviceError::Open { source, .. } if source.kind() == std::io::ErrorKind::NotFound => {
                ErrorCode::NotFound
            }
            DeviceError::WrongType { .. }
            | DeviceError::Size { .. }
            | DeviceError::NotAFile { .. }
            | DeviceError::Shrinks { .. } => ErrorCode::Usage,
            _ => ErrorCode::Error,
        };
        let failure = Self::new(code, error.to_string());
        match &error {
            // What the unit's ProtectSystem= looks like from inside.
            DeviceError::Open { source, .. }
                if source.kind() == std::io::ErrorKind::ReadOnlyFilesystem =>
            {
                failure.next(
                    "files outside /dev that csnapd's unit is to write need ReadWritePaths= \
                     (systemctl edit csnapd); else the file system is mounted read-only",
                )
            }
            _ => failure,
        }
    }
}

impl From<StateError> for Failure {
    fn from(error: StateError) -> Self {
        Self::new(
            ErrorCode::Error,
            format!("the daemon's state cannot be kept: {error}"),
        )
        .next("make room in, or repair, the file system of the state directory")
    }
}

impl From<AttachError> for Failure {
    fn from(error: AttachError) -> Self {
        use AttachError as E;
        match error {
            E::Device(error) => error.into(),
            E::NoVolume(_) | E::NoSnapshot(..) => Self::new(ErrorCode::NotFound, error.to_string()),
            E::Busy | E::NotAttached(_) | E::Attached(_) => {
                Self::new(ErrorCode::Busy, error.to_string())
            }
            E::TooSmall { .. } | E::TooMany(_) | E::Export(_) => {
                Self::new(ErrorCode::Error, error.to_string())
            }
        }
    }
}

impl From<UblkError> for Failure {
    fn from(error: UblkError) -> Self {
        let code = match &error {
            UblkError::Open(_) => ErrorCode::Busy,
            UblkError::BlockSize { .. } => return Self::new(ErrorCode::Usage, error.to_string()),
            _ => ErrorCode::Error,
        };
        Self::new(code, error.to_string())
            .next("see the kernel's log; `csnapctl features` shows what this kernel offers")
    }
}

impl From<BlockError> for Failure {
    fn from(error: BlockError) -> Self {
        match error {
            BlockError::Attach(error) => error.into(),
            BlockError::Ublk(error) => error.into(),
            BlockError::Open { .. } => busy(
                error.to_string(),
                "unmount it or end what uses it; or use --force",
            ),
            BlockError::Lanes(_)
            | BlockError::FixedSize(_)
            | BlockError::HalfTaken(_)
            | BlockError::Unsuited { .. } => Self::new(ErrorCode::Error, error.to_string()),
        }
    }
}

impl From<ResizeError> for Failure {
    fn from(error: ResizeError) -> Self {
        match error {
            ResizeError::Attach(error) => error.into(),
            ResizeError::Command(error) => error.into(),
            ResizeError::NotSoLarge { .. } | ResizeError::Unaligned { .. } => {
                Self::new(ErrorCode::Usage, error.to_string())
            }
        }
    }
}

impl From<ExtendError> for Failure {
    fn from(error: ExtendError) -> Self {
        match error {
            ExtendError::Device(error) => error.into(),
            ExtendError::Command(error) => error.into(),
        }
    }
}

/// A store that cannot be made, opened or checked.
#[must_use]
pub fn opening(path: &Path, error: &OpenError) -> Failure {
    use OpenError as E;
    let repair = "`csnapctl store repair --dry-run` says what can be saved; the origins are \
                  complete without the store";
    let (code, next) = match error {
        E::NotAStore => (
            ErrorCode::Usage,
            "check the path; `csnapctl store create` makes a store",
        ),
        E::Invalid(_) => (ErrorCode::Usage, "see `csnapctl store create --help`"),
        E::Superblocks { .. } | E::Truncated { .. } | E::Damaged { .. } => {
            (ErrorCode::Corruption, repair)
        }
        E::Device { .. } | E::Checkpoint(_) => (
            ErrorCode::Error,
            "check the device and its cables, then try again",
        ),
    };
    Failure::new(code, format!("{}: {error}", path.display())).next(next)
}

/// Something named by a client that is not there.
pub(super) fn not_found(what: impl std::fmt::Display, next: &str) -> Failure {
    Failure::new(ErrorCode::NotFound, format!("{what} does not exist")).next(next)
}

/// A snapshot that a person keeps. `or` may name another way than to let it go.
pub(super) fn held(volume: &str, snapshot: &str, or: &str) -> Failure {
    let name = format!("{volume}@{snapshot}");
    let next = format!("let it go first: csnapctl snapshot set {name} --no-hold{or}");
    busy(format!("snapshot {name} is held"), &next)
}

/// Something that is in use.
pub(super) fn busy(message: impl Into<String>, next: &str) -> Failure {
    Failure::new(ErrorCode::Busy, message).next(next)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_store_and_what_is_taken_have_codes_of_their_own() {
        let path = Path::new("/dev/sdb");
        let no_store = opening(path, &OpenError::NotAStore);
        assert_eq!(no_store.code, ErrorCode::Usage);
        assert!(no_store.message.contains("/dev/sdb"), "{no_store}");
        let taken = Failure::from(CommandError::NameTaken("monday".into()));
        assert_eq!(taken.code, ErrorCode::Busy);
    }

    #[test]
    fn a_machine_too_small_for_a_store_is_no_mistake_of_the_command() {
        let failure = Failure::from(CommandError::NoMemory { device: 1 << 50 });
        assert_eq!(failure.code, ErrorCode::Error);
        assert!(failure.next.unwrap().contains("--size"));
    }

    #[test]
    fn a_place_the_unit_may_not_write_is_told_from_a_missing_one() {
        let open = |errno| DeviceError::Open {
            path: "/srv/images/store".into(),
            source: std::io::Error::from_raw_os_error(errno),
        };
        let protected = Failure::from(open(libc::EROFS));
        assert!(protected.next.unwrap().contains("ReadWritePaths="));
        let missing = Failure::from(open(libc::ENOENT));
        assert_eq!((missing.code, missing.next), (ErrorCode::NotFound, None));
    }
}
