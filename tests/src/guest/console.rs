//! The guest's ports, seen from the host: each is a Unix socket that qemu connects
//! to; a thread per port turns what arrives into events of one channel.

use std::io::{BufRead, BufReader, Read};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::mpsc::Sender;
use std::time::{Duration, Instant};

use super::error::{Error, Result, Trying};

/// What the guest sends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Event {
    /// The program wrote to its stdout.
    Stdout(Vec<u8>),
    /// The program wrote to its stderr.
    Stderr(Vec<u8>),
    /// The guest is up and the program starts now.
    Ready,
    /// The program ended; its results are written.
    Exit(i32),
    /// The program wants the machine killed.
    PowerCut,
    /// A port was closed; nothing more comes from it.
    Closed,
}

/// Names of the ports, as the guest sees them.
pub const PORTS: [&str; 3] = ["csnap.stdout", "csnap.stderr", "csnap.control"];

/// Sockets waiting for qemu.
#[derive(Debug)]
pub struct Ports {
    // Addresses of sockets are at most 107 bytes, so not below the project.
    dir: PathBuf,
    listeners: Vec<UnixListener>,
}

impl Ports {
    /// Listens; `name` is unique on this machine.
    ///
    /// # Errors
    /// If the sockets cannot be made.
    pub fn listen(name: &str) -> Result<Self> {
        let dir = std::env::temp_dir().join(format!("csnap-guest-{name}"));
        std::fs::create_dir(&dir).trying(|| format!("make {}", dir.display()))?;
        let mut ports = Self {
            dir,
            listeners: Vec::new(),
        };
        for port in PORTS {
            let path = ports.path(port);
            let story = || format!("listen at {}", path.display());
            let listener = UnixListener::bind(&path).trying(story)?;
            listener.set_nonblocking(true).trying(story)?;
            ports.listeners.push(listener);
        }
        Ok(ports)
    }

    /// Where qemu connects for a port.
    #[must_use]
    pub fn path(&self, port: &str) -> PathBuf {
        self.dir.join(port)
    }

    /// Waits until qemu has connected all, then forwards what comes; `alive` says
    /// why qemu is gone if it is.
    ///
    /// # Errors
    /// If qemu ends or does not connect.
    pub fn forward(self, events: &Sender<Event>, mut alive: impl FnMut() -> Result) -> Result {
        for (index, listener) in self.listeners.iter().enumerate() {
            let stream = accept(listener, &mut alive)?;
            let events = events.clone();
            std::thread::spawn(move || match index {
                0 => bytes(stream, &events, Event::Stdout),
                1 => bytes(stream, &events, Event::Stderr),
                _ => lines(stream, &events),
            });
        }
        Ok(())
    }
}

impl Drop for Ports {
    fn drop(&mut self) {
        remove(&self.dir);
    }
}

fn remove(dir: &Path) {
    // What stays is an empty socket in the directory for temporary files.
    let _ = std::fs::remove_dir_all(dir);
}

fn accept(listener: &UnixListener, alive: &mut impl FnMut() -> Result) -> Result<UnixStream> {
    let end = Instant::now() + Duration::from_secs(60);
    loop {
        match listener.accept() {
            Ok((stream, _)) => {
                let blocking = stream.set_nonblocking(false);
                return blocking.map(|()| stream).trying(|| "set up a port".into());
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                alive()?;
                if Instant::now() > end {
                    return Err(Error::Qemu("it did not connect its ports in 60 s".into()));
                }
                std::thread::sleep(Duration::from_millis(5));
            }
            Err(error) => return Err(error).trying(|| "accept a port".into()),
        }
    }
}

fn bytes(mut stream: UnixStream, events: &Sender<Event>, event: fn(Vec<u8>) -> Event) {
    let mut buffer = vec![0; 64 << 10];
    loop {
        match stream.read(&mut buffer) {
            Ok(0) | Err(_) => break,
            // A receiver that is gone wants nothing more.
            Ok(count) => drop(events.send(event(buffer[..count].to_vec()))),
        }
    }
    drop(events.send(Event::Closed));
}

fn lines(stream: UnixStream, events: &Sender<Event>) {
    for line in BufReader::new(stream).lines() {
        let Ok(line) = line else { break };
        if let Some(event) = parse(&line) {
            drop(events.send(event));
        }
    }
    drop(events.send(Event::Closed));
}

fn parse(line: &str) -> Option<Event> {
    match line.trim().split_once(' ') {
        Some(("exit", status)) => status.parse().ok().map(Event::Exit),
        None if line.trim() == "ready" => Some(Event::Ready),
        None if line.trim() == "power-cut" => Some(Event::PowerCut),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_guests_words_are_known_and_others_ignored() {
        assert_eq!(parse("ready"), Some(Event::Ready));
        assert_eq!(parse("exit 137"), Some(Event::Exit(137)));
        assert_eq!(parse("power-cut\r"), Some(Event::PowerCut));
        for noise in ["", "exit", "exit x", "ready now", "\u{fffd}"] {
            assert_eq!(parse(noise), None, "{noise}");
        }
    }
}
