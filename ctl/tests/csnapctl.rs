//! The program as a person or a script meets it: command lines, exit codes, what
//! goes to which stream. The daemon is played by a mock behind the real socket.
#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test stops at the first surprise"
)]

use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};
use std::sync::{Arc, Mutex};

use clap::CommandFactory;
use ctl::cli::Cli;
use ublk_target::control::client::socket_path;
use ublk_target::control::listener::Listener;
use ublk_target::control::protocol::{Answer, ErrorCode, Failure, Request, SnapshotName};
use ublk_target::control::server::{Backend, Patience, serve};
use ublk_target::control::views::{SnapshotStateName, SnapshotView, TakenView};

/// Knows one snapshot, `web@monday` with tag 7; remembers what was asked.
#[derive(Default)]
struct Mock {
    asked: Mutex<Vec<Request>>,
}

impl Backend for Mock {
    fn handle(&self, request: Request) -> Result<Answer, Failure> {
        self.asked.lock().unwrap().push(request.clone());
        let fail = |code| Err(Failure::new(code, "it failed").next("try the next step"));
        match request {
            Request::SnapshotList {
                volume: Some(volume),
                ..
            } => match volume.as_str() {
                "usage" => fail(ErrorCode::Usage),
                "gone" => fail(ErrorCode::NotFound),
                "busy" => fail(ErrorCode::Busy),
                "full" => fail(ErrorCode::NoSpace),
                "bad" => fail(ErrorCode::Corruption),
                _ => fail(ErrorCode::Error),
            },
            Request::SnapshotList { after: None, .. } => Ok(Answer::Snapshots {
                items: vec![monday()],
                next: Some(ublk_target::control::protocol::Cursor {
                    volume: "web".into(),
                    tag: 7,
                }),
            }),
            Request::SnapshotList { .. } => {
                let tuesday = SnapshotView {
                    name: "tuesday".into(),
                    tag: 8,
                    ..monday()
                };
                Ok(Answer::Snapshots {
                    items: vec![tuesday],
                    next: None,
                })
            }
            Request::SnapshotShow { .. } => Ok(Answer::Snapshot(monday())),
            Request::SnapshotTake { targets, .. } => {
                let name = |t: &ublk_target::control::protocol::TakeTarget| {
                    format!("{}@{}", t.volume, t.name.as_deref().unwrap_or("made-up"))
                };
                let snapshots = targets.iter().map(name).collect();
                Ok(Answer::Taken(TakenView {
                    tag: 9,
                    created_ms: 0,
                    snapshots,
                }))
            }
            _ => Ok(Answer::Done),
        }
    }
}

fn monday() -> SnapshotView {
    SnapshotView {
        volume: "web".into(),
        name: "monday".into(),
        tag: 7,
        created_ms: 1_795_212_903_123,
        size: 1 << 30,
        exclusive_bytes: 3 << 20,
        shared_bytes: 0,
        priority: 0,
        state: SnapshotStateName::Live,
        dropped: None,
        mapped: false,
        held: false,
        device: None,
        link: None,
        agreed: None,
        export: None,
        clients: 0,
        uses: 0,
    }
}

struct World {
    dir: tempfile::TempDir,
    mock: Arc<Mock>,
    listener: Option<Listener>,
}

impl World {
    fn new() -> Self {
        let dir = tempfile::tempdir_in(env!("CARGO_TARGET_TMPDIR")).unwrap();
        std::fs::set_permissions(dir.path(), std::fs::Permissions::from_mode(0o700)).unwrap();
        let mock = Arc::new(Mock::default());
        let socket = socket_path(dir.path());
        let listener = serve(&socket, mock.clone(), Patience::default()).unwrap();
        Self {
            dir,
            mock,
            listener: Some(listener),
        }
    }

    fn asked(&self) -> Vec<Request> {
        std::mem::take(&mut *self.mock.asked.lock().unwrap())
    }

    fn run(&self, args: &[&str]) -> Output {
        csnapctl(self.dir.path(), args)
    }
}

impl Drop for World {
    fn drop(&mut self) {
        if let Some(listener) = self.listener.take() {
            listener.stop();
        }
    }
}

fn csnapctl(run_dir: &Path, args: &[&str]) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_csnapctl"));
    command
        .env("CSNAP_RUN_DIR", run_dir)
        .args(args)
        .stdin(std::process::Stdio::null());
    command.output().unwrap()
}

fn code(output: &Output) -> i32 {
    output.status.code().unwrap()
}

fn stdout(output: &Output) -> String {
    String::from_utf8(output.stdout.clone()).unwrap()
}

fn stderr(output: &Output) -> String {
    String::from_utf8(output.stderr.clone()).unwrap()
}

#[test]
fn every_failure_has_its_exit_code_and_goes_to_stderr() {
    let world = World::new();
    for (volume, expected) in [
        ("other", 1),
        ("usage", 2),
        ("gone", 3),
        ("busy", 4),
        ("full", 5),
        ("bad", 6),
    ] {
        let output = world.run(&["snapshot", "list", volume]);
        assert_eq!(code(&output), expected, "{volume}: {}", stderr(&output));
        assert_eq!(stdout(&output), "");
        assert_eq!(
            stderr(&output),
            "csnapctl: it failed\n  next: try the next step\n"
        );
    }
    let output = csnapctl(Path::new("/nonexistent"), &["status"]);
    assert_eq!(code(&output), 7);
    assert!(
        stderr(&output).contains("start csnapd"),
        "{}",
        stderr(&output)
    );
}

#[test]
fn wrong_command_lines_exit_with_2_and_ask_the_daemon_nothing() {
    let world = World::new();
    for args in [
        &["snapshot"][..],
        &["snapshot", "take"],
        &["snapshot", "take", "we b"],
        &["snapshot", "delete", "web"],
        &["snapshot", "rename", "web@a", "b@c"],
        &["volume", "create", "-x", "/dev/null"],
        &["volume", "create", "web", "/dev/null", "-o", "nosuch"],
        &[
            "volume",
            "set",
            "web",
            "--policy",
            "origin-first",
            "-o",
            "x",
        ],
        &["volume", "resize", "web", "-o", "nosuch"],
        &["snapshot", "map", "web@monday", "-o", "nosuch"],
        &[
            "snapshot",
            "mount",
            "web@monday",
            "/new",
            "--mkdir",
            "-o",
            "x",
        ],
        &["store", "attach", "/nonexistent", "-o", "nosuch"],
        &["store", "create", "/nonexistent", "-o", "nosuch"],
        &["store", "create", "/nonexistent", "--chunk-size", "3K"],
        &["store", "create", "/nonexistent", "--chunk-size", "2M"],
        &["snapshot", "delete", "web@a", "--yes", "--dry-run"],
        &["snapshot", "set", "web@a"],
        &["snapshot", "set", "web@a", "--hold", "--no-hold"],
        &["frobnicate"],
    ] {
        let output = world.run(args);
        assert_eq!(code(&output), 2, "{args:?}: {}", stderr(&output));
        assert_eq!(stdout(&output), "", "{args:?}");
        assert_ne!(stderr(&output), "", "{args:?}");
    }
    assert_eq!(world.asked(), []);
}

#[test]
fn lists_follow_all_pages() {
    let world = World::new();
    let output = world.run(&["snapshot", "list", "--no-header", "-o", "name,tag"]);
    assert_eq!(
        (code(&output), stdout(&output).as_str()),
        (0, "monday\t7\ntuesday\t8\n")
    );
    assert_eq!(stderr(&output), "");
}

#[test]
fn a_take_prints_the_names_it_made() {
    let world = World::new();
    let output = world.run(&["snapshot", "take", "web@monday", "db"]);
    assert_eq!(stdout(&output), "web@monday\ndb@made-up\n");
    let output = world.run(&["snapshot", "take", "web", "--json"]);
    let value: serde_json::Value = serde_json::from_slice(&output.stdout).unwrap();
    assert_eq!(value["schema"], 1);
    assert_eq!(value["taken"]["snapshots"][0], "web@made-up");
}

#[test]
fn deleting_needs_consent_and_deletes_what_was_shown() {
    let world = World::new();
    let output = world.run(&["snapshot", "delete", "web@monday"]);
    assert_eq!(code(&output), 2);
    assert!(stderr(&output).contains("--yes"), "{}", stderr(&output));
    let output = world.run(&["snapshot", "delete", "web@monday", "--dry-run"]);
    assert_eq!(code(&output), 0);
    assert!(
        stderr(&output).contains("web@monday, taken 2026-11-20 22:15:03 UTC, 3.00 MiB held"),
        "{}",
        stderr(&output)
    );
    let deletes = |asked: Vec<Request>| {
        asked
            .into_iter()
            .filter(|r| matches!(r, Request::SnapshotDelete { .. }))
            .count()
    };
    assert_eq!(deletes(world.asked()), 0, "nothing may go without consent");
    assert_eq!(
        code(&world.run(&["snapshot", "delete", "web@monday", "--yes"])),
        0
    );
    let wanted = SnapshotName {
        volume: "web".into(),
        name: "monday".into(),
        tag: Some(7),
    };
    let deleting = |force| Request::SnapshotDelete {
        snapshots: vec![wanted.clone()],
        force,
    };
    assert_eq!(world.asked().pop(), Some(deleting(false)));
    world.run(&["snapshot", "delete", "web@monday", "--yes", "--force"]);
    assert_eq!(world.asked().pop(), Some(deleting(true)));
}

#[test]
fn a_change_names_what_is_changed_and_nothing_else() {
    let world = World::new();
    let snapshot = SnapshotName {
        volume: "web".into(),
        name: "monday".into(),
        tag: None,
    };
    for (options, priority, hold) in [
        (&["--priority", "-3"][..], Some(-3), None),
        (&["--hold"], None, Some(true)),
        (&["--no-hold", "--priority=1"], Some(1), Some(false)),
    ] {
        world.run(&[&["snapshot", "set", "web@monday"], options].concat());
        let expected = Request::SnapshotSet {
            snapshot: snapshot.clone(),
            priority,
            hold,
        };
        assert_eq!(world.asked(), [expected], "{options:?}");
    }
}

#[test]
fn a_name_counts_for_the_volumes_before_it() {
    let world = World::new();
    for (typed, taken) in [
        ("a b c@x", "a@x\nb@x\nc@x\n"),
        ("a b@x c d@y", "a@x\nb@x\nc@y\nd@y\n"),
        ("a@x b", "a@x\nb@made-up\n"),
    ] {
        let args: Vec<&str> = ["snapshot", "take"]
            .into_iter()
            .chain(typed.split(' '))
            .collect();
        assert_eq!(stdout(&world.run(&args)), taken, "{typed}");
    }
}

#[test]
fn a_store_is_made_only_where_nothing_is_lost() {
    let world = World::new();
    let path = world.dir.path().join("store.img");
    let path = path.to_str().unwrap();
    let output = world.run(&["store", "create", path, "--size", "16M"]);
    assert_eq!(code(&output), 0, "{}", stderr(&output));
    assert!(stdout(&output).contains("16.0 MiB"), "{}", stdout(&output));
    let mode = std::fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode, 0o600, "others could read what origins held");
    let again = world.run(&["store", "create", path]);
    assert_eq!(code(&again), 4);
    assert!(
        stderr(&again).contains("a csnap store"),
        "{}",
        stderr(&again)
    );
    assert_eq!(
        code(&world.run(&["store", "create", path, "--force"])),
        2,
        "no consent"
    );
    assert_eq!(
        code(&world.run(&["store", "create", path, "--force", "--yes"])),
        0
    );
    assert_eq!(
        code(&world.run(&["store", "create", path, "--size", "16M"])),
        1,
        "it exists"
    );

    for (options, name) in [(&[][..], "crc32c"), (&["--checksum", "xxh3"], "xxh3")] {
        let create = [&["store", "create", path, "--force", "--yes"], options].concat();
        let output = world.run(&create);
        assert!(stdout(&output).contains(name), "{}", stdout(&output));
        let dump = stdout(&world.run(&["store", "dump", path]));
        assert!(dump.contains(&format!(" checksum {name} ")), "{dump}");
        let all = "superblocks,volumes,snapshots,sharing,exceptions,journal,eras,nodes,bitmap";
        let json = stdout(&world.run(&["store", "dump", path, "--json", "--only", all]));
        let lines: Vec<serde_json::Value> = json
            .lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect();
        let kinds: Vec<&str> = lines.iter().map(|l| l["kind"].as_str().unwrap()).collect();
        assert_eq!(
            kinds[..4],
            ["dump", "superblock", "superblock", "checkpoint"]
        );
        assert_eq!(kinds[4..], ["used", "used"], "the ends of the store");
        assert_eq!(lines[1]["checksum"], name);
        assert_eq!(lines[5]["last"], (16 << 20) / 4096 - 1);
    }
    let odd = world.run(&["store", "create", path, "--checksum", "md5"]);
    assert_eq!(code(&odd), 2);
    assert!(stderr(&odd).contains("crc32c or xxh3"), "{}", stderr(&odd));

    let held = std::fs::File::open(path).unwrap();
    held.lock().unwrap();
    for verb in [
        &["store", "create", path][..],
        &["store", "check", path],
        &["store", "repair", path],
        &["store", "repair", path, "--dry-run"],
        &["store", "dump", path],
    ] {
        let output = world.run(verb);
        assert_eq!(code(&output), 4, "{verb:?}: {}", stderr(&output));
    }
    let missing = world.run(&["store", "check", "/nonexistent"]);
    assert_eq!(code(&missing), 3, "{}", stderr(&missing));
    let empty = world.dir.path().join("empty");
    let file = std::fs::File::create(&empty).unwrap();
    file.set_len(16 << 20).unwrap();
    let no_store = world.run(&["store", "check", empty.to_str().unwrap()]);
    assert_eq!(code(&no_store), 2, "{}", stderr(&no_store));
}

#[test]
fn a_damaged_store_is_repaired_with_consent() {
    let world = World::new();
    let path = world.dir.path().join("store.img");
    let file = path.clone();
    let path = path.to_str().unwrap();
    let run = |args: &[&str]| world.run(&[&["store"], args].concat());
    assert_eq!(code(&run(&["create", path, "--size", "16M"])), 0);
    let sound = run(&["repair", path]);
    assert_eq!(code(&sound), 0, "{}", stderr(&sound));
    assert!(stdout(&sound).contains("nothing to repair"));

    let mut bytes = std::fs::read(&file).unwrap();
    bytes[300] ^= 1;
    std::fs::write(&file, &bytes).unwrap();
    let check = run(&["check", path]);
    assert_eq!(code(&check), 6);
    assert!(
        stderr(&check).contains("store repair"),
        "{}",
        stderr(&check)
    );
    assert_eq!(code(&run(&["repair", path])), 2, "nobody was asked");
    let dry = run(&["repair", path, "--dry-run"]);
    assert_eq!(code(&dry), 6);
    let said = stdout(&dry);
    assert!(said.contains("would be rebuilt: superblocks"), "{said}");
    assert!(said.contains("nothing would be lost"), "{said}");
    assert!(std::fs::read(&file).unwrap() == bytes, "it was changed");

    let done = run(&["repair", path, "--yes", "--json"]);
    assert_eq!(code(&done), 0, "{}", stderr(&done));
    let json: serde_json::Value = serde_json::from_str(&stdout(&done)).unwrap();
    assert_eq!((&json["sound"], &json["schema"]), (&true.into(), &1.into()));
    assert_eq!(json["lost"], serde_json::json!([]));
    assert_eq!(json["problems"].as_array().unwrap().len(), 1);
    assert_eq!(code(&run(&["check", path, "--data"])), 0);

    let mut bytes = std::fs::read(&file).unwrap();
    for at in [300, bytes.len() - 4096 + 300] {
        bytes[at] ^= 1;
    }
    std::fs::write(&file, &bytes).unwrap();
    let refused = run(&["repair", path, "--yes"]);
    assert_eq!(code(&refused), 6, "{}", stderr(&refused));
    assert!(
        stderr(&refused).contains("both superblocks"),
        "{}",
        stderr(&refused)
    );
}

/// The words that lead to every verb a person may type.
fn verbs(command: &clap::Command) -> Vec<Vec<String>> {
    let shown = |sub: &&clap::Command| !sub.is_hide_set() && sub.get_name() != "help";
    let name = || vec![command.get_name().to_owned()];
    let below = command.get_subcommands().filter(shown).flat_map(verbs);
    let below: Vec<_> = below.map(|words| [name(), words].concat()).collect();
    if command.has_subcommands() {
        below
    } else {
        vec![name()]
    }
}

#[test]
fn help_shows_an_example_for_every_verb() {
    let help = |args: &[&str]| {
        let output = csnapctl(Path::new("/nonexistent"), args);
        assert_eq!(code(&output), 0, "{args:?}");
        stdout(&output)
    };
    assert!(help(&["--help"]).contains("Exit codes:"));
    let verbs = verbs(&Cli::command());
    for must in ["store scrub", "snapshot umount", "volume resize", "events"] {
        let known = |words: &Vec<String>| words.join(" ") == format!("csnapctl {must}");
        assert!(verbs.iter().any(known), "{must}: {verbs:?}");
    }
    let lacks = |words: &Vec<String>| {
        let args = words.iter().skip(1).map(String::as_str);
        let text = help(&args.chain(["--help"]).collect::<Vec<_>>());
        let examples = text.split_once("Example").map_or("", |(_, after)| after);
        !examples.contains(&words.join(" "))
    };
    let without: Vec<String> = verbs
        .iter()
        .filter(|w| lacks(w))
        .map(|w| w.join(" "))
        .collect();
    assert_eq!(without, Vec::<String>::new(), "they show no example");
    assert!(help(&["completion", "bash"]).contains("_csnapctl"));
}
