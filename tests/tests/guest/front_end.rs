//! Which front end csnapd chooses, and what it says of it.

use csnap_tests::e2e::Outcome;
use csnap_tests::e2e::client::Client;
use csnap_tests::e2e::daemon::Daemon;
use csnap_tests::ensure;
use csnap_tests::guest_bed::{Disk, RamOptions, Rig, Setup, kernel, rig};
use std::path::Path;

fn unserved(test: &str) -> Outcome<Rig> {
    let origin = Disk::ram(RamOptions::plain(16))?;
    let store = Disk::ram(RamOptions::plain(64))?;
    Rig::unserved(test, &Setup::default(), origin, store)
}

#[test]
fn without_the_driver_csnapd_serves_nbd_and_says_why() -> Outcome {
    let mut rig = unserved("no-driver")?;
    kernel::unload("ublk_drv")?;
    ensure!(
        !Path::new("/dev/ublk-control").exists(),
        "the driver is still there"
    );
    rig.bed.serve("16K")?;
    let status = rig.bed.ctl.json("status")?;
    ensure!(
        rig::find(&status, "frontend") == Some("nbd"),
        "another front end without the driver: {status}"
    );
    let why = rig::find(&status, "frontend_why").unwrap_or_default();
    ensure!(why.contains("ublk"), "it does not say why: {status}");
    let log = rig.bed.places.log_tail(100);
    ensure!(log.contains("ublk"), "the log does not say why:\n{log}");
    let size = Client::connect(&rig.bed.nbd_socket(), "vol")?.size();
    ensure!(size == 16 << 20, "NBD serves {size} bytes");
    rig.bed.stop()?;
    kernel::load("ublk_drv ublks_max=128")?;
    // The same store, with the driver back: a block device.
    rig.bed.start()?;
    rig.device()?;
    // Over NBD there are snapshots now, and no volume.
    let connect = |export: &str| Client::connect(&rig.bed.nbd_socket(), export);
    ensure!(connect("vol").is_err(), "NBD still serves the volume");
    rig.bed.ctl.ok("snapshot take vol@s")?;
    let size = connect("vol@s")?.size();
    ensure!(size == 16 << 20, "NBD serves {size} bytes of a snapshot");
    rig.finish()
}

#[test]
fn told_to_csnapd_serves_nbd_or_both_although_the_driver_is_there() -> Outcome {
    for (name, blocks) in [("nbd", 0), ("both", 1)] {
        let origin = Disk::ram(RamOptions::plain(16))?;
        let store = Disk::ram(RamOptions::plain(64))?;
        let setup = Setup {
            options: ["--frontend", name].map(str::to_owned).to_vec(),
            ..Setup::default()
        };
        let mut rig = Rig::unserved(name, &setup, origin, store)?;
        rig.bed.serve("16K")?;
        let status = rig.bed.ctl.json("status")?;
        ensure!(
            rig::find(&status, "frontend") == Some(name),
            "told {name}: {status}"
        );
        let devices = kernel::ublk_devices()?;
        ensure!(devices.len() == blocks, "{name}: {devices:?}");
        let client = Client::connect(&rig.bed.nbd_socket(), "vol")?;
        ensure!(client.size() == 16 << 20, "NBD serves {}", client.size());
        drop(client);
        rig.finish_broken()?;
    }
    Ok(())
}

#[test]
fn told_to_use_ublk_csnapd_refuses_without_the_driver() -> Outcome {
    let mut rig = unserved("refuse")?;
    kernel::unload("ublk_drv")?;
    let options = ["--frontend", "ublk"].map(str::to_owned);
    let status = Daemon::start_refused(&rig.bed.places, &options)?;
    ensure!(!status.success(), "it said it could: {status}");
    let log = rig.bed.places.log_tail(50);
    ensure!(
        log.contains("modprobe ublk_drv"),
        "it does not say what to do:\n{log}"
    );
    kernel::load("ublk_drv ublks_max=128")?;
    rig.bed.serve("16K")?;
    rig.finish()
}
