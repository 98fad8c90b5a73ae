//! csnap's rule for udev, as it is installed (`scripts/guest-runner` puts it there).

use std::path::Path;

use csnap_tests::e2e::fault::Trying;
use csnap_tests::e2e::{Outcome, tools};
use csnap_tests::ensure;
use csnap_tests::guest_bed::{Device, Disk, RamOptions, Rig, Setup, kernel};

const UUID: &str = "6f1d62d5-93a5-4f5c-9b52-1b1f7c0f4a11";

fn properties(device: &Device) -> Outcome<String> {
    let mut udevadm = tools::program("udevadm");
    tools::run(
        udevadm
            .args(["info", "--query=property", "--name"])
            .arg(&device.path),
    )
}

/// The volume is found by the UUID of what is on it, and its origin is not; a snapshot
/// is found by nothing it holds.
#[test]
fn links_by_uuid_lead_to_the_volume_and_never_to_a_snapshot() -> Outcome {
    let origin = Disk::ram(RamOptions::plain(320))?;
    let store = Disk::ram(RamOptions::plain(64))?;
    let mut rig = Rig::unserved("udev", &Setup::default(), origin, store)?;
    // Where the rule looks for what csnapd says of its devices.
    let here = Path::new("/run/csnap");
    std::os::unix::fs::symlink(&rig.bed.places.run_dir, here)
        .trying(|| "link /run/csnap".into())?;
    let outcome = seen_by_udev(&mut rig);
    std::fs::remove_file(here).trying(|| "remove /run/csnap".into())?;
    outcome?;
    rig.finish()
}

fn seen_by_udev(rig: &mut Rig) -> Outcome {
    rig.bed.serve("16K")?;
    let live = rig.device()?;
    let mut mkfs = tools::program("mkfs.xfs");
    tools::run(
        mkfs.args(["-q", "-m", &format!("uuid={UUID}")])
            .arg(&live.path),
    )?;
    kernel::settle()?;
    let by_uuid = Path::new("/dev/disk/by-uuid").join(UUID);
    let leads_to = |wanted: &Device, when: &str| -> Outcome {
        let found = Device::new(&by_uuid)?.name()?;
        ensure!(
            found == wanted.name()?,
            "{when}: {} leads to {found}",
            by_uuid.display()
        );
        Ok(())
    };
    leads_to(&live, "with the volume alone")?;
    let full = rig.bed.take_mapped("s")?;
    kernel::settle()?;
    let snapshot = rig.snapshot_device(&full)?;
    leads_to(&live, "with a snapshot mapped")?;
    let said = properties(&snapshot)?;
    ensure!(
        said.contains("ID_FS_TYPE=csnap_snapshot") && !said.contains(UUID),
        "what LVM, MD and the rest go by:\n{said}"
    );
    let said = properties(&live)?;
    ensure!(
        said.contains("ID_FS_TYPE=xfs") && said.contains(UUID),
        "of the volume:\n{said}"
    );
    rig.bed.ctl.ok(&format!("snapshot unmap {full}"))?;
    kernel::settle()?;
    leads_to(&live, "with the snapshot unmapped")
}
