//! The NBD connections of one I/O thread.

use std::io;

use slab::Slab;

use super::NewClient;
use super::client::{Client, Io};
use crate::lane::Done;
use crate::nbd::End;

/// All connections of a thread, and which of them have something to do.
pub(crate) struct Clients {
    clients: Slab<Client>,
    /// To be pumped. May name one twice or one that is gone.
    ready: Vec<u32>,
    /// Waiting for a buffer.
    stalled: Vec<u32>,
}

impl Clients {
    pub(crate) fn new() -> Self {
        Self {
            clients: Slab::new(),
            ready: Vec::new(),
            stalled: Vec::new(),
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

    /// Those that wait for buffers may look again.
    pub(crate) fn retry_stalled(&mut self) {
        self.ready.append(&mut self.stalled);
    }

    /// Whether some connection waits for a buffer.
    pub(crate) fn is_stalled(&self) -> bool {
        !self.stalled.is_empty()
    }

    /// Whether some connection has something to do.
    pub(crate) fn is_ready(&self) -> bool {
        !self.ready.is_empty()
    }

    /// Lets every connection that has something to do go on.
    pub(crate) fn pump(&mut self, io: &mut Io<'_>) -> io::Result<()> {
        let mut ready = std::mem::take(&mut self.ready);
        ready.sort_unstable();
        ready.dedup();
        for key in ready.drain(..) {
            let Some(client) = self.clients.get_mut(key as usize) else {
                continue;
            };
            client.pump(io)?;
            if client.is_stalled() {
                self.stalled.push(key);
            }
            if client.is_finished() {
                self.remove(key);
            }
        }
        // Keep the capacity.
        ready.append(&mut self.ready);
        self.ready = ready;
        Ok(())
    }

    fn remove(&mut self, key: u32) {
        let Some(client) = self.clients.try_remove(key as usize) else {
            return;
        };
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
