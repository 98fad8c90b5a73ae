//! Images that imagegen writes onto devices, judged by the guest's kernel: it mounts
//! those of each set of features, shows in them the tree they were made of, stands a load
//! on them, and grows them. It must have nothing to say about any of that.

use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use csnap_tests::e2e::bed::VOLUME;
use csnap_tests::e2e::{Fault, Outcome, tools};
use csnap_tests::ensure;
use csnap_tests::guest_bed::image::{self, Original, Point, Wanted};
use csnap_tests::guest_bed::view::{self, View};
use csnap_tests::guest_bed::{Device, Disk, RamOptions, Rig, Setup, kernel, mixed, note};
use imagegen::target::Overwrite;
use imagegen::xfs::geometry::Kernel;
use imagegen::xfs::make::Size;

const MIB: u64 = 1 << 20;
/// The device at first, and when it has grown.
const SMALL: u64 = 256 * MIB;
const LARGE: u64 = 400 * MIB;

const LONG: Duration = Duration::from_secs(4);
const SHORT: Duration = Duration::from_secs(2);

fn place(test: &str, name: &str) -> PathBuf {
    Path::new("/run/csnap-test").join(test).join(name)
}

/// Mounted read-only, a device shows exactly this, and the kernel's map of it is ours.
fn shows(device: &Device, dir: &Path, meant: &View, what: &str) -> Outcome {
    image::mount(device, "ro", dir)?;
    view::same(meant, &view::view(dir)?, what)?;
    image::same_map(device, dir)?;
    image::umount(dir)
}

/// One kind of image, from its making to its growth.
fn lives(test: &str, original: &Original, wanted: Wanted, seed: u64) -> Outcome {
    let start = Instant::now();
    let log = kernel::mark()?;
    let disk = Disk::mapped(Disk::ram(RamOptions::plain(LARGE / MIB))?)?;
    disk.retable(&format!("0 {} linear %d 0", SMALL / 512))?;
    let (device, dir) = (disk.device(), place(test, "image"));
    let _point = Point(dir.clone());
    original.write(device, &wanted, Overwrite::Refuse)?;
    let written = start.elapsed();
    image::check_all(test, device, "as it was written")?;
    shows(device, &dir, &original.expected(&wanted), "the image")?;
    let shown = start.elapsed();

    let mut steps = 0;
    image::mount(device, "rw", &dir)?;
    // There is no room for a load in the smallest.
    if wanted.size != Size::Minimal {
        steps += mixed::load(&dir, seed, LONG)?;
    }
    image::umount(&dir)?;
    image::check_all(test, device, "after being mounted")?;

    disk.retable("0 %s linear %d 0")?;
    image::mount(device, "rw", &dir)?;
    let before = bytes(&dir)?;
    tools::run(tools::program("xfs_growfs").arg(&dir))?;
    let after = bytes(&dir)?;
    ensure!(
        after > before && after > LARGE / 4 * 3,
        "{before} bytes grew to {after}"
    );
    steps += mixed::load(&dir, !seed, SHORT)?;
    image::umount(&dir)?;
    image::check_all(test, device, "after growing")?;
    image::mount(device, "ro", &dir)?;
    image::same_map(device, &dir)?;
    image::umount(&dir)?;
    kernel::xfs_content_since(&log, 4)?;
    disk.remove()?;
    note(&format!(
        "{test}: {} {:?}: {} objects, {steps} steps of a load; {:.0} s to write, {:.0} s to \
         judge, {:.0} s in all",
        wanted.kernel.name(),
        wanted.size,
        original.view.len(),
        written.as_secs_f64(),
        (shown - written).as_secs_f64(),
        start.elapsed().as_secs_f64()
    ))
}

/// Size of the file system mounted at `dir`, without its log.
fn bytes(dir: &Path) -> Outcome<u64> {
    let mut stat = tools::program("stat");
    let text = tools::run(stat.args(["-f", "-c", "%b %S"]).arg(dir))?;
    let mut numbers = text
        .split_whitespace()
        .map(|word| word.parse().unwrap_or(0));
    Ok(numbers.next().unwrap_or(0) * numbers.next().unwrap_or(0))
}

#[test]
fn the_kernel_mounts_loads_and_grows_each_kind() -> Outcome {
    let (test, seed) = ("images", super::seed());
    kernel::inside()?;
    let start = Instant::now();
    let original = Original::plant(&place(test, "original"), seed)?;
    note(&format!(
        "{test}: the tree took {:.0} s",
        start.elapsed().as_secs_f64()
    ))?;
    let small = Size::Exact(SMALL);
    for (kernel, size) in [
        (Kernel::Linux6_1, small),
        (Kernel::Linux6_12, small),
        (Kernel::Linux7_2, small),
        (Kernel::Linux7_2, Size::Minimal),
    ] {
        let wanted = Wanted { kernel, size };
        let lived = lives(test, &original, wanted, seed);
        lived.map_err(|fault| Fault::wrong(format!("{wanted:?}: {fault}")))?;
    }
    original.remove()
}

/// A formatted origin behind csnap: its snapshot shows the tree whatever becomes of the
/// volume, be it a load or another image.
#[test]
fn a_snapshot_keeps_an_image() -> Outcome {
    let (test, seed) = ("images-csnap", super::seed());
    kernel::inside()?;
    let log = kernel::mark()?;
    let original = Original::plant(&place("images-tree", "original"), seed)?;
    let wanted = |kernel| Wanted {
        kernel,
        size: Size::Exact(SMALL),
    };
    let (old, new) = (wanted(Kernel::Linux6_12), wanted(Kernel::Linux7_2));
    let origin = Disk::ram(RamOptions::plain(SMALL / MIB))?;
    original.write(origin.device(), &old, Overwrite::Refuse)?;
    let store = Disk::ram(RamOptions::plain(512))?;
    let mut rig = Rig::unserved(test, &Setup::default(), origin, store)?;
    rig.bed.serve("16K")?;
    let full = format!("{VOLUME}@made");
    rig.bed.ctl.ok(&format!("snapshot take {full}"))?;

    let (volume, dir) = (rig.device()?, rig.bed.path("live"));
    image::mount(&volume, "rw", &dir)?;
    mixed::load(&dir, seed, LONG)?;
    snapshot_shows(&rig, &full, &original.expected(&old))?;
    image::umount(&dir)?;
    image::check_all(test, &volume, "the volume after a load")?;

    original.write(&volume, &new, Overwrite::Force)?;
    image::check_all(test, &volume, "an image written onto the volume")?;
    shows(&volume, &dir, &original.expected(&new), "the second image")?;
    snapshot_shows(&rig, &full, &original.expected(&old))?;
    kernel::xfs_content_since(&log, 4)?;
    rig.finish()?;
    original.remove()
}

/// Mounted by csnapctl, a snapshot shows exactly this; checked, it is clean.
fn snapshot_shows(rig: &Rig, full: &str, meant: &View) -> Outcome {
    let (ctl, dir) = (&rig.bed.ctl, rig.bed.path("side"));
    ctl.ok(&format!("snapshot mount {full} {} --mkdir", dir.display()))?;
    let device = rig.snapshot_device(full)?;
    view::same(meant, &view::view(&dir)?, full)?;
    image::same_map(&device, &dir)?;
    ctl.ok(&format!("snapshot umount {full}"))?;
    ctl.ok(&format!("snapshot map {full}"))?;
    kernel::settle()?;
    image::check_all("images-csnap", &rig.snapshot_device(full)?, full)?;
    kernel::settle()?;
    ctl.ok(&format!("snapshot unmap {full}")).map(drop)
}
