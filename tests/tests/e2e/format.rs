//! An origin formatted by `volume create --format`: the volume and its snapshots are a
//! file system that outside programs find sound; data is not written over by mistake.

use csnap_tests::e2e::bed::VOLUME;
use csnap_tests::e2e::client::Client;
use csnap_tests::e2e::fault::Trying;
use csnap_tests::e2e::files::{self, MIB};
use csnap_tests::e2e::{Bed, Outcome, Setup, ctl::exit, tools};
use csnap_tests::{ensure, need_tools};

/// A daemon with a store, and an origin that is no volume yet.
fn bed(test: &str, noise: Option<u64>) -> Outcome<Bed> {
    let setup = Setup {
        origin_bytes: 400 * MIB,
        noise,
        ..Setup::default()
    };
    let mut bed = Bed::bare(test, &setup)?;
    let store = bed.store.display().to_string();
    bed.ctl.ok(&format!("store create {store} --yes"))?;
    bed.start()?;
    bed.ctl.ok(&format!("store attach {store}"))?;
    Ok(bed)
}

/// A small tree; its path.
fn tree(bed: &Bed) -> Outcome<String> {
    let tree = bed.path("tree");
    let story = || format!("make {}", tree.display());
    std::fs::create_dir_all(tree.join("below")).trying(story)?;
    files::make_noise(&tree.join("large"), 5 * MIB, super::seed())?;
    std::fs::write(tree.join("below/small"), "few").trying(story)?;
    std::fs::hard_link(tree.join("large"), tree.join("below/again")).trying(story)?;
    Ok(tree.display().to_string())
}

#[test]
fn a_formatted_origin_is_a_sound_file_system_through_its_volume_and_its_snapshot() -> Outcome {
    need_tools!(
        "a_formatted_origin_is_a_sound_file_system_through_its_volume_and_its_snapshot",
        "nbdcopy",
        "xfs_repair",
        "xfs_db"
    );
    let bed = bed("format", None)?;
    let (tree, origin) = (tree(&bed)?, bed.origin.display().to_string());
    // What xfsprogs of Debian 12 know.
    let made = bed.ctl.json(&format!(
        "volume create {VOLUME} {origin} --format xfs --from {tree} --label mine --for linux-6.1"
    ))?;
    let made = &made["volumes"][0]["file_system"];
    ensure!(made["files"] == 2 && made["inodes"] == 4, "made {made}");
    let before = files::digest(&bed.origin)?;
    let snapshot = bed.take_mapped("first")?;
    ensure!(bed.digest(VOLUME)? == before, "the volume is another");
    // The snapshot stays what was formatted, whatever becomes of the volume.
    Client::connect(&bed.nbd_socket(), VOLUME)?.write(0, vec![9; 64 << 10])?;
    ensure!(bed.digest(&snapshot)? == before, "{snapshot} changed");
    let copy = bed.path("copy.img");
    tools::run(tools::program("nbdcopy").arg(bed.uri(&snapshot)).arg(&copy))?;
    tools::run(tools::program("xfs_repair").arg("-n").arg(&copy))?;
    let said = tools::run(
        tools::program("xfs_db")
            .args(["-r", "-c", "label", "-c", "uuid"])
            .arg(&copy),
    )?;
    let uuid = made["uuid"].as_str().unwrap_or("none");
    ensure!(
        said.contains("\"mine\"") && said.contains(uuid),
        "not {uuid}: {said}"
    );
    bed.finish()
}

#[test]
fn a_read_only_origin_is_a_sound_image_through_its_snapshot() -> Outcome {
    const TEST: &str = "a_read_only_origin_is_a_sound_image_through_its_snapshot";
    need_tools!(TEST, "nbdcopy", "diff");
    let Some(mut fsck) = tools::judge("erofs-utils", "fsck.erofs")? else {
        return tools::skip(TEST, "no newest fsck.erofs; run scripts/judges");
    };
    let bed = bed("format-erofs", None)?;
    let (tree, origin) = (tree(&bed)?, bed.origin.display().to_string());
    let made = bed.ctl.json(&format!(
        "volume create {VOLUME} {origin} --format erofs --from {tree} --compress zstd,3"
    ))?;
    let made = &made["volumes"][0]["file_system"];
    ensure!(
        made["kind"] == "erofs" && made["inodes"] == 4,
        "made {made}"
    );
    let snapshot = bed.take_mapped("first")?;
    // The volume gets other contents where the image begins.
    Client::connect(&bed.nbd_socket(), VOLUME)?.write(0, vec![9; 64 << 10])?;
    let (copy, out) = (bed.path("copy.img"), bed.path("extracted"));
    tools::run(tools::program("nbdcopy").arg(bed.uri(&snapshot)).arg(&copy))?;
    let extract = format!("--extract={}", out.display());
    tools::run(fsck.arg(extract).arg(&copy))?;
    tools::run(tools::program("diff").arg("-r").args([&tree]).arg(&out))?;
    bed.finish()
}

#[test]
fn an_origin_that_holds_data_is_not_formatted() -> Outcome {
    let bed = bed("format-data", Some(3))?;
    let origin = bed.origin.display().to_string();
    let before = files::digest(&bed.origin)?;
    let create = format!("volume create {VOLUME} {origin} --format xfs");
    bed.ctl.refuses(&create, exit::BUSY, "--force")?;
    let store = format!(
        "volume create {VOLUME} {} --format xfs --force",
        bed.store.display()
    );
    bed.ctl.refuses(&store, exit::BUSY, "store")?;
    ensure!(files::digest(&bed.origin)? == before, "refused and changed");
    bed.ctl.ok(&format!("volume create {VOLUME} {origin}"))?;
    let again = format!("volume create other {origin} --format xfs --force");
    bed.ctl.refuses(&again, exit::BUSY, VOLUME)?;
    ensure!(bed.digest(VOLUME)? == before, "a volume was formatted");
    bed.finish()
}
