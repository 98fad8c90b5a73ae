//! A volume as it is now: a snapshot that is taken for a command and deleted after it.

use std::thread;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use ublk_target::control::protocol::{ErrorCode, Failure, Request, SnapshotName};
use ublk_target::control::views::SnapshotView;

use super::interrupt;
use crate::Done;
use crate::run::snapshot;
use crate::session::Session;

/// How long csnapd may take to notice that nobody reads a snapshot any more.
const PATIENCE: Duration = Duration::from_secs(10);

/// What their names begin with.
const PREFIX: &str = "csnapctl-";
/// Whatever somebody took to keep is dropped later.
const PRIORITY: i32 = i32::MIN;

/// Whether a snapshot was taken for some command alone.
pub(crate) fn is_moment(view: &SnapshotView) -> bool {
    view.priority == PRIORITY && view.name.starts_with(PREFIX)
}

/// The snapshot.
#[derive(Debug)]
pub(crate) struct Moment {
    name: SnapshotName,
}

impl Moment {
    /// Has `act` see `volume` as it is now, in a snapshot that is gone afterwards.
    pub(crate) fn with<T>(
        session: &mut Session,
        volume: &str,
        act: impl FnOnce(&mut Session, &SnapshotName) -> Done<T>,
    ) -> Done<T> {
        interrupt::heed()?;
        let moment = Self::take(session, volume)?;
        let done = act(session, &moment.name);
        // What was asked for is done, or failed, all the same.
        if let Err(left) = moment.delete(session) {
            session.complain(&left);
        }
        done
    }

    fn take(session: &mut Session, volume: &str) -> Done<Self> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH);
        let now = now.unwrap_or_default().as_millis();
        let name = format!("{PREFIX}{}-{now}", std::process::id());
        let name = snapshot::take_one(session, volume, name, PRIORITY)?;
        Ok(Self { name })
    }

    fn delete(self, session: &mut Session) -> Done {
        let until = Instant::now() + PATIENCE;
        loop {
            let request = Request::SnapshotDelete {
                snapshots: vec![self.name.clone()],
                force: false,
            };
            match session.call(request) {
                // Room was needed, and it was dropped: that it is gone is told elsewhere.
                Ok(_) => return Ok(()),
                Err(failure) if failure.code == ErrorCode::NotFound => return Ok(()),
                Err(failure) if failure.code == ErrorCode::Busy && Instant::now() < until => {
                    thread::sleep(Duration::from_millis(20));
                }
                Err(failure) => return Err(self.left(&failure)),
            }
        }
    }

    fn left(&self, failure: &Failure) -> Failure {
        let name = &self.name;
        let message = format!(
            "{name}, taken for this command, is still there: {}",
            failure.message
        );
        Failure::new(failure.code, message).next(format!("csnapctl snapshot delete {name}"))
    }
}
