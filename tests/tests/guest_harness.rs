//! The virtual machine tested as a tool: what it reports is what happened in it.
//! Needs `guest prepare`; run by `make guest-test`.
#![allow(clippy::unwrap_used)] // all of it is a test

use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use csnap_tests::guest::cache::{Cache, target_dir};
use csnap_tests::guest::console::Event;
use csnap_tests::guest::kernels::{Series, TESTED};
use csnap_tests::guest::machine::{Disk, read};
use csnap_tests::guest::payload::{Init, Put};
use csnap_tests::guest::run::{End, Job, Outcome, run};

/// A run's end and what the program wrote, with the time each piece arrived.
struct Seen {
    outcome: Outcome,
    stdout: String,
    stderr: String,
    arrivals: Vec<Instant>,
}

fn see(job: &Job) -> Seen {
    let (mut stdout, mut stderr, mut arrivals) = (Vec::new(), Vec::new(), Vec::new());
    let outcome = run(&Cache::open().unwrap(), job, &mut |event| match event {
        Event::Stdout(bytes) => {
            arrivals.push(Instant::now());
            stdout.extend(bytes);
        }
        Event::Stderr(bytes) => stderr.extend(bytes),
        _ => {}
    });
    Seen {
        outcome: outcome.unwrap(),
        stdout: String::from_utf8(stdout).unwrap(),
        stderr: String::from_utf8(stderr).unwrap(),
        arrivals,
    }
}

fn bash(series: Series, script: &str) -> Job {
    Job::new(series, &["bash", "-c", script])
}

fn newest(script: &str) -> Job {
    bash(TESTED[0], script)
}

fn scratch(name: &str) -> PathBuf {
    let dir = target_dir().join("guest/test").join(name);
    let _ = fs::remove_dir_all(&dir);
    fs::create_dir_all(&dir).unwrap();
    dir
}

#[test]
fn both_kernels_are_what_was_asked_for_and_have_ublk() {
    for series in TESTED {
        let seen = see(&bash(
            series,
            "uname -r; modprobe ublk_drv && [ -c /dev/ublk-control ] && echo ublk",
        ));
        assert_eq!(seen.outcome.end, End::Exited(0), "{}", seen.stderr);
        assert_eq!(seen.stdout, format!("{}\nublk\n", seen.outcome.release));
        assert!(seen.stdout.starts_with(&format!("{series}.")));
        let log = read(&seen.outcome.kernel_log);
        assert!(log.contains("Linux version"), "the whole log is kept");
        assert_eq!(seen.outcome.complaints(), Vec::<String>::new());
    }
}

#[test]
fn status_both_outputs_arguments_and_variables_come_through() {
    let mut job = newest("echo \"$1|$ODD\"; echo complaint >&2; exit 7");
    let words = ["name", "two 'words' $HOME"].map(str::to_owned);
    job.payload.program.extend(words);
    job.payload.environment = vec![("ODD".into(), "it's".into())];
    let seen = see(&job);
    assert_eq!(seen.outcome.end, End::Exited(7));
    assert_eq!(seen.stdout, "two 'words' $HOME|it's\n");
    assert_eq!(seen.stderr, "complaint\n");
    let killed = see(&newest("kill -9 $$"));
    assert_eq!(killed.outcome.end, End::Exited(128 + 9));
    let absent = see(&Job::new(TESTED[0], &["/no/such/program"]));
    assert_eq!(absent.outcome.end, End::Exited(127), "{}", absent.stderr);
}

#[test]
fn output_is_live_and_none_is_lost() {
    // A daemon left behind holds the pipes; it must not hold up the end.
    let seen = see(&newest(
        "sleep 1000 & echo first; sleep 4; seq 200000; echo last",
    ));
    assert_eq!(seen.outcome.end, End::Exited(0));
    let (first, last) = (seen.arrivals[0], seen.arrivals[seen.arrivals.len() - 1]);
    assert!(last - first > Duration::from_secs(3), "it came all at once");
    assert_eq!(seen.stdout.lines().count(), 200_002);
    assert!(seen.stdout.ends_with("200000\nlast\n"));
}

#[test]
fn files_go_in_and_results_come_back() {
    let dir = scratch("files");
    fs::write(dir.join("in"), "put in").unwrap();
    fs::create_dir(dir.join("tree")).unwrap();
    fs::write(dir.join("tree/leaf"), "deep").unwrap();
    let put = |text: String| text.parse::<Put>().unwrap();
    let mut job = newest(
        "mkdir /results/d; cp /etc/in /results/d/; cp /opt/x/tree/leaf /results/
         head -c 3000000 /dev/urandom > /results/big; sha256sum < /results/big; exit 3",
    );
    job.payload.puts = vec![
        put(format!("{}:/etc/in", dir.join("in").display())),
        put(format!("{}:/opt/x/", dir.join("tree").display())),
    ];
    let back = dir.join("back");
    job.get = Some(back.clone());
    let seen = see(&job);
    assert_eq!(seen.outcome.end, End::Exited(3), "{}", seen.stderr);
    assert_eq!(fs::read_to_string(back.join("d/in")).unwrap(), "put in");
    assert_eq!(fs::read_to_string(back.join("leaf")).unwrap(), "deep");
    let digest = Command::new("sha256sum").arg(back.join("big")).output();
    let digest = String::from_utf8(digest.unwrap().stdout).unwrap();
    assert_eq!(digest[..64], seen.stdout[..64]);
}

#[test]
fn a_panic_is_reported_with_the_log_at_once() {
    let start = Instant::now();
    // What is on its way out when the kernel dies, dies with it.
    let seen = see(&newest(
        "echo before; sleep 2; echo c > /proc/sysrq-trigger; sleep 1000",
    ));
    assert_eq!(seen.outcome.end, End::Died);
    assert_eq!(seen.stdout, "before\n");
    assert!(start.elapsed() < Duration::from_secs(120));
    let log = read(&seen.outcome.kernel_log);
    assert!(log.contains("sysrq triggered crash") && log.contains("Call Trace"));
    let complaints = seen.outcome.complaints();
    assert!(complaints.iter().any(|line| line.contains("Kernel panic")));
}

#[test]
fn a_hang_is_killed() {
    let mut job = newest("echo before; sleep 1000");
    job.idle_timeout = Some(Duration::from_secs(4));
    let seen = see(&job);
    assert_eq!((seen.outcome.end, &*seen.stdout), (End::Silent, "before\n"));
    let mut job = newest("while :; do echo busy; sleep 1; done");
    job.timeout = Duration::from_secs(40);
    let seen = see(&job);
    assert_eq!(seen.outcome.end, End::TimedOut);
    assert!(seen.stdout.starts_with("busy\n"));
    assert!(read(&seen.outcome.kernel_log).contains("Linux version"));
    assert!(seen.outcome.total < Duration::from_secs(60));
}

#[test]
fn a_power_cut_keeps_what_was_flushed_on_a_disk() {
    let dir = scratch("power");
    let disk = dir.join("disk.img");
    fs::File::create(&disk).unwrap().set_len(1 << 20).unwrap();
    let mut job = newest(
        "test $(blockdev --getsize64 /dev/guest/disk1) = 33554432 || exit 1
         printf flushed | dd of=/dev/guest/disk0 conv=fsync status=none
         guest-power-cut; echo after",
    );
    let file = Disk::File {
        path: disk.clone(),
        cache: "writeback".into(),
    };
    job.disks = vec![file, Disk::Empty(32 << 20)];
    let seen = see(&job);
    assert_eq!(seen.outcome.end, End::PowerCut, "{}", seen.stderr);
    assert_eq!(seen.stdout, "");
    assert!(fs::read(&disk).unwrap().starts_with(b"flushed\0"));
}

#[test]
fn udev_and_systemd_run_when_asked_for() {
    let mut job =
        newest("test -e /dev/disk/by-id/virtio-root && udevadm settle && pidof systemd-udevd");
    job.payload.init = Init::Udev;
    let seen = see(&job);
    assert_eq!(seen.outcome.end, End::Exited(0), "{}", seen.stderr);
    let mut job = newest("cat /proc/1/comm; systemctl is-active multi-user.target; exit 5");
    job.payload.init = Init::Systemd;
    let seen = see(&job);
    assert_eq!(seen.stdout, "systemd\nactive\n");
    assert_eq!(seen.outcome.end, End::Exited(5), "{}", seen.stderr);
}
