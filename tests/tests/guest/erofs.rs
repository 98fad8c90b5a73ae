//! EROFS images that imagegen writes onto devices, judged by the guest's kernel: what it
//! mounts shows the tree they were made of, and below csnap a snapshot does as well.

use std::path::{Path, PathBuf};

use csnap_tests::e2e::bed::VOLUME;
use csnap_tests::e2e::{Fault, Outcome};
use csnap_tests::guest_bed::image::{self, Original, Point};
use csnap_tests::guest_bed::view::{self, View};
use csnap_tests::guest_bed::{Device, Disk, RamOptions, Rig, Setup, erofs, kernel, note};
use imagegen::erofs::compress::choice::{Compression, Fragments, Method};
use imagegen::erofs::write::Options;

/// Size of a device.
const MIB: u64 = 256;

fn place(name: &str) -> PathBuf {
    Path::new("/run/csnap-test/erofs").join(name)
}

/// Compressed by `algorithm`, in clusters of 64 KiB.
fn packed(algorithm: &str, fragments: Fragments) -> Outcome<Options> {
    let algorithm = algorithm.parse();
    let algorithm = algorithm.map_err(|error| Fault::wrong(format!("an algorithm: {error}")))?;
    let options = Options::default();
    let usual = Compression::new(Method::By(algorithm), options.block_size);
    Ok(Options {
        compression: Some(Compression {
            cluster: 64 << 10,
            inline_tails: fragments == Fragments::None,
            fragments,
            ..usual
        }),
        ..options
    })
}

/// Each layout and algorithm once, at the level that costs a slow guest least.
fn kinds() -> Outcome<Vec<(&'static str, Options)>> {
    let chunks = Options {
        chunk_size: Some(4096),
        dedupe: true,
        ..Options::default()
    };
    let shared = Options {
        dedupe: true,
        ..packed("lz4", Fragments::None)?
    };
    Ok(vec![
        ("plain", Options::default()),
        ("chunks", chunks),
        ("lz4", packed("lz4", Fragments::None)?),
        ("lz4hc, fragments", packed("lz4hc,3", Fragments::Tails)?),
        ("lz4, dedupe", shared),
        ("lzma", packed("lzma,0", Fragments::None)?),
        (
            "deflate, all fragments",
            packed("deflate,1", Fragments::All)?,
        ),
        ("zstd", packed("zstd,1", Fragments::None)?),
    ])
}

/// Mounted, a device shows exactly this.
fn shows(device: &Device, meant: &View, what: &str) -> Outcome {
    let dir = place("image");
    let _point = Point(dir.clone());
    image::mount_as("erofs", device, "ro", &dir)?;
    view::same(meant, &erofs::expected(&view::view(&dir)?), what)?;
    image::umount(&dir)
}

#[test]
fn the_kernel_shows_the_tree_in_each_kind() -> Outcome {
    kernel::inside()?;
    let original = Original::plant(&place("original"), super::seed())?;
    let meant = erofs::expected(&original.view);
    for (name, options) in kinds()? {
        let disk = Disk::ram(RamOptions::plain(MIB))?;
        let shown = erofs::write(&original, disk.device(), &options)
            .and_then(|()| shows(disk.device(), &meant, name));
        shown.map_err(|fault| Fault::wrong(format!("{name}: {fault}")))?;
        disk.remove()?;
    }
    note(&format!(
        "erofs: {} objects in {} kinds of image",
        meant.len(),
        kinds()?.len()
    ))?;
    original.remove()
}

/// A read-only origin: its snapshot is mounted after the volume got another image.
#[test]
fn a_snapshot_keeps_a_read_only_image() -> Outcome {
    kernel::inside()?;
    let original = Original::plant(&place("original"), super::seed())?;
    let meant = erofs::expected(&original.view);
    let origin = Disk::ram(RamOptions::plain(MIB))?;
    erofs::write(&original, origin.device(), &Options::default())?;
    let store = Disk::ram(RamOptions::plain(512))?;
    let mut rig = Rig::unserved("erofs-csnap", &Setup::default(), origin, store)?;
    rig.bed.serve("16K")?;
    let full = format!("{VOLUME}@made");
    rig.bed.ctl.ok(&format!("snapshot take {full}"))?;
    let volume = rig.device()?;
    erofs::write(&original, &volume, &packed("zstd,1", Fragments::None)?)?;
    shows(&volume, &meant, "the second image")?;
    rig.bed.ctl.ok(&format!("snapshot map {full}"))?;
    kernel::settle()?;
    shows(&rig.snapshot_device(&full)?, &meant, &full)?;
    kernel::settle()?;
    rig.bed.ctl.ok(&format!("snapshot unmap {full}"))?;
    rig.finish()?;
    original.remove()
}
