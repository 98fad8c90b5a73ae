//! Memory runs short while csnapd is part of writing it out.

use csnap_tests::e2e::fault::Trying;
use csnap_tests::e2e::{Outcome, tools};
use csnap_tests::ensure;
use csnap_tests::guest_bed::{RamOptions, Rig, Setup, set};

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
    let events = csnap_tests::guest_bed::text(format!("{group}/memory.events"))?;
    let reclaimed = events
        .lines()
        .any(|line| line.starts_with("high ") && line != "high 0");
    ensure!(reclaimed, "there was no pressure at all:\n{events}");
    tools::run(tools::program("umount").arg(&mount))?;
    tools::run(tools::program("e2fsck").arg("-fn").arg(&device.path))?;
    rig.finish()
}
