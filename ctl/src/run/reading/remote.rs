//! A snapshot as csnapd serves it, for whoever makes something of it: read over several
//! connections, holes found without reading. It does not change, so what was once told of
//! it stays true.

use std::collections::VecDeque;
use std::io;
use std::ops::Range;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use imagegen::medium::Source;
use parking_lot::{Condvar, Mutex};
use ublk_target::nbd::client::{Client, ClientError};

use super::interrupt;
use super::rate::Rate;

/// Most bytes whose holes are asked for at a time.
const STATUS: u64 = 1 << 30;
/// Answers about holes that are kept: a few for each thread.
const ANSWERS: usize = 64;

/// Bytes that are alike, and whether they are zeroes.
type Alike = (Range<u64>, bool);

/// Connections to an export.
#[derive(Debug)]
struct Connections {
    /// Those that nobody uses now.
    idle: Vec<Client>,
    /// Those there are.
    open: usize,
    /// How many there may be.
    most: usize,
}

/// An export that is only read.
#[derive(Debug)]
pub(crate) struct Remote {
    socket: PathBuf,
    export: String,
    size: u64,
    block: u64,
    chunk: u64,
    rate: Option<Arc<Rate>>,
    connections: Mutex<Connections>,
    /// One became idle, or there is room for another.
    returned: Condvar,
    /// The latest answers, each without gaps.
    known: Mutex<VecDeque<Vec<Alike>>>,
}

impl Remote {
    /// Connects, which keeps the snapshot from being deleted; has `most` connections at
    /// most, one at least.
    pub(crate) fn connect(
        socket: PathBuf,
        export: String,
        most: usize,
        rate: Option<Arc<Rate>>,
    ) -> io::Result<Self> {
        let client = Client::connect(&socket, &export);
        let client = client.map_err(|error| as_io(&socket, error))?;
        Ok(Self {
            size: client.size(),
            block: client.minimum_block().into(),
            chunk: client.preferred_block().into(),
            socket,
            export,
            rate,
            connections: Mutex::new(Connections {
                idle: vec![client],
                open: 1,
                most,
            }),
            returned: Condvar::new(),
            known: Mutex::default(),
        })
    }

    /// Bytes.
    pub(crate) fn bytes(&self) -> u64 {
        self.size
    }

    /// What every place and length that is read is a multiple of.
    pub(crate) fn block(&self) -> u64 {
        self.block
    }

    /// Bytes of a chunk of the store.
    pub(crate) fn chunk(&self) -> u64 {
        self.chunk
    }

    /// Has a connection do something; one that failed is not used again.
    fn with<T>(&self, act: impl FnOnce(&mut Client) -> Result<T, ClientError>) -> io::Result<T> {
        interrupt::check()?;
        let mut client = self.idle().map_err(|error| as_io(&self.socket, error))?;
        let done = act(&mut client);
        let mut connections = self.connections.lock();
        match &done {
            Ok(_) => connections.idle.push(client),
            Err(_) => connections.open -= 1,
        }
        drop(connections);
        self.returned.notify_one();
        done.map_err(|error| as_io(&self.socket, error))
    }

    /// A connection that nobody uses; waits for one if there may be no more.
    fn idle(&self) -> Result<Client, ClientError> {
        let mut connections = self.connections.lock();
        loop {
            if let Some(client) = connections.idle.pop() {
                return Ok(client);
            }
            if connections.open >= connections.most.max(1) {
                self.returned.wait(&mut connections);
                continue;
            }
            connections.open += 1;
            drop(connections);
            let connected = Client::connect(&self.socket, &self.export);
            connections = self.connections.lock();
            match connected {
                Ok(client) => return Ok(client),
                Err(error) if connections.open == 1 => {
                    connections.open = 0;
                    self.returned.notify_one();
                    return Err(error);
                }
                // csnapd has no room for more: those there are will do.
                Err(_) => {
                    connections.open -= 1;
                    connections.most = connections.open;
                }
            }
        }
    }

    /// Writes `bytes` from byte `offset` on, where the export may be written.
    pub(crate) fn write_at(&self, offset: u64, bytes: &[u8]) -> io::Result<()> {
        self.with(|client| client.write_at(offset, bytes))
    }

    /// What was written is durable, by whichever connection.
    pub(crate) fn flush(&self) -> io::Result<()> {
        self.with(Client::flush)
    }

    /// What the bytes around `at` are.
    fn around(&self, at: u64) -> io::Result<Alike> {
        if let Some(found) = self.known.lock().iter().find_map(|all| covering(all, at)) {
            return Ok(found);
        }
        let begin = at - at % self.block;
        let most = (self.size - begin).min(STATUS) as u32;
        let told = self.with(|client| client.stretches(begin, most))?;
        let mut next = begin;
        let alike = told.into_iter().map(|stretch| {
            let from = next;
            next = next.saturating_add(stretch.len).min(self.size);
            (from..next, stretch.zero)
        });
        let answer: Vec<Alike> = alike.collect();
        let found = covering(&answer, at);
        let mut known = self.known.lock();
        known.truncate(ANSWERS - 1);
        known.push_front(answer);
        found.ok_or_else(|| io::Error::other("the server does not tell what is there"))
    }
}

/// Keeps the kind of an error: that csnapd, at `socket`, went away, or has no room.
fn as_io(socket: &Path, error: ClientError) -> io::Error {
    let is_gone = || UnixStream::connect(socket).is_err();
    let kind = match &error {
        // A connection may break off and csnapd be there all the same.
        ClientError::Connect { .. } | ClientError::Socket(_) if is_gone() => {
            io::ErrorKind::ConnectionAborted
        }
        ClientError::Request { error: 28, .. } => io::ErrorKind::StorageFull,
        _ => io::ErrorKind::Other,
    };
    io::Error::new(kind, error)
}

/// Which of them `at` is in.
fn covering(all: &[Alike], at: u64) -> Option<Alike> {
    let next = all.partition_point(|(range, _)| range.end <= at);
    all.get(next)
        .filter(|(range, _)| range.start <= at)
        .cloned()
}

impl Source for Remote {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        if let Some(rate) = &self.rate {
            rate.wait(buffer.len() as u64)?;
        }
        self.with(|client| client.read_at(offset, buffer))
    }

    fn size(&self) -> io::Result<u64> {
        Ok(self.size)
    }

    fn data_from(&self, offset: u64) -> io::Result<Option<Range<u64>>> {
        let mut at = offset;
        while at < self.size {
            match self.around(at)? {
                (range, true) => at = range.end,
                (range, false) => return Ok(Some(at..range.end)),
            }
        }
        Ok(None)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_told_is_found_where_it_is() {
        let all = [(0..10, true), (10..30, false), (30..40, true)];
        let found = |at| covering(&all, at);
        assert_eq!(found(0), Some((0..10, true)));
        assert_eq!(found(9), Some((0..10, true)));
        assert_eq!(found(10), Some((10..30, false)));
        assert_eq!(found(39), Some((30..40, true)));
        assert_eq!(found(40), None);
        assert_eq!(covering(&all[1..], 5), None);
    }
}
