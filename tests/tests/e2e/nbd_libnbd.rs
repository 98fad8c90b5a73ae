//! libnbd's own tests of servers (`csnap_tests::guest::libnbd`): many requests at once over
//! eight connections, every byte that is read compared with what was written last.

use std::process::Stdio;
use std::thread::sleep;
use std::time::Duration;

use csnap_tests::e2e::bed::VOLUME;
use csnap_tests::e2e::client::Client;
use csnap_tests::e2e::fault::Trying;
use csnap_tests::e2e::files::MIB;
use csnap_tests::e2e::{Bed, Outcome, Setup, tools};
use csnap_tests::ensure;
use csnap_tests::guest::libnbd;

/// As the tests expect it: every 8 bytes are their own place (nbdkit-pattern-plugin).
fn fill(bed: &Bed, size: u64) -> Outcome {
    let mut client = Client::connect(&bed.nbd_socket(), VOLUME)?;
    for at in (0..size).step_by(MIB as usize) {
        let places = (at..at + MIB).step_by(8);
        client.write(at, places.flat_map(u64::to_be_bytes).collect())?;
    }
    Ok(())
}

#[test]
fn tests_of_libnbd_find_nothing_while_snapshots_are_taken() -> Outcome {
    let place = libnbd::place();
    if !place.is_dir() {
        let test = "tests_of_libnbd_find_nothing_while_snapshots_are_taken";
        return tools::skip(
            test,
            "libnbd's tests are not there; scripts/judges builds them",
        );
    }
    for (name, size) in libnbd::TESTS {
        let setup = Setup {
            origin_bytes: size,
            store_bytes: 24 * size,
            ..Setup::default()
        };
        let bed = Bed::new(&format!("libnbd-{name}"), &setup)?;
        fill(&bed, size)?;
        bed.ctl.ok("snapshot take vol@before")?;
        let mut test = tools::program(place.join(name));
        test.arg(bed.nbd_socket()).env("EXPORT", VOLUME);
        test.stdout(Stdio::null());
        let mut running = test.spawn().trying(|| format!("start {name}"))?;
        let mut taken = 0;
        let status = loop {
            if let Some(status) = running.try_wait().trying(|| format!("await {name}"))? {
                break status;
            }
            bed.ctl.ok("snapshot take vol")?;
            taken += 1;
            sleep(Duration::from_secs(1));
        };
        ensure!(status.success(), "{name} ended with {status}");
        ensure!(
            taken > 5,
            "{name} ran only as long as {taken} snapshots took"
        );
        bed.finish()?;
    }
    Ok(())
}
