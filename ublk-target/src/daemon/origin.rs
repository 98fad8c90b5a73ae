//! An origin, before it is served: is it there, is it the right one, has it been
//! left alone since csnap last had it?

use std::path::Path;
use std::time::{Duration, Instant};

use snapstore::engine::{Seal, VolumeInfo};

use super::marks::Evidence;
use super::{fingerprint, in_use};
use crate::control::protocol::Failure;
use crate::control::views::{Problem, VolumeState};
use crate::device::{DeviceError, Identity, OriginDevice};

/// How long a device is tried again while busy.
const PATIENCE: Duration = Duration::from_secs(5);
/// Likewise after a daemon was killed: its last I/O holds the device until it has
/// landed, which takes as long as the device's own error handling. Users wait, and
/// nobody would try again.
const LANDING: Duration = Duration::from_secs(90);
const PAUSE: Duration = Duration::from_millis(50);

/// Why a volume is not served.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NotServed {
    /// As the volume's state.
    pub state: VolumeState,
    /// For people.
    pub problem: Problem,
}

impl NotServed {
    /// A volume whose origin is not what it should be.
    pub fn refused(message: impl Into<String>, next: impl Into<String>) -> Self {
        let problem = Problem {
            message: message.into(),
            next: next.into(),
        };
        Self {
            state: VolumeState::Refused,
            problem,
        }
    }

    /// A volume that could not be served because something failed.
    pub fn failed(failure: &Failure, store: &Path) -> Self {
        let again = try_again(store);
        let next = match &failure.next {
            Some(first) => format!("{first}; {again}"),
            None => again,
        };
        Self::refused(&failure.message, next)
    }
}

/// Where things must not overlap.
#[derive(Clone, Copy, Debug)]
pub struct Surroundings<'a> {
    /// Path of the store, for advice.
    pub store: &'a Path,
    /// What the store is.
    pub store_identity: Identity,
    /// Where the daemon keeps its state.
    pub state_dir: &'a Path,
    /// Until when a device that is busy is tried again.
    pub until: Instant,
}

/// Until when a device that is busy is tried again; `killed`: an earlier daemon may
/// have left I/O under way.
#[must_use]
pub fn patience(killed: bool) -> Instant {
    Instant::now() + if killed { LANDING } else { PATIENCE }
}

/// Opens with patience while it is busy.
///
/// # Errors
/// The last [`DeviceError`].
pub fn patiently<T>(
    until: Instant,
    open: impl Fn() -> Result<T, DeviceError>,
) -> Result<T, DeviceError> {
    loop {
        match open() {
            Err(error) if error.is_busy() && Instant::now() < until => {
                std::thread::sleep(PAUSE);
            }
            other => return other,
        }
    }
}

/// What was opened at `path`, if nobody else uses it: the exclusive open of a
/// *file* keeps neither a loop device nor swap off it.
///
/// # Errors
/// [`DeviceError::Busy`].
pub fn unused<T>(path: &Path, device: T) -> Result<T, DeviceError> {
    if in_use::uses(path).is_empty() {
        return Ok(device);
    }
    let path = path.to_owned();
    Err(DeviceError::Busy { path })
}

/// Opens the origin of a volume and verifies size and place.
///
/// # Errors
/// [`NotServed`] with what to do.
pub fn open(info: &VolumeInfo, around: &Surroundings<'_>) -> Result<OriginDevice, NotServed> {
    let path = Path::new(&info.origin);
    let open = || unused(path, OriginDevice::open(path, false)?);
    let device = patiently(around.until, open).map_err(|error| {
        let next = format!(
            "make {} available, then: {}",
            info.origin,
            try_again(around.store)
        );
        NotServed {
            state: VolumeState::OriginMissing,
            problem: Problem {
                message: error.to_string(),
                next,
            },
        }
    })?;
    apart(&device, around)?;
    // A larger one is normal: the volume ends where it did until it is resized.
    if device.size() < info.size {
        let (was, is) = (info.size, device.size());
        let message = format!("{} has {is} bytes, the volume has {was}", info.origin);
        let next = format!(
            "make the device at least as large as it was, then: {}; or give up the snapshots: csnapctl volume delete {} and create it again",
            try_again(around.store),
            info.name
        );
        return Err(NotServed::refused(message, next));
    }
    Ok(device)
}

/// Refuses an origin that lies on the store or under the daemon's own state.
///
/// # Errors
/// [`NotServed`].
pub fn apart(device: &OriginDevice, around: &Surroundings<'_>) -> Result<(), NotServed> {
    let path = device.path().display();
    if device.identity().shares(around.store_identity) {
        let message = format!(
            "{path} and the store {} share storage",
            around.store.display()
        );
        return Err(NotServed::refused(
            message,
            "put the store on a device of its own",
        ));
    }
    let state = Identity::holding(around.state_dir).ok();
    if state.is_some_and(|holder| holder.lies_on(device.identity())) {
        let dir = around.state_dir.display();
        let message = format!("the daemon's state directory {dir} lies on the origin {path}");
        let next = "start csnapd with a --state-dir on another device: it must stay writable when a store fails";
        return Err(NotServed::refused(message, next));
    }
    Ok(())
}

/// What the fingerprint says of an origin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It is as it was left.
    Same,
    /// It was changed without csnap.
    Changed,
    /// The last stop was not orderly: nothing is known.
    Unknown,
}

/// Compares an origin with its fingerprint of the last orderly stop.
///
/// # Errors
/// [`NotServed`] when it cannot be read.
pub fn judge(info: &VolumeInfo, device: &OriginDevice, store: &Path) -> Result<Verdict, NotServed> {
    let Seal::Fingerprint(known) = info.seal else {
        return Ok(Verdict::Unknown);
    };
    let found = fingerprint::of_device(device, info.size).map_err(|error| {
        let message = format!("{} cannot be read: {error}", info.origin);
        NotServed::refused(
            message,
            format!("check the device, then: {}", try_again(store)),
        )
    })?;
    Ok(if fingerprint::tell_the_same(&found, &known) {
        Verdict::Same
    } else {
        Verdict::Changed
    })
}

/// What a person says of origins that something speaks against, by volumes.
#[derive(Clone, Copy, Debug, Default)]
pub struct Consent<'a> {
    /// They may have changed: what relied on them may go.
    pub changed: &'a [String],
    /// They are the disks that they were, whatever they call themselves now.
    pub same: &'a [String],
}

impl Consent<'_> {
    /// What still speaks against an origin: a person knows better which disk it is. What
    /// it holds is judged all the same.
    #[must_use]
    pub fn heard(self, volume: &str, evidence: Evidence) -> Evidence {
        Evidence {
            another: evidence.another && !self.same.iter().any(|name| name == volume),
            ..evidence
        }
    }
}

/// What relied on an origin as it was.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Betrayed {
    /// Snapshots.
    pub snapshots: bool,
    /// What users of a device had asked for when csnapd stopped, or have since.
    pub waiting: bool,
}

impl Betrayed {
    /// Whether anything did.
    #[must_use]
    pub fn any(self) -> bool {
        self.snapshots || self.waiting
    }
}

/// An origin that was changed while something relied on it.
#[must_use]
pub fn changed(
    info: &VolumeInfo,
    store: &Path,
    betrayed: Betrayed,
    evidence: Evidence,
) -> NotServed {
    let (wrong, goes) = match (betrayed.snapshots, betrayed.waiting) {
        (true, true) => (
            "the snapshots of it no longer can be right, and what its users wrote since waits \
             for what it held before",
            "its snapshots may go, and users of its device may get I/O errors",
        ),
        (false, true) => (
            "what its users wrote since waits for what it held before",
            "users of its device may get I/O errors",
        ),
        (_, false) => (
            "the snapshots of it no longer can be right",
            "its snapshots may go",
        ),
    };
    let (origin, name, store) = (&info.origin, &info.name, store.display());
    let what = match evidence {
        Evidence { another: true, .. } => "is another disk than csnapd last had".to_owned(),
        Evidence { foreign: 0, .. } => "was changed without csnap since the last stop".to_owned(),
        Evidence { foreign, .. } => format!(
            "was changed without csnap since csnapd last had it (at least {} bytes were written)",
            foreign.saturating_mul(512)
        ),
    };
    let message = format!("{origin}, of volume {name}, {what}: {wrong}");
    let accept = format!(
        "if it is the right device and {goes}: csnapctl store attach {store} --accept-changed-origin {name}"
    );
    let next = match evidence {
        // Behind another controller or bridge a disk may call itself otherwise.
        Evidence {
            another: true,
            foreign: 0,
        } => format!(
            "if it is the same disk, connected in another way, and nobody wrote it: csnapctl store attach {store} --same-origin {name}; {accept}"
        ),
        _ => accept,
    };
    NotServed::refused(message, next)
}

fn try_again(store: &Path) -> String {
    format!("csnapctl store attach {}", store.display())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::control::protocol::ErrorCode;

    #[test]
    fn who_says_that_it_is_the_same_disk_is_heard_of_that_alone() {
        let same = ["web".to_owned()];
        let consent = Consent {
            same: &same,
            ..Consent::default()
        };
        let evidence = |foreign, another| Evidence { foreign, another };
        let heard = |volume, foreign| consent.heard(volume, evidence(foreign, true));
        assert_eq!(heard("web", 0), evidence(0, false));
        assert_eq!(heard("web", 8), evidence(8, false));
        assert_eq!(heard("db", 0), evidence(0, true));
    }

    #[test]
    fn advice_begins_with_what_the_failure_advises() {
        let next = |failure: &Failure| {
            let why = NotServed::failed(failure, Path::new("/dev/store"));
            why.problem.next
        };
        let failure = Failure::new(ErrorCode::Error, "no room");
        assert_eq!(next(&failure), "csnapctl store attach /dev/store");
        let failure = failure.next("make room");
        assert_eq!(
            next(&failure),
            "make room; csnapctl store attach /dev/store"
        );
    }
}
