//! Origins that are written, or fail, without csnap's doing.
//!
//! A block device here is a loop device. csnapd counts its own writes in memory, so
//! its run directory is in `/dev/shm`.

use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use csnap_tests::e2e::bed::VOLUME;
use csnap_tests::e2e::client::{Ask, Client};
use csnap_tests::e2e::daemon::Places;
use csnap_tests::e2e::fault::{Fault, Trying};
use csnap_tests::e2e::files::{self, MIB};
use csnap_tests::e2e::ledger::{BLOCK, Ledger};
use csnap_tests::e2e::load::Load;
use csnap_tests::e2e::{Bed, Ctl, Outcome, Setup, skip, tools};
use csnap_tests::{ensure, need_tools};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const MEMORY: &str = "/dev/shm";

/// A bed whose origin is a loop device over a file of its directory.
struct Rig {
    bed: Bed,
    device: PathBuf,
    run: PathBuf,
}

impl Rig {
    /// `None` where no loop device can be made.
    fn new(test: &str, bytes: u64) -> Outcome<Option<Self>> {
        let dir = tools::target_dir()?
            .join("e2e")
            .join(format!("{test}-{}", std::process::id()));
        let store = dir.join("store.img");
        let image = dir.join("origin.img");
        let mut bed = Bed::on(dir, PathBuf::new(), store, &[])?;
        files::make_sparse(&image, bytes)?;
        files::make_sparse(&bed.store, 512 * MIB)?;
        let mut losetup = tools::program("losetup");
        let made = tools::run(losetup.args(["--find", "--show"]).arg(&image));
        let Ok(made) = made else {
            skip(test, "no loop device can be made here")?;
            bed.discard()?;
            return Ok(None);
        };
        let device = PathBuf::from(made.trim());
        let run = Path::new(MEMORY).join(format!("csnap-{test}-{}", std::process::id()));
        bed.origin.clone_from(&device);
        bed.places = Places {
            run_dir: run.clone(),
            ..bed.places.clone()
        };
        bed.ctl = Ctl::new(&run)?;
        Ok(Some(Self { bed, device, run }))
    }

    fn state(&self) -> Outcome<String> {
        let shown = self.bed.ctl.json(&format!("volume show {VOLUME}"))?;
        Ok(shown.to_string())
    }

    fn is_refused(&self, when: &str) -> Outcome {
        let shown = self.state()?;
        ensure!(
            shown.contains("refused") && shown.contains("bytes were written"),
            "{when}: it was written and is served:\n{shown}"
        );
        Ok(())
    }

    fn is_served(&self, when: &str) -> Outcome {
        let shown = self.state()?;
        ensure!(shown.contains("\"served\""), "{when}: {shown}");
        Ok(())
    }

    fn accept(&self) -> Outcome {
        let store = self.bed.store.display();
        self.bed.ctl.ok(&format!(
            "store attach {store} --accept-changed-origin {VOLUME} --yes"
        ))?;
        self.is_served("accepted")
    }

    fn finish(mut self) -> Outcome {
        self.bed.stop()?;
        self.bed.check_store()?;
        self.bed.discard()
    }

    fn client(&self) -> Outcome<Client> {
        Client::connect(&self.bed.nbd_socket(), VOLUME)
    }
}

impl Drop for Rig {
    fn drop(&mut self) {
        // First whoever holds it; what cannot be tidied up harms nobody.
        let _ = self.bed.kill9();
        let _ = tools::run(tools::program("losetup").arg("-d").arg(&self.device));
        let _ = std::fs::remove_dir_all(&self.run);
    }
}

#[test]
fn a_kill_amid_writes_is_no_reason_to_refuse() -> Outcome {
    const ORIGIN: u64 = 32 * MIB;
    let seed = super::seed();
    let mut random = ChaCha8Rng::seed_from_u64(seed);
    let Some(mut rig) = Rig::new("kill-on-loop", ORIGIN)? else {
        return Ok(());
    };
    rig.bed.serve("16K")?;
    rig.bed.take_mapped("s")?;
    let ledger = Arc::new(Mutex::new(Ledger::new(ORIGIN as usize / BLOCK)));
    for round in 0..super::setting("CSNAP_KILLS", 8)? {
        let load = Load::start(&rig.bed.nbd_socket(), VOLUME, &ledger, random.random());
        std::thread::sleep(Duration::from_millis(random.random_range(20..1500)));
        rig.bed.kill9()?;
        load.finish(true)?;
        rig.bed.start()?;
        rig.is_served(&format!("round {round}"))?;
        rig.bed.take_mapped(&format!("s{round}"))?;
    }
    // With the load at rest one foreign sector is enough.
    std::thread::sleep(Duration::from_millis(2500));
    rig.bed.kill9()?;
    scribble(&rig.device, 17 * MIB)?;
    rig.bed.start()?;
    rig.is_refused("after the last kill")?;
    rig.accept()?;
    rig.finish()
}

fn scribble(device: &Path, at: u64) -> Outcome {
    let story = || format!("write {}", device.display());
    let file = std::fs::File::options().write(true).open(device);
    let file = file.trying(story)?;
    file.write_all_at(&[0x5a; 512], at).trying(story)?;
    file.sync_all().trying(story)
}

#[test]
fn a_file_system_mounted_behind_our_back_after_a_kill_is_noticed() -> Outcome {
    need_tools!(
        "a_file_system_mounted_behind_our_back_after_a_kill_is_noticed",
        "mkfs.xfs"
    );
    let Some(mut rig) = Rig::new("mount-behind", 320 * MIB)? else {
        return Ok(());
    };
    tools::run(tools::program("mkfs.xfs").arg("-q").arg(&rig.device))?;
    rig.bed.serve("16K")?;
    rig.bed.take_mapped("s")?;
    // csnapd writes too, and is at rest when it is killed.
    rig.client()?.write(200 * MIB, vec![3; 65536])?;
    std::thread::sleep(Duration::from_millis(2500));
    rig.bed.kill9()?;
    let point = rig.bed.path("mnt");
    std::fs::create_dir(&point).trying(|| "make a mount point".into())?;
    let mount = |options: &str| {
        let mut mount = tools::program("mount");
        mount.args(["-t", "xfs", "-o", options]);
        let mounted = tools::run(mount.arg(&rig.device).arg(&point));
        mounted.and_then(|_| tools::run(tools::program("umount").arg(&point)))
    };
    // Looking is free, and so is a restart after it.
    if mount("ro,norecovery").is_err() {
        rig.bed.discard()?;
        return skip("mount-behind", "XFS cannot be mounted here");
    }
    rig.bed.start()?;
    rig.is_served("mounted read-only")?;
    rig.bed.kill9()?;
    mount("rw")?;
    rig.bed.start()?;
    rig.is_refused("mounted for writing")?;
    rig.accept()?;
    rig.finish()
}

/// Whether the first two flushes of a client fail.
fn flushes_fail(rig: &Rig) -> Outcome<[bool; 2]> {
    let mut client = rig.client()?;
    let mut fails = || -> Outcome<bool> { Ok(client.call(0, &Ask::Flush)?.error != 0) };
    Ok([fails()?, fails()?])
}

#[test]
fn writes_that_an_absent_origin_may_miss_are_told_of_by_the_next_csnapd() -> Outcome {
    let Some(mut rig) = Rig::new("owed", 32 * MIB)? else {
        return Ok(());
    };
    rig.bed.serve("16K")?;
    let write = |rig: &Rig| rig.client()?.write(MIB, vec![3; 65536]);
    // The disk has it all when csnapd alone goes.
    for _ in 0..2 {
        write(&rig)?;
        rig.bed.kill9()?;
        rig.bed.start()?;
    }
    let fails = flushes_fail(&rig)?;
    ensure!(fails == [false, false], "after kills: {fails:?}");
    // Twice: what was not flushed before the first is not by the second.
    write(&rig)?;
    rig.bed.kill9()?;
    rig.bed.start()?;
    rig.bed.kill9()?;
    let losetup = |args: &[&str]| {
        let mut losetup = tools::program("losetup");
        tools::run(losetup.args(args))
    };
    let (device, image) = (rig.device.display().to_string(), rig.bed.path("origin.img"));
    losetup(&["-d", &device])?;
    // It goes once nobody has it open any more.
    let again = || losetup(&[&device, &image.display().to_string()]);
    let mut tries = (0..100).map(|_| std::thread::sleep(Duration::from_millis(50)));
    ensure!(tries.any(|()| again().is_ok()), "it cannot be made again");
    rig.bed.start()?;
    // Nobody has flushed yet: neither end of csnapd makes it forget.
    rig.bed.kill9()?;
    rig.bed.start()?;
    rig.bed.stop()?;
    rig.bed.start()?;
    rig.bed.take_mapped("s")?;
    let fails = flushes_fail(&rig)?;
    ensure!(fails == [true, false], "the disk was away: {fails:?}");
    rig.bed.kill9()?;
    rig.bed.start()?;
    let fails = flushes_fail(&rig)?;
    ensure!(fails == [false, false], "told twice: {fails:?}");
    rig.finish()
}

#[test]
fn an_origin_that_fails_is_told_once_and_comes_back_by_command() -> Outcome {
    let setup = Setup {
        origin_bytes: 8 * MIB,
        store_bytes: 64 * MIB,
        noise: Some(3),
        ..Setup::default()
    };
    let bed = Bed::new("fails", &setup)?;
    let snapshot = bed.take_mapped("s")?;
    let resize = |bytes| {
        let file = std::fs::File::options().write(true).open(&bed.origin);
        file.and_then(|file| file.set_len(bytes))
            .trying(|| "resize the origin".into())
    };
    resize(4 * MIB)?;
    let mut live = Client::connect(&bed.nbd_socket(), VOLUME)?;
    let mut kept = Client::connect(&bed.nbd_socket(), &snapshot)?;
    for _ in 0..3 {
        for client in [&mut live, &mut kept] {
            let done = client.call(6 * MIB, &Ask::Read(4096))?;
            ensure!(done.error != 0, "it read what is not there");
        }
    }
    live.read(0, 4096)?;
    let told = || -> Outcome<(usize, usize)> {
        let events = bed.ctl.json("events")?.to_string();
        let count = |kind: &str| events.matches(&format!("\"{kind}\"")).count();
        Ok((count("origin-failed"), count("origin-back")))
    };
    ensure!(told()? == (1, 0), "told {:?}", told()?);
    let shown = bed.ctl.ok(&format!("volume show {VOLUME}"))?;
    ensure!(shown.contains("failed 6 operations"), "{shown}");
    resize(8 * MIB)?;
    let attach = format!("store attach {}", bed.store.display());
    bed.ctl.ok(&attach)?;
    ensure!(told()? == (1, 1), "told {:?}", told()?);
    let shown = bed.ctl.ok(&format!("volume show {VOLUME}"))?;
    ensure!(!shown.contains("failed"), "{shown}");
    live.read(6 * MIB, 4096)?;
    bed.ctl.ok(&attach)?;
    ensure!(told()? == (1, 1), "told {:?}", told()?);
    drop((live, kept));
    bed.finish()
}

#[test]
fn an_origin_in_doubt_does_not_judge_what_the_store_holds() -> Outcome {
    const PIECE: usize = 16 << 10;
    let setup = Setup {
        origin_bytes: 8 * MIB,
        ..Setup::default()
    };
    let mut bed = Bed::new("doubt", &setup)?;
    let mut client = Client::connect(&bed.nbd_socket(), VOLUME)?;
    client.write(0, vec![0xa7; PIECE])?;
    let snapshot = bed.take_mapped("before")?;
    client.write(0, vec![2; PIECE])?;
    drop(client);
    bed.kill9()?;
    // The power went, too: the copy did not reach the store, the origin has the new
    // contents. And what is there now was written without csnap, or is another disk.
    let found = std::fs::read(&bed.store).trying(|| "read the store".to_owned())?;
    let copy = found
        .chunks(4096)
        .position(|block| block.iter().all(|byte| *byte == 0xa7));
    let copy = copy.ok_or_else(|| Fault::wrong("the copy is not in the store"))? as u64;
    let store = std::fs::File::options().write(true).open(&bed.store);
    let store = store.trying(|| "open the store".to_owned())?;
    let wiped = store.write_all_at(&[0; PIECE], copy * 4096);
    wiped.trying(|| "wipe the copy".to_owned())?;
    doubt(&bed.places.state_dir.join("state.json"))?;
    bed.start()?;
    let shown = bed.ctl.json(&format!("volume show {VOLUME}"))?.to_string();
    ensure!(shown.contains("refused"), "{shown}");
    let events = bed.ctl.ok("events")?;
    ensure!(events.contains(" 0 chunks lost"), "{events}");
    // Once the right one is back, and the copy with it, nothing is missing.
    bed.stop()?;
    let restored = store.write_all_at(&[0xa7; PIECE], copy * 4096);
    restored.trying(|| "restore the copy".to_owned())?;
    forget(&bed.places.state_dir.join("state.json"))?;
    bed.start()?;
    let mut kept = Client::connect(&bed.nbd_socket(), &snapshot)?;
    ensure!(kept.read(0, PIECE as u32)? == vec![0xa7; PIECE], "lost");
    drop(kept);
    bed.finish()
}

fn edit(path: &Path, change: impl FnOnce(&mut serde_json::Value)) -> Outcome {
    let story = || format!("edit {}", path.display());
    let text = std::fs::read_to_string(path).trying(story)?;
    let mut state = serde_json::from_str(&text)?;
    change(&mut state);
    std::fs::write(path, state.to_string()).trying(story)
}

/// Has csnapd remember that somebody wrote the first volume's origin.
fn doubt(path: &Path) -> Outcome {
    edit(path, |state| {
        let store = state["stores"][0]["uuid"].clone();
        state["origins"] = serde_json::json!([{
            "store": store, "volume": 1, "boot": "", "disk": 0, "sectors": 0,
            "sealed": null, "tally": null, "foreign": 40,
        }]);
    })
}

fn forget(path: &Path) -> Outcome {
    edit(path, |state| state["origins"] = serde_json::json!([]))
}
