//! Outside judges of the NBD exports: libnbd's and qemu's tools.

use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::{Duration, Instant};

use csnap_tests::e2e::bed::VOLUME;
use csnap_tests::e2e::client::Client;
use csnap_tests::e2e::fault::Trying;
use csnap_tests::e2e::files::{self, MIB};
use csnap_tests::e2e::{Bed, Outcome, Setup, tools};
use csnap_tests::{ensure, need_tools};

fn bed(name: &str) -> Outcome<(Bed, String)> {
    let setup = Setup {
        origin_bytes: 24 * MIB,
        noise: Some(21),
        ..Setup::default()
    };
    let bed = Bed::new(name, &setup)?;
    let snapshot = bed.take_mapped("judged")?;
    Ok((bed, snapshot))
}

#[test]
fn nbdinfo_sees_what_is_served() -> Outcome {
    need_tools!("nbdinfo_sees_what_is_served", "nbdinfo");
    let (bed, snapshot) = bed("nbdinfo")?;
    let listed = bed.uri("");
    let list = tools::run(tools::program("nbdinfo").args(["--list", "--json", &listed]))?;
    for name in [VOLUME, &snapshot] {
        ensure!(
            list.contains(&format!("\"{name}\"")),
            "nbdinfo --list lacks {name}: {list}"
        );
    }
    let facts = |export: &str| -> Outcome<serde_json::Value> {
        let text = tools::run(tools::program("nbdinfo").args(["--json", &bed.uri(export)]))?;
        let info: serde_json::Value = serde_json::from_str(&text)?;
        Ok(info["exports"][0].clone())
    };
    let (origin, frozen) = (facts(VOLUME)?, facts(&snapshot)?);
    ensure!(
        origin["export-size"] == 24 * MIB,
        "size of the origin: {origin}"
    );
    ensure!(
        frozen["export-size"] == 24 * MIB,
        "size of the snapshot: {frozen}"
    );
    ensure!(
        origin["is_read_only"] == false,
        "the origin is read-only: {origin}"
    );
    ensure!(
        frozen["is_read_only"] == true,
        "the snapshot is writable: {frozen}"
    );
    for flag in [
        "can_flush",
        "can_fua",
        "can_trim",
        "can_zero",
        "can_multi_conn",
    ] {
        ensure!(origin[flag] == true, "the origin lacks {flag}: {origin}");
    }
    let map = tools::run(tools::program("nbdinfo").args(["--map", &bed.uri(&snapshot)]))?;
    ensure!(map.contains("data"), "no map of the snapshot: {map}");
    bed.finish()
}

#[test]
fn qemu_img_compares_and_converts() -> Outcome {
    need_tools!("qemu_img_compares_and_converts", "qemu-img");
    let (bed, snapshot) = bed("qemu-img")?;
    let (origin, frozen) = (bed.uri(VOLUME), bed.uri(&snapshot));
    let raw = ["-f", "raw", "-F", "raw"];
    tools::run(
        tools::program("qemu-img")
            .arg("compare")
            .args(raw)
            .args([&origin, &frozen]),
    )?;
    Client::connect(&bed.nbd_socket(), VOLUME)?.write(4 * MIB + 512, vec![0xee; 512])?;
    let differ = tools::run_any(
        tools::program("qemu-img")
            .arg("compare")
            .args(raw)
            .args([&origin, &frozen]),
    )?;
    ensure!(
        differ.status.code() == Some(1),
        "qemu-img saw no difference: {differ:?}"
    );
    let copy = bed.path("copy.qcow2");
    tools::run(
        tools::program("qemu-img")
            .args([
                "convert", "-f", "raw", "-O", "qcow2", "-m", "16", "-W", &frozen,
            ])
            .arg(&copy),
    )?;
    tools::run(tools::program("qemu-img").arg("check").arg(&copy))?;
    tools::run(
        tools::program("qemu-img")
            .args(["compare", "-f", "raw", "-F", "qcow2", &frozen])
            .arg(&copy),
    )?;
    bed.finish()
}

#[test]
fn qemu_io_writes_at_odd_places() -> Outcome {
    need_tools!("qemu_io_writes_at_odd_places", "qemu-io", "nbdcopy");
    let (bed, snapshot) = bed("qemu-io")?;
    let before = bed.digest(&snapshot)?;
    let mut io = tools::program("qemu-io");
    io.args(["-f", "raw", &bed.uri(VOLUME)]);
    for step in [
        "write -P 0x11 0 3k",
        "write -P 0x22 1M 1M",
        "write -f -P 0x33 65024 1k",
        "write -z 3M 300k",
        "discard 5M 2M",
        "flush",
        "read -P 0x11 0 3k",
        "read -P 0x22 1M 1M",
        "read -P 0x33 65024 1k",
        "read -P 0 3M 300k",
    ] {
        io.args(["-c", step]);
    }
    let said = tools::run(&mut io)?;
    ensure!(!said.contains("erification failed"), "qemu-io: {said}");
    ensure!(bed.digest(&snapshot)? == before, "{snapshot} changed");
    tools::run_failing(tools::program("qemu-io").args([
        "-f",
        "raw",
        "-c",
        "write 0 4k",
        &bed.uri(&snapshot),
    ]))?;
    bed.finish()
}

#[test]
fn nbdcopy_with_many_connections() -> Outcome {
    need_tools!("nbdcopy_with_many_connections", "nbdcopy");
    let (bed, snapshot) = bed("nbdcopy")?;
    let (image, back) = (bed.path("new.img"), bed.path("back.img"));
    let before = bed.digest(&snapshot)?;
    files::make_noise(&image, 24 * MIB, 99)?;
    let fast = ["--connections=4", "--requests=32", "--flush"];
    tools::run(
        tools::program("nbdcopy")
            .args(fast)
            .arg(&image)
            .arg(bed.uri(VOLUME)),
    )?;
    tools::run(
        tools::program("nbdcopy")
            .args(fast)
            .arg(bed.uri(VOLUME))
            .arg(&back),
    )?;
    ensure!(
        files::digest(&image)? == files::digest(&back)?,
        "the origin is not what was copied in"
    );
    ensure!(bed.digest(&snapshot)? == before, "{snapshot} changed");
    bed.finish()
}

/// Read and written through a file system of libnbd's.
#[test]
fn nbdfuse_shows_an_export_as_a_file() -> Outcome {
    let name = "nbdfuse_shows_an_export_as_a_file";
    need_tools!(name, "nbdfuse", "fusermount3");
    if std::fs::File::open("/dev/fuse").is_err() {
        return tools::skip(name, "/dev/fuse cannot be opened here");
    }
    let (bed, snapshot) = bed("nbdfuse")?;
    let before = bed.digest(&snapshot)?;
    let file = bed.path("as-a-file");
    let story = || "look through nbdfuse".to_owned();
    std::fs::write(&file, "").trying(story)?;
    let mut fuse = std::process::Command::new("nbdfuse")
        .arg(&file)
        .arg(bed.uri(VOLUME))
        .spawn()
        .trying(story)?;
    let until = Instant::now() + Duration::from_secs(30);
    while std::fs::metadata(&file).trying(story)?.len() != 24 * MIB {
        let gone = fuse.try_wait().trying(story)?;
        ensure!(gone.is_none(), "nbdfuse ended: {gone:?}");
        ensure!(Instant::now() < until, "nbdfuse shows nothing");
        std::thread::sleep(Duration::from_millis(50));
    }
    let outcome = through_a_file(&bed, &file);
    tools::run(tools::program("fusermount3").arg("-u").arg(&file))?;
    fuse.wait().trying(story)?;
    outcome?;
    ensure!(bed.digest(&snapshot)? == before, "{snapshot} changed");
    bed.finish()
}

fn through_a_file(bed: &Bed, file: &Path) -> Outcome {
    let story = || "use the file of nbdfuse".to_owned();
    ensure!(files::digest(file)? == bed.digest(VOLUME)?, "read wrongly");
    let written = std::fs::File::options()
        .write(true)
        .open(file)
        .trying(story)?;
    written.write_all_at(&[0x5a; 9216], 3 * MIB).trying(story)?;
    written.sync_all().trying(story)?;
    let found = Client::connect(&bed.nbd_socket(), VOLUME)?.read(3 * MIB, 8192)?;
    ensure!(found == [0x5a; 8192], "written wrongly");
    Ok(())
}
