//! A scripted client of the handshake, and the exports it is shown. Numbers are
//! spelled out again, from the protocol's text.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::thread::JoinHandle;
use std::time::Duration;

use super::peer::number;
use crate::nbd::{
    ExportEntry, ExportInfo, Exports, NegotiateError, Negotiated, Refusal, RefusalKind, Since,
    negotiate,
};

pub(super) type Outcome = Result<Negotiated<&'static str>, NegotiateError>;

pub(super) const ACK: u32 = 1;
pub(super) const SERVER: u32 = 2;
pub(super) const INFO: u32 = 3;
pub(super) const META_CONTEXT: u32 = 4;
pub(super) const UNSUP: u32 = (1 << 31) + 1;
pub(super) const POLICY: u32 = (1 << 31) + 2;
pub(super) const INVALID: u32 = (1 << 31) + 3;
pub(super) const UNKNOWN: u32 = (1 << 31) + 6;
pub(super) const BLOCK_SIZE_REQD: u32 = (1 << 31) + 8;
pub(super) const TOO_BIG: u32 = (1 << 31) + 9;
pub(super) const EXT_HEADER_REQD: u32 = (1 << 31) + 10;

/// Exports with these names; `busy` cannot be opened and `coarse` has 4 KiB blocks.
pub(super) struct Names(pub(super) &'static [&'static str]);

impl Exports for Names {
    type Export = &'static str;

    fn list(&self) -> Vec<ExportEntry> {
        let entry = |name: &&str| ExportEntry {
            name: (*name).into(),
            on_demand: name.ends_with("@hidden"),
        };
        self.0.iter().map(entry).collect()
    }

    fn describe(&self, name: &str) -> String {
        format!("the volume {name}")
    }

    /// `vol` has older snapshots s0 to s9, its snapshots have one.
    fn older(&self, name: &str) -> Vec<(String, Since)> {
        let count = if name == "vol" { 10 } else { 1 };
        let since = |tag| (format!("s{tag}"), Since { tag, size: 512 });
        (0..count).map(since).collect()
    }

    fn open(&self, name: &str) -> Result<(&'static str, ExportInfo), Refusal> {
        let refuse = |kind, message: &str| Refusal {
            kind,
            message: message.into(),
        };
        let found = self.0.iter().find(|known| **known == name);
        let name = found.ok_or(refuse(RefusalKind::Unknown, "no such export"))?;
        let minimum = match *name {
            "busy" => return Err(refuse(RefusalKind::Policy, "it is being deleted")),
            "coarse" => 4096,
            _ => 512,
        };
        let info = ExportInfo::new(1 << 20, name.contains('@'), minimum, 16384, 1 << 20);
        Ok((name, info.unwrap()))
    }
}

pub(super) const THREE: Names = Names(&["vol", "vol@monday", "busy"]);

pub(super) struct Client {
    pub(super) socket: UnixStream,
    pub(super) server: JoinHandle<(Outcome, UnixStream)>,
}

impl Client {
    /// Has read the greeting and sent nothing.
    pub(super) fn connect(exports: Names, timeout: Duration) -> Self {
        let (socket, other) = UnixStream::pair().unwrap();
        let server = std::thread::spawn(move || (negotiate(&other, &exports, timeout), other));
        let mut client = Self { socket, server };
        let greeting = client.read(18);
        assert_eq!(greeting[..16], *b"NBDMAGICIHAVEOPT");
        assert_eq!(greeting[16..], [0, 3], "fixed newstyle and no zeroes");
        client
    }

    pub(super) fn new(exports: Names) -> Self {
        let mut client = Self::connect(exports, Duration::from_secs(10));
        client.send(&3_u32.to_be_bytes());
        client
    }

    pub(super) fn structured(exports: Names) -> Self {
        let mut client = Self::new(exports);
        assert_eq!(client.ask(8, &[]), [(ACK, vec![])]);
        client
    }

    pub(super) fn send(&mut self, bytes: &[u8]) {
        self.socket.write_all(bytes).unwrap();
    }

    pub(super) fn read(&mut self, n: usize) -> Vec<u8> {
        let mut bytes = vec![0; n];
        self.socket.read_exact(&mut bytes).unwrap();
        bytes
    }

    pub(super) fn option(&mut self, option: u32, data: &[u8]) {
        let mut bytes = b"IHAVEOPT".to_vec();
        bytes.extend(option.to_be_bytes());
        bytes.extend((data.len() as u32).to_be_bytes());
        bytes.extend(data);
        self.send(&bytes);
    }

    /// All replies to one option, the last an acknowledgement or an error.
    pub(super) fn ask(&mut self, option: u32, data: &[u8]) -> Vec<(u32, Vec<u8>)> {
        self.option(option, data);
        let mut replies = Vec::new();
        loop {
            let header = self.read(20);
            let mut header = &header[..];
            assert_eq!(number(&mut header, 8), Ok(0x3_e889_0455_65a9));
            assert_eq!(number(&mut header, 4), Ok(u64::from(option)));
            let kind = number(&mut header, 4).unwrap() as u32;
            let len = number(&mut header, 4).unwrap() as usize;
            replies.push((kind, self.read(len)));
            if kind == ACK || kind >= 1 << 31 {
                return replies;
            }
        }
    }

    /// The kind of the only reply, an error with a text.
    pub(super) fn refused(&mut self, option: u32, data: &[u8]) -> u32 {
        let replies = self.ask(option, data);
        let [(kind, text)] = &replies[..] else {
            panic!("{replies:?}")
        };
        assert!(!text.is_empty() && std::str::from_utf8(text).is_ok());
        *kind
    }

    /// Nothing more is said; what the server made of it.
    pub(super) fn finish(self) -> Outcome {
        self.socket.shutdown(std::net::Shutdown::Write).unwrap();
        self.outcome()
    }

    pub(super) fn outcome(self) -> Outcome {
        self.server.join().unwrap().0
    }
}

pub(super) fn info_data(name: &str, kinds: &[u16]) -> Vec<u8> {
    let mut data = string(name);
    data.extend((kinds.len() as u16).to_be_bytes());
    data.extend(kinds.iter().flat_map(|kind| kind.to_be_bytes()));
    data
}

pub(super) fn context_data(name: &str, queries: &[&str]) -> Vec<u8> {
    let mut data = string(name);
    data.extend((queries.len() as u32).to_be_bytes());
    data.extend(queries.iter().flat_map(|query| string(query)));
    data
}

pub(super) fn string(text: &str) -> Vec<u8> {
    [&(text.len() as u32).to_be_bytes(), text.as_bytes()].concat()
}
