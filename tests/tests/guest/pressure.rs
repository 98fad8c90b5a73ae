//! Memory runs short while csnapd is part of writing it out, and what protects it then.

use csnap_tests::e2e::fault::Trying;
use csnap_tests::e2e::{Fault, Outcome, tools};
use csnap_tests::ensure;
use csnap_tests::guest_bed::{RamOptions, Rig, Setup, set, text};

/// A file system's dirty pages go through csnapd while their writer is held to
/// 48 MiB: reclaim waits for csnapd, which must not wait for reclaim. By
/// `memory.high`, since at `memory.max` the kernel kills who writes faster than an
/// emulated machine can write back.
#[test]
fn buffered_writes_under_memory_pressure_go_on() -> Outcome {
    let setup = Setup {
        origin: RamOptions::plain(320),
        store_mib: 512,
        ..Setup::default()
    };
    let rig = Rig::new("pressure", &setup)?;
    rig.bed.ctl.ok("snapshot take vol@s")?;
    let device = rig.device()?;
    let mount = rig.bed.dir.join("mnt");
    std::fs::create_dir_all(&mount).trying(|| "make the mount point".into())?;
    tools::run(tools::program("mkfs.ext4").arg("-q").arg(&device.path))?;
    tools::run(tools::program("mount").arg(&device.path).arg(&mount))?;
    let group = "/sys/fs/cgroup/csnap-pressure";
    std::fs::create_dir_all(group).trying(|| "make a cgroup".into())?;
    set("/sys/fs/cgroup/cgroup.subtree_control", "+memory")?;
    set(format!("{group}/memory.high"), "50331648")?;
    set(format!("{group}/memory.max"), "134217728")?;
    let job = format!(
        "echo $$ > {group}/cgroup.procs; exec fio --name=p --directory={} --rw=randwrite \
         --bs=16k --size=100m --numjobs=2 --ioengine=psync --verify=crc32c --loops=1 --end_fsync=1",
        mount.display()
    );
    tools::run(tools::program("bash").args(["-c", &job]))?;
    let events = text(format!("{group}/memory.events"))?;
    let reclaimed = events
        .lines()
        .any(|line| line.starts_with("high ") && line != "high 0");
    ensure!(reclaimed, "there was no pressure at all:\n{events}");
    tools::run(tools::program("umount").arg(&mount))?;
    tools::run(tools::program("e2fsck").arg("-fn").arg(&device.path))?;
    rig.finish()
}

/// `PF_MEMALLOC_NOIO` and `PF_LOCAL_THROTTLE` (include/linux/sched.h): what
/// `PR_SET_IO_FLUSHER` sets.
const IO_FLUSHER: u64 = 0x0008_0000 | 0x0010_0000;

#[test]
fn csnapd_is_locked_protected_and_never_waits_for_its_own_writeback() -> Outcome {
    let rig = Rig::new("protected", &Setup::default())?;
    let status = rig.bed.ctl.json("status")?;
    let process = std::path::Path::new("/proc").join(rig.bed.pid()?.to_string());
    for name in ["memory_locked", "oom_protected", "io_flusher"] {
        let said = csnap_tests::guest_bed::rig::find_any(&status, name, &|value| value == true);
        ensure!(said.is_some(), "status does not say {name}: {status}");
    }
    let score = text(process.join("oom_score_adj"))?;
    ensure!(score == "-1000", "oom_score_adj is {score}");
    let memory = text(process.join("status"))?;
    let locked = memory.lines().find(|line| line.starts_with("VmLck:"));
    ensure!(
        locked.is_some_and(|line| !line.contains(" 0 kB")),
        "nothing is locked: {locked:?}"
    );
    let tasks = process.join("task");
    let story = || format!("list {}", tasks.display());
    for task in std::fs::read_dir(&tasks).trying(story)? {
        let path = task.trying(story)?.path().join("stat");
        let stat = text(&path)?;
        // The name, in parentheses, may hold anything; the flags are field 9.
        let fields = stat.rsplit(')').next().unwrap_or_default();
        let flags = fields
            .split_whitespace()
            .nth(6)
            .and_then(|word| word.parse().ok());
        let odd = || Fault::wrong(format!("no flags in {}: {stat}", path.display()));
        let flags: u64 = flags.ok_or_else(odd)?;
        ensure!(flags & IO_FLUSHER == IO_FLUSHER, "{stat}: flags {flags:#x}");
    }
    rig.finish()
}
