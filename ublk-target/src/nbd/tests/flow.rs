//! Limits, ends and buffers of a connection, driven step by step.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::driver::{Driver, Manner};
use super::messages::{MIB, SIMPLE, STRUCTURED, info, queued};
use super::peer::{answers, read, request, write};
use crate::nbd::transmission::STREAM_BYTES;
use crate::nbd::{Connection, End, Errno, Incoming, Op, Receive, Request, Segment, Slot};

#[test]
fn out_of_step_ends_the_connection_but_not_what_runs() {
    let mut connection = Connection::new(info(false), STRUCTURED, 4);
    let bytes = [read(1, 0, 512), vec![0xff; 28], read(2, 0, 512)].concat();
    connection.stream_space()[..bytes.len()].copy_from_slice(&bytes);
    connection.received(bytes.len());
    let Some(Incoming::Request(first)) = connection.next_request() else {
        panic!()
    };
    assert_eq!(connection.next_request(), None);
    assert_eq!(connection.end(), Some(End::BadMagic(0xffff_ffff)));
    assert_eq!(connection.receive(), Receive::Ended);
    assert!(!connection.is_finished());
    connection.reply_data(&first, Slot(3), 0);
    let mut freed = Vec::new();
    connection.sent(28 + 512, |slot| freed.push(slot));
    assert_eq!(freed, [Slot(3)]);
    assert!(connection.is_finished());
}

#[test]
fn a_client_that_does_not_read_is_not_read_from() {
    let mut connection = Connection::new(info(false), STRUCTURED, 3);
    // A refusal counts too: it sits in the queue like everything else.
    let bytes = [
        read(1, 1, 512),
        read(2, 0, 512),
        read(3, 0, 512),
        read(4, 0, 512),
    ]
    .concat();
    connection.stream_space()[..bytes.len()].copy_from_slice(&bytes);
    connection.received(bytes.len());
    assert!(matches!(connection.next_request(), Some(Incoming::Request(r)) if r.cookie == 2));
    assert!(matches!(connection.next_request(), Some(Incoming::Request(r)) if r.cookie == 3));
    assert_eq!(connection.next_request(), None);
    assert_eq!(connection.receive(), Receive::Wait);
    let refusal = queued(&connection).len();
    connection.sent(refusal - 1, |_| panic!("no buffer was involved"));
    assert_eq!(
        connection.next_request(),
        None,
        "the refusal is not out completely"
    );
    connection.sent(1, |_| panic!("no buffer was involved"));
    assert!(matches!(connection.next_request(), Some(Incoming::Request(r)) if r.cookie == 4));
    assert_eq!(connection.in_flight(), 3);
}

#[test]
fn a_payload_cut_short_gives_its_buffer_back() {
    let mut connection = Connection::new(info(false), STRUCTURED, 2);
    let bytes = write(0, 1, 0, &[5; 1024]);
    connection.stream_space()[..100].copy_from_slice(&bytes[..100]);
    connection.received(100);
    assert!(matches!(
        connection.next_request(),
        Some(Incoming::NeedsBuffer(_))
    ));
    assert_eq!(connection.receive(), Receive::Wait);
    let mut memory = [0; 1024];
    assert!(connection.payload_buffer(Slot(1), &mut memory));
    assert_eq!(memory[..72], [5; 72]);
    assert_eq!(
        connection.receive(),
        Receive::Payload {
            slot: Slot(1),
            start: 72,
            len: 952
        }
    );
    assert_eq!(connection.hang_up(End::Closed), Some(Slot(1)));
    assert_eq!(connection.hang_up(End::Socket), None);
    assert_eq!(connection.end(), Some(End::Closed));
    assert!(connection.is_finished());
    assert!(
        !connection.payload_buffer(Slot(0), &mut memory),
        "nobody waits any more"
    );
}

#[test]
fn replies_that_cannot_be_sent_give_their_buffers_back() {
    let mut connection = Connection::new(info(false), STRUCTURED, 2);
    let bytes = [read(1, 0, 512), read(2, 0, 512)].concat();
    connection.stream_space()[..bytes.len()].copy_from_slice(&bytes);
    connection.received(bytes.len());
    let Some(Incoming::Request(first)) = connection.next_request() else {
        panic!()
    };
    let Some(Incoming::Request(second)) = connection.next_request() else {
        panic!()
    };
    connection.reply_data(&first, Slot(0), 0);
    connection.sent(30, |_| panic!("only two bytes of data are out"));
    assert_eq!(connection.hang_up(End::Socket), None);
    let mut freed = Vec::new();
    connection.discard_replies(|slot| freed.push(slot));
    assert!(
        !connection.is_finished(),
        "the second read is still being carried out"
    );
    connection.reply_data(&second, Slot(1), 0);
    connection.discard_replies(|slot| freed.push(slot));
    assert_eq!(freed, [Slot(0), Slot(1)]);
    assert!(connection.is_finished());
}

#[test]
fn queued_bytes_stay_where_they_are() {
    let mut connection = Connection::new(info(false), STRUCTURED, 64);
    let flush = Request {
        cookie: 7,
        op: Op::Flush,
        offset: 0,
        len: 0,
        fua: false,
    };
    let places = |connection: &Connection| -> Vec<*const u8> {
        let bytes = connection
            .replies()
            .segments()
            .filter_map(|segment| match segment {
                Segment::Bytes(bytes) => Some(bytes.as_ptr()),
                Segment::Buffer { .. } => None,
            });
        bytes.collect()
    };
    connection.reply_error(&flush, Errno::Io, String::from("an owned message"));
    let before = places(&connection);
    for _ in 1..64 {
        connection.reply_done(&flush);
    }
    assert_eq!(places(&connection)[..2], before[..]);
}

#[test]
fn more_replies_than_requests_end_the_connection_instead_of_growing() {
    let mut connection = Connection::new(info(false), SIMPLE, 1);
    let flush = Request {
        cookie: 7,
        op: Op::Flush,
        offset: 0,
        len: 0,
        fua: false,
    };
    connection.reply_done(&flush);
    connection.reply_done(&flush);
    assert!(matches!(connection.end(), Some(End::Internal(_))));
}

#[test]
fn the_stream_buffer_is_large_enough_for_the_longest_pipelines() {
    let manner = Manner {
        limit: 2,
        lazy: true,
        send: 7,
        scatter: false,
    };
    let disk = Arc::new(Mutex::new(vec![0; 4 * MIB as usize]));
    let mut driver = Driver::new(info(false), STRUCTURED, disk, manner);
    let count = 3 * STREAM_BYTES as u64 / 28;
    let bytes: Vec<u8> = (0..count)
        .flat_map(|n| request(0, 3, n, 0, 0, &[]))
        .collect();
    driver.feed(&bytes);
    driver.finish();
    assert_eq!(
        answers(&driver.output, &HashMap::new()).unwrap().len() as u64,
        count
    );
}
