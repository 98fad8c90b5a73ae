//! csnap's promises on what real kernels leave behind: the log of all writes of one disk,
//! with origin, store and diary on it, replayed; and the power cut under load, again and
//! again. What the states are and what may be claimed of them: `csnap_tests::cut`.
//!
//! The guest runs the load; its log is replayed here, where thousands of states take
//! seconds. Each is recovered by the engine and compared, some by csnapd in the guest,
//! too. Needs `guest prepare` and the programs of the same build; run by `make guest-test`.
#![allow(clippy::unwrap_used, clippy::print_stdout)] // all of it is a test

use std::collections::BTreeSet;
use std::fs::File;
use std::path::{Path, PathBuf};
use std::sync::mpsc::sync_channel;
use std::sync::{Arc, Mutex};
use std::time::Instant;

use csnap_tests::cut::disk::{Disk, WHOLE};
use csnap_tests::cut::judge::{Figures, Judge};
use csnap_tests::cut::log::{Kind, Log};
use csnap_tests::cut::states::{State, Wanted, walk};
use csnap_tests::e2e::{Fault, Outcome, seed, setting};
use csnap_tests::ensure;
use csnap_tests::guest::cache::{Cache, target_dir};
use csnap_tests::guest::console::Event;
use csnap_tests::guest::kernels::{Series, TESTED};
use csnap_tests::guest::machine;
use csnap_tests::guest::payload::Put;
use csnap_tests::guest::run::{End, Job, run};

/// Bytes of a log, as the guest sees it; what is not written takes no room.
const LOG: u64 = 4 << 30;
/// States of each log that csnapd recovers in the guest.
const SAMPLE: usize = 2;
/// Machines that judge states at the same time.
const JUDGES: usize = 2;

/// What the guest said, by lines.
struct Heard {
    end: End,
    lines: Vec<String>,
}

impl Heard {
    /// Snapshots that were acknowledged, and of which nobody asked for the end.
    fn kept(&self) -> BTreeSet<u32> {
        let mut kept = BTreeSet::new();
        for line in &self.lines {
            match line.split_once(' ') {
                Some(("taken", number)) => drop(kept.insert(number.parse().unwrap())),
                Some(("deleting", number)) => drop(kept.remove(&number.parse().unwrap())),
                _ => {}
            }
        }
        kept
    }

    /// The first disk judged was the one that the power cut left.
    fn has_kept(&self, before: Option<&(PathBuf, BTreeSet<u32>)>) {
        let Some((_, kept)) = before else { return };
        let mut judged = self
            .lines
            .iter()
            .filter_map(|line| line.split_once(", live "));
        let live = judged.next().unwrap().1;
        let live: BTreeSet<u32> = live
            .split(' ')
            .filter_map(|number| number.parse().ok())
            .collect();
        assert!(
            kept.is_subset(&live),
            "{kept:?} were acknowledged, there are {live:?}"
        );
    }

    /// How many disks were found sound from beginning to end.
    fn sound(&self) -> usize {
        self.lines
            .iter()
            .filter(|line| line.starts_with("sound "))
            .count()
    }
}

fn guest(series: Series, disks: Vec<machine::Disk>, arguments: &str) -> Heard {
    let program = format!("/root/csnap/bin/guest_cut {arguments}");
    let words: Vec<&str> = program.split_whitespace().collect();
    let mut job = Job::new(series, &words);
    let program = |name: &str| target_dir().join("debug").join(name);
    let put = |host: PathBuf, name: &str| Put {
        host,
        guest: Path::new("/root/csnap/bin").join(name),
    };
    job.payload.puts = vec![
        put(program("csnapd"), "csnapd"),
        put(program("csnapctl"), "csnapctl"),
        put(env!("CARGO_BIN_EXE_guest_cut").into(), "guest_cut"),
    ];
    job.disks = disks;
    let (mut said, mut complained) = (Vec::new(), Vec::new());
    let outcome = run(&Cache::open().unwrap(), &job, &mut |event| match event {
        Event::Stdout(bytes) => said.extend(bytes),
        Event::Stderr(bytes) => complained.extend(bytes),
        _ => {}
    });
    let outcome = outcome.unwrap();
    let said = String::from_utf8(said).unwrap();
    let complained = String::from_utf8_lossy(&complained);
    assert!(
        matches!(outcome.end, End::Exited(0) | End::PowerCut),
        "{arguments}: {:?}\n{said}{complained}",
        outcome.end
    );
    assert_eq!(outcome.complaints(), Vec::<String>::new());
    // The last line may be cut, too.
    let lines = said
        .split_inclusive('\n')
        .filter_map(|line| line.strip_suffix('\n'));
    Heard {
        end: outcome.end,
        lines: lines.map(str::to_owned).collect(),
    }
}

fn scratch(name: &str) -> PathBuf {
    let dir = target_dir().join("guest/test").join(name);
    let _ = std::fs::remove_dir_all(&dir);
    std::fs::create_dir_all(&dir).unwrap();
    dir
}

fn sparse(path: PathBuf, bytes: u64) -> PathBuf {
    File::create(&path).unwrap().set_len(bytes).unwrap();
    path
}

fn plain(path: &Path) -> machine::Disk {
    machine::Disk::File {
        path: path.to_owned(),
        cache: "unsafe".into(),
    }
}

/// What came of a log.
struct Replayed {
    /// All that it tells of.
    end: Disk,
    /// The snapshots in there.
    live: Vec<u32>,
    /// States with something missing, the latest last.
    lossy: Vec<Disk>,
    figures: Figures,
}

/// Replays a log on what the disk held before: judges the states after so many of the
/// flushes and forced writes, random ones between, and its end.
fn replay(name: &str, base: &Disk, log: &Path, durable: usize, seed: u64) -> Outcome<Replayed> {
    let begin = Instant::now();
    let mut log = open(name, log)?;
    let end = end(base, &log)?;
    let more = setting("CSNAP_REPLAY_STATES", 300)? as usize;
    let wanted = Wanted {
        from: first_record(base, &log)?,
        durable,
        between: more / 2,
        lossy: more - more / 2,
    };
    let judge = Judge::new(&end);
    let mut lossy = Vec::new();
    judged(&judge, |hand_out| {
        let last = walk(base, &log, wanted, seed, |state| {
            if state.lossy {
                lossy.push(state.disk.clone());
                lossy.drain(..lossy.len().saturating_sub(SAMPLE));
            }
            hand_out(state)
        });
        last.map(drop)
    })?;
    let live = judge.judge(&end)?;
    let figures = judge.figures();
    println!(
        "{name}: seed {seed}; {} entries in the log, {} of them flushes and forced writes; \
         {} states recovered and compared in {} s: {figures:?}",
        log.entries.len(),
        log.entries.iter().filter(|entry| entry.durable()).count(),
        figures.states,
        begin.elapsed().as_secs(),
    );
    ensure!(
        figures.states as usize > more && figures.snapshots * 4 > figures.states,
        "too few: {figures:?}"
    );
    ensure!(figures.replayed > 0, "no journal was replayed: {figures:?}");
    ensure!(
        finds_lost_flushes(base, &mut log, wanted, seed)?,
        "{name}: a disk that forgets what it flushed was not found out"
    );
    let end = Replayed {
        end,
        live,
        lossy,
        figures,
    };
    Ok(end)
}

fn open(name: &str, log: &Path) -> Outcome<Log<File>> {
    let opened = Log::open(File::open(log).unwrap());
    opened.map_err(|error| Fault::wrong(format!("{name}: {error}")))
}

fn end(base: &Disk, log: &Log<File>) -> Outcome<Disk> {
    let none = Wanted {
        from: usize::MAX,
        durable: 0,
        between: 0,
        lossy: 0,
    };
    walk(base, log, none, 0, |_| Ok(()))
}

/// The judge judged: from here on the disk answers flushes and forgets them.
fn finds_lost_flushes(
    base: &Disk,
    log: &mut Log<File>,
    wanted: Wanted,
    seed: u64,
) -> Outcome<bool> {
    let end = end(base, log)?;
    log.entries
        .retain(|entry| !matches!(entry.kind, Kind::Flush { .. }));
    let late = log.entries.len() / 2;
    let wanted = Wanted {
        from: wanted.from.max(late),
        durable: 0,
        between: 0,
        lossy: 20,
    };
    let judge = Judge::new(&end);
    let mut found = false;
    walk(base, log, wanted, seed, |state| {
        found |= judge.judge(&state.disk).is_err();
        Ok(())
    })?;
    Ok(found)
}

/// The entry that put the first record of the diary there; 0 on a disk that has one.
fn first_record(base: &Disk, log: &Log<File>) -> Outcome<usize> {
    if !base.diary().written().is_empty() {
        return Ok(0);
    }
    let mut entries = log.entries.iter();
    let first = entries.position(|entry| {
        matches!(entry.kind, Kind::Write { .. } | Kind::Flush { .. }) && Disk::is_diary(entry.start)
    });
    first
        .map(|first| first + 1)
        .ok_or_else(|| Fault::wrong("the log has no diary"))
}

/// Judges what `states` hands out, some at a time; the first fault ends it.
fn judged(judge: &Judge, states: impl FnOnce(&dyn Fn(State) -> Outcome) -> Outcome) -> Outcome {
    let (sender, receiver) = sync_channel::<State>(JUDGES);
    let receiver = Arc::new(Mutex::new(receiver));
    std::thread::scope(|scope| {
        let work = || {
            let receiver = Arc::clone(&receiver);
            scope.spawn(move || -> Outcome {
                loop {
                    let next = receiver.lock().unwrap().recv();
                    let Ok(state) = next else { return Ok(()) };
                    let place = format!("after {} entries, lossy: {}", state.point, state.lossy);
                    let found = judge.judge(&state.disk);
                    found.map_err(|fault| Fault::wrong(format!("{place}: {fault}")))?;
                }
            })
        };
        let judges: Vec<_> = (0..JUDGES).map(|_| work()).collect();
        drop(receiver);
        let handed = states(&|state| {
            let gone = |_| Fault::wrong("a judge found something");
            sender.send(state).map_err(gone)
        });
        drop(sender);
        let found = judges.into_iter().map(|judge| judge.join().unwrap());
        found.collect::<Outcome>().and(handed)
    })
}

/// Device mapper's log, on a kernel.
fn device_mapper(series: Series) -> Outcome {
    let (seed, name) = (seed(), format!("dm-log-writes on {series}"));
    let dir = scratch(&format!("cuts-{series}"));
    let disk = sparse(dir.join("disk"), WHOLE);
    let log = sparse(dir.join("log"), LOG);
    let ms = setting("CSNAP_CUT_MS", 6000)?;
    let heard = guest(
        series,
        vec![plain(&disk), plain(&log)],
        &format!("--disk /dev/guest/disk0 --log /dev/guest/disk1 --seed {seed} --ms {ms}"),
    );
    println!("{name}: {}", heard.lines.join("; "));
    let done = replay(&name, &Disk::default(), &log, usize::MAX, seed)?;
    // The last state is that of an orderly stop, and what the disk really holds.
    ensure!(
        done.figures.clean > 0,
        "the end is not clean: {:?}",
        done.figures
    );
    let replayed = dir.join("replayed");
    done.end.save(&replayed)?;
    ensure!(
        same_bytes(&disk, &replayed),
        "{name}: the replay is not what the disk holds"
    );
    let (disks, arguments) = saved(&dir, &done.lossy, 0);
    let heard = guest(series, disks, &arguments);
    assert_eq!(heard.sound(), done.lossy.len(), "{:?}", heard.lines);
    std::fs::remove_dir_all(&dir).unwrap();
    Ok(())
}

fn same_bytes(one: &Path, other: &Path) -> bool {
    let compared = std::process::Command::new("cmp")
        .arg(one)
        .arg(other)
        .status();
    compared.unwrap().success()
}

/// The states as disks of the guest, the first of them disk `first`, to be judged.
fn saved(dir: &Path, states: &[Disk], first: usize) -> (Vec<machine::Disk>, String) {
    let (mut disks, mut arguments) = (Vec::new(), String::new());
    for (number, state) in (first..).zip(states) {
        let path = dir.join(format!("state{number}"));
        state.save(&path).unwrap();
        disks.push(plain(&path));
        arguments.push_str(&format!(" --judge /dev/guest/disk{number}"));
    }
    (disks, arguments)
}

#[test]
fn every_state_of_device_mappers_log_keeps_the_promises() -> Outcome {
    for series in TESTED {
        device_mapper(series)?;
    }
    Ok(())
}

/// The power is cut under load; the machine boots again on what a power cut may have left
/// of the disk (of what was not flushed, something is missing), goes on, is cut again.
/// Beside that the disk as qemu left it is judged by csnapd, and all states that its log
/// allows by the engine. On the newest kernel: what differs is csnapd and the disk, not it.
#[test]
fn the_power_is_cut_again_and_again() -> Outcome {
    let (series, seed, dir) = (TESTED[0], seed(), scratch("cuts"));
    let mut base = Disk::default();
    let mut before: Option<(PathBuf, BTreeSet<u32>)> = None;
    let rounds = setting("CSNAP_CUTS", 2)?;
    for round in 0..rounds {
        let (disk, log) = (
            dir.join(format!("disk{round}")),
            dir.join(format!("log{round}")),
        );
        base.save(&disk)?;
        File::create(&log).unwrap();
        let mut disks = vec![machine::Disk::Logged {
            path: disk.clone(),
            log: log.clone(),
        }];
        let seed = seed + u64::from(round);
        let ms = setting("CSNAP_CUT_MS", 6000)? / 2 + (seed % 4096) as u32;
        let mut arguments = format!("--disk /dev/guest/disk0 --cut --seed {seed} --ms {ms}");
        if let Some((left, _)) = &before {
            disks.push(plain(left));
            arguments.push_str(" --again --judge /dev/guest/disk1");
        }
        let heard = guest(series, disks, &arguments);
        assert_eq!(heard.end, End::PowerCut, "{:?}", heard.lines);
        let name = format!("power cut {round}");
        println!("{name}: {}", heard.lines.join("; "));
        heard.has_kept(before.as_ref());
        let done = replay(&name, &base, &log, 100, seed)?;
        let kept = heard.kept();
        let all = kept.iter().all(|number| done.live.contains(number));
        ensure!(
            all,
            "{name}: {kept:?} were acknowledged, there are {:?}",
            done.live
        );
        before = Some((disk, kept));
        base = done.lossy.into_iter().next_back().unwrap();
    }
    let (left, _) = before.as_ref().unwrap();
    let (mut disks, mut arguments) = saved(&dir, &[base], 1);
    disks.insert(0, plain(left));
    arguments.insert_str(0, "--judge /dev/guest/disk0");
    let heard = guest(series, disks, &arguments);
    heard.has_kept(before.as_ref());
    assert_eq!(heard.sound(), 2, "{:?}", heard.lines);
    std::fs::remove_dir_all(&dir).unwrap();
    Ok(())
}
