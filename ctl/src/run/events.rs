//! `csnapctl events`

use ublk_target::control::protocol::{Answer, MAX_PAGE, MAX_WAIT_MS, Request};
use ublk_target::control::views::EventView;

use super::unexpected;
use crate::Done;
use crate::output::table;
use crate::session::Session;

/// Prints what happened, and with `follow` what happens.
pub(super) fn command(session: &mut Session, follow: bool, since: Option<u64>) -> Done {
    let (mut items, oldest) = page(session, since.unwrap_or(0), 0)?;
    if since.is_some_and(|since| oldest > since + 1) {
        session.say(&format!("events before {oldest} are no longer remembered"));
    }
    let mut last = since.unwrap_or(0);
    let mut all = Vec::new();
    while !items.is_empty() {
        last = items.last().map_or(last, |event| event.seq);
        if follow {
            print(session, &items)?
        } else {
            all.append(&mut items)
        }
        items = page(session, last, 0)?.0;
    }
    if !follow {
        return session.print(&all);
    }
    loop {
        let (items, _) = page(session, last, MAX_WAIT_MS)?;
        last = items.last().map_or(last, |event| event.seq);
        print(session, &items)?;
    }
}

/// A page of events and the sequence number of the oldest remembered one.
fn page(session: &mut Session, since: u64, wait_ms: u32) -> Done<(Vec<EventView>, u64)> {
    match session.call(Request::Events {
        since,
        limit: MAX_PAGE,
        wait_ms,
    })? {
        Answer::Events { items, oldest, .. } => Ok((items, oldest)),
        other => Err(unexpected(&other)),
    }
}

/// A stream has one header, then lines.
fn print(session: &mut Session, items: &[EventView]) -> Done {
    if items.is_empty() {
        return Ok(());
    }
    if !session.style.json {
        session.print(items)?;
        session.style.no_header = true;
        return Ok(());
    }
    for item in items {
        let line = table::json_line(item, &session.style)?;
        session.write(&line)?;
    }
    Ok(())
}
