//! Wrong devices, damaged stores, two daemons: a clear error, nothing lost.

use csnap_tests::e2e::bed::VOLUME;
use csnap_tests::e2e::client::Client;
use csnap_tests::e2e::daemon::{Daemon, Places};
use csnap_tests::e2e::fault::Trying;
use csnap_tests::e2e::files::{self, MIB};
use csnap_tests::e2e::{Bed, Outcome, Setup, ctl::exit, tools};
use csnap_tests::{ensure, need_tools};

fn small() -> Setup {
    Setup {
        origin_bytes: 8 * MIB,
        store_bytes: 64 * MIB,
        noise: Some(1),
        ..Setup::default()
    }
}

#[test]
fn without_a_daemon_it_says_so() -> Outcome {
    let bed = Bed::bare("no-daemon", &small())?;
    bed.ctl.refuses("status", exit::UNREACHABLE, "csnapd")?;
    bed.ctl
        .refuses("snapshot take vol@x", exit::UNREACHABLE, "csnapd")?;
    bed.finish_unchecked()
}

#[test]
fn a_file_system_is_not_made_a_store() -> Outcome {
    need_tools!("a_file_system_is_not_made_a_store", "mkfs.xfs");
    let bed = Bed::bare(
        "signature",
        &Setup {
            store_bytes: 320 * MIB,
            ..small()
        },
    )?;
    tools::run(tools::program("mkfs.xfs").arg("-q").arg(&bed.store))?;
    let before = files::digest(&bed.store)?;
    let store = bed.store.display();
    let answer = bed.ctl.any(&format!("store create {store} --yes"))?;
    ensure!(answer.code != 0, "an XFS file system was written over");
    ensure!(
        answer.stderr.to_lowercase().contains("xfs"),
        "not named: {}",
        answer.stderr
    );
    ensure!(
        files::digest(&bed.store)? == before,
        "refused, and written all the same"
    );
    bed.ctl.ok(&format!("store create {store} --force --yes"))?;
    bed.finish()
}

#[test]
fn things_that_are_no_stores() -> Outcome {
    let mut bed = Bed::bare("no-store", &small())?;
    bed.start()?;
    let dir = bed.dir.display().to_string();
    for (path, code) in [
        ("nowhere.img", exit::NOT_FOUND), // absent
        ("origin.img", exit::USAGE),      // noise
        ("store.img", exit::USAGE),       // zeroes
        ("run", exit::USAGE),             // a directory
    ] {
        for verb in ["attach", "check"] {
            let answer = bed.ctl.any(&format!("store {verb} {dir}/{path}"))?;
            ensure!(answer.code != 0, "`store {verb} {path}` was accepted");
            ensure!(
                answer.stderr.contains(path),
                "{path} is not named: {}",
                answer.stderr
            );
            ensure!(
                answer.code == code,
                "`store {verb} {path}`: exit {}, {}",
                answer.code,
                answer.stderr
            );
        }
    }
    for (device, options) in [
        ("store.img", "--chunk-size 3K"),
        ("store.img", "--chunk-size 2M"),
        ("nowhere.img", ""),
    ] {
        let answer = bed
            .ctl
            .any(&format!("store create {dir}/{device} --yes {options}"))?;
        ensure!(
            answer.code != 0,
            "`store create {device} {options}` was accepted"
        );
    }
    files::make_sparse(&bed.path("tiny.img"), 64 << 10)?;
    let answer = bed.ctl.any(&format!("store create {dir}/tiny.img --yes"))?;
    ensure!(answer.code != 0, "a store of 64 KiB was accepted");
    ensure!(
        bed.ctl.any("status")?.code != exit::UNREACHABLE,
        "the daemon is gone"
    );
    bed.finish_unchecked()
}

#[test]
fn origins_that_cannot_be() -> Outcome {
    let bed = Bed::new("no-origin", &small())?;
    let (dir, store) = (
        bed.dir.display().to_string(),
        bed.store.display().to_string(),
    );
    let create =
        |name: &str, origin: &str| format!("volume create {name} {origin} --store {store}");
    bed.ctl.refuses(
        &create("v2", &format!("{dir}/nowhere.img")),
        exit::NOT_FOUND,
        "nowhere.img",
    )?;
    for (name, origin) in [
        ("v2", store.clone()),                    // the store itself
        ("v2", bed.origin.display().to_string()), // an origin already served
        ("v2", dir.clone()),                      // a directory
        (VOLUME, format!("{dir}/other.img")),     // the name is taken
        ("bad/name", format!("{dir}/other.img")), // the name is illegal
        ("vol@x", format!("{dir}/other.img")),    // so is this
    ] {
        files::make_sparse(&bed.path("other.img"), 4 * MIB)?;
        let answer = bed.ctl.any(&create(name, &origin))?;
        ensure!(
            answer.code != 0,
            "`volume create {name} {origin}` was accepted"
        );
        ensure!(
            !answer.stderr.trim().is_empty(),
            "`volume create {name} {origin}`: no reason"
        );
    }
    let taken = create(VOLUME, &format!("{dir}/other.img"));
    bed.ctl.refuses(&taken, exit::BUSY, VOLUME)?;
    for line in ["snapshot take vol@a", "snapshot take vol@b"] {
        bed.ctl.ok(line)?;
    }
    for line in ["snapshot take vol@a", "snapshot rename vol@b a"] {
        bed.ctl.refuses(line, exit::BUSY, "taken")?;
    }
    Client::connect(&bed.nbd_socket(), VOLUME)?.read(0, 4096)?;
    bed.finish()
}

#[test]
fn two_daemons_do_not_share() -> Outcome {
    let bed = Bed::new("two", &small())?;
    let refused = Daemon::start_refused(&bed.places, &[])?;
    ensure!(
        !refused.success(),
        "a second daemon ended well in the same directories"
    );
    // Another daemon with its own directories must not get the store either.
    let places = Places::below(&bed.path("other"));
    std::fs::create_dir_all(bed.path("other")).trying(|| "make a directory".into())?;
    let other = Daemon::start(&places, &[])?;
    let ctl = csnap_tests::e2e::Ctl::new(&places.run_dir)?;
    ctl.refuses(
        &format!("store attach {}", bed.store.display()),
        exit::BUSY,
        "in use",
    )?;
    other.stop()?;
    bed.ctl.refuses(
        &format!("store check {}", bed.store.display()),
        exit::BUSY,
        "in use",
    )?;
    Client::connect(&bed.nbd_socket(), VOLUME)?.read(0, 4096)?;
    bed.finish()
}

#[test]
fn a_truncated_store_is_refused() -> Outcome {
    let mut bed = Bed::new("truncated", &small())?;
    let before = files::digest(&bed.origin)?;
    bed.take_mapped("s")?;
    bed.stop()?;
    let file = std::fs::File::options().write(true).open(&bed.store);
    file.and_then(|file| file.set_len(24 * MIB))
        .trying(|| "truncate the store".into())?;
    let check = bed
        .ctl
        .any(&format!("store check {}", bed.store.display()))?;
    ensure!(
        check.code != 0,
        "`store check` likes half a store: {}",
        check.stdout
    );
    bed.start()?; // comes up and says what is missing
    let status = bed.ctl.any("status")?;
    let told = format!("{}{}", status.stdout, status.stderr);
    ensure!(
        status.code == 1 && told.contains("store.img"),
        "status hides it:\n{told}"
    );
    ensure!(
        Client::connect(&bed.nbd_socket(), VOLUME).is_err(),
        "served without its store"
    );
    bed.stop()?;
    ensure!(files::digest(&bed.origin)? == before, "the origin changed");
    bed.finish_unchecked()
}

#[test]
fn damage_anywhere_is_found_and_never_served() -> Outcome {
    need_tools!("damage_anywhere_is_found_and_never_served", "nbdcopy", "cp");
    let mut bed = Bed::new("damage", &small())?;
    let truth = files::digest(&bed.origin)?;
    let snapshot = bed.take_mapped("s")?;
    let mut client = Client::connect(&bed.nbd_socket(), VOLUME)?;
    for piece in 0..64 {
        client.write(piece * 128 * 1024, vec![piece as u8; 16 << 10])?;
    }
    drop(client);
    bed.stop()?;
    let (sound, store) = (bed.path("sound.img"), bed.store.clone());
    tools::run(
        tools::program("cp")
            .args(["--sparse=always"])
            .arg(&store)
            .arg(&sound),
    )?;
    let used = used_blocks(&sound)?;
    ensure!(
        used.len() > 64,
        "only {} blocks of the store are in use",
        used.len()
    );
    let every = (used.len() / 24).max(1);
    let mut found = 0;
    for &block in used.iter().step_by(every) {
        tools::run(
            tools::program("cp")
                .args(["--sparse=always"])
                .arg(&sound)
                .arg(&store),
        )?;
        files::flip_byte(&store, block * 4096 + 100 + block % 3000)?;
        let check = bed
            .ctl
            .any(&format!("store check {} --data", store.display()))?;
        found += u32::from(check.code == exit::CORRUPTION);
        ensure!(
            !check.stderr.contains("panicked"),
            "block {block}: {}",
            check.stderr
        );
        // Served or refused, but never wrong.
        if bed.start().is_ok() {
            if let Ok(seen) = bed.digest(&snapshot) {
                ensure!(seen == truth, "a flip in block {block} was served as data");
            }
            bed.stop()?;
        }
    }
    // A flip may hit a block that only an older generation needs; most do not.
    ensure!(
        found >= 8,
        "`store check` found only {found} of {} flips",
        used.len().div_ceil(every)
    );
    bed.finish_unchecked()
}

/// Numbers of the 4 KiB blocks that are not all zero.
fn used_blocks(path: &std::path::Path) -> Outcome<Vec<u64>> {
    let bytes = std::fs::read(path).trying(|| format!("read {}", path.display()))?;
    let used = |(_, block): &(usize, &[u8])| block.iter().any(|&byte| byte != 0);
    Ok(bytes
        .chunks(4096)
        .enumerate()
        .filter(used)
        .map(|(number, _)| number as u64)
        .collect())
}

#[test]
fn a_missing_origin_is_reported_and_comes_back() -> Outcome {
    let mut bed = Bed::new("missing", &small())?;
    let snapshot = bed.take_mapped("s")?;
    let truth = files::digest(&bed.origin)?;
    Client::connect(&bed.nbd_socket(), VOLUME)?.write(0, vec![9; 4096])?;
    bed.stop()?;
    let away = bed.path("away.img");
    std::fs::rename(&bed.origin, &away).trying(|| "move the origin".into())?;
    bed.start()?;
    let status = bed.ctl.any("status")?;
    ensure!(
        status.code == 1,
        "status is content although an origin is missing"
    );
    let list = bed.ctl.ok("volume list --json")?;
    ensure!(list.contains("missing"), "`volume list` hides it:\n{list}");
    std::fs::rename(&away, &bed.origin).trying(|| "move the origin back".into())?;
    bed.ctl
        .ok(&format!("store attach {}", bed.store.display()))?;
    ensure!(bed.digest(&snapshot)? == truth, "{snapshot} changed");
    bed.finish()
}

#[test]
fn an_origin_changed_behind_our_back_is_refused() -> Outcome {
    let mut bed = Bed::new("changed", &small())?;
    bed.take_mapped("s")?;
    bed.stop()?;
    files::flip_byte(&bed.origin, 4096)?;
    bed.start()?;
    ensure!(
        Client::connect(&bed.nbd_socket(), VOLUME).is_err(),
        "served although it was changed"
    );
    let store = bed.store.display().to_string();
    let told = bed.ctl.ok("volume show vol --json")?;
    ensure!(
        told.contains("accept-changed-origin"),
        "no next step:\n{told}"
    );
    bed.ctl.ok(&format!(
        "store attach {store} --accept-changed-origin {VOLUME} --yes"
    ))?;
    let rows = bed.ctl.snapshots(VOLUME)?;
    ensure!(
        rows.iter().all(|row| !row.live),
        "snapshots live on: {rows:?}"
    );
    Client::connect(&bed.nbd_socket(), VOLUME)?.read(0, 4096)?;
    bed.finish()
}

#[test]
fn an_origin_of_another_size_is_refused() -> Outcome {
    let mut bed = Bed::new("resized", &small())?;
    bed.take_mapped("s")?;
    bed.stop()?;
    let file = std::fs::File::options().write(true).open(&bed.origin);
    file.and_then(|file| file.set_len(4 * MIB))
        .trying(|| "truncate the origin".into())?;
    bed.start()?;
    ensure!(
        Client::connect(&bed.nbd_socket(), VOLUME).is_err(),
        "served although it shrank"
    );
    ensure!(bed.ctl.any("status")?.code == 1, "status is content");
    bed.finish()
}
