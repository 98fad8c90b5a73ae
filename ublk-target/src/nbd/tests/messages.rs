//! Single requests and replies against the text of the protocol.

use std::collections::HashMap;
use std::sync::{Arc, Mutex};

use super::driver::{Driver, PLAIN};
use super::peer::{Answer, answers, read, request, write};
use crate::nbd::export::BadExportInfo;
use crate::nbd::{
    Connection, End, Errno, ExportInfo, Extent, Op, Options, Request, Segment, Status,
};

pub(super) const MIB: u32 = 1 << 20;
pub(super) const STRUCTURED: Options = Options {
    structured: true,
    base_allocation: true,
    ..Options::NONE
};
pub(super) const SIMPLE: Options = Options::NONE;

pub(super) fn info(read_only: bool) -> ExportInfo {
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
        u64::from(4 * MIB),
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
    let data = |lens: &[u64]| Status {
        context: 1,
        extents: lens
            .iter()
            .map(|len| Extent::allocation(*len, true))
            .collect(),
    };
    connection.reply_extents(&status, &[data(&[0, 512, 4096, 512])]);
    connection.reply_extents(&status, &[data(&[0])]);
    let parsed = answers(&queued(&connection), &HashMap::new()).unwrap();
    assert_eq!(parsed[0].1, Answer::Status(vec![(1024, 0)]));
    assert_eq!(error(&parsed[1].1), Errno::Io);
}

pub(super) fn queued(connection: &Connection) -> Vec<u8> {
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
        ..Options::NONE
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
    let parsed = answers(&queued(&connection), &HashMap::new()).unwrap();
    let Answer::Error(5, text) = &parsed[0].1 else {
        panic!("{parsed:?}")
    };
    assert_eq!(text.len(), 1023);
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
