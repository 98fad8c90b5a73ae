//! Extended headers: lengths of 64 bits, every reply a chunk.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::driver::{Driver, PLAIN};
use super::messages::{MIB, info};
use super::peer::{Answer, answers, extended, read};
use super::script::{ACK, Client, EXT_HEADER_REQD, INVALID, THREE, context_data, info_data};
use crate::nbd::{Connection, End, Errno, ExportInfo, Op, Options};

const EXTENDED: Options = Options {
    structured: true,
    extended: true,
    base_allocation: true,
    ..Options::NONE
};
const READ: u16 = 0;
const WRITE: u16 = 1;
const FLUSH: u16 = 3;
const ZEROES: u16 = 6;
const STATUS: u16 = 7;
const PAYLOAD: u16 = 32;

fn driver(read_only: bool) -> Driver {
    let disk = Arc::new(Mutex::new(vec![0; 4 * MIB as usize]));
    Driver::new(info(read_only), EXTENDED, disk, PLAIN)
}

fn ask(driver: &mut Driver, message: &[u8]) -> Answer {
    driver.output.clear();
    driver.feed(message);
    assert_eq!(driver.connection.end(), None);
    assert_eq!(driver.output[..4], 0x6e8a_278c_u32.to_be_bytes());
    assert_eq!(
        driver.output[16..24],
        message[16..24],
        "the request's offset"
    );
    let mut answers = answers(&driver.output, &HashMap::new()).unwrap();
    assert_eq!(answers.len(), 1, "{answers:?}");
    let (cookie, answer) = answers.remove(0);
    assert_eq!(cookie, 7);
    answer
}

#[track_caller]
fn refused(answer: &Answer, errno: Errno) {
    assert!(
        matches!(answer, Answer::Error(code, _) if *code == errno as u32),
        "{answer:?}"
    );
}

#[test]
fn extended_headers_are_agreed_on_once_and_bring_structured_replies() {
    let mut client = Client::new(THREE);
    assert_eq!(client.refused(11, b"x"), INVALID);
    assert_eq!(client.ask(11, &[]), [(ACK, vec![])]);
    assert_eq!(client.refused(11, &[]), INVALID);
    assert_eq!(client.refused(8, &[]), EXT_HEADER_REQD);
    let chosen = client.ask(10, &context_data("vol", &["base:allocation"]));
    assert_eq!(chosen.len(), 2);
    client.ask(7, &info_data("vol", &[]));
    assert_eq!(client.finish().unwrap().options, EXTENDED);
}

#[test]
fn every_command_is_answered_with_chunks() {
    let mut driver = driver(false);
    let payload = [9; 1024];
    let write = extended(PAYLOAD, WRITE, (7, 512), 1024, &payload);
    assert_eq!(ask(&mut driver, &write), Answer::Done);
    // As qemu does.
    let unsaid = extended(0, WRITE, (7, 512), 1024, &payload);
    assert_eq!(ask(&mut driver, &unsaid), Answer::Done);
    let found = ask(&mut driver, &extended(0, READ, (7, 512), 1024, &[]));
    assert_eq!(found, Answer::Data(512, payload.to_vec()));
    let flush = extended(0, FLUSH, (7, 0), 0, &[]);
    assert_eq!(ask(&mut driver, &flush), Answer::Done);
    let found = ask(&mut driver, &extended(0, STATUS, (7, 0), 128 << 10, &[]));
    assert_eq!(
        found,
        Answer::Context(1, vec![(64 << 10, 0), (64 << 10, 3)])
    );
    let zeroes = extended(0, ZEROES, (7, 0), 4 << 20, &[]);
    assert_eq!(ask(&mut driver, &zeroes), Answer::Done);
    let beyond = extended(0, ZEROES, (7, 0), 1 << 40, &[]);
    refused(&ask(&mut driver, &beyond), Errno::NoSpc);
    let wraps = extended(0, STATUS, (7, 512), u64::MAX - 511, &[]);
    refused(&ask(&mut driver, &wraps), Errno::Inval);
    let long = extended(0, READ, (7, 0), 1 << 32, &[]);
    refused(&ask(&mut driver, &long), Errno::Inval);
    driver.finish();
}

#[test]
fn lengths_beyond_32_bits_reach_the_request_whole() {
    let info = ExportInfo::new(1 << 50, false, 512, 4096, MIB).unwrap();
    let mut connection = Connection::new(info, EXTENDED, 4);
    let bytes = [
        extended(0, ZEROES, (1, 0), 1 << 33, &[]),
        extended(0, STATUS, (2, 1 << 40), 1 << 49, &[]),
    ]
    .concat();
    connection.stream_space()[..bytes.len()].copy_from_slice(&bytes);
    connection.received(bytes.len());
    let mut lens = Vec::new();
    while let Some(crate::nbd::Incoming::Request(request)) = connection.next_request() {
        lens.push(request.len);
    }
    assert_eq!(lens, [1 << 33, 1 << 49]);
}

#[test]
fn a_payload_where_none_belongs_is_skipped_and_refused() {
    let mut driver = driver(true);
    for command in [READ, FLUSH, STATUS, ZEROES, 99] {
        let errno = if command == ZEROES {
            Errno::Perm
        } else {
            Errno::Inval
        };
        let message = extended(PAYLOAD, command, (7, 0), 1000, &[5; 1000]);
        refused(&ask(&mut driver, &message), errno);
    }
    let write = extended(PAYLOAD, WRITE, (7, 0), 512, &[5; 512]);
    refused(&ask(&mut driver, &write), Errno::Perm);
    let flush = extended(0, FLUSH, (7, 0), 0, &[]);
    assert_eq!(ask(&mut driver, &flush), Answer::Done, "still in step");
    assert!(driver.log.iter().all(|request| request.op == Op::Flush));
    driver.finish();
}

#[test]
fn what_cannot_be_followed_ends_the_connection() {
    let too_long = (32 << 20) + 1;
    for (message, end) in [
        (
            extended(PAYLOAD, WRITE, (7, 0), too_long, &[]),
            End::PayloadTooLong(too_long),
        ),
        (
            extended(PAYLOAD, READ, (7, 0), u64::MAX, &[]),
            End::PayloadTooLong(u64::MAX),
        ),
        (
            [read(7, 0, 512), vec![0; 4]].concat(),
            End::BadMagic(0x2560_9513),
        ),
    ] {
        let mut driver = driver(false);
        driver.feed(&message);
        assert_eq!(driver.connection.end(), Some(end));
        driver.finish();
    }
}
