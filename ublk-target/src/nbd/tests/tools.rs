//! The programs people use against a toy server: our handshake and connection
//! machine over plain blocking sockets, with disks in memory.
//!
//! A test whose program is not installed says so, and leaves a line in
//! `target/e2e/skipped.tsv`, where `make test` counts it.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tempfile::TempDir;

use super::driver::{Disk, Driver, Manner, PLAIN};
use crate::nbd::{
    End, ExportEntry, ExportInfo, Exports, Negotiated, Refusal, RefusalKind, negotiate,
};

pub(super) const MIB: usize = 1 << 20;

#[derive(Clone, Default)]
struct Disks(HashMap<&'static str, Disk>);

impl Exports for Disks {
    type Export = Disk;

    fn list(&self) -> Vec<ExportEntry> {
        let mut names: Vec<_> = self.0.keys().copied().collect();
        names.sort_unstable();
        let entry = |name: &str| ExportEntry {
            name: name.into(),
            on_demand: false,
        };
        names.into_iter().map(entry).collect()
    }

    fn describe(&self, _: &str) -> String {
        "a toy".into()
    }

    fn open(&self, name: &str) -> Result<(Disk, ExportInfo), Refusal> {
        let unknown = || Refusal {
            kind: RefusalKind::Unknown,
            message: "no such toy".into(),
        };
        let disk = self.0.get(name).ok_or_else(unknown)?;
        let size = disk.lock().unwrap().len() as u64;
        let info = ExportInfo::new(size, name.contains('@'), 512, 16384, MIB as u32).unwrap();
        Ok((disk.clone(), info))
    }
}

/// Serves `vol` (writable) and `vol@then` (a copy of what it was) until the test ends.
pub(super) struct Server {
    dir: TempDir,
    disks: Disks,
}

impl Server {
    pub(super) fn start(contents: &[u8], manner: Manner) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let disk = || Arc::new(Mutex::new(contents.to_vec()));
        let disks = Disks(HashMap::from([("vol", disk()), ("vol@then", disk())]));
        let listener = UnixListener::bind(dir.path().join("nbd.sock")).unwrap();
        let served = disks.clone();
        std::thread::spawn(move || {
            for socket in listener.incoming() {
                let (socket, disks) = (socket.unwrap(), served.clone());
                std::thread::spawn(move || {
                    if let Ok(negotiated) = negotiate(&socket, &disks, Duration::from_secs(10)) {
                        transmit(socket, negotiated, manner);
                    }
                });
            }
        });
        Self { dir, disks }
    }

    fn uri(&self, name: &str) -> String {
        format!(
            "nbd+unix:///{name}?socket={}",
            self.path("nbd.sock").display()
        )
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    fn contents(&self, name: &str) -> Vec<u8> {
        self.disks.0[name].lock().unwrap().clone()
    }
}

fn transmit(mut socket: UnixStream, negotiated: Negotiated<Disk>, manner: Manner) {
    let Negotiated {
        export,
        info,
        options,
        ..
    } = negotiated;
    let mut driver = Driver::new(info, options, export, manner);
    let mut bytes = vec![0; 300_000];
    while driver.connection.end().is_none() {
        match socket.read(&mut bytes) {
            Ok(n) if n > 0 => driver.feed(&bytes[..n]),
            _ => assert!(driver.connection.hang_up(End::Closed).is_none()),
        }
        driver.answer();
        if socket.write_all(&driver.output).is_err() {
            return;
        }
        driver.output.clear();
    }
    driver.finish();
}

/// Data with zero runs: block status has something to say.
pub(super) fn contents(len: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_u32;
    let mut byte = move || {
        state ^= state << 13;
        state ^= state >> 17;
        state ^= state << 5;
        state as u8
    };
    let grain = 128 << 10;
    (0..len)
        .map(|at| if at / grain % 3 == 1 { 0 } else { byte() | 1 })
        .collect()
}

/// Whether every program is there; notes the test as not run otherwise.
pub(super) fn have(test: &str, programs: &[&str]) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let found = |program: &&str| std::env::split_paths(&path).any(|dir| dir.join(program).exists());
    let missing: Vec<_> = programs
        .iter()
        .filter(|program| !found(program))
        .copied()
        .collect();
    if missing.is_empty() {
        return true;
    }
    let why = format!(
        "{} is not installed; scripts/setup installs it",
        missing.join(", ")
    );
    eprintln!("COULD NOT RUN {test}: {why}");
    let notes = Path::new(env!("CARGO_MANIFEST_DIR")).join("../target/e2e");
    std::fs::create_dir_all(&notes).unwrap();
    let notes = std::fs::File::options()
        .append(true)
        .create(true)
        .open(notes.join("skipped.tsv"));
    writeln!(notes.unwrap(), "{test}\t{why}").unwrap();
    false
}

/// Runs a program to its end; what it printed, if it was content.
fn run(program: &str, args: &[&str]) -> Result<String, String> {
    let output = Command::new("timeout")
        .args(["60", program])
        .args(args)
        .stdin(Stdio::null())
        .output()
        .unwrap();
    let text = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
    if output.status.success() {
        Ok(text(&output.stdout))
    } else {
        Err(format!(
            "{program} {args:?}: {}\n{}",
            output.status,
            text(&output.stderr)
        ))
    }
}

#[track_caller]
fn must(program: &str, args: &[&str]) -> String {
    run(program, args).unwrap_or_else(|error| panic!("{error}"))
}

/// A manner that is unkind in every way.
pub(super) const UNKIND: Manner = Manner {
    limit: 3,
    lazy: true,
    send: 5000,
    scatter: true,
};

#[test]
fn nbdinfo_sees_what_we_promise() {
    if !have("nbdinfo_sees_what_we_promise", &["nbdinfo"]) {
        return;
    }
    let server = Server::start(&contents(MIB), PLAIN);
    let info = |name: &str| -> serde_json::Value {
        serde_json::from_str(&must("nbdinfo", &["--json", &server.uri(name)])).unwrap()
    };
    let vol = info("vol");
    assert_eq!(vol["protocol"], "newstyle-fixed");
    assert_eq!(vol["structured"], true);
    let export = &vol["exports"][0];
    assert_eq!(export["export-size"], MIB);
    for (fact, expected) in [
        ("is_read_only", false),
        ("can_flush", true),
        ("can_fua", true),
        ("can_trim", true),
        ("can_zero", true),
        ("can_fast_zero", false),
        ("can_multi_conn", true),
        ("can_df", true),
        ("can_cache", false),
    ] {
        assert_eq!(export[fact], expected, "{fact}");
    }
    assert_eq!(export["block_size_minimum"], 512);
    assert_eq!(export["block_size_preferred"], 16384);
    assert_eq!(export["block_size_maximum"], MIB);
    assert_eq!(export["contexts"], serde_json::json!(["base:allocation"]));
    assert_eq!(export["description"], "a toy");

    let then = info("vol@then");
    assert_eq!(then["exports"][0]["is_read_only"], true);
    assert_eq!(then["exports"][0]["can_trim"], false);
}

#[test]
fn nbdinfo_lists_exports_and_misses_what_is_not_there() {
    if !have(
        "nbdinfo_lists_exports_and_misses_what_is_not_there",
        &["nbdinfo"],
    ) {
        return;
    }
    let server = Server::start(&contents(MIB), PLAIN);
    let list = must("nbdinfo", &["--list", "--json", &server.uri("")]);
    let list: serde_json::Value = serde_json::from_str(&list).unwrap();
    let names: Vec<_> = list["exports"]
        .as_array()
        .unwrap()
        .iter()
        .map(|export| export["export-name"].as_str().unwrap().to_owned())
        .collect();
    assert_eq!(names, ["vol", "vol@then"]);
    let missing = run("nbdinfo", &[&server.uri("none")]).unwrap_err();
    assert!(missing.contains("none"), "{missing}");
}

#[test]
fn nbdinfo_maps_holes_where_they_are() {
    if !have("nbdinfo_maps_holes_where_they_are", &["nbdinfo"]) {
        return;
    }
    let server = Server::start(&contents(MIB), UNKIND);
    let map = must("nbdinfo", &["--map", "--json", &server.uri("vol@then")]);
    let map: serde_json::Value = serde_json::from_str(&map).unwrap();
    let number = |extent: &serde_json::Value, key: &str| extent[key].as_u64().unwrap() >> 17;
    let found: Vec<_> = map
        .as_array()
        .unwrap()
        .iter()
        .map(|extent| {
            (
                number(extent, "offset"),
                number(extent, "length"),
                extent["type"].as_u64().unwrap(),
            )
        })
        .collect();
    // In units of 128 KiB: data, a hole, two of data, ...
    assert_eq!(
        found,
        [
            (0, 1, 0),
            (1, 1, 3),
            (2, 2, 0),
            (4, 1, 3),
            (5, 2, 0),
            (7, 1, 3)
        ]
    );
}

#[test]
fn nbdcopy_takes_out_and_puts_in_over_several_connections() {
    if !have(
        "nbdcopy_takes_out_and_puts_in_over_several_connections",
        &["nbdcopy"],
    ) {
        return;
    }
    for manner in [PLAIN, UNKIND] {
        let before = contents(24 * MIB);
        let server = Server::start(&before, manner);
        let file = server.path("copy").display().to_string();
        must(
            "nbdcopy",
            &["--connections=4", &server.uri("vol@then"), &file],
        );
        assert!(std::fs::read(&file).unwrap() == before);

        let after: Vec<u8> = before.iter().rev().copied().collect();
        std::fs::write(&file, &after).unwrap();
        let to = server.uri("vol");
        must(
            "nbdcopy",
            &["--connections=4", "--requests=32", "--flush", &file, &to],
        );
        assert!(server.contents("vol") == after);
        assert!(server.contents("vol@then") == before);
        assert!(
            run("nbdcopy", &[&file, &server.uri("vol@then")]).is_err(),
            "it is read-only"
        );
    }
}

#[test]
fn qemu_img_shows_our_messages() {
    if !have("qemu_img_shows_our_messages", &["qemu-img"]) {
        return;
    }
    let server = Server::start(&contents(MIB), PLAIN);
    let message = |name: &str| run("qemu-img", &["info", &server.uri(name)]).unwrap_err();
    assert!(
        message("none").contains("no such toy"),
        "{}",
        message("none")
    );
    assert!(
        message("").contains("there are 2 exports"),
        "{}",
        message("")
    );
}

#[test]
fn qemu_img_converts_and_compares() {
    if !have("qemu_img_converts_and_compares", &["qemu-img", "qemu-io"]) {
        return;
    }
    let server = Server::start(&contents(24 * MIB), UNKIND);
    let (vol, then) = (server.uri("vol"), server.uri("vol@then"));
    let info = must("qemu-img", &["info", "--output=json", &vol]);
    let info: serde_json::Value = serde_json::from_str(&info).unwrap();
    assert_eq!(info["virtual-size"], 24 * MIB);

    let qcow2 = server.path("copy.qcow2").display().to_string();
    must(
        "qemu-img",
        &["convert", "-f", "raw", "-O", "qcow2", &then, &qcow2],
    );
    let compare = |a: [&str; 2], b: [&str; 2]| {
        run("qemu-img", &["compare", "-f", a[0], "-F", b[0], a[1], b[1]])
    };
    compare(["qcow2", &qcow2], ["raw", &then]).unwrap();

    must(
        "qemu-io",
        &["-f", "raw", "-c", "write -P 0x42 1M 64k", &vol],
    );
    compare(["qcow2", &qcow2], ["raw", &vol]).unwrap_err();
    must(
        "qemu-img",
        &["convert", "-n", "-f", "qcow2", "-O", "raw", &qcow2, &vol],
    );
    compare(["raw", &vol], ["raw", &then]).unwrap();
    assert!(server.contents("vol") == server.contents("vol@then"));
}

#[test]
fn qemu_io_uses_every_command() {
    if !have("qemu_io_uses_every_command", &["qemu-io"]) {
        return;
    }
    let before = contents(8 * MIB);
    let server = Server::start(&before, PLAIN);
    // More than one payload; FUA in small blocks; zeroes that may not and may be
    // punched; trim, flush; the same asynchronously.
    let commands = [
        "write -P 0x11 0 3M",
        "write -f -P 0x22 512 1536",
        "write -z 4M 1M",
        "write -z -u 5M 1M",
        "discard 6M 64k",
        "flush",
        "read -P 0x11 2048 2M",
        "read -P 0x22 512 1536",
        "read -P 0 4M 2M",
        "aio_write -P 0x33 7M 4k",
        "aio_read -P 0x11 1M 512k",
        "aio_flush",
    ];
    let uri = server.uri("vol");
    let args: Vec<&str> = commands
        .iter()
        .flat_map(|command| ["-c", command])
        .collect();
    let output = must("qemu-io", &[&["-f", "raw", &uri], &args[..]].concat());
    assert!(!output.contains("failed"), "{output}");

    let mut expected = before;
    expected[..3 * MIB].fill(0x11);
    expected[512..2048].fill(0x22);
    expected[4 * MIB..6 * MIB].fill(0);
    expected[7 * MIB..7 * MIB + 4096].fill(0x33);
    assert!(server.contents("vol") == expected);

    let refused = run(
        "qemu-io",
        &["-f", "raw", "-c", "write 0 4k", &server.uri("vol@then")],
    );
    assert!(refused.is_err(), "a snapshot takes no writes");
}
