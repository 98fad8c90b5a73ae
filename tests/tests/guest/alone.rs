//! The origin without csnap.

use csnap_tests::e2e::Outcome;
use csnap_tests::ensure;
use csnap_tests::guest_bed::fio::{Fio, verified};
use csnap_tests::guest_bed::{Rig, Setup, kernel};

#[test]
fn the_origin_alone_is_what_the_user_wrote() -> Outcome {
    let mut rig = Rig::new("alone", &Setup::default())?;
    let live = rig.device()?;
    rig.take_at_rest("before")?;
    let job = format!(
        "{}bsrange=512-64k\nsize=32m\n[over]\n",
        verified(&live, super::seed())
    );
    Fio::start(&rig.bed.dir, "alone", &job)?.finish()?;
    live.rest()?;
    let wrote = live.image()?;
    let changed = rig
        .pictures
        .values()
        .all(|picture| picture.same(&wrote, "").is_err());
    ensure!(changed, "fio changed nothing");
    rig.stop()?;
    wrote.same(&rig.origin.device().image()?, "the origin alone")?;
    // fio, on the origin itself, finds every checksum it wrote.
    let again = job.replace(
        &live.path.display().to_string(),
        &rig.origin.device().path.display().to_string(),
    );
    let again = again.replace("[over]", "verify_only=1\n[over]");
    Fio::start(&rig.bed.dir, "alone-again", &again)?.finish()?;
    rig.bed.start()?;
    rig.finish()
}

#[test]
fn an_origin_written_behind_csnaps_back_is_not_served_as_if_nothing_happened() -> Outcome {
    let mut rig = Rig::new("behind", &Setup::default())?;
    let snapshot = rig.take_at_rest("before")?;
    rig.stop()?;
    // Where every mount for writing writes; the middle alone would not be noticed.
    rig.origin.device().write(64 << 10, &[1; 65536])?;
    rig.bed.start()?;
    kernel::settle()?;
    let shown = rig.bed.ctl.json("volume show vol")?.to_string();
    ensure!(
        shown.contains("refused") || rig.snapshot_device(&snapshot).is_err(),
        "the snapshot is served although the origin was written alone: {shown}"
    );
    rig.finish_broken()
}
