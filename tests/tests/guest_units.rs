//! The units as installed, under systemd in the virtual machine: a file system that
//! the manual's line in fstab mounts stays mounted over a restart, a stop and a crash
//! of csnapd. Needs `guest prepare` and the release build; run by `make guest-test`.
#![allow(clippy::unwrap_used)] // all of it is a test

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use csnap_tests::guest::cache::{Cache, target_dir};
use csnap_tests::guest::console::Event;
use csnap_tests::guest::kernels::TESTED;
use csnap_tests::guest::machine::Disk;
use csnap_tests::guest::payload::{Init, Put};
use csnap_tests::guest::run::{End, Job, run};

const SCRIPT: &str = r#"
set -euxo pipefail
cp -a /root/installed/usr/local/. /usr/local/
udevadm control --reload
mkfs.xfs -q /dev/guest/disk0
systemctl daemon-reload
systemctl enable --now csnapd
csnapctl store create /dev/guest/disk1
csnapctl store attach /dev/guest/disk1
csnapctl volume create web /dev/guest/disk0
mkdir -p /srv/web
echo "$LINE" >> /etc/fstab
systemctl daemon-reload
systemctl start srv-web.mount

# One that unmounts it, even for a moment, takes the mark away.
served() {
    timeout 60 touch "/srv/web/$1"
    timeout 60 sync -f /srv/web
    mountpoint /srv/web
    [[ $(findmnt -no ID /srv/web) == "$mount" ]]
    [[ $(readlink -f /dev/csnap/web) == "$device" ]]
    [[ $(csnapctl volume show web -o link --no-header) == /dev/csnap/web ]]
}
mount=$(findmnt -no ID /srv/web)
device=$(readlink -f /dev/csnap/web)
udevadm settle
served first
systemctl restart csnapd
served restarted
kill -9 "$(pidof csnapd)"
served killed
systemctl stop csnapd.socket csnapd.service
systemctl start csnapd
served stopped
if journalctl -u csnapd | grep no-link; then exit 9; fi
"#;

/// The line the manual tells people to write.
fn line_of_fstab(root: &Path) -> String {
    let manual = fs::read_to_string(root.join("docs/manual.md")).unwrap();
    let mut lines = manual.lines().map(str::trim);
    let found = lines.find(|line| line.starts_with("/dev/csnap/web  /srv/web"));
    found.unwrap().to_owned()
}

fn put(host: &Path, guest: &str) -> Put {
    Put {
        host: host.to_owned(),
        guest: PathBuf::from(guest),
    }
}

/// What `make install DESTDIR=` puts there, but for the programs.
fn install(root: &Path, into: &Path) {
    let _ = fs::remove_dir_all(into);
    let done = Command::new(root.join("scripts/install-system"))
        .args(["install", into.to_str().unwrap(), "/usr/local"])
        .status();
    assert!(done.unwrap().success());
}

#[test]
fn a_file_system_of_fstab_stays_over_restart_crash_and_stop() {
    let root = Path::new(env!("CARGO_MANIFEST_DIR")).parent().unwrap();
    let installed = target_dir().join("guest/test/installed");
    install(root, &installed);
    let mut job = Job::new(TESTED[0], &["bash", "-c", SCRIPT]);
    job.payload.init = Init::Systemd;
    job.payload.environment = vec![("LINE".into(), line_of_fstab(root))];
    job.payload.puts = vec![
        put(&installed, "/root/installed"),
        put(&target_dir().join("debug/csnapd"), "/usr/local/sbin/csnapd"),
        put(
            &target_dir().join("debug/csnapctl"),
            "/usr/local/bin/csnapctl",
        ),
    ];
    job.disks = vec![Disk::Empty(400 << 20), Disk::Empty(300 << 20)];
    let mut said = Vec::new();
    let outcome = run(&Cache::open().unwrap(), &job, &mut |event| {
        if let Event::Stdout(bytes) | Event::Stderr(bytes) = event {
            said.extend(bytes);
        }
    });
    let said = String::from_utf8_lossy(&said);
    assert_eq!(outcome.unwrap().end, End::Exited(0), "{said}");
}
