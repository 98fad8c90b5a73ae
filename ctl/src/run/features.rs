//! `csnapctl features`

use ublk_target::control::protocol::{Answer, ErrorCode, Request};
use ublk_target::control::views::FeaturesView;
use ublk_target::daemon::front;

use super::unexpected;
use crate::Done;
use crate::session::Session;

/// Shows what the kernel offers to serve block devices with: as the daemon sees
/// it, or, where none runs, as this process does.
pub(super) fn command(session: &mut Session) -> Done {
    let features = match session.call(Request::Features {}) {
        Ok(Answer::Features(features)) => features,
        Ok(other) => return Err(unexpected(&other)),
        Err(failure) if failure.code == ErrorCode::Unreachable => {
            session.say("csnapd does not answer: the kernel was asked directly");
            front::features_of_kernel()
        }
        Err(failure) => return Err(failure),
    };
    show(session, features)
}

fn show(session: &mut Session, features: FeaturesView) -> Done {
    if session.style.json || !session.style.fields.is_empty() {
        return session.show(&[features]);
    }
    let plain = session.style.clone();
    session.style.fields = SUMMARY.iter().map(|&field| field.to_owned()).collect();
    session.show(std::slice::from_ref(&features))?;
    session.style = plain;
    session.write("\n")?;
    session.print(&features.features)?;
    if let Some(problem) = features.problem {
        session.say(&format!("{}\n  next: {}", problem.message, problem.next));
    }
    Ok(())
}

const SUMMARY: [&str; 5] = ["asked", "kernel", "driver", "frontend", "frontend_why"];
