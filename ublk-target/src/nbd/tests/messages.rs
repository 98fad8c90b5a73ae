//! Single requests and replies against the text of the protocol.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::driver::{Driver, Manner, PLAIN};
use super::peer::{Answer, answers, read, request, write};
use crate::nbd::export::BadExportInfo;
use crate::nbd::transmission::STREAM_BYTES;
use crate::nbd::{
    Connection, End, Errno, ExportInfo, Extent, Incoming, Op, Options, Receive, Request, Segment,
    Slot,
};

const MIB: u32 = 1 << 20;
const STRUCTURED: Options = Options {
    structured: true,
    base_allocation: true,
};
const SIMPLE: Options = Options {
    structured: false,
    base_allocation: false,
};

fn info(read_only: bool) -> ExportInfo {
    ExportInfo::new(u64::from(4 * MIB), read_only, 512, 4096, MIB).unwrap()
}

fn driver(read_only: bool, options: Options) -> Driver {
    let disk = (0..4 * MIB).map(|n| (n / 512 % 251) as u8).collect();
    Driver::new(info(read_only), options, Arc::new(Mutex::new(disk)), PLAIN)
}

/// What one request is answered with; the connection stays usable afterwards.
fn ask(driver: &mut Driver, message: &[u8]) -> Answer {
    let read_len = u32::from_be_bytes(message[24..28].try_into().unwrap());
    let reads = match message[7] {
        0 => HashMap::from([(7, read_len)]),
        _ => HashMap::new(),
    };
    driver.output.clear();
    driver.feed(message);
    assert_eq!(driver.connection.end(), None);
    let mut answers = answers(&driver.output, &reads).unwrap();
    assert_eq!(answers.len(), 1, "{answers:?}");
    let (cookie, answer) = answers.remove(0);
    assert_eq!(cookie, 7);
    answer
}

#[track_caller]
fn error(answer: &Answer) -> Errno {
    let Answer::Error(code, _) = answer else {
        panic!("no error: {answer:?}")
    };
    let all = [
        Errno::Perm,
        Errno::Io,
        Errno::NoMem,
        Errno::Inval,
        Errno::NoSpc,
        Errno::NotSup,
    ];
    *all.iter()
        .find(|errno| **errno as u32 == *code)
        .expect("a known error")
}

#[test]
fn a_read_returns_its_bytes_in_both_forms() {
    let expected: Vec<u8> = (0..1024_u32).map(|n| (2 + n / 512) as u8).collect();
    let structured = ask(&mut driver(false, STRUCTURED), &read(7, 1024, 1024));
    assert_eq!(structured, Answer::Data(1024, expected.clone()));
    let simple = ask(&mut driver(false, SIMPLE), &read(7, 1024, 1024));
    assert_eq!(simple, Answer::Data(u64::MAX, expected));
}

#[test]
fn the_largest_read_and_write_pass_and_the_next_larger_do_not() {
    let mut driver = driver(false, STRUCTURED);
    let payload = vec![0xa5; MIB as usize];
    assert_eq!(ask(&mut driver, &write(0, 7, 512, &payload)), Answer::Done);
    assert_eq!(
        ask(&mut driver, &read(7, 512, MIB)),
        Answer::Data(512, payload.clone())
    );
    assert_eq!(
        error(&ask(&mut driver, &read(7, 0, MIB + 512))),
        Errno::Inval
    );
    let longer = [&payload[..], &[0; 512]].concat();
    assert_eq!(
        error(&ask(&mut driver, &write(0, 7, 0, &longer))),
        Errno::Inval
    );
    assert_eq!(driver.log.len(), 2);
}

#[test]
fn fua_reaches_commands_that_change_something_only() {
    let mut driver = driver(false, STRUCTURED);
    ask(&mut driver, &write(1, 7, 0, &[1; 512]));
    ask(&mut driver, &write(0, 7, 0, &[1; 512]));
    ask(&mut driver, &request(1, 4, 7, 0, 512, &[]));
    ask(&mut driver, &request(1, 6, 7, 0, 512, &[]));
    ask(&mut driver, &request(1, 0, 7, 0, 512, &[]));
    ask(&mut driver, &request(1, 3, 7, 0, 0, &[]));
    let fua: Vec<bool> = driver.log.iter().map(|request| request.fua).collect();
    assert_eq!(fua, [true, false, true, true, false, false]);
}

#[test]
fn write_zeroes_carries_its_flags() {
    let fast = info(false).with_fast_zero();
    let disk = Arc::new(Mutex::new(vec![1; 4 * MIB as usize]));
    let mut driver = Driver::new(fast, STRUCTURED, disk, PLAIN);
    assert_eq!(
        ask(&mut driver, &request(2, 6, 7, 0, 4 * MIB, &[])),
        Answer::Done
    );
    assert_eq!(
        error(&ask(&mut driver, &request(16, 6, 7, 0, 512, &[]))),
        Errno::NotSup
    );
    let ops: Vec<Op> = driver.log.iter().map(|request| request.op).collect();
    assert_eq!(
        ops,
        [
            Op::WriteZeroes {
                may_punch: false,
                fast: false
            },
            Op::WriteZeroes {
                may_punch: true,
                fast: true
            }
        ]
    );
    assert_eq!(
        driver.log[0].len,
        4 * MIB,
        "no payload, so no limit but the size"
    );
}

#[test]
fn what_is_out_of_bounds_is_refused_with_the_right_error() {
    let mut driver = driver(false, STRUCTURED);
    let end = u64::from(4 * MIB);
    let cases = [
        (read(7, end, 512), Errno::Inval),
        (read(7, end - 512, 1024), Errno::Inval),
        (read(7, u64::MAX - 511, 512), Errno::Inval),
        (write(0, 7, end, &[0; 512]), Errno::NoSpc),
        (request(0, 6, 7, end - 512, 1024, &[]), Errno::NoSpc),
        (request(0, 6, 7, 0, u32::MAX - 511, &[]), Errno::NoSpc),
        (request(0, 4, 7, end, 512, &[]), Errno::Inval),
        (request(0, 7, 7, end, 512, &[]), Errno::Inval),
        (read(7, 1, 512), Errno::Inval),
        (read(7, 0, 513), Errno::Inval),
        (write(0, 7, 0, &[0; 100]), Errno::Inval),
        (read(7, 0, 0), Errno::Inval),
        (write(0, 7, 0, &[]), Errno::Inval),
        (request(0, 3, 7, 512, 0, &[]), Errno::Inval),
        (request(0, 3, 7, 0, 512, &[]), Errno::Inval),
        (request(0, 5, 7, 0, 512, &[]), Errno::Inval),
        (request(0, 999, 7, 0, 512, &[]), Errno::Inval),
        (request(4, 1, 7, 0, 512, &[0; 512]), Errno::Inval),
        (request(16, 6, 7, 0, 512, &[]), Errno::Inval),
        (request(1 << 15, 0, 7, 0, 512, &[]), Errno::Inval),
    ];
    for (message, expected) in cases {
        let answer = ask(&mut driver, &message);
        assert_eq!(error(&answer), expected, "{message:?}");
        let Answer::Error(_, text) = answer else {
            unreachable!()
        };
        assert!(!text.is_empty());
    }
    assert!(driver.log.is_empty());
}

#[test]
fn a_snapshot_takes_no_changes_and_stays_in_step() {
    for options in [SIMPLE, STRUCTURED] {
        let mut driver = driver(true, options);
        for message in [
            write(0, 7, 0, &vec![9; 200 << 10]),
            write(0, 7, u64::MAX, &[9; 7]),
            request(0, 4, 7, 0, 512, &[]),
            request(0, 6, 7, 0, 512, &[]),
        ] {
            assert_eq!(error(&ask(&mut driver, &message)), Errno::Perm);
        }
        assert_eq!(ask(&mut driver, &request(0, 3, 7, 0, 0, &[])), Answer::Done);
        assert!(matches!(
            ask(&mut driver, &read(7, 0, 512)),
            Answer::Data(..)
        ));
    }
}

#[test]
fn block_status_is_clipped_merged_and_can_be_one() {
    let disk = Arc::new(Mutex::new(vec![0; 4 * MIB as usize]));
    disk.lock().unwrap()[200 << 10] = 1;
    let mut driver = Driver::new(info(false), STRUCTURED, disk, PLAIN);
    let all = ask(&mut driver, &request(0, 7, 7, 0, MIB, &[]));
    assert_eq!(
        all,
        Answer::Status(vec![(192 << 10, 3), (64 << 10, 0), (768 << 10, 3)])
    );
    let one = ask(&mut driver, &request(8, 7, 7, 0, MIB, &[]));
    assert_eq!(one, Answer::Status(vec![(192 << 10, 3)]));
    let inside = ask(&mut driver, &request(0, 7, 7, 512, 1024, &[]));
    assert_eq!(inside, Answer::Status(vec![(1024, 3)]));
}

#[test]
fn block_status_reaching_too_far_or_saying_nothing_is_mended() {
    let mut connection = Connection::new(info(false), STRUCTURED, 2);
    let status = Request {
        cookie: 7,
        op: Op::BlockStatus { one: false },
        offset: 0,
        len: 1024,
        fua: false,
    };
    let data = |len| Extent {
        len,
        hole: false,
        zero: false,
    };
    connection.reply_extents(&status, &[data(0), data(512), data(4096), data(512)]);
    connection.reply_extents(&status, &[data(0)]);
    let parsed = answers(&sent(&connection), &HashMap::new()).unwrap();
    assert_eq!(parsed[0].1, Answer::Status(vec![(1024, 0)]));
    assert_eq!(error(&parsed[1].1), Errno::Io);
}

fn sent(connection: &Connection) -> Vec<u8> {
    let bytes = connection
        .replies()
        .segments()
        .map(|segment| match segment {
            Segment::Bytes(bytes) => bytes.to_vec(),
            Segment::Buffer { len, .. } => vec![0; len],
        });
    bytes.collect::<Vec<_>>().concat()
}

#[test]
fn block_status_needs_the_context() {
    let options = Options {
        structured: true,
        base_allocation: false,
    };
    let answer = ask(&mut driver(false, options), &request(0, 7, 7, 0, 512, &[]));
    assert_eq!(error(&answer), Errno::Inval);
}

#[test]
fn a_long_message_is_cut_at_a_character() {
    let mut connection = Connection::new(info(false), STRUCTURED, 1);
    let flush = Request {
        cookie: 7,
        op: Op::Flush,
        offset: 0,
        len: 0,
        fua: false,
    };
    connection.reply_error(&flush, Errno::Io, format!("x{}", "ü".repeat(4000)));
    let parsed = answers(&sent(&connection), &HashMap::new()).unwrap();
    let Answer::Error(5, text) = &parsed[0].1 else {
        panic!("{parsed:?}")
    };
    assert_eq!(text.len(), 1023);
}

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
fn a_payload_no_client_may_send_ends_the_connection() {
    let mut driver = driver(false, STRUCTURED);
    driver.feed(&request(0, 1, 7, 0, (32 << 20) + 1, &[]));
    assert_eq!(
        driver.connection.end(),
        Some(End::PayloadTooLong((32 << 20) + 1))
    );
    driver.finish();
}

#[test]
fn taking_leave_waits_for_replies() {
    let mut driver = driver(false, STRUCTURED);
    driver.feed(&[write(0, 1, 0, &[3; 512]), request(0, 2, 9, 0, 0, &[])].concat());
    assert_eq!(driver.connection.end(), Some(End::Disconnect));
    driver.finish();
    let answers = answers(&driver.output, &HashMap::new()).unwrap();
    assert_eq!(answers, [(1, Answer::Done)]);
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
    let refusal = sent(&connection).len();
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

#[test]
fn facts_nobody_could_be_served_by_are_refused() {
    let size = |size| ExportInfo::new(size, false, 512, 4096, MIB);
    assert!(size(512).is_ok());
    assert!(size(0).is_ok());
    assert_eq!(
        size(513),
        Err(BadExportInfo::Size {
            size: 513,
            minimum: 512
        })
    );
    for (minimum, preferred, maximum) in [
        (0, 4096, MIB),
        (500, 4096, MIB),
        (4096, 512, MIB),
        (512, 4096, 2048),
        (512, 4096, 64 * MIB),
        (128 << 10, 128 << 10, MIB),
        (512, 3 << 10, MIB),
        (512, 4096, MIB + 1),
    ] {
        let result = ExportInfo::new(0, false, minimum, preferred, maximum);
        assert!(
            matches!(result, Err(BadExportInfo::BlockSizes { .. })),
            "{result:?}"
        );
    }
}

#[test]
fn flags_promise_what_is_there() {
    let flags = |read_only, structured| info(read_only).flags(structured);
    assert_eq!(flags(false, true), 1 | 4 | 8 | 32 | 64 | 128 | 256);
    assert_eq!(flags(false, false), 1 | 4 | 8 | 32 | 64 | 256);
    assert_eq!(flags(true, true), 1 | 2 | 4 | 8 | 128 | 256);
    assert_eq!(
        info(false).with_fast_zero().flags(false) & (1 << 11),
        1 << 11
    );
}
