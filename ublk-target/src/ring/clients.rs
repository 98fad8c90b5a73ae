//! The NBD connections of one I/O thread.

use std::collections::HashMap;
use std::io;
use std::time::Instant;

use slab::Slab;

use super::NewClient;
use super::client::{Client, Io};
use super::line::{Line, WINDOW};
use super::submit::Ticking;
use crate::lane::Done;
use crate::nbd::End;

/// All connections of a thread, and which of them have something to do.
pub(crate) struct Clients {
    clients: Slab<Client>,
    /// To be pumped. May name one twice or one that is gone.
    ready: Vec<u32>,
    /// Waiting for a buffer, in the order they came or were last pumped.
    waiting: Vec<u32>,
    /// Empty between two rounds.
    turns: Vec<u32>,
    /// Since when there has been somebody who waits, or all were last looked at.
    window: Option<Instant>,
    ticking: bool,
}

impl Clients {
    pub(crate) fn new() -> Self {
        Self {
            clients: Slab::new(),
            ready: Vec::new(),
            waiting: Vec::new(),
            turns: Vec::new(),
            window: None,
            ticking: false,
        }
    }

    /// Takes a connection on.
    pub(crate) fn add(&mut self, new: NewClient) {
        if new.export.is_closed() {
            return new.export.release();
        }
        let entry = self.clients.vacant_entry();
        let key = entry.key() as u32;
        entry.insert(Client::new(key, new));
        self.ready.push(key);
    }

    /// Something came in on a connection.
    pub(crate) fn received(&mut self, key: u32, result: i32, io: &mut Io<'_>) {
        if let Some(client) = self.clients.get_mut(key as usize) {
            client.received(result, io);
            self.ready.push(key);
        }
    }

    /// Something went out on a connection.
    pub(crate) fn sent(&mut self, key: u32, result: i32, io: &mut Io<'_>) {
        if let Some(client) = self.clients.get_mut(key as usize) {
            client.sent(result, io);
            self.ready.push(key);
        }
    }

    /// A request is done.
    pub(crate) fn done(&mut self, done: &Done, io: &mut Io<'_>) {
        let (key, running) = ((done.tag >> 32) as u32, done.tag as u32 as usize);
        if let Some(client) = self.clients.get_mut(key as usize) {
            client.done(running, done, io);
            self.ready.push(key);
        }
    }

    /// Lets the clients of an export go, or all.
    pub(crate) fn close(&mut self, export: Option<u64>, abort: bool, io: &mut Io<'_>) {
        for (key, client) in &mut self.clients {
            if export.is_none_or(|export| client.export.number() == export) {
                match abort {
                    true => client.break_off(End::Shutdown, io),
                    false => client.close(io),
                }
                self.ready.push(key as u32);
            }
        }
    }

    /// Whether some connection waits for a buffer.
    pub(crate) fn is_stalled(&self) -> bool {
        !self.waiting.is_empty()
    }

    /// Whether some connection has something to do.
    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Lets every connection that has something to do go on, those that wait first.
    pub(crate) fn pump(&mut self, io: &mut Io<'_>) -> io::Result<()> {
        self.ready.sort_unstable();
        self.ready.dedup();
        let mut turns = std::mem::take(&mut self.turns);
        let somebody_waits = !self.waiting.is_empty();
        turns.append(&mut self.waiting);
        turns.append(&mut self.ready);
        if somebody_waits {
            self.put_in_order(&mut turns);
        }
        let mut line = Line::new();
        for key in turns.drain(..) {
            self.pump_one(key, &mut line, io)?;
        }
        // Keep the capacity.
        self.turns = turns;
        self.watch(line.is_waiting(), io)
    }

    /// The addresses of which the clients hold least come first, so that it does not help
    /// to come with many.
    fn put_in_order(&self, turns: &mut [u32]) {
        let mut held = HashMap::new();
        for (_, client) in &self.clients {
            *held.entry(client.address).or_insert(0) += client.held();
        }
        let of_its_address = |key: &u32| {
            let client = self.clients.get(*key as usize);
            client.and_then(|client| held.get(&client.address))
        };
        turns.sort_by_key(of_its_address);
    }

    fn pump_one(&mut self, key: u32, line: &mut Line, io: &mut Io<'_>) -> io::Result<()> {
        let Some(client) = self.clients.get_mut(key as usize) else {
            return Ok(());
        };
        if client.pump(line, io)? {
            self.ready.push(key);
        }
        if client.is_stalled() && !self.waiting.contains(&key) {
            self.waiting.push(key);
        }
        if client.is_finished() {
            self.remove(key);
        }
        Ok(())
    }

    /// While some wait, all are looked at from time to time.
    fn watch(&mut self, waiting: bool, io: &mut Io<'_>) -> io::Result<()> {
        if !waiting {
            self.window = None;
            return Ok(());
        }
        if self.window.is_none() {
            self.begin_window();
        }
        if !self.ticking {
            self.ticking = true;
            io.submit.tick(Ticking::Clients)?;
        }
        Ok(())
    }

    fn begin_window(&mut self) {
        self.window = Some(Instant::now());
        self.clients
            .iter_mut()
            .for_each(|(_, client)| client.begin_window());
    }

    /// A moment has passed. Who has kept buffers for too long loses its connection.
    pub(crate) fn ticked(&mut self, io: &mut Io<'_>) {
        self.ticking = false;
        let Some(begin) = self.window.filter(|begin| begin.elapsed() >= WINDOW) else {
            return;
        };
        for (key, client) in &mut self.clients {
            if client.is_too_slow(begin) {
                client.break_off(End::TooSlow, io);
                self.ready.push(key as u32);
            }
        }
        self.begin_window();
    }

    fn remove(&mut self, key: u32) {
        let Some(client) = self.clients.try_remove(key as usize) else {
            return;
        };
        // Its number may soon be that of another.
        self.waiting.retain(|waiting| *waiting != key);
        match client.end() {
            Some(end @ (End::Disconnect | End::Closed | End::Shutdown)) => {
                tracing::debug!(%end, "connection ended");
            }
            Some(end) => tracing::warn!(%end, "connection ended"),
            None => {}
        }
        client.export.release();
    }
}
