//! The simulated disk keeps and loses exactly what its module says.

use csnap_tests::sim::dice::Dice;
use csnap_tests::sim::disk::{Done, SimDisk};
use csnap_tests::sim::value::{Data, Value};

fn write(disk: &mut SimDisk, dice: &mut Dice, first: u64, stamps: &[u64], fua: bool) {
    let data: Vec<Data> = stamps.iter().map(|s| Data::pattern(*s)).collect();
    let op = disk.write(first, &data, fua);
    assert!(matches!(disk.complete(op, dice), Some(Done::Plain(Ok(())))));
}

fn flush(disk: &mut SimDisk, dice: &mut Dice) {
    let op = disk.flush();
    assert!(matches!(disk.complete(op, dice), Some(Done::Plain(Ok(())))));
}

fn value(stamp: u64) -> Value {
    Data::pattern(stamp).value()
}

/// What each of `seeds` power cuts leaves of sector `sector`.
fn left(make: impl Fn(&mut SimDisk, &mut Dice), sector: u64, seeds: u64) -> Vec<Value> {
    let mut seen: Vec<Value> = (0..seeds)
        .map(|seed| {
            let (mut disk, mut dice) = (SimDisk::new(16), Dice::new(seed));
            make(&mut disk, &mut dice);
            disk.power_cut(&mut dice);
            disk.visible(sector).value()
        })
        .collect();
    seen.sort_unstable();
    seen.dedup();
    seen
}

fn sorted(mut values: Vec<Value>) -> Vec<Value> {
    values.sort_unstable();
    values
}

#[test]
fn a_completed_write_is_visible_but_not_durable() {
    let seen = left(|disk, dice| write(disk, dice, 0, &[1], false), 0, 200);
    assert_eq!(seen, sorted(vec![0, value(1)]));
}

#[test]
fn a_flush_covers_what_completed_before_it_was_submitted_and_nothing_else() {
    let seen = left(
        |disk, dice| {
            write(disk, dice, 0, &[1], false);
            let op = disk.flush();
            write(disk, dice, 0, &[2], false);
            assert!(disk.complete(op, dice).is_some());
        },
        0,
        200,
    );
    assert_eq!(
        seen,
        sorted(vec![value(1), value(2)]),
        "the first is safe, the second is not"
    );
}

#[test]
fn fua_is_durable_at_completion_and_supersedes_what_was_volatile() {
    let make = |disk: &mut SimDisk, dice: &mut Dice| {
        write(disk, dice, 0, &[1, 2], false);
        write(disk, dice, 0, &[3], true);
    };
    assert_eq!(left(make, 0, 200), vec![value(3)]);
    assert_eq!(
        left(make, 1, 200),
        sorted(vec![0, value(2)]),
        "its neighbour is still volatile"
    );
}

#[test]
fn every_version_of_a_sector_may_survive() {
    let make = |disk: &mut SimDisk, dice: &mut Dice| {
        (1..=3).for_each(|stamp| write(disk, dice, 0, &[stamp], false));
    };
    assert_eq!(
        left(make, 0, 500),
        sorted(vec![0, value(1), value(2), value(3)])
    );
}

#[test]
fn a_write_in_flight_tears() {
    let torn = (0..200).any(|seed| {
        let (mut disk, mut dice) = (SimDisk::new(16), Dice::new(seed));
        let data: Vec<Data> = (1..=8).map(Data::pattern).collect();
        disk.write(0, &data, false);
        disk.power_cut(&mut dice);
        let kept = (0..8).filter(|s| disk.visible(*s).value() != 0).count();
        kept > 0 && kept < 8
    });
    assert!(torn);
}

#[test]
fn a_kill_keeps_what_completed_and_a_later_flush_covers_what_landed() {
    for seed in 0..100 {
        let (mut disk, mut dice) = (SimDisk::new(16), Dice::new(seed));
        write(&mut disk, &mut dice, 0, &[1], false);
        disk.write(1, &[Data::pattern(2)], false);
        disk.kill(&mut dice);
        assert_eq!(disk.visible(0).value(), value(1));
        let landed = disk.visible(1).value();
        flush(&mut disk, &mut dice);
        disk.power_cut(&mut dice);
        assert_eq!(
            (disk.visible(0).value(), disk.visible(1).value()),
            (value(1), landed)
        );
    }
}

#[test]
fn a_failed_flush_may_lose_what_a_later_good_one_does_not_bring_back() {
    let seen = left(
        |disk, dice| {
            write(disk, dice, 0, &[1], false);
            disk.faults.flush_ppm = 1_000_000;
            disk.faults.flush_loses = true;
            let op = disk.flush();
            assert!(matches!(disk.complete(op, dice), Some(Done::Plain(Err(_)))));
            disk.faults.flush_ppm = 0;
            flush(disk, dice);
        },
        0,
        200,
    );
    assert_eq!(seen, sorted(vec![0, value(1)]));
}

#[test]
fn reads_mix_old_and_new_while_a_write_is_in_flight() {
    let mixed = (0..200).any(|seed| {
        let (mut disk, mut dice) = (SimDisk::new(16), Dice::new(seed));
        let data: Vec<Data> = (1..=8).map(Data::pattern).collect();
        let read = disk.read(0, 8, &mut dice);
        let op = disk.write(0, &data, false);
        assert!(disk.complete(op, &mut dice).is_some());
        let Some(Done::Read(Ok(got))) = disk.complete(read, &mut dice) else {
            return false;
        };
        let new = got.iter().filter(|s| s.value() != 0).count();
        new > 0 && new < 8
    });
    assert!(mixed);
}

#[test]
fn a_bad_sector_is_healed_by_a_write() {
    let (mut disk, mut dice) = (SimDisk::new(16), Dice::new(1));
    disk.faults.bad.insert(3);
    let op = disk.read(0, 8, &mut dice);
    assert!(matches!(
        disk.complete(op, &mut dice),
        Some(Done::Read(Err(_)))
    ));
    write(&mut disk, &mut dice, 3, &[1], false);
    let op = disk.read(0, 8, &mut dice);
    assert!(matches!(
        disk.complete(op, &mut dice),
        Some(Done::Read(Ok(_)))
    ));
}
