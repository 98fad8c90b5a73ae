//! The handshake against a scripted client, over a socket pair.

use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::time::{Duration, Instant};

use super::script::{
    ACK, BLOCK_SIZE_REQD, Client, INFO, INVALID, META_CONTEXT, Names, POLICY, SERVER, THREE,
    TOO_BIG, UNKNOWN, UNSUP, context_data, info_data, string,
};
use crate::nbd::negotiate::{MAX_OPTIONS, demand_tls};
use crate::nbd::{NegotiateError, Options};

fn export_info(flags: u16) -> (u32, Vec<u8>) {
    (
        INFO,
        [
            &[0, 0],
            &(1_u64 << 20).to_be_bytes()[..],
            &flags.to_be_bytes(),
        ]
        .concat(),
    )
}

fn block_info(minimum: u32) -> (u32, Vec<u8>) {
    let sizes = [minimum, 16384, 1 << 20];
    (
        INFO,
        [&[0, 3][..], &sizes.map(u32::to_be_bytes).concat()].concat(),
    )
}

const WRITABLE: u16 = 1 | 4 | 8 | 32 | 64 | 256;

#[test]
fn go_tells_everything_and_hands_over_the_export() {
    let mut client = Client::structured(THREE);
    let flags = 1 | 2 | 4 | 8 | 128 | 256;
    let replies = client.ask(7, &info_data("vol@monday", &[1, 2, 3, 99]));
    let name = (INFO, b"\0\x01vol@monday".to_vec());
    let description = (INFO, b"\0\x02the volume vol@monday".to_vec());
    assert_eq!(
        replies,
        [
            export_info(flags),
            block_info(512),
            name,
            description,
            (ACK, vec![])
        ]
    );
    let done = client.finish().unwrap();
    assert_eq!((done.export, &*done.name), ("vol@monday", "vol@monday"));
    assert_eq!(
        done.options,
        Options {
            structured: true,
            ..Options::NONE
        }
    );
    assert!(done.info.read_only());
}

#[test]
fn bytes_after_go_are_left_for_the_transmission_phase() {
    let mut client = Client::new(THREE);
    let replies = client.ask(7, &info_data("vol", &[]));
    assert_eq!(
        replies,
        [export_info(WRITABLE), block_info(512), (ACK, vec![])]
    );
    client.send(b"first request");
    let (outcome, mut socket) = client.server.join().unwrap();
    assert_eq!(outcome.unwrap().options, Options::default());
    let mut bytes = [0; 13];
    socket.read_exact(&mut bytes).unwrap();
    assert_eq!(bytes, *b"first request");
    assert_eq!(socket.read_timeout().unwrap(), None);
    assert_eq!(socket.write_timeout().unwrap(), None);
}

#[test]
fn export_name_answers_with_and_without_padding() {
    for (flags, len) in [(3_u32, 10), (1, 134), (0, 134), (2, 10)] {
        let mut client = Client::connect(THREE, Duration::from_secs(10));
        client.send(&flags.to_be_bytes());
        client.option(1, b"vol");
        let answer = client.read(len);
        assert_eq!(
            answer[..10],
            [&(1_u64 << 20).to_be_bytes()[..], &WRITABLE.to_be_bytes()].concat()
        );
        assert!(answer[10..].iter().all(|&byte| byte == 0));
        let mut socket = client.socket.try_clone().unwrap();
        assert_eq!(client.finish().unwrap().name, "vol");
        assert_eq!(socket.read(&mut [0]).unwrap(), 0, "not a byte more");
    }
}

#[test]
fn export_name_can_only_hang_up() {
    let refused = |name: &[u8]| {
        let mut client = Client::new(THREE);
        client.option(1, name);
        client.outcome().unwrap_err()
    };
    assert!(matches!(refused(b"none"), NegotiateError::Refused { name, .. } if name == "none"));
    assert!(matches!(refused(b""), NegotiateError::Refused { .. }));
    assert!(matches!(refused(b"\xff"), NegotiateError::BadName(_)));
    assert!(matches!(
        refused(&[b'x'; 4097]),
        NegotiateError::OptionTooLong { len: 4097, .. }
    ));
}

#[test]
fn the_empty_name_is_the_only_export() {
    let mut client = Client::new(Names(&["single"]));
    assert_eq!(
        client.ask(6, &info_data("", &[1]))[2],
        (INFO, b"\0\x01single".to_vec())
    );
    client.ask(7, &info_data("", &[]));
    assert_eq!(client.finish().unwrap().name, "single");

    for names in [THREE, Names(&[])] {
        let mut client = Client::new(names);
        assert_eq!(client.refused(7, &info_data("", &[])), UNKNOWN);
        assert!(matches!(client.finish(), Err(NegotiateError::Left)));
    }
}

#[test]
fn the_list_has_names_and_descriptions() {
    let mut client = Client::new(THREE);
    let line = |name: &str, text: &str| (SERVER, [string(name), text.into()].concat());
    assert_eq!(
        client.ask(3, &[]),
        [
            line("vol", "the volume vol"),
            line("vol@monday", "the volume vol@monday"),
            line("busy", "the volume busy"),
            (ACK, vec![])
        ]
    );
    assert_eq!(client.refused(3, b"x"), INVALID);
    assert_eq!(client.ask(2, &[]), [(ACK, vec![])]);
    assert!(matches!(client.outcome(), Err(NegotiateError::Left)));
}

#[test]
fn exports_that_cannot_be_opened_leave_the_dialogue_open() {
    let mut client = Client::structured(THREE);
    for option in [6, 7] {
        assert_eq!(client.refused(option, &info_data("none", &[])), UNKNOWN);
        assert_eq!(client.refused(option, &info_data("busy", &[])), POLICY);
    }
    assert_eq!(
        client.refused(10, &context_data("none", &["base:allocation"])),
        UNKNOWN
    );
    client.ask(7, &info_data("vol", &[]));
    assert_eq!(client.finish().unwrap().name, "vol");
}

#[test]
fn coarse_blocks_must_be_asked_for() {
    let mut client = Client::new(Names(&["coarse"]));
    assert_eq!(
        client.refused(7, &info_data("coarse", &[1])),
        BLOCK_SIZE_REQD
    );
    let replies = client.ask(7, &info_data("coarse", &[3]));
    assert_eq!(replies[1], block_info(4096));
    assert_eq!(client.finish().unwrap().name, "coarse");
}

#[test]
fn base_allocation_is_listed_and_chosen() {
    let context = |id: u8| {
        (
            META_CONTEXT,
            [&[0, 0, 0, id], &b"base:allocation"[..]].concat(),
        )
    };
    let mut client = Client::structured(THREE);
    for queries in [
        &["base:"][..],
        &["base:allocation"],
        &["qemu:x", "base:"],
        &["base:", "base:allocation"],
    ] {
        let replies = client.ask(9, &context_data("vol", queries));
        assert_eq!(replies, [context(0), (ACK, vec![])], "{queries:?}");
    }
    assert_eq!(
        client.ask(9, &context_data("vol", &["qemu:x"])),
        [(ACK, vec![])]
    );
    // A wildcard lists but does not choose.
    assert_eq!(
        client.ask(10, &context_data("vol", &["base:"])),
        [(ACK, vec![])]
    );
    let chosen = client.ask(10, &context_data("vol", &["qemu:x", "base:allocation"]));
    assert_eq!(chosen, [context(1), (ACK, vec![])]);
    client.ask(7, &info_data("vol", &[]));
    assert!(client.finish().unwrap().options.base_allocation);
}

#[test]
fn a_choice_holds_for_its_export_and_until_the_next() {
    let chosen = |first: &[u8], second: Option<&[u8]>, go: &str| {
        let mut client = Client::structured(THREE);
        client.ask(10, first);
        second.map(|second| client.ask(10, second));
        client.ask(7, &info_data(go, &[]));
        client.finish().unwrap().options.base_allocation
    };
    let vol = context_data("vol", &["base:allocation"]);
    assert!(chosen(&vol, None, "vol"));
    assert!(!chosen(&vol, None, "vol@monday"));
    assert!(!chosen(&vol, Some(&context_data("vol", &[])), "vol"));
    assert!(!chosen(&vol, Some(b"malformed"), "vol"));
    assert!(!chosen(
        &vol,
        Some(&context_data("none", &["base:allocation"])),
        "vol"
    ));
}

#[test]
fn contexts_need_structured_replies() {
    let mut client = Client::new(THREE);
    assert_eq!(client.refused(9, &context_data("vol", &[])), INVALID);
    assert_eq!(
        client.refused(10, &context_data("vol", &["base:allocation"])),
        INVALID
    );
}

#[test]
fn options_that_are_not_here_are_refused_properly() {
    let mut client = Client::new(THREE);
    assert_eq!(client.refused(5, &[]), UNSUP, "encryption");
    assert_eq!(client.refused(4, &[]), UNSUP, "peek");
    assert_eq!(client.refused(12, &[]), UNSUP);
    assert_eq!(client.refused(0xdead_beef, &[1; 5000]), UNSUP);
    assert_eq!(client.refused(8, b"x"), INVALID);
    assert_eq!(client.refused(7, &vec![0; 100 << 10]), TOO_BIG);
    client.ask(7, &info_data("vol", &[]));
    assert!(!client.finish().unwrap().options.structured);
}

#[test]
fn malformed_options_are_refused_and_forgotten() {
    let long = "x".repeat(5000);
    let cases: [Vec<u8>; 8] = [
        vec![],
        vec![0; 3],
        u32::MAX.to_be_bytes().to_vec(),
        info_data("vol", &[])[..8].to_vec(),
        [info_data("vol", &[]), vec![0]].concat(),
        info_data(&long, &[]),
        info_data("v\0l", &[]),
        info_data("vol", &[3; 65]),
    ];
    let mut client = Client::structured(THREE);
    for data in &cases {
        assert_eq!(client.refused(7, data), INVALID);
    }
    let mut many = context_data("vol", &[]);
    let count = many.len() - 4;
    many[count..].copy_from_slice(&u32::MAX.to_be_bytes());
    assert_eq!(client.refused(10, &many), INVALID);
    client.ask(7, &info_data("vol", &[]));
    assert_eq!(client.finish().unwrap().name, "vol");
}

#[test]
fn those_who_are_not_clients_are_hung_up_on() {
    let mut unknown_flags = Client::connect(THREE, Duration::from_secs(10));
    unknown_flags.send(&7_u32.to_be_bytes());
    assert!(matches!(
        unknown_flags.outcome(),
        Err(NegotiateError::BadFlags(7))
    ));

    let mut http = Client::new(THREE);
    http.send(b"GET / HTTP/1.1\r\n\r\n");
    assert!(matches!(http.outcome(), Err(NegotiateError::BadMagic(_))));

    let mut huge = Client::new(THREE);
    huge.send(b"IHAVEOPT\0\0\0\x07\xff\xff\xff\xff");
    let outcome = huge.outcome();
    assert!(matches!(
        outcome,
        Err(NegotiateError::OptionTooLong { len: u32::MAX, .. })
    ));

    let mut old = Client::connect(THREE, Duration::from_secs(10));
    old.send(&0_u32.to_be_bytes());
    old.option(3, &[]);
    assert!(matches!(old.outcome(), Err(NegotiateError::OldClient(3))));

    let mut talker = Client::new(THREE);
    for _ in 0..MAX_OPTIONS {
        assert_eq!(talker.refused(99, &[]), UNSUP);
    }
    assert!(matches!(
        talker.outcome(),
        Err(NegotiateError::TooManyOptions)
    ));
}

/// What a server that demands TLS answers before it, and whether TLS comes next.
fn before_tls(options: &[(u32, &[u8])]) -> (Vec<u32>, Result<(), NegotiateError>) {
    let (mut client, server) = UnixStream::pair().unwrap();
    let mut message = 3_u32.to_be_bytes().to_vec();
    for (option, data) in options {
        message.extend(b"IHAVEOPT");
        message.extend(option.to_be_bytes());
        message.extend((data.len() as u32).to_be_bytes());
        message.extend(*data);
    }
    client.write_all(&message).unwrap();
    client.shutdown(std::net::Shutdown::Write).unwrap();
    let outcome = demand_tls(&server, Duration::from_secs(5)).map(drop);
    drop(server);
    let mut bytes = Vec::new();
    // What it did not want to hear resets the connection, after its answers.
    let _reset = client.read_to_end(&mut bytes);
    let mut replies = &bytes[18..];
    let mut kinds = Vec::new();
    while !replies.is_empty() {
        let kind = replies[12..16].try_into().unwrap();
        let len = u32::from_be_bytes(replies[16..20].try_into().unwrap());
        kinds.push(u32::from_be_bytes(kind));
        replies = &replies[20 + len as usize..];
    }
    (kinds, outcome)
}

#[test]
fn before_tls_nothing_is_told() {
    const TLS_REQD: u32 = (1 << 31) + 5;
    let all = [3, 6, 7, 8, 9, 10, 11, 77].map(|option| (option, &b"data"[..]));
    let (kinds, outcome) = before_tls(&all);
    assert_eq!(kinds, [TLS_REQD; 8]);
    assert!(matches!(outcome, Err(NegotiateError::Left)));
    let (kinds, outcome) = before_tls(&[(3, &[]), (5, b"x"), (5, &[])]);
    assert_eq!(kinds, [TLS_REQD, INVALID, ACK]);
    assert!(outcome.is_ok());
    let (kinds, outcome) = before_tls(&[(1, b"vol"), (5, &[])]);
    assert_eq!(kinds, [0; 0], "an export without TLS");
    assert!(matches!(outcome, Err(NegotiateError::NotEncrypted)));
    let (kinds, outcome) = before_tls(&[(2, &[]), (5, &[])]);
    assert_eq!(kinds, [ACK]);
    assert!(matches!(outcome, Err(NegotiateError::Left)));
    let (_, outcome) = before_tls(&[(99, &b""[..]); 65]);
    assert!(matches!(outcome, Err(NegotiateError::TooManyOptions)));
}

#[test]
fn a_slow_client_is_cut_off_in_time() {
    let timeout = Duration::from_millis(300);
    let silent = Client::connect(THREE, timeout);
    let mut slow = Client::connect(THREE, timeout);
    let start = Instant::now();
    // A byte now and then never lets a single read time out.
    while start.elapsed() < 10 * timeout && slow.socket.write_all(&[0]).is_ok() {
        std::thread::sleep(timeout / 10);
        if slow.server.is_finished() {
            break;
        }
    }
    assert!(start.elapsed() < 5 * timeout, "{:?}", start.elapsed());
    assert!(matches!(slow.outcome(), Err(NegotiateError::TimedOut(t)) if t == timeout));
    assert!(matches!(silent.outcome(), Err(NegotiateError::TimedOut(_))));
}

#[test]
fn a_client_that_does_not_read_is_cut_off_in_time() {
    let mut client = Client::connect(THREE, Duration::from_millis(300));
    client.send(&3_u32.to_be_bytes());
    let name = "x".repeat(4000);
    // Enough lists to fill the socket while nobody reads.
    let _full = (0..64).try_for_each(|_| {
        let data = info_data(&name, &[]);
        let head = [
            b"IHAVEOPT\0\0\0\x07".to_vec(),
            (data.len() as u32).to_be_bytes().to_vec(),
        ];
        client.socket.write_all(&[head.concat(), data].concat())
    });
    let outcome = client.outcome();
    assert!(
        matches!(
            outcome,
            Err(NegotiateError::TimedOut(_) | NegotiateError::TooManyOptions)
        ),
        "{outcome:?}"
    );
}
