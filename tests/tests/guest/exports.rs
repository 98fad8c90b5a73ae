//! What leaves csnap while it serves block devices, and comes back through one.

use std::fs::OpenOptions;
use std::os::unix::fs::OpenOptionsExt;

use csnap_tests::e2e::ctl::exit;
use csnap_tests::e2e::fault::Trying;
use csnap_tests::e2e::{Outcome, tools};
use csnap_tests::ensure;
use csnap_tests::guest_bed::{Rig, Setup};
use nix::fcntl::OFlag;

#[test]
fn a_snapshot_leaves_without_a_device_and_comes_back_through_one() -> Outcome {
    let rig = Rig::new("exports", &Setup::default())?;
    let (device, ctl) = (rig.device()?, &rig.bed.ctl);
    let [a, b] = ["a.qcow2", "b.qcow2"].map(|name| rig.bed.path(name).display().to_string());
    let first = device.image()?;
    ctl.ok("snapshot take vol@a")?;
    device.write(3 << 20, &[0x5c; 96 << 10])?;
    device.flush()?;
    let second = device.image()?;
    ctl.ok("snapshot take vol@b")?;
    device.fill(9)?;
    ctl.ok(&format!("snapshot export vol@a -o {a}"))?;
    let increment = format!("snapshot export vol@b --from vol@a -b a.qcow2 -o {b}");
    let told = ctl.json(&increment)?;
    ensure!(
        told["exports"][0]["changed"] == 96 << 10,
        "not what was written: {told}"
    );
    tools::run(tools::program("qemu-img").args(["check", &b]))?;

    let restore = format!("volume restore vol --yes --from {b}");
    let held = OpenOptions::new()
        .read(true)
        .custom_flags(OFlag::O_EXCL.bits())
        .open(&device.path)
        .trying(|| "hold the device".into())?;
    ctl.refuses(&restore, exit::BUSY, "in use")?;
    drop(held);
    ctl.ok(&format!("{restore} --keep filled"))?;
    second.same(&device.image()?, "what was restored")?;
    ctl.ok(&format!("volume restore vol --yes --from {a}"))?;
    first.same(&device.image()?, "what was restored of the first")?;
    for name in ["a", "b"] {
        ctl.ok(&format!("snapshot map vol@{name}"))?;
    }
    first.same(&rig.snapshot_device("vol@a")?.image()?, "vol@a")?;
    second.same(&rig.snapshot_device("vol@b")?.image()?, "vol@b")?;
    for name in ["a", "b"] {
        ctl.ok(&format!("snapshot unmap vol@{name}"))?;
    }
    rig.finish()
}
