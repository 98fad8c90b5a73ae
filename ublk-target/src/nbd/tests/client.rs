//! Our own client, against our server and another one, and against servers that lie.

use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use super::super::client::{Client, ClientError};
use super::driver::PLAIN;
use super::tools::{MIB, Server, UNKIND, contents, have};
use proptest::prelude::*;

/// Reads all of it in odd pieces, and what is said to be zeroes is.
fn check(socket: &Path, name: &str, expected: &[u8]) {
    let mut client = Client::connect(socket, name).unwrap();
    assert_eq!(client.size(), expected.len() as u64);
    let mut bytes = vec![0xaa; expected.len()];
    let block = client.minimum_block() as usize;
    for (at, part) in bytes.chunks_mut(37 * block).enumerate() {
        client.read_at((at * 37 * block) as u64, part).unwrap();
    }
    assert!(bytes == expected, "other bytes");
    let (mut at, mut zeroes) = (0, 0);
    while at < expected.len() {
        let left = (expected.len() - at) as u32;
        for stretch in client.stretches(at as u64, left).unwrap() {
            let end = (at + stretch.len as usize).min(expected.len());
            let is_zero = expected[at..end].iter().all(|byte| *byte == 0);
            assert!(!stretch.zero || is_zero, "data at {at} is told as zeroes");
            zeroes += if stretch.zero { end - at } else { 0 };
            at = end;
        }
    }
    assert!(zeroes > 0, "no hole is told");
}

#[test]
fn it_reads_what_our_server_serves() {
    let expected = contents(3 * MIB);
    for manner in [PLAIN, UNKIND] {
        let server = Server::start(&expected, manner);
        check(&server.path("nbd.sock"), "vol@then", &expected);
        check(&server.path("nbd.sock"), "vol", &expected);
    }
}

#[test]
fn it_writes_where_it_may() {
    let mut expected = contents(2 * MIB);
    for manner in [PLAIN, UNKIND] {
        let server = Server::start(&expected, manner);
        let socket = server.path("nbd.sock");
        let mut client = Client::connect(&socket, "vol").unwrap();
        let block = client.minimum_block() as usize;
        let (at, data) = (9 * block, vec![0x77; 300 * block]);
        client.write_at(at as u64, &data).unwrap();
        client.zero(0, block as u32).unwrap();
        client.flush().unwrap();
        expected[at..at + data.len()].copy_from_slice(&data);
        expected[..block].fill(0);
        check(&socket, "vol", &expected);
        let mut frozen = Client::connect(&socket, "vol@then").unwrap();
        let refused = frozen.write_at(0, &data).unwrap_err();
        assert!(
            matches!(refused, ClientError::Request { error: 1, .. }),
            "{refused}"
        );
        let beyond = client.write_at(expected.len() as u64, &data).unwrap_err();
        assert!(
            matches!(beyond, ClientError::Request { error: 28, .. }),
            "{beyond}"
        );
    }
}

#[test]
fn it_says_why_an_export_cannot_be_read() {
    let server = Server::start(&contents(MIB), PLAIN);
    let socket = server.path("nbd.sock");
    let refused = Client::connect(&socket, "none").unwrap_err();
    assert!(
        matches!(&refused, ClientError::Refused(why) if why == "no such toy"),
        "{refused}"
    );
    let nobody = Client::connect(&server.path("nothing"), "vol").unwrap_err();
    assert!(nobody.to_string().contains("nothing"), "{nobody}");
    let mut client = Client::connect(&socket, "vol").unwrap();
    let beyond = client.read_at(MIB as u64, &mut [0; 512]).unwrap_err();
    assert!(
        matches!(beyond, ClientError::Request { error: 22, .. }),
        "{beyond}"
    );
}

/// qemu-nbd, gone when dropped.
struct Qemu(Child);

impl Drop for Qemu {
    fn drop(&mut self) {
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[test]
fn it_reads_what_qemu_nbd_serves() {
    if !have("it_reads_what_qemu_nbd_serves", &["qemu-nbd"]) {
        return;
    }
    let dir = tempfile::tempdir().unwrap();
    let path = |name: &str| -> PathBuf { dir.path().join(name) };
    let mut expected = contents(2 * MIB);
    expected.extend(vec![0; 3 * MIB]);
    let file = std::fs::File::create(path("raw")).unwrap();
    (&file).write_all(&expected[..2 * MIB]).unwrap();
    file.set_len(expected.len() as u64).unwrap();
    let qemu = Command::new("qemu-nbd")
        .args([
            "--read-only",
            "--persistent",
            "-f",
            "raw",
            "-x",
            "vol",
            "-k",
        ])
        .args([path("sock"), path("raw")])
        .stdin(Stdio::null())
        .spawn();
    let _qemu = Qemu(qemu.unwrap());
    let until = Instant::now() + Duration::from_secs(20);
    while UnixStream::connect(path("sock")).is_err() {
        assert!(Instant::now() < until, "qemu-nbd does not listen");
        std::thread::sleep(Duration::from_millis(20));
    }
    check(&path("sock"), "vol", &expected);
}

/// The handshake of a server with an export of 64 KiB, byte for byte.
fn handshake() -> Vec<u8> {
    let reply = |option: u32, kind: u32, data: &[u8]| {
        let magic = 0x0003_e889_0455_65a9_u64.to_be_bytes();
        let head = [option, kind, data.len() as u32].map(u32::to_be_bytes);
        [&magic[..], &head.concat(), data].concat()
    };
    [
        b"NBDMAGICIHAVEOPT\0\x03".to_vec(),
        reply(8, 1, &[]),
        reply(10, 4, b"\0\0\0\x07base:allocation"),
        reply(10, 1, &[]),
        reply(
            7,
            3,
            &[&[0, 0][..], &(64_u64 << 10).to_be_bytes(), &[0, 3]].concat(),
        ),
        reply(7, 1, &[]),
    ]
    .concat()
}

/// What a client makes of a server that says this, whatever it is asked.
fn against(said: Vec<u8>) -> Result<Vec<u8>, ClientError> {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("sock");
    let listener = UnixListener::bind(&socket).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || {
            let (mut stream, _) = listener.accept().unwrap();
            let _ = stream.write_all(&said);
            let _ = stream.shutdown(std::net::Shutdown::Write);
            let _ = stream.read_to_end(&mut Vec::new());
        });
        let mut client = Client::connect(&socket, "vol")?;
        let mut data = vec![7; 1024];
        client.read_at(512, &mut data)?;
        client.stretches(0, 64 << 10)?;
        Ok(data)
    })
}

fn chunk(flags: u16, kind: u16, cookie: u64, data: &[u8]) -> Vec<u8> {
    let magic = 0x668e_33ef_u32.to_be_bytes();
    let length = (data.len() as u32).to_be_bytes();
    let (flags, kind) = (flags.to_be_bytes(), kind.to_be_bytes());
    [
        &magic[..],
        &flags,
        &kind,
        &cookie.to_be_bytes(),
        &length,
        data,
    ]
    .concat()
}

fn simple(cookie: u64, error: u32) -> Vec<u8> {
    let magic = 0x6744_6698_u32.to_be_bytes();
    [&magic[..], &error.to_be_bytes(), &cookie.to_be_bytes()].concat()
}

/// A hole and data as answer to a read, then extents.
fn answers() -> Vec<u8> {
    let part = |at: u64| [&at.to_be_bytes()[..], &[1; 512]].concat();
    let hole = [&512_u64.to_be_bytes()[..], &512_u32.to_be_bytes()].concat();
    let extents = [7_u32, 4096, 3, 61_440, 0].map(u32::to_be_bytes).concat();
    [
        chunk(0, 1, 1, &part(1024)),
        chunk(1, 2, 1, &hole),
        chunk(1, 5, 2, &extents),
    ]
    .concat()
}

#[test]
fn what_servers_may_do_is_understood_and_what_not_refused() {
    let data = against([handshake(), answers()].concat()).unwrap();
    assert_eq!(data, [[0; 512], [1; 512]].concat());
    let read = |answer: &[u8]| against([&handshake()[..], answer].concat()).unwrap_err();
    let data = |at: u64, len: usize| [&at.to_be_bytes()[..], &vec![1; len]].concat();
    for (answer, why) in [
        (chunk(1, 1, 9, &data(512, 1024)), "an answer to nothing"),
        (chunk(1, 1, 1, &data(0, 1024)), "not asked for"),
        (chunk(1, 1, 1, &data(1024, 1024)), "not asked for"),
        (chunk(1, 1, 1, &data(u64::MAX, 1024)), "not asked for"),
        (chunk(1, 1, 1, &data(512, 512)), "less data"),
        (chunk(1, 0, 1, &[]), "less data"),
        (chunk(0, 0, 1, &[]), "empty part"),
        (chunk(1, 5, 1, &data(512, 512)), "no data"),
        (simple(1, 0), "less data"),
        (simple(1, 5), "NBD error 5"),
        (simple(2, 0), "an answer to nothing"),
        (chunk(1, 2, 1, &data(512, 5)), "no data"),
        (
            chunk(1, 2, 1, &[0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0]),
            "a hole of no length",
        ),
        (
            chunk(1, 2, 1, &[0, 0, 0, 0, 0, 0, 2, 0, 255, 255, 255, 255]),
            "not asked for",
        ),
        (
            chunk(1, 0x8001, 1, b"\0\0\0\x05\0\x03bad and more"),
            "bad (NBD error 5)",
        ),
        (chunk(1, 0x8001, 1, b"\0"), "of no size"),
    ] {
        let error = read(&answer).to_string();
        assert!(error.contains(why), "{why}: {error}");
    }
    let mut twice = chunk(0, 1, 1, &data(512, 1024));
    twice.extend(chunk(1, 1, 1, &data(512, 1024)));
    assert!(read(&twice).to_string().contains("not asked for"));
}

/// Else an export would pass for one without bytes, and a copy of it for complete.
#[test]
fn a_server_that_does_not_tell_the_size_is_refused() {
    let mut said = handshake();
    // The last reply has no data, that before it the size.
    let done = said.split_off(said.len() - 20);
    said.truncate(said.len() - 32);
    let error = against([said, done, answers()].concat()).unwrap_err();
    assert!(error.to_string().contains("no size"), "{error}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    /// Whatever a server says, the client comes to an end, and believes nothing that is cut
    /// off.
    #[test]
    fn any_server_leads_to_an_answer_or_an_error(
        place in any::<prop::sample::Index>(),
        bytes in prop::collection::vec(any::<u8>(), 0..8),
        cut in any::<bool>(),
    ) {
        let mut said = [handshake(), answers()].concat();
        let place = place.index(said.len());
        if cut {
            said.truncate(place);
            prop_assert!(against(said).is_err());
        } else {
            for (at, byte) in bytes.into_iter().enumerate() {
                if let Some(there) = said.get_mut(place + at) {
                    *there = byte;
                }
            }
            let _ = against(said);
        }
    }
}
