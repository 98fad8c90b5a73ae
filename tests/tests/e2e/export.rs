//! `snapshot export`, judged by qemu-img, and what reading a snapshot that is not mapped
//! keeps from happening to it.

use std::path::Path;
use std::process::Stdio;
use std::time::{Duration, Instant};

use csnap_tests::e2e::bed::VOLUME;
use csnap_tests::e2e::client::{Ask, Client};
use csnap_tests::e2e::fault::Trying;
use csnap_tests::e2e::files::{self, MIB};
use csnap_tests::e2e::{Bed, Fault, Outcome, Setup, ctl, tools};
use csnap_tests::{ensure, need_tools};

const SIZE: u64 = 24 * MIB;

fn bed(name: &str) -> Outcome<Bed> {
    let setup = Setup {
        origin_bytes: SIZE,
        noise: Some(41),
        ..Setup::default()
    };
    Bed::new(name, &setup)
}

fn take(bed: &Bed, name: &str) -> Outcome {
    let line = format!("snapshot take {VOLUME}@{name}");
    bed.ctl.ok(&line).map(drop)
}

fn write(bed: &Bed, offset: u64, data: Vec<u8>) -> Outcome {
    Client::connect(&bed.nbd_socket(), VOLUME)?.write(offset, data)
}

/// Bytes of an export.
fn contents(bed: &Bed, export: &str) -> Outcome<Vec<u8>> {
    Client::connect(&bed.nbd_socket(), export)?.read_all()
}

fn qemu_img(arguments: &[&str]) -> Outcome<String> {
    tools::run(tools::program("qemu-img").args(arguments))
}

/// Has qemu-img check an image, and see in it what the export holds.
fn judge(bed: &Bed, image: &Path, export: &str) -> Outcome {
    let path = image.display().to_string();
    qemu_img(&["check", "-f", "qcow2", &path])?;
    let uri = bed.uri(export);
    qemu_img(&["compare", "-f", "qcow2", "-F", "raw", &path, &uri]).map(drop)
}

#[test]
fn a_snapshot_that_is_not_mapped_is_read_and_kept_meanwhile() -> Outcome {
    let bed = bed("visit")?;
    let before = contents(&bed, VOLUME)?;
    take(&bed, "a")?;
    write(&bed, MIB, vec![7; 64 << 10])?;
    let mut client = Client::connect(&bed.nbd_socket(), "vol@a")?;
    ensure!(client.read_only(), "a snapshot can be written");
    ensure!(client.read_all()? == before, "the snapshot is another");
    for line in [
        "snapshot delete vol@a --yes",
        "snapshot rename vol@a z",
        "volume delete vol --yes",
    ] {
        bed.ctl.refuses(line, ctl::exit::BUSY, "vol@a")?;
    }
    let shown = bed.ctl.json("snapshot show vol@a")?.to_string();
    ensure!(shown.contains("\"mapped\":false"), "it was mapped: {shown}");
    // A snapshot that is mapped and unmapped meanwhile stays readable for who reads it.
    bed.ctl.ok("snapshot map vol@a")?;
    ensure!(client.read(MIB, 512)? == before[MIB as usize..][..512], "");
    drop(client);
    bed.ctl.ok("snapshot unmap vol@a")?;
    ensure!(contents(&bed, "vol@a")? == before, "it changed");
    let until = Instant::now() + Duration::from_secs(20);
    while bed.ctl.any("snapshot rename vol@a z")?.code != 0 {
        ensure!(Instant::now() < until, "the reader is not forgotten");
        std::thread::sleep(Duration::from_millis(50));
    }
    ensure!(contents(&bed, "vol@z")? == before, "renamed, it changed");
    let mut reader = Client::connect(&bed.nbd_socket(), "vol@z")?;
    reader.read(0, 512)?;
    bed.ctl.ok("snapshot take vol@y")?;
    bed.ctl.ok("snapshot delete vol@z --force --yes")?;
    ensure!(reader.read(0, 512).is_err(), "what is gone is read");
    ensure!(
        Client::connect(&bed.nbd_socket(), "vol@a").is_err(),
        "the old name is still there"
    );
    bed.finish()
}

#[test]
fn a_full_export_is_the_snapshot() -> Outcome {
    need_tools!("a_full_export_is_the_snapshot", "qemu-img");
    let bed = bed("export-full")?;
    let mut client = Client::connect(&bed.nbd_socket(), VOLUME)?;
    let zeroed = client.call(4 * MIB, &Ask::Zero(8 * MIB as u32))?;
    ensure!(zeroed.error == 0, "NBD error {}", zeroed.error);
    take(&bed, "a")?;
    let before = contents(&bed, "vol@a")?;
    client.write(MIB + 512, vec![3; 300 << 10])?;
    client.write(5 * MIB, vec![4; 512])?;
    for options in [
        "",
        "--cluster-size 4K",
        "--compress zstd,3",
        "--compress zlib --threads 3 --cluster-size 2M",
    ] {
        let image = bed.path("disk.qcow2");
        let path = image.display();
        bed.ctl
            .ok(&format!("snapshot export vol@a -o {path} {options}"))?;
        judge(&bed, &image, "vol@a")?;
        std::fs::remove_file(&image).trying(|| format!("remove {path}"))?;
    }
    let raw = bed.path("disk.img");
    let line = format!("snapshot export vol@a --to raw -o {}", raw.display());
    let told = bed.ctl.json(&line)?;
    ensure!(told["exports"][0]["size"] == SIZE, "{told}");
    let bytes = std::fs::read(&raw).trying(|| "read the image".into())?;
    ensure!(bytes == before, "the raw image is another");
    for format in ["qcow2", "raw"] {
        let bytes = piped(&bed, &format!("snapshot export vol@a --to {format} -o -"))?;
        let image = bed.path("piped");
        std::fs::write(&image, &bytes).trying(|| "keep what was piped".into())?;
        match format {
            "raw" => ensure!(bytes == before, "what was piped is another"),
            _ => judge(&bed, &image, "vol@a")?,
        }
    }
    bed.finish()
}

/// What a command writes to standard output.
fn piped(bed: &Bed, line: &str) -> Outcome<Vec<u8>> {
    let mut command = tools::program(tools::csnap_program("csnapctl")?);
    command
        .arg("--run-dir")
        .arg(&bed.places.run_dir)
        .args(line.split_whitespace())
        .stdin(Stdio::null());
    let output = tools::run_any(&mut command)?;
    match output.status.success() {
        true => Ok(output.stdout),
        false => Err(tools::failed(&command, &output, "no image in the pipe")),
    }
}

#[test]
fn increments_are_laid_over_each_other() -> Outcome {
    need_tools!("increments_are_laid_over_each_other", "qemu-img");
    let mut bed = bed("export-from")?;
    take(&bed, "a")?;
    write(&bed, 0, vec![1; 512])?;
    write(&bed, 9 * MIB + 4096, vec![2; 40 << 10])?;
    take(&bed, "b")?;
    // Grown by a piece that is no whole chunk.
    let grown = SIZE + 3 * 4096;
    let origin = std::fs::File::options().write(true).open(&bed.origin);
    let extended = origin.and_then(|file| file.set_len(grown));
    extended.trying(|| "extend the origin".into())?;
    bed.ctl.ok("volume resize vol")?;
    write(&bed, SIZE - 512, vec![3; 512 + 4096])?;
    take(&bed, "c")?;
    write(&bed, 0, vec![4; MIB as usize])?;

    let export = |options: &str| {
        let line = format!("snapshot export {options}");
        bed.ctl.json(&line).map(|told| told["exports"][0].clone())
    };
    let [a, b, c] = ["a", "b", "c"].map(|name| bed.path(&format!("{name}.qcow2")));
    export(&format!("vol@a -o {}", a.display()))?;
    let told = export(&format!(
        "vol@b --from vol@a --backing a.qcow2 -o {}",
        b.display()
    ))?;
    // One chunk, and three for what lies across the border of two.
    ensure!(told["changed"] == 4 * (16 << 10), "{told}");
    let length = told["length"].as_u64().unwrap_or(u64::MAX);
    ensure!(length < MIB, "the increment has {length} bytes");
    export(&format!(
        "vol@c --from vol@b -b b.qcow2 --compress zstd -o {}",
        c.display()
    ))?;
    judge(&bed, &a, "vol@a")?;
    judge(&bed, &b, "vol@b")?;
    judge(&bed, &c, "vol@c")?;
    let info = qemu_img(&["info", "--output=json", &c.display().to_string()])?;
    let info: serde_json::Value = serde_json::from_str(&info)?;
    ensure!(
        info["backing-filename"] == "b.qcow2" && info["backing-filename-format"] == "qcow2",
        "{info}"
    );
    // Two increments in one, over a raw image of the first.
    let (raw, both) = (bed.path("a.raw"), bed.path("both.qcow2"));
    export(&format!("vol@a --to raw -o {}", raw.display()))?;
    export(&format!(
        "vol@c --from vol@a -b a.raw -F raw -o {}",
        both.display()
    ))?;
    judge(&bed, &both, "vol@c")?;
    // QEMU takes the layers apart and together again.
    let [b_path, c_path] = [&b, &c].map(|path| path.display().to_string());
    let rebase = [
        "rebase", "-f", "qcow2", "-F", "qcow2", "-b", "a.qcow2", &c_path,
    ];
    qemu_img(&rebase)?;
    judge(&bed, &c, "vol@c")?;
    qemu_img(&["commit", "-f", "qcow2", "-d", &b_path])?;
    judge(&bed, &a, "vol@b")?;
    bed.kill9()?;
    bed.start()?;
    judge(&bed, &c, "vol@c")?;
    bed.finish()
}

#[test]
fn a_volume_and_its_snapshots_are_one_image() -> Outcome {
    need_tools!("a_volume_and_its_snapshots_are_one_image", "qemu-img");
    let mut bed = bed("export-all")?;
    let mut truth = Vec::new();
    // A name that is a number must not be taken for the number of another.
    for (round, name) in ["a", "b", "2"].into_iter().enumerate() {
        write(
            &bed,
            round as u64 * 5 * MIB + 512,
            vec![round as u8; 70 << 10],
        )?;
        take(&bed, name)?;
        truth.push((name, contents(&bed, &format!("vol@{name}"))?));
    }
    let grown = SIZE + 5 * 4096;
    let origin = std::fs::File::options().write(true).open(&bed.origin);
    let extended = origin.and_then(|file| file.set_len(grown));
    extended.trying(|| "extend the origin".into())?;
    bed.ctl.ok("volume resize vol")?;
    take(&bed, "d")?;
    truth.push(("d", contents(&bed, "vol@d")?));
    write(&bed, SIZE, vec![9; 4096])?;
    bed.ctl.ok("snapshot delete vol@b --yes")?;
    truth.retain(|(name, _)| *name != "b");

    let all = bed.path("all.qcow2").display().to_string();
    for options in [
        "",
        "--cluster-size 64K --compress zstd",
        "--cluster-size 4K",
    ] {
        let line = format!("volume export vol --with-snapshots --force -o {all} {options}");
        let told = bed.ctl.json(&line)?["exports"][0].clone();
        ensure!(told["snapshots"] == 3, "{told}");
        // What they have in common is there once.
        let length = told["length"].as_u64().unwrap_or(u64::MAX);
        ensure!(length < SIZE + 2 * MIB, "{told}");
        judge(&bed, Path::new(&all), VOLUME)?;
        let list = qemu_img(&["snapshot", "-l", &all])?;
        let raw = bed.path("applied.raw").display().to_string();
        for (name, expected) in &truth {
            ensure!(list.contains(&format!(" {name} ")), "no {name}: {list}");
            let one = format!("snapshot.name={name}");
            qemu_img(&[
                "convert", "-l", &one, "-f", "qcow2", "-O", "raw", &all, &raw,
            ])?;
            let mut found = std::fs::read(&raw).trying(|| "read an image".into())?;
            // qemu-img gives the size that the disk has now.
            found.truncate(expected.len());
            ensure!(found == *expected, "{name} is another, {options}");
        }
        qemu_img(&["snapshot", "-a", "2", &all])?;
        qemu_img(&["check", "-f", "qcow2", &all])?;
        let compared = qemu_img(&[
            "compare",
            "-f",
            "qcow2",
            "-F",
            "raw",
            &all,
            &bed.uri("vol@2"),
        ]);
        compared.map(drop)?;
    }
    let left = bed.ctl.snapshots(VOLUME)?;
    ensure!(
        left.len() == 3,
        "a snapshot of the export is left: {left:?}"
    );
    let alone = bed.path("alone.raw");
    let line = format!("volume export vol --to raw -o {}", alone.display());
    bed.ctl.ok(&line)?;
    let bytes = std::fs::read(&alone).trying(|| "read an image".into())?;
    ensure!(bytes == contents(&bed, VOLUME)?, "the volume is another");
    let line = format!("volume export vol --to raw --with-snapshots -o {all}.raw");
    bed.ctl
        .refuses(&line, ctl::exit::USAGE, "--with-snapshots")?;
    let line = format!("volume export none -o {all}.raw");
    bed.ctl.refuses(&line, ctl::exit::NOT_FOUND, "none")?;
    bed.kill9()?;
    bed.start()?;
    judge(&bed, Path::new(&all), "vol@2")?;
    bed.finish()
}

#[test]
fn an_export_that_is_interrupted_leaves_nothing() -> Outcome {
    let bed = bed("export-interrupted")?;
    let image = bed.path("vol.qcow2");
    let mut command = std::process::Command::new(tools::csnap_program("csnapctl")?);
    command
        .arg("--run-dir")
        .arg(&bed.places.run_dir)
        .args(["volume", "export", "vol", "--rate", "2M", "-o"])
        .arg(&image)
        .stdin(Stdio::null());
    let mut export = command.spawn().trying(|| "start csnapctl".into())?;
    let until = Instant::now() + Duration::from_secs(20);
    while bed.ctl.snapshots(VOLUME)?.is_empty() {
        ensure!(Instant::now() < until, "no snapshot is taken");
        std::thread::sleep(Duration::from_millis(20));
    }
    std::thread::sleep(Duration::from_millis(500));
    let pid = nix::unistd::Pid::from_raw(export.id().cast_signed());
    nix::sys::signal::kill(pid, nix::sys::signal::Signal::SIGINT)
        .map_err(std::io::Error::from)
        .trying(|| "interrupt csnapctl".into())?;
    let ended = export.wait().trying(|| "wait for csnapctl".into())?;
    ensure!(ended.code() == Some(ctl::exit::ERROR), "{ended}");
    let left = bed.ctl.snapshots(VOLUME)?;
    ensure!(left.is_empty(), "a snapshot is left: {left:?}");
    ensure!(!image.exists(), "an image is left");
    bed.finish()
}

#[test]
fn what_an_export_must_not_do_is_refused() -> Outcome {
    let bed = bed("export-refused")?;
    take(&bed, "a")?;
    take(&bed, "b")?;
    let there = bed.path("there.qcow2");
    std::fs::write(&there, b"mine").trying(|| "make a file".into())?;
    let there = there.display().to_string();
    let origin = bed.origin.display().to_string();
    let store = bed.store.display().to_string();
    let new = bed.path("new.qcow2").display().to_string();
    use ctl::exit::{BUSY, NOT_FOUND, USAGE};
    let refused = [
        (format!("vol@a -o {there}"), BUSY, "exists"),
        (format!("vol@a -o {origin} --force"), BUSY, "csnap serves"),
        (format!("vol@a -o {store} --force"), BUSY, "csnap serves"),
        (format!("vol@none -o {new}"), NOT_FOUND, "none"),
        (format!("vol@a --from vol@b -b x -o {new}"), USAGE, "newer"),
        (format!("vol@b --from vol@a -o {new}"), USAGE, "--backing"),
        (format!("vol@b -b x -o {new}"), USAGE, "--from"),
        (format!("vol@b -F raw -o {new}"), USAGE, "--from"),
        (
            format!("vol@b --from other@a -b x -o {new}"),
            USAGE,
            "another volume",
        ),
        (
            format!("vol@a --to raw --compress zstd -o {new}"),
            USAGE,
            "--compress",
        ),
        (
            format!("vol@a --cluster-size 3K -o {new}"),
            USAGE,
            "--cluster-size",
        ),
        ("vol@a".into(), USAGE, "--output"),
        ("vol@a -o - --json".into(), USAGE, "--json"),
        (format!("vol@a --rate 0 -o {new}"), USAGE, "--rate"),
        (format!("vol@a --threads 1000 -o {new}"), USAGE, "--threads"),
    ];
    for (arguments, code, about) in refused {
        let line = format!("snapshot export {arguments}");
        bed.ctl.refuses(&line, code, about)?;
        ensure!(!Path::new(&new).exists(), "{line} left an image");
    }
    let base = bed.path("base.qcow2").display().to_string();
    bed.ctl.ok(&format!("snapshot export vol@a -o {base}"))?;
    let over = format!("snapshot export vol@b --from vol@a -b base.qcow2 --force -o {base}");
    bed.ctl.refuses(&over, USAGE, "the image itself")?;
    let kept = std::fs::read(&there).trying(|| "read the file".into())?;
    ensure!(kept == b"mine", "a file that was there is gone");
    bed.ctl
        .ok(&format!("snapshot export vol@a -o {there} --force"))?;
    bed.finish()
}

#[test]
fn an_export_keeps_its_rate_and_leaves_nothing_when_the_daemon_dies() -> Outcome {
    let mut bed = bed("export-rate")?;
    take(&bed, "a")?;
    let image = bed.path("disk.img");
    let begin = Instant::now();
    let path = image.display().to_string();
    bed.ctl.ok(&format!(
        "snapshot export vol@a --to raw --rate 12M -o {path}"
    ))?;
    let taken = begin.elapsed();
    ensure!(
        (Duration::from_millis(1500)..Duration::from_secs(20)).contains(&taken),
        "24 MiB at 12 MiB in a second took {taken:?}"
    );
    std::fs::remove_file(&image).trying(|| "remove the image".into())?;
    let ctl = bed.ctl.clone();
    let line = format!("snapshot export vol@a --to raw --rate 4M -o {path}");
    let export = std::thread::spawn(move || ctl.any(&line));
    std::thread::sleep(Duration::from_secs(1));
    bed.kill9()?;
    let ended = export.join().map_err(|_| Fault::wrong("a thread died"))??;
    ensure!(ended.code == ctl::exit::UNREACHABLE, "{ended:?}");
    ensure!(ended.stderr.contains("vol@a"), "{}", ended.stderr);
    let left = std::fs::read_dir(&bed.dir).trying(|| "look at the directory".into())?;
    for entry in left {
        let name = entry.trying(|| "an entry".into())?.file_name();
        let name = name.to_string_lossy().into_owned();
        ensure!(!name.contains("disk.img"), "{name} was left");
    }
    bed.start()?;
    bed.ctl
        .ok(&format!("snapshot export vol@a --to raw -o {path}"))?;
    ensure!(
        files::digest(&image)? == files::digest(&bed.origin)?,
        "the image is another"
    );
    bed.finish()
}
