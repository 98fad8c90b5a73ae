//! Metadata contexts that tell what changed: listed and chosen as qemu does, answered
//! beside `base:allocation`.

use std::collections::HashMap;

use super::messages::{STRUCTURED, info, queued};
use super::peer::{Answer, answers};
use super::script::{ACK, Client, INVALID, META_CONTEXT, THREE, TOO_BIG, context_data, info_data};
use crate::nbd::{Connection, Context, Errno, Extent, Op, Options, Request, Since, Status};

fn context(id: u8, name: &str) -> (u32, Vec<u8>) {
    (META_CONTEXT, [&[0, 0, 0, id], name.as_bytes()].concat())
}

fn bitmaps(ids: impl Iterator<Item = u8>) -> Vec<(u32, Vec<u8>)> {
    ids.map(|id| context(0, &format!("qemu:dirty-bitmap:s{id}")))
        .collect()
}

#[test]
fn older_snapshots_are_listed_as_qemu_lists_bitmaps() {
    let mut client = Client::structured(THREE);
    let mut list = |queries: &[&str]| client.ask(9, &context_data("vol", queries));
    let ack = || vec![(ACK, vec![])];
    let allocation = || vec![context(0, "base:allocation")];
    assert_eq!(list(&[]), [allocation(), bitmaps(0..10), ack()].concat());
    assert_eq!(list(&["qemu:"]), [bitmaps(0..10), ack()].concat());
    assert_eq!(
        list(&["qemu:dirty-bitmap:"]),
        [bitmaps(0..10), ack()].concat()
    );
    assert_eq!(
        list(&["qemu:dirty-bitmap:s3", "base:"]),
        [allocation(), bitmaps(3..4), ack()].concat()
    );
    for nothing in [
        "qemu",
        "qemu:dirty-bitmap",
        "qemu:dirty-bitmap:s",
        "qemu:s3",
        "s3",
    ] {
        assert_eq!(list(&[nothing]), ack(), "{nothing}");
    }
    let snapshot = client.ask(9, &context_data("vol@monday", &["qemu:"]));
    assert_eq!(snapshot, [bitmaps(0..1), ack()].concat());
}

#[test]
fn older_snapshots_are_chosen_by_name_only() {
    let mut client = Client::structured(THREE);
    for wildcard in ["qemu:", "qemu:dirty-bitmap:", "qemu:dirty-bitmap:none"] {
        let replies = client.ask(10, &context_data("vol", &[wildcard]));
        assert_eq!(replies, [(ACK, vec![])], "{wildcard}");
    }
    let both = [
        "qemu:dirty-bitmap:s4",
        "base:allocation",
        "qemu:dirty-bitmap:s2",
        "qemu:dirty-bitmap:s4",
    ];
    let replies = client.ask(10, &context_data("vol", &both));
    let expected = [
        context(1, "base:allocation"),
        context(2, "qemu:dirty-bitmap:s2"),
        context(3, "qemu:dirty-bitmap:s4"),
        (ACK, vec![]),
    ];
    assert_eq!(replies, expected);
    client.ask(7, &info_data("vol", &[]));
    let options = client.finish().unwrap().options;
    let since = |tag| Context::Changed(Since { tag, size: 512 });
    let chosen: Vec<_> = options.contexts().collect();
    assert_eq!(
        chosen,
        [(1, Context::Allocation), (2, since(2)), (3, since(4))]
    );
}

#[test]
fn too_many_contexts_are_refused_and_none_is_chosen() {
    let names: Vec<String> = (0..9).map(|n| format!("qemu:dirty-bitmap:s{n}")).collect();
    let names: Vec<&str> = names.iter().map(String::as_str).collect();
    let mut client = Client::structured(THREE);
    assert_eq!(client.ask(10, &context_data("vol", &names[..8])).len(), 9);
    assert_eq!(client.refused(10, &context_data("vol", &names)), TOO_BIG);
    client.ask(7, &info_data("vol", &[]));
    assert!(!client.finish().unwrap().options.has_contexts());
    let mut simple = Client::new(THREE);
    assert_eq!(
        simple.refused(10, &context_data("vol", &names[..1])),
        INVALID
    );
}

fn status(len: u64) -> Request {
    Request {
        cookie: 7,
        op: Op::BlockStatus { one: false },
        offset: 512,
        len,
        fua: false,
    }
}

#[test]
fn every_context_gets_its_chunk() {
    let since = Since { tag: 3, size: 512 };
    let mut options = STRUCTURED;
    options.changed[0] = Some(since);
    let mut connection = Connection::new(info(false), options, 2);
    let told = [
        Status {
            context: 1,
            extents: vec![Extent::allocation(1024, true)],
        },
        Status {
            context: 2,
            extents: vec![Extent::changed(512, false), Extent::changed(4096, true)],
        },
    ];
    connection.reply_extents(&status(1024), &told);
    let bytes = queued(&connection);
    assert_eq!(
        (bytes[5], bytes[32 + 5]),
        (0, 1),
        "the last alone is the last"
    );
    let parsed = answers(&bytes, &HashMap::new()).unwrap();
    let expected = [
        (7, Answer::Status(vec![(1024, 0)])),
        (7, Answer::Context(2, vec![(512, 0), (512, 1)])),
    ];
    assert_eq!(parsed, expected);
    // One of them says nothing: an error alone.
    connection.sent(bytes.len(), |_| ());
    let told = [
        told[0].clone(),
        Status {
            context: 2,
            extents: vec![],
        },
    ];
    connection.reply_extents(&status(1024), &told);
    let parsed = answers(&queued(&connection), &HashMap::new()).unwrap();
    assert!(
        matches!(parsed[..], [(7, Answer::Error(code, _))] if code == Errno::Io as u32),
        "{parsed:?}"
    );
}

/// However many contexts, an answer stays of bounded length.
#[test]
fn contexts_share_the_room_of_an_answer() {
    let mut options = Options::NONE;
    options.structured = true;
    options.changed = [Some(Since { tag: 3, size: 512 }); 8];
    let mut connection = Connection::new(info(false), options, 1);
    let extents: Vec<_> = (0..8000)
        .map(|n| Extent::changed(512, n % 2 == 0))
        .collect();
    let told: Vec<_> = options
        .contexts()
        .map(|(context, _)| Status {
            context,
            extents: extents.clone(),
        })
        .collect();
    connection.reply_extents(&status(8000 * 512), &told);
    let parsed = answers(&queued(&connection), &HashMap::new()).unwrap();
    assert_eq!(parsed.len(), 8);
    for (_, answer) in parsed {
        let Answer::Context(_, extents) = answer else {
            panic!("{answer:?}")
        };
        assert_eq!(extents.len(), 512);
    }
}
