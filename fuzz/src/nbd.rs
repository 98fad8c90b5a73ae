//! An export in memory and a driver of its connections, for bytes of any client.
//!
//! However the bytes are cut into pieces the answers are the same; every request
//! carried out lies inside the export; every buffer comes back.

use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;
use std::time::Duration;

use ublk_target::nbd::{
    Connection, End, ExportEntry, ExportInfo, Exports, Extent, Incoming, Op, Options, Receive,
    Refusal, RefusalKind, Request, Segment, Since, Slot, Status, negotiate,
};

const SIZE: u64 = 64 << 10;
const BUFFER: u32 = 4096;
/// Requests in flight, and buffers for them.
const LIMIT: usize = 4;
/// Bytes of a handshake: nobody reads the answers before the end.
const MOST: usize = 2048;
const TIMEOUT: Duration = Duration::from_secs(5);

fn info(read_only: bool) -> ExportInfo {
    ExportInfo::new(SIZE, read_only, 512, 4096, BUFFER).expect("sizes that fit")
}

struct Two;

impl Exports for Two {
    type Export = ();

    fn list(&self) -> Vec<ExportEntry> {
        let entry = |name: &str, on_demand| ExportEntry {
            name: name.to_owned(),
            on_demand,
        };
        vec![entry("vol", false), entry("vol@snap", true)]
    }

    fn describe(&self, name: &str) -> String {
        match name {
            "vol" => "a volume".to_owned(),
            _ => String::new(),
        }
    }

    fn older(&self, name: &str) -> Vec<(String, Since)> {
        let since = |tag| Since { tag, size: SIZE };
        let count = if name == "vol" { 3 } else { 1 };
        (0..count).map(|n| (format!("s{n}"), since(n))).collect()
    }

    fn open(&self, name: &str) -> Result<((), ExportInfo), Refusal> {
        let refused = |kind| Refusal {
            kind,
            message: "no".to_owned(),
        };
        match name {
            "vol" => Ok(((), info(false))),
            "vol@snap" => Ok(((), info(true))),
            "vol@gone" => Err(refused(RefusalKind::Policy)),
            _ => Err(refused(RefusalKind::Unknown)),
        }
    }
}

/// A connection from its greeting on.
pub fn handshake(bytes: &[u8]) {
    let bytes = &bytes[..bytes.len().min(MOST)];
    let (client, mut server) = UnixStream::pair().expect("a pair of sockets");
    (&client).write_all(bytes).expect("room in the socket");
    client
        .shutdown(Shutdown::Write)
        .expect("the other end is open");
    let negotiated = negotiate(&server, &Two, TIMEOUT);
    let Ok(negotiated) = negotiated else {
        return;
    };
    assert!(Two.open(&negotiated.name).is_ok());
    let mut rest = Vec::new();
    server
        .read_to_end(&mut rest)
        .expect("what the handshake left");
    let used = &bytes[..bytes.len() - rest.len()];
    assert!(bytes.ends_with(&rest) && used.len() >= 4);
    transmission(negotiated.options, negotiated.info.read_only(), &rest);
}

/// A connection from its first request on.
pub fn transmission(options: Options, read_only: bool, bytes: &[u8]) {
    let whole = Driver::run(options, read_only, bytes, bytes.len().max(1));
    for piece in [1, 13] {
        let cut = Driver::run(options, read_only, bytes, piece);
        assert!(
            cut == whole,
            "answered otherwise in pieces of {piece} bytes"
        );
    }
}

/// What a connection comes to: answers, contents, end.
type Outcome = (Vec<u8>, Vec<u8>, Option<End>);

struct Driver {
    connection: Connection,
    disk: Vec<u8>,
    buffers: Vec<Vec<u8>>,
    free: Vec<Slot>,
    output: Vec<u8>,
}

impl Driver {
    fn run(options: Options, read_only: bool, bytes: &[u8], piece: usize) -> Outcome {
        let mut this = Self {
            connection: Connection::new(info(read_only), options, LIMIT),
            disk: vec![0; SIZE as usize],
            buffers: vec![vec![0; BUFFER as usize]; LIMIT],
            free: (0..LIMIT as u32).map(Slot).collect(),
            output: Vec::new(),
        };
        bytes.chunks(piece).for_each(|piece| this.feed(piece));
        let end = this.connection.end();
        let slot = this.connection.hang_up(End::Closed);
        this.free.extend(slot);
        assert!(this.connection.is_finished());
        assert_eq!(this.free.len(), LIMIT, "a buffer is lost");
        assert!(!read_only || this.disk.iter().all(|byte| *byte == 0));
        (this.output, this.disk, end)
    }

    fn feed(&mut self, mut input: &[u8]) {
        while !input.is_empty() {
            let count = match self.connection.receive() {
                Receive::Ended => return,
                Receive::Wait => panic!("everything is answered, and it waits"),
                Receive::Stream => copy(input, self.connection.stream_space()),
                Receive::Payload { slot, start, len } => {
                    let buffer = &mut self.buffers[slot.0 as usize];
                    copy(input, &mut buffer[start..start + len])
                }
            };
            assert!(count > 0, "it asks for bytes without giving space");
            self.connection.received(count);
            input = &input[count..];
            self.serve();
        }
    }

    fn serve(&mut self) {
        loop {
            while let Some(incoming) = self.connection.next_request() {
                assert!(self.connection.in_flight() <= LIMIT);
                match incoming {
                    Incoming::NeedsBuffer(_) => {
                        let slot = self.free.pop().expect("a buffer for each request");
                        let memory = &mut self.buffers[slot.0 as usize];
                        assert!(self.connection.payload_buffer(slot, memory));
                    }
                    Incoming::Write(request, slot) => self.write(&request, slot),
                    Incoming::Request(request) => self.carry_out(&request),
                }
            }
            if self.connection.replies().is_empty() {
                return;
            }
            self.send();
        }
    }

    /// Slicing is the check: the request was promised to lie inside.
    fn range(&mut self, request: &Request) -> &mut [u8] {
        let start = request.offset as usize;
        &mut self.disk[start..start + request.len as usize]
    }

    fn write(&mut self, request: &Request, slot: Slot) {
        let data = self.buffers[slot.0 as usize][..request.len as usize].to_vec();
        self.range(request).copy_from_slice(&data);
        self.free.push(slot);
        self.connection.reply_done(request);
    }

    fn carry_out(&mut self, request: &Request) {
        match request.op {
            Op::Read => {
                let data = self.range(request).to_vec();
                let slot = self.free.pop().expect("a buffer for each request");
                copy(&data, &mut self.buffers[slot.0 as usize]);
                return self.connection.reply_data(request, slot, 0);
            }
            Op::BlockStatus { .. } => {
                let _inside = self.range(request);
                let contexts = self.connection.options().contexts();
                let told = contexts.map(|(context, _)| Status {
                    context,
                    extents: vec![Extent::allocation(request.len, false)],
                });
                let told: Vec<_> = told.collect();
                return self.connection.reply_extents(request, &told);
            }
            Op::WriteZeroes { .. } => self.range(request).fill(0),
            Op::Write => panic!("a write without its payload"),
            Op::Trim | Op::Flush => {}
        }
        self.connection.reply_done(request);
    }

    fn send(&mut self) {
        let mut bytes = Vec::new();
        for segment in self.connection.replies().segments() {
            match segment {
                Segment::Bytes(segment) => bytes.extend_from_slice(segment),
                Segment::Buffer { slot, start, len } => {
                    bytes.extend_from_slice(&self.buffers[slot.0 as usize][start..start + len]);
                }
            }
        }
        let free = &mut self.free;
        self.connection.sent(bytes.len(), |slot| {
            assert!(!free.contains(&slot), "{slot:?} comes back twice");
            free.push(slot);
        });
        self.output.extend_from_slice(&bytes);
    }
}

fn copy(from: &[u8], to: &mut [u8]) -> usize {
    let count = from.len().min(to.len());
    to[..count].copy_from_slice(&from[..count]);
    count
}
