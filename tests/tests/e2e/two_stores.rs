//! Two stores in one daemon, both under verified load: whatever becomes of the first,
//! users of the second notice nothing, and at the end both are sound.

use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};
use std::thread::sleep;
use std::time::{Duration, Instant};

use csnap_tests::e2e::bed::VOLUME;
use csnap_tests::e2e::ctl::{self, exit};
use csnap_tests::e2e::fault::Trying;
use csnap_tests::e2e::files::{MIB, make_sparse};
use csnap_tests::e2e::ledger::{BLOCK, Ledger};
use csnap_tests::e2e::load::{self, Load, Shared, lock};
use csnap_tests::e2e::{Bed, Outcome, Setup, skip, tools};
use csnap_tests::{ensure, need_tools};

/// Bytes of each origin.
const ORIGIN: u64 = 32 * MIB;
/// The volume of the second store.
const SECOND: &str = "second";
/// For what takes a moment; machines are busy.
const PATIENCE: Duration = Duration::from_secs(60);

/// A bed whose daemon serves a second store with a volume of its own.
struct Two {
    bed: Bed,
    origin: PathBuf,
    store: PathBuf,
    ledgers: [Shared; 2],
}

impl Two {
    fn new(test: &str, store_bytes: u64) -> Outcome<Self> {
        let setup = Setup {
            origin_bytes: ORIGIN,
            store_bytes,
            ..Setup::default()
        };
        Self::beside(Bed::new(test, &setup)?)
    }

    /// Adds the second store to what a bed serves.
    fn beside(bed: Bed) -> Outcome<Self> {
        let (origin, store) = (bed.path("second.img"), bed.path("second-store.img"));
        make_sparse(&origin, ORIGIN)?;
        make_sparse(&store, 512 * MIB)?;
        let path = store.display();
        bed.ctl.ok(&format!("store create {path} --yes"))?;
        bed.ctl.ok(&format!("store attach {path}"))?;
        let create = format!("volume create {SECOND} {} --store {path}", origin.display());
        bed.ctl.ok(&create)?;
        let ledger = || Arc::new(Mutex::new(Ledger::new(ORIGIN as usize / BLOCK)));
        let ledgers = [ledger(), ledger()];
        Ok(Self {
            bed,
            origin,
            store,
            ledgers,
        })
    }

    /// A load on each volume.
    fn loads(&self) -> [Load; 2] {
        let (seed, socket) = (super::seed(), self.bed.nbd_socket());
        let [first, second] = &self.ledgers;
        [
            Load::start(&socket, VOLUME, first, seed),
            Load::start(&socket, SECOND, second, seed + 1),
        ]
    }

    /// Takes a snapshot of the second volume under its load, which must be right, and
    /// waits for some more of its writes.
    fn second_goes_on(&self, name: &str) -> Outcome {
        let (ledger, full) = (&self.ledgers[1], format!("{SECOND}@{name}"));
        let mark = lock(ledger).mark();
        self.bed.ctl.ok(&format!("snapshot take {full}"))?;
        let until = lock(ledger).now();
        self.bed.ctl.ok(&format!("snapshot map {full}"))?;
        load::check_snapshot(&self.bed.nbd_socket(), &full, ledger, &mark, until)?;
        writes_go_on(ledger)
    }

    /// Nobody writes any more: both volumes and both stores must be right.
    fn finish(mut self) -> Outcome {
        for (volume, ledger) in [VOLUME, SECOND].iter().zip(&self.ledgers) {
            load::settle_volume(&self.bed.nbd_socket(), volume, ledger)?;
        }
        self.bed.stop()?;
        for (origin, ledger) in [&self.bed.origin, &self.origin].iter().zip(&self.ledgers) {
            let bytes = std::fs::read(origin).trying(|| format!("read {}", origin.display()))?;
            lock(ledger).settle(0, &bytes)?;
        }
        let check = format!("store check {} --data", self.store.display());
        self.bed.ctl.ok(&check)?;
        self.bed.finish()
    }
}

/// Writes of a load are answered: many more than are under way at once.
fn writes_go_on(ledger: &Shared) -> Outcome {
    let (enough, deadline) = (lock(ledger).now() + 100, Instant::now() + PATIENCE);
    while lock(ledger).now() < enough {
        ensure!(Instant::now() < deadline, "writes are not answered");
        sleep(Duration::from_millis(20));
    }
    Ok(())
}

/// Waits until a load sends nothing any more.
fn comes_to_rest(ledger: &Shared) -> Outcome<u64> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        let before = lock(ledger).now();
        sleep(Duration::from_secs(2));
        if lock(ledger).now() == before {
            return Ok(before);
        }
        ensure!(Instant::now() < deadline, "nothing makes it wait");
    }
}

/// How often this was told.
fn told(bed: &Bed, kind: &str) -> Outcome<usize> {
    let events = bed.ctl.json("events")?;
    let of_kind = |event: &&serde_json::Value| event["kind"] == kind;
    Ok(ctl::rows(&events)?.iter().filter(of_kind).count())
}

fn wait_for_event(bed: &Bed, kind: &str) -> Outcome {
    let deadline = Instant::now() + PATIENCE;
    while told(bed, kind)? == 0 {
        ensure!(Instant::now() < deadline, "no event says {kind}");
        sleep(Duration::from_millis(50));
    }
    Ok(())
}

#[test]
fn writes_that_wait_for_room_in_one_store_hold_up_no_other() -> Outcome {
    let two = Two::new("two-full", 20 * MIB)?;
    let ctl = &two.bed.ctl;
    ctl.ok(&format!(
        "volume set {VOLUME} --policy snapshot-first --full-wait 300"
    ))?;
    ctl.ok(&format!("snapshot take {VOLUME}@a"))?;
    let [first, second] = two.loads();
    wait_for_event(&two.bed, "waits-for-room")?;
    let sent = comes_to_rest(&two.ledgers[0])?;
    two.second_goes_on("x")?;
    ensure!(lock(&two.ledgers[0]).now() == sent, "there was room");
    two.bed
        .ctl
        .ok(&format!("snapshot delete {VOLUME}@a --yes"))?;
    writes_go_on(&two.ledgers[0])?;
    first.finish(false)?;
    second.finish(false)?;
    two.finish()
}

#[test]
fn snapshots_dropped_from_one_store_cost_another_nothing() -> Outcome {
    let two = Two::new("two-drop", 20 * MIB)?;
    let [first, second] = two.loads();
    for name in ["a", "b", "c"] {
        two.bed.ctl.ok(&format!("snapshot take {VOLUME}@{name}"))?;
        two.second_goes_on(name)?;
    }
    wait_for_event(&two.bed, "snapshot-dropped")?;
    two.second_goes_on("after")?;
    first.finish(false)?;
    second.finish(false)?;
    let kept = two.bed.ctl.snapshots(SECOND)?;
    ensure!(
        kept.len() == 4 && kept.iter().all(|snapshot| snapshot.live),
        "of the other store: {kept:?}"
    );
    two.finish()
}

#[test]
fn a_store_is_detached_and_attached_beside_another() -> Outcome {
    let two = Two::new("two-detach", 256 * MIB)?;
    let store = two.bed.store.display().to_string();
    two.bed.ctl.ok(&format!("snapshot take {VOLUME}@a"))?;
    let [first, second] = two.loads();
    writes_go_on(&two.ledgers[0])?;
    let detach = format!("store detach {store}");
    two.bed.ctl.refuses(&detach, exit::BUSY, VOLUME)?;
    two.bed.ctl.ok(&format!("{detach} --force"))?;
    first.finish(true)?;
    two.second_goes_on("without")?;
    two.bed.check_store()?;
    two.bed.ctl.ok(&format!("store attach {store}"))?;
    load::settle_volume(&two.bed.nbd_socket(), VOLUME, &two.ledgers[0])?;
    two.second_goes_on("with")?;
    second.finish(false)?;
    two.finish()
}

#[test]
fn a_kill_under_load_on_both_costs_neither() -> Outcome {
    let mut two = Two::new("two-kill", 256 * MIB)?;
    for round in 0..4 {
        let [first, second] = two.loads();
        two.bed.ctl.ok(&format!("snapshot take {VOLUME}@{round}"))?;
        two.second_goes_on(&format!("k{round}"))?;
        two.bed.kill9()?;
        first.finish(true)?;
        second.finish(true)?;
        two.bed.start()?;
        for (volume, ledger) in [VOLUME, SECOND].iter().zip(&two.ledgers) {
            load::settle_volume(&two.bed.nbd_socket(), volume, ledger)?;
        }
    }
    two.finish()
}

/// A file system in memory; a store on it, a sparse file, fails when that is full.
struct Small(PathBuf);

impl Small {
    /// Or why none can be mounted here.
    fn new(dir: PathBuf) -> Outcome<Result<Self, String>> {
        std::fs::create_dir_all(&dir).trying(|| format!("make {}", dir.display()))?;
        let mut mount = tools::program("mount");
        let mount = mount.args(["-t", "tmpfs", "-o", "size=12m", "csnap-test"]);
        let output = tools::run_any(mount.arg(&dir))?;
        let why = String::from_utf8_lossy(&output.stderr).trim().to_owned();
        Ok(match output.status.success() {
            true => Ok(Self(dir)),
            false => Err(format!("no file system can be mounted here: {why}")),
        })
    }

    /// Becomes large enough for all that was promised.
    fn grow(&self) -> Outcome {
        let mut mount = tools::program("mount");
        tools::run(mount.args(["-o", "remount,size=1g"]).arg(&self.0)).map(drop)
    }
}

impl Drop for Small {
    fn drop(&mut self) {
        // Best effort; what is left of a test that failed is seen in the next one.
        let _ = tools::run(tools::program("umount").arg(&self.0));
        let _ = std::fs::remove_dir(&self.0);
    }
}

/// A store on the small file system, beside a sound one.
fn on_small(test: &str, small: &Path) -> Outcome<Two> {
    let dir = tools::target_dir()?.join("e2e").join(test);
    let (origin, store) = (dir.join("origin.img"), small.join("store.img"));
    let mut bed = Bed::on(dir, origin, store, &[])?;
    make_sparse(&bed.origin, ORIGIN)?;
    make_sparse(&bed.store, 256 * MIB)?;
    bed.serve("16K")?;
    Two::beside(bed)
}

#[test]
fn a_store_that_fails_costs_another_nothing_and_comes_back() -> Outcome {
    const TEST: &str = "a_store_that_fails_costs_another_nothing_and_comes_back";
    need_tools!(TEST, "mount", "umount");
    let test = format!("two-fails-{}", std::process::id());
    let place = tools::target_dir()?.join("e2e").join(format!("{test}-fs"));
    // Dropped last: by then nobody has the store.
    let small = match Small::new(place)? {
        Ok(small) => small,
        Err(reason) => return skip(TEST, &reason),
    };
    let two = on_small(&test, &small.0)?;
    let ctl = &two.bed.ctl;
    let (pid, store) = (two.bed.pid()?, two.bed.store.display().to_string());
    ctl.ok(&format!("snapshot take {VOLUME}@a"))?;
    let [first, second] = two.loads();
    wait_for_event(&two.bed, "store-failed")?;
    // The origins go on, that of the failed store without its snapshots.
    two.second_goes_on("x")?;
    writes_go_on(&two.ledgers[0])?;
    first.finish(false)?;
    ensure!(ctl.any("status")?.code == exit::ERROR, "status is content");

    // As the manual has it.
    ctl.ok(&format!("store detach {store}"))?;
    small.grow()?;
    ctl.ok(&format!("store check {store} --data"))?;
    ctl.ok(&format!("store attach {store}"))?;
    ctl.ok("status")?;
    let kept = ctl.snapshots(VOLUME)?;
    ensure!(kept.len() == 1 && !kept[0].live, "of before: {kept:?}");
    ensure!(told(&two.bed, "store-failed")? == 1, "not told once");
    ensure!(two.bed.pid()? == pid, "csnapd was started again");

    let mark = lock(&two.ledgers[0]).mark();
    let after = two.bed.take_mapped("after")?;
    let [again, other] = &two.ledgers;
    let until = lock(again).now();
    let more = Load::start(&two.bed.nbd_socket(), VOLUME, again, super::seed());
    writes_go_on(again)?;
    writes_go_on(other)?;
    more.finish(false)?;
    second.finish(false)?;
    load::check_snapshot(&two.bed.nbd_socket(), &after, again, &mark, until)?;
    two.finish()
}
