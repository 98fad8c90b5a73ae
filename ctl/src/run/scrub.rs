//! `csnapctl store scrub`: begins one, watches it, says what it found.

use std::time::Duration;

use serde::Serialize;
use ublk_target::control::protocol::{Answer, ErrorCode, Failure, Request, ScrubAction};
use ublk_target::control::views::ScrubView;

use super::{counted, unexpected};
use crate::Done;
use crate::output::{SCHEMA, human};
use crate::progress::Bar;
use crate::session::Session;

const LOOK: Duration = Duration::from_millis(500);

/// What was asked for beside the store.
#[derive(Clone, Copy)]
pub(super) struct Wanted {
    pub(super) rate: u64,
    pub(super) action: ScrubAction,
    pub(super) background: bool,
}

#[derive(Serialize)]
struct Document<'a> {
    schema: u32,
    #[serde(flatten)]
    scrub: &'a ScrubView,
}

pub(super) fn scrub(session: &mut Session, store: &str, wanted: Wanted) -> Done {
    let mut view = ask(session, store, wanted.rate, wanted.action)?;
    if wanted.action == ScrubAction::Start && !wanted.background {
        let mut bar = Bar::new("Scrubbing");
        while view.running {
            bar.set(view.chunks, view.of);
            std::thread::sleep(LOOK);
            view = ask(session, store, wanted.rate, ScrubAction::Status)?;
        }
    }
    report(session, &view)?;
    if view.damaged > 0 {
        let message = format!("{store} has {}", counted(view.damaged, "damaged block"));
        return Err(Failure::new(ErrorCode::Corruption, message)
            .next("copy what you need from its other snapshots; then detach it and csnapctl store repair --data it"));
    }
    match view.problem {
        Some(problem) => Err(Failure::new(ErrorCode::Error, problem)),
        None if wanted.action == ScrubAction::Start && !view.running && !view.complete => {
            let message = "the scrub was stopped before its end";
            Err(Failure::new(ErrorCode::Error, message))
        }
        None => Ok(()),
    }
}

fn ask(session: &mut Session, store: &str, rate: u64, action: ScrubAction) -> Done<ScrubView> {
    let store = store.to_owned();
    match session.call(Request::StoreScrub {
        store,
        action,
        rate,
    })? {
        Answer::Scrub(view) => Ok(view),
        other => Err(unexpected(&other)),
    }
}

fn report(session: &mut Session, view: &ScrubView) -> Done {
    if session.style.json {
        let document = Document {
            schema: SCHEMA,
            scrub: view,
        };
        let json = serde_json::to_string_pretty(&document);
        let json = json.map_err(|error| Failure::new(ErrorCode::Error, error.to_string()))?;
        return session.write(&(json + "\n"));
    }
    if view.store.is_empty() {
        return session.write("not scrubbed since it was attached\n");
    }
    let mut text = String::new();
    for damage in &view.damage {
        text += &format!("block {}: {}", damage.block, damage.reason);
        if let (Some(volume), Some(chunk)) = (&damage.volume, damage.chunk) {
            text += &format!("; volume {volume}, chunk {chunk}, needed by ");
            text += &damage.snapshots.join(", ");
            if damage.more_snapshots > 0 {
                text += &format!(" and {} more", damage.more_snapshots);
            }
        }
        text += "\n";
    }
    let state = match (view.running, view.complete) {
        (true, _) => "under way",
        (false, true) => "complete",
        (false, false) => "ended early",
    };
    text += &format!(
        "{}: {state}, {} of {} verified, {} read, {}\n",
        view.store,
        view.chunks,
        counted(view.of, "chunk"),
        human::size(view.bytes),
        counted(view.damaged, "damaged block"),
    );
    session.write(&text)
}
