//! `volume restore`: what was exported comes back, by one image or a chain of them.

use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use csnap_tests::e2e::bed::VOLUME;
use csnap_tests::e2e::client::Client;
use csnap_tests::e2e::fault::Trying;
use csnap_tests::e2e::files::MIB;
use csnap_tests::e2e::{Bed, Outcome, Setup, ctl, tools};
use csnap_tests::{ensure, need_tools};

pub(crate) const SIZE: u64 = 24 * MIB;

pub(crate) fn bed(name: &str) -> Outcome<Bed> {
    let setup = Setup {
        origin_bytes: SIZE,
        noise: Some(51),
        ..Setup::default()
    };
    Bed::new(name, &setup)
}

pub(crate) fn contents(bed: &Bed, export: &str) -> Outcome<Vec<u8>> {
    Client::connect(&bed.nbd_socket(), export)?.read_all()
}

/// Snapshot and image `name`, over `below` if there is one; what it holds.
pub(crate) fn backup(bed: &Bed, name: &str, below: Option<&str>) -> Outcome<Vec<u8>> {
    bed.ctl.ok(&format!("snapshot take vol@{name}"))?;
    let image = bed.path(&format!("{name}.qcow2"));
    let over = below.map(|below| format!("--from vol@{below} -b {below}.qcow2"));
    bed.ctl.ok(&format!(
        "snapshot export vol@{name} -o {} {}",
        image.display(),
        over.unwrap_or_default()
    ))?;
    contents(bed, &format!("vol@{name}"))
}

#[test]
fn a_chain_of_images_comes_back() -> Outcome {
    let bed = bed("restore")?;
    let mut truth = Vec::new();
    for (round, name) in ["a", "b", "c"].into_iter().enumerate() {
        let mut client = Client::connect(&bed.nbd_socket(), VOLUME)?;
        client.write(
            round as u64 * 7 * MIB + 1024,
            vec![round as u8 + 1; 90 << 10],
        )?;
        drop(client);
        let below = truth.last().map(|(name, _): &(&str, _)| *name);
        truth.push((name, backup(&bed, name, below)?));
    }
    Client::connect(&bed.nbd_socket(), VOLUME)?.write(0, vec![0xdd; 3 << 20])?;
    let last = contents(&bed, VOLUME)?;
    let path = |name: &str| bed.path(&format!("{name}.qcow2")).display().to_string();
    let [a, b, c] = ["a", "b", "c"].map(path);
    let dir = bed.path("moved");
    std::fs::create_dir(&dir).trying(|| "make a directory".into())?;
    let moved = dir.join("b.qcow2").display().to_string();
    std::fs::copy(&b, &moved).trying(|| "copy an image".into())?;
    let restores = [
        (format!("--from {c} --keep before"), 2),
        (format!("--from {a} {moved}"), 1),
        (format!("--from {a} --threads 1"), 0),
        (format!("--from {a} {moved} {c}"), 2),
    ];
    for (options, version) in restores {
        let line = format!("volume restore vol --yes {options}");
        let told = settled(&bed, &line)?;
        let expected = &truth[version].1;
        ensure!(contents(&bed, VOLUME)? == *expected, "{line} went wrong");
        // What was the same was not written.
        let written = told["written"].as_u64().unwrap_or(u64::MAX);
        ensure!(written > 0 && written < 4 * MIB, "{told}");
    }
    ensure!(contents(&bed, "vol@before")? == last, "nothing was kept");
    for (name, expected) in &truth {
        let found = contents(&bed, &format!("vol@{name}"))?;
        ensure!(found == *expected, "vol@{name} changed");
    }
    let told = settled(&bed, &format!("volume restore vol --yes --from {c}"))?;
    ensure!(told["written"] == 0, "written once more: {told}");
    bed.finish()
}

/// The row of a restore; csnapd may still think of whoever read last.
pub(crate) fn settled(bed: &Bed, line: &str) -> Outcome<serde_json::Value> {
    let until = Instant::now() + Duration::from_secs(20);
    loop {
        let busy = bed.ctl.json("volume show vol")?.to_string();
        if busy.contains("\"clients\":0") || Instant::now() > until {
            return Ok(bed.ctl.json(line)?["restores"][0].clone());
        }
        std::thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn images_of_others_come_back() -> Outcome {
    need_tools!("images_of_others_come_back", "qemu-img");
    let bed = bed("restore-others")?;
    let (raw, image) = (bed.path("small.raw"), bed.path("small.qcow2"));
    let small = vec![0x3c; 5 << 20];
    std::fs::write(&raw, &small).trying(|| "make an image".into())?;
    let mut convert = tools::program("qemu-img");
    convert.args(["convert", "-c", "-f", "raw", "-O", "qcow2"]);
    tools::run(convert.args([&raw, &image]))?;
    let before = contents(&bed, VOLUME)?;
    for options in [
        format!("--from {}", image.display()),
        format!("--from {} -f raw", raw.display()),
    ] {
        settled(&bed, &format!("volume restore vol --yes {options}"))?;
        let after = contents(&bed, VOLUME)?;
        ensure!(after[..small.len()] == small, "the image is not there");
        ensure!(
            after[small.len()..] == before[small.len()..],
            "what lies beyond the image changed"
        );
    }
    bed.finish()
}

#[test]
fn a_restore_that_must_not_be_is_refused() -> Outcome {
    let bed = bed("restore-refused")?;
    backup(&bed, "a", None)?;
    Client::connect(&bed.nbd_socket(), VOLUME)?.write(0, vec![1; 4096])?;
    backup(&bed, "b", Some("a"))?;
    Client::connect(&bed.nbd_socket(), VOLUME)?.write(0, vec![2; 4096])?;
    backup(&bed, "c", Some("b"))?;
    let before = contents(&bed, VOLUME)?;
    let path = |name: &str| bed.path(name).display().to_string();
    let [a, b, c] = ["a.qcow2", "b.qcow2", "c.qcow2"].map(path);
    let large = path("large.raw");
    let file = std::fs::File::create(&large).and_then(|file| file.set_len(SIZE + 512));
    file.trying(|| "make an image".into())?;
    let (empty, odd, corrupt) = (path("empty.raw"), path("odd.raw"), path("corrupt.qcow2"));
    let mut damaged = std::fs::read(&a).trying(|| "read an image".into())?;
    damaged[79] |= 2;
    for (name, bytes) in [(&empty, &[][..]), (&odd, &[7; 1000]), (&corrupt, &damaged)] {
        std::fs::write(name, bytes).trying(|| "make an image".into())?;
    }
    use ctl::exit::{BUSY, CORRUPTION, NO_SPACE, NOT_FOUND, USAGE};
    let refused = [
        (format!("vol --from {a}"), USAGE, "--yes"),
        (format!("none --yes --from {a}"), NOT_FOUND, "none"),
        (format!("vol --yes --from {a} {c}"), USAGE, "laid over"),
        (format!("vol --yes --from {b} {c}"), USAGE, "no full image"),
        (format!("vol --yes --from {b} {a}"), USAGE, "no full image"),
        (format!("vol --yes --from {a} {a}"), USAGE, "full image"),
        (
            format!("vol --yes --from {a}.none"),
            NOT_FOUND,
            "a.qcow2.none",
        ),
        (format!("vol --yes --from {large}"), USAGE, "large.raw"),
        (
            format!("vol --yes --from {empty} -f raw"),
            USAGE,
            "without bytes",
        ),
        (
            format!("vol --yes --from {odd} -f raw"),
            USAGE,
            "whole blocks",
        ),
        (format!("vol --yes --from {corrupt}"), CORRUPTION, "corrupt"),
        (
            format!("vol --yes --from {large} -f raw"),
            NO_SPACE,
            "bytes",
        ),
    ];
    for (arguments, code, about) in refused {
        let line = format!("volume restore {arguments}");
        bed.ctl.refuses(&line, code, about)?;
    }
    bed.ctl
        .ok(&format!("volume restore vol --dry-run --from {a}"))?;
    let client = Client::connect(&bed.nbd_socket(), VOLUME)?;
    let line = format!("volume restore vol --yes --from {a}");
    bed.ctl.refuses(&line, BUSY, "in use")?;
    drop(client);
    ensure!(contents(&bed, VOLUME)? == before, "the volume changed");
    bed.finish()
}

#[test]
fn what_is_kept_stays_or_the_restore_fails() -> Outcome {
    let setup = Setup {
        origin_bytes: 32 * MIB,
        store_bytes: 8 * MIB,
        noise: Some(61),
        ..Setup::default()
    };
    let bed = Bed::new("restore-full", &setup)?;
    let before = contents(&bed, VOLUME)?;
    let image = bed.path("other.raw");
    csnap_tests::e2e::files::make_noise(&image, 32 * MIB, 62)?;
    let line = format!(
        "volume restore vol --yes --from {} -f raw --keep before",
        image.display()
    );
    let until = Instant::now() + Duration::from_secs(20);
    let mut ended = bed.ctl.any(&line)?;
    while ended.code == ctl::exit::BUSY && Instant::now() < until {
        std::thread::sleep(Duration::from_millis(50));
        ended = bed.ctl.any(&line)?;
    }
    ensure!(ended.code == ctl::exit::NO_SPACE, "{ended:?}");
    ensure!(ended.stderr.contains("vol@before"), "{}", ended.stderr);
    ensure!(contents(&bed, "vol@before")? == before, "nothing was kept");
    bed.finish()
}

#[test]
fn images_tell_of_what_they_were_made() -> Outcome {
    need_tools!("images_tell_of_what_they_were_made", "qemu-img");
    let bed = bed("restore-made")?;
    let mut truth = Vec::new();
    for (round, (name, below)) in [("a", None), ("b", Some("a")), ("c", Some("b"))]
        .into_iter()
        .enumerate()
    {
        let place = round as u64 * MIB;
        Client::connect(&bed.nbd_socket(), VOLUME)?.write(place, vec![0x5a; 8192])?;
        truth = backup(&bed, name, below)?;
    }
    let dir = bed.path("others");
    std::fs::create_dir(&dir).trying(|| "make a directory".into())?;
    let other = |name: &str| dir.join(name).display().to_string();
    let path = |name: &str| bed.path(name).display().to_string();
    // The full image of a later snapshot, called as the one that is needed.
    let (later, committed) = (other("a.qcow2"), other("b.qcow2"));
    bed.ctl.ok(&format!("snapshot export vol@c -o {later}"))?;
    let [a, b, c] = ["a.qcow2", "b.qcow2", "c.qcow2"].map(path);
    use ctl::exit::USAGE;
    let restore = format!("volume restore vol --yes --from {later} {b}");
    bed.ctl.refuses(&restore, USAGE, "later version")?;
    let increment = other("increment.qcow2");
    let export = format!("snapshot export vol@b --from vol@a -b a.qcow2 -o {increment}");
    bed.ctl.refuses(&export, USAGE, "later version")?;
    // All that lies below stays.
    let over = "snapshot export vol@c --from vol@b -b b.qcow2 --force -o";
    bed.ctl.refuses(&format!("{over} {a}"), USAGE, "a.qcow2")?;
    let itself = bed.path("others/../b.qcow2").display().to_string();
    bed.ctl
        .refuses(&format!("{over} {itself}"), USAGE, "itself")?;
    let file = format!("snapshot export vol@c --from vol@b -b file:{b} --force -o {b}");
    bed.ctl.refuses(&file, USAGE, "itself")?;
    let new = "snapshot export vol@c --from vol@b -b ../others/new.qcow2 -o";
    let new = format!("{new} {}", other("new.qcow2"));
    bed.ctl.refuses(&new, USAGE, "itself")?;
    // What was committed into an image, it does not tell.
    let qemu = |words: &[&str]| tools::run(tools::program("qemu-img").args(words));
    qemu(&["commit", "-q", "-f", "qcow2", &b])?;
    std::fs::rename(&a, &committed).trying(|| "move an image".into())?;
    let export = format!("snapshot export vol@c --from vol@b -b b.qcow2 -o {increment}");
    bed.ctl.refuses(&export, USAGE, "earlier version")?;
    bed.ctl.ok(&format!("{export} --trust"))?;
    Client::connect(&bed.nbd_socket(), VOLUME)?.write(0, vec![0xdd; 3 << 20])?;
    let restore = format!("volume restore vol --yes --from {committed} {c}");
    bed.ctl.refuses(&restore, USAGE, "earlier version")?;
    settled(&bed, &format!("{restore} --trust"))?;
    ensure!(contents(&bed, VOLUME)? == truth, "not what vol@c holds");
    // Nor does an increment that was cut off hold everything.
    qemu(&["rebase", "-u", "-f", "qcow2", "-b", "", &increment])?;
    let restore = format!("volume restore vol --yes --from {increment}");
    bed.ctl.refuses(&restore, USAGE, "nothing lies below")?;
    let origin = bed.origin.display();
    let restore = format!("volume restore vol --yes -f raw --from {origin}");
    bed.ctl.refuses(&restore, USAGE, "itself")?;
    let info =
        tools::run(tools::program(tools::csnap_program("imagegen")?).args(["qcow2", "info", &c]))?;
    ensure!(info.contains("made of"), "{info}");
    bed.finish()
}

#[test]
fn what_a_restore_costs_is_said() -> Outcome {
    let setup = Setup {
        origin_bytes: 32 * MIB,
        store_bytes: 8 * MIB,
        noise: Some(71),
        ..Setup::default()
    };
    let bed = Bed::new("restore-cost", &setup)?;
    bed.ctl.ok("snapshot take vol@old")?;
    let image = bed.path("other.raw");
    csnap_tests::e2e::files::make_noise(&image, 32 * MIB, 72)?;
    let line = format!("volume restore vol -f raw --from {}", image.display());
    let told = bed.ctl.any(&format!("{line} --dry-run"))?.stderr;
    for words in ["is lost", "free", "also of other volumes"] {
        ensure!(told.contains(words), "{words:?} is not in {told}");
    }
    let done = bed.ctl.any(&format!("{line} --yes --json"))?;
    ensure!(done.code == 0, "{done:?}");
    ensure!(done.stderr.contains("vol@old was dropped"), "{done:?}");
    let row: serde_json::Value = serde_json::from_str(&done.stdout)?;
    ensure!(
        row["restores"][0]["dropped"] == serde_json::json!(["vol@old"]),
        "{row}"
    );
    // What was dropped before is not told again.
    ensure!(
        settled(&bed, &format!("{line} --yes"))?["dropped"] == serde_json::json!([]),
        "told"
    );
    bed.finish()
}

#[test]
fn a_restore_that_is_interrupted_says_how_the_volume_is() -> Outcome {
    let bed = large("restore-interrupted")?;
    let restore = begun(&bed)?;
    let pid = nix::unistd::Pid::from_raw(restore.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGTERM)
        .map_err(std::io::Error::from)
        .trying(|| "interrupt csnapctl".into())?;
    let (code, told) = ended(restore)?;
    ensure!(code == Some(ctl::exit::ERROR), "{told}");
    for words in ["interrupted", "parts of both", "vol@before is held"] {
        ensure!(told.contains(words), "{words:?} is not in {told}");
    }
    bed.finish()
}

#[test]
fn a_restore_that_cannot_let_go_is_one() -> Outcome {
    let bed = large("restore-let-go")?;
    let restore = begun(&bed)?;
    bed.ctl.ok("snapshot delete vol@before --force --yes")?;
    let (code, told) = ended(restore)?;
    ensure!(code == Some(ctl::exit::NOT_FOUND), "{told}");
    ensure!(told.contains("vol is restored, but vol@before"), "{told}");
    bed.finish()
}

/// Large enough for something else to happen while it is restored.
fn large(name: &str) -> Outcome<Bed> {
    let setup = Setup {
        origin_bytes: 384 * MIB,
        noise: Some(81),
        ..Setup::default()
    };
    Bed::new(name, &setup)
}

/// A restore that has taken the snapshot to keep, and holds it.
fn begun(bed: &Bed) -> Outcome<Child> {
    let mut command = Command::new(tools::csnap_program("csnapctl")?);
    let image = bed.path("same.raw");
    std::fs::copy(&bed.origin, &image).trying(|| "copy the origin".into())?;
    command
        .arg("--run-dir")
        .arg(&bed.places.run_dir)
        .args(["volume", "restore", "vol", "--yes", "--threads", "1"])
        .args(["--keep", "before", "-f", "raw", "--from"])
        .arg(&image)
        .stdout(Stdio::null())
        .stderr(Stdio::piped());
    let restore = command.spawn().trying(|| "start csnapctl".into())?;
    let until = Instant::now() + Duration::from_secs(20);
    let is_held = || -> Outcome<bool> {
        let list = bed.ctl.json("snapshot list vol")?.to_string();
        Ok(list.contains("\"held\":true"))
    };
    while !is_held()? {
        ensure!(Instant::now() < until, "no snapshot is held");
    }
    Ok(restore)
}

/// The exit code, and what was told.
fn ended(child: Child) -> Outcome<(Option<i32>, String)> {
    let ended = child.wait_with_output();
    let ended = ended.trying(|| "wait for csnapctl".into())?;
    let told = String::from_utf8_lossy(&ended.stderr).into_owned();
    Ok((ended.status.code(), told))
}
