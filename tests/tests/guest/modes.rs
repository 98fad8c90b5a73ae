//! Ways of serving a block device that csnapd does not choose by itself on the guest's
//! two processors, or not on this kernel: each under verified load, with snapshots and
//! a kill.

use csnap_tests::e2e::Outcome;
use csnap_tests::ensure;
use csnap_tests::guest_bed::fio::{Fio, sleep_ms};
use csnap_tests::guest_bed::rig::{find, find_any};
use csnap_tests::guest_bed::{Rig, Setup, kernel};
use serde_json::Value;

/// Serves with the options; `agreed` looks at what came of them.
fn served_with(test: &str, options: [&str; 2], agreed: impl Fn(&Value) -> Outcome) -> Outcome {
    let setup = Setup {
        options: options.map(str::to_owned).to_vec(),
        ..Setup::default()
    };
    let mut rig = Rig::new(test, &setup)?;
    agreed(&rig.bed.ctl.json("volume show vol")?)?;
    let device = rig.device()?;
    rig.take_at_rest("first")?;
    let job = super::kill::fio_job(&device, super::seed())(0);
    let fio = Fio::start(&rig.bed.dir, test, &job)?;
    sleep_ms(300);
    rig.take_in_motion("moving")?;
    rig.bed.kill9()?;
    rig.bed.start()?;
    fio.finish()?;
    rig.finish()
}

fn zero_copy(test: &str, told: &str, comes: &str) -> Outcome {
    served_with(test, ["--zero-copy", told], |volume| {
        let how = find(volume, "zero_copy");
        ensure!(how == Some(comes), "told {told}, wanted {comes}: {volume}");
        Ok(())
    })
}

#[test]
fn the_tags_of_one_queue_are_spread_over_the_io_threads() -> Outcome {
    let can = kernel::at_least(6, 16)?;
    served_with("spread", ["--ublk-spread", "tags"], |volume| {
        let spread = find_any(volume, "per_io_daemons", &Value::is_boolean);
        ensure!(
            spread == Some(&Value::Bool(can)),
            "spread should be {can}: {volume}"
        );
        Ok(())
    })
}

#[test]
fn pages_are_registered_by_command() -> Outcome {
    let comes = if kernel::at_least(6, 15)? {
        "register"
    } else {
        "off"
    };
    zero_copy("register", "register", comes)
}

#[test]
fn data_is_copied_when_told_so() -> Outcome {
    zero_copy("copied", "off", "off")
}
