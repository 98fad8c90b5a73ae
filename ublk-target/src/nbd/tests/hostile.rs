//! Random, mutated and chopped streams: nothing panics, memory stays bounded (the
//! driver has no more buffers than its limit), and what goes out can be understood.

use std::collections::HashMap;
use std::io::Write;
use std::os::unix::net::UnixStream;
use std::sync::{Arc, Mutex};
use std::time::Duration;

use proptest::prelude::*;

use super::driver::{Driver, Manner, PLAIN};
use super::peer::{Answer, answers, read, request, write};
use crate::nbd::{ExportEntry, ExportInfo, Exports, Op, Options, Refusal, RefusalKind, negotiate};

const SIZE: u64 = 256 << 10;
const MAXIMUM: u32 = 128 << 10;

fn driver(structured: bool, manner: Manner) -> Driver {
    let info = ExportInfo::new(SIZE, false, 512, 4096, MAXIMUM).unwrap();
    let options = Options {
        structured,
        base_allocation: structured,
        ..Options::NONE
    };
    Driver::new(
        info,
        options,
        Arc::new(Mutex::new(vec![0; SIZE as usize])),
        manner,
    )
}

/// Lengths of the reads that were carried out, hence answered with data.
fn reads(driver: &Driver) -> HashMap<u64, u32> {
    let reads = driver.log.iter().filter(|request| request.op == Op::Read);
    reads
        .map(|request| (request.cookie, request.len as u32))
        .collect()
}

fn manner() -> impl Strategy<Value = Manner> {
    (1..20_usize, any::<bool>(), 1..100_000_usize, any::<bool>()).prop_map(
        |(limit, lazy, send, scatter)| Manner {
            limit,
            lazy,
            send,
            scatter,
        },
    )
}

/// What a client might ask, right or wrong; always framed right.
#[derive(Clone, Debug)]
enum Ask {
    Read {
        block: u16,
        blocks: u16,
    },
    Write {
        block: u16,
        blocks: u16,
        byte: u8,
        fua: bool,
    },
    Zero {
        block: u16,
        blocks: u16,
    },
    Other {
        flags: u16,
        command: u16,
        offset: u64,
        len: u32,
    },
    BadWrite {
        flags: u16,
        offset: u64,
        len: u32,
    },
}

fn ask() -> impl Strategy<Value = Ask> {
    prop_oneof![
        4 => (0..512_u16, 1..256_u16).prop_map(|(block, blocks)| Ask::Read { block, blocks }),
        4 => (0..512_u16, 1..256_u16, any::<u8>(), any::<bool>())
            .prop_map(|(block, blocks, byte, fua)| Ask::Write { block, blocks, byte, fua }),
        1 => (0..512_u16, 1..512_u16).prop_map(|(block, blocks)| Ask::Zero { block, blocks }),
        // Not a write (framing) and not a farewell (end).
        1 => (any::<u16>(), 3..20_u16, any::<u64>(), any::<u32>())
            .prop_map(|(flags, command, offset, len)| Ask::Other { flags, command, offset, len }),
        1 => (any::<u16>(), any::<u64>(), 0..300_000_u32)
            .prop_map(|(flags, offset, len)| Ask::BadWrite { flags: flags | 2, offset, len }),
    ]
}

impl Ask {
    fn bytes(&self, cookie: u64) -> Vec<u8> {
        let at = |block: u16| u64::from(block) * 512;
        let long = |blocks: u16| u32::from(blocks) * 512;
        match *self {
            Self::Read { block, blocks } => read(cookie, at(block), long(blocks)),
            Self::Write {
                block,
                blocks,
                byte,
                fua,
            } => write(
                u16::from(fua),
                cookie,
                at(block),
                &vec![byte; long(blocks) as usize],
            ),
            Self::Zero { block, blocks } => request(0, 6, cookie, at(block), long(blocks), &[]),
            Self::Other {
                flags,
                command,
                offset,
                len,
            } => request(flags, command, cookie, offset, len, &[]),
            Self::BadWrite { flags, offset, len } => {
                write(flags, cookie, offset, &vec![0xbd; len as usize])
            }
        }
    }

    /// The answer of a plain array; `None`: anything but a dead connection.
    fn expect(&self, disk: &mut [u8], structured: bool) -> Option<Answer> {
        let range = |block: u16, blocks: u16| {
            let start = usize::from(block) * 512;
            start..start + usize::from(blocks) * 512
        };
        match *self {
            Self::Read { block, blocks } => {
                let offset = if structured {
                    u64::from(block) * 512
                } else {
                    u64::MAX
                };
                let data = disk.get(range(block, blocks)).map(<[u8]>::to_vec);
                data.map(|data| Answer::Data(offset, data))
            }
            Self::Write {
                block,
                blocks,
                byte,
                ..
            } => disk
                .get_mut(range(block, blocks))
                .map(|disk| disk.fill(byte))
                .map(|()| Answer::Done),
            Self::Zero { block, blocks } => disk
                .get_mut(range(block, blocks))
                .map(|disk| disk.fill(0))
                .map(|()| Answer::Done),
            // Valid only if offset and length are, which random ones are not.
            Self::Other { .. } | Self::BadWrite { .. } => None,
        }
    }
}

/// Feeds `bytes` in pieces of the given sizes, over and over.
fn feed_in_pieces(driver: &mut Driver, mut bytes: &[u8], sizes: &[usize]) {
    for size in sizes.iter().cycle() {
        if bytes.is_empty() {
            return;
        }
        let (piece, rest) = bytes.split_at((*size).min(bytes.len()));
        driver.feed(piece);
        bytes = rest;
    }
}

proptest! {
    /// Right and wrong requests in any chopping and order of replies do what they
    /// would do to an array, and every one of them gets exactly one answer.
    #[test]
    fn sessions_behave_like_an_array(
        asks in prop::collection::vec(ask(), 1..40),
        sizes in prop::collection::vec(1..200_000_usize, 1..6),
        manner in manner(),
        structured in any::<bool>(),
    ) {
        let mut driver = driver(structured, manner);
        let session: Vec<u8> =
            asks.iter().zip(0..).flat_map(|(ask, cookie)| ask.bytes(cookie)).collect();
        feed_in_pieces(&mut driver, &session, &sizes);
        driver.answer();
        prop_assert_eq!(driver.connection.end(), None);
        driver.finish();

        let mut found: Vec<_> = answers(&driver.output, &reads(&driver)).unwrap();
        found.sort_by_key(|(cookie, _)| *cookie);
        prop_assert_eq!(found.len(), asks.len());
        let mut disk = vec![0; SIZE as usize];
        for ((ask, cookie), found) in asks.iter().zip(0..).zip(found) {
            prop_assert_eq!(found.0, cookie);
            match ask.expect(&mut disk, structured) {
                Some(expected) => prop_assert_eq!(found.1, expected),
                None => {
                    let failed = matches!(found.1, Answer::Error(..));
                    let harmless = failed || matches!(ask, Ask::Other { .. });
                    prop_assert!(harmless, "{:?}: {:?}", ask, found.1);
                }
            }
        }
    }

    /// Damaged sessions: any number of answers, each of them intelligible.
    #[test]
    fn damaged_sessions_stay_harmless(
        asks in prop::collection::vec(ask(), 1..20),
        damage in prop::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 0..8),
        cut in any::<prop::sample::Index>(),
        sizes in prop::collection::vec(1..50_000_usize, 1..6),
        manner in manner(),
    ) {
        let mut session: Vec<u8> =
            asks.iter().zip(0..).flat_map(|(ask, cookie)| ask.bytes(cookie)).collect();
        for (place, byte) in &damage {
            *place.get_mut(&mut session) = *byte;
        }
        session.truncate(cut.index(session.len() + 1));
        let mut driver = driver(true, manner);
        feed_in_pieces(&mut driver, &session, &sizes);
        driver.finish();
        prop_assert!(answers(&driver.output, &HashMap::new()).is_ok());
    }

    /// Headers hit where it hurts: magic right, the rest anything.
    #[test]
    fn random_headers_stay_harmless(
        headers in prop::collection::vec(
            (any::<u16>(), 0..9_u16, any::<u64>(), any::<u32>()), 1..50),
        manner in manner(),
    ) {
        let session: Vec<u8> = headers
            .iter()
            .zip(0..)
            .flat_map(|((flags, command, offset, len), n)| {
                request(*flags, *command, n, *offset, *len, &[])
            })
            .collect();
        let mut driver = driver(true, manner);
        driver.feed(&session);
        driver.finish();
        prop_assert!(answers(&driver.output, &HashMap::new()).is_ok());
    }

    #[test]
    fn random_bytes_stay_harmless(
        bytes in prop::collection::vec(any::<u8>(), 0..3000),
        manner in manner(),
    ) {
        let mut driver = driver(true, manner);
        driver.feed(&bytes);
        driver.finish();
        prop_assert!(answers(&driver.output, &HashMap::new()).is_ok());
    }

    /// Whatever a client says, the handshake ends by itself once it hangs up.
    #[test]
    fn random_handshakes_end(
        options in prop::collection::vec(
            (0..13_u32, prop::collection::vec(any::<u8>(), 0..40), any::<bool>()), 0..80),
        tail in prop::collection::vec(any::<u8>(), 0..40),
    ) {
        let mut bytes = 3_u32.to_be_bytes().to_vec();
        for (option, data, plausible) in &options {
            let data = if *plausible { plausible_data(data) } else { data.clone() };
            bytes.extend(b"IHAVEOPT");
            bytes.extend(option.to_be_bytes());
            bytes.extend((data.len() as u32).to_be_bytes());
            bytes.extend(data);
        }
        bytes.extend(tail);
        let (mut client, server) = UnixStream::pair().unwrap();
        let _hung_up_on = client.write_all(&bytes);
        client.shutdown(std::net::Shutdown::Write).unwrap();
        // Replies fit the socket's buffer, nobody needs to read them.
        let outcome = negotiate(&server, &OneExport, Duration::from_secs(5));
        let timed_out = matches!(outcome, Err(crate::nbd::NegotiateError::TimedOut(_)));
        prop_assert!(!timed_out, "{:?}", outcome);
    }
}

/// A name and a few small numbers.
fn plausible_data(data: &[u8]) -> Vec<u8> {
    let name = if data.first().is_some_and(|byte| byte % 2 == 0) {
        "vol"
    } else {
        ""
    };
    let numbers = data
        .iter()
        .flat_map(|byte| u16::from(byte % 4).to_be_bytes());
    [
        &(name.len() as u32).to_be_bytes(),
        name.as_bytes(),
        &numbers.collect::<Vec<_>>(),
    ]
    .concat()
}

struct OneExport;

impl Exports for OneExport {
    type Export = ();

    fn list(&self) -> Vec<ExportEntry> {
        vec![ExportEntry {
            name: "vol".into(),
            on_demand: false,
        }]
    }

    fn describe(&self, _: &str) -> String {
        String::new()
    }

    fn open(&self, name: &str) -> Result<((), ExportInfo), Refusal> {
        let info = ExportInfo::new(SIZE, false, 512, 4096, MAXIMUM).unwrap();
        let refusal = Refusal {
            kind: RefusalKind::Unknown,
            message: name.into(),
        };
        (name == "vol").then_some(((), info)).ok_or(refusal)
    }
}

/// Every split in two, and byte by byte, is the same session.
#[test]
fn splitting_changes_nothing() {
    let session = [
        write(1, 1, 512, &[7; 1024]),
        read(2, 0, 2048),
        write(2, 3, 0, &[1; 700]),
        request(0, 7, 4, 0, 4096, &[]),
        request(0, 6, 5, 1024, 512, &[]),
        write(0, 6, 4096, &[9; 512]),
        read(7, 1, 1),
        request(0, 3, 8, 0, 0, &[]),
        read(9, 4096, 512),
        request(0, 2, 10, 0, 0, &[]),
    ]
    .concat();
    for structured in [false, true] {
        for scatter in [false, true] {
            let manner = Manner { scatter, ..PLAIN };
            let run = |pieces: &[&[u8]]| {
                let mut driver = driver(structured, manner);
                pieces.iter().for_each(|piece| driver.feed(piece));
                driver.finish();
                // The order of replies is free and does depend on the pieces.
                let mut answers = answers(&driver.output, &reads(&driver)).unwrap();
                answers.sort_by_key(|(cookie, _)| *cookie);
                (driver.log, answers)
            };
            let whole = run(&[&session]);
            assert_eq!(whole.0.len(), if structured { 7 } else { 6 });
            for at in 0..=session.len() {
                let (left, right) = session.split_at(at);
                assert!(run(&[left, right]) == whole, "split at {at}");
            }
            let bytes: Vec<&[u8]> = session.chunks(1).collect();
            assert!(run(&bytes) == whole, "byte by byte");
        }
    }
}
