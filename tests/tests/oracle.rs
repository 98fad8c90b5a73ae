//! The oracle's own rules, on the smallest cases that could be wrong.

use csnap_tests::sim::oracle::image::{Choice, Snapshot};
use csnap_tests::sim::oracle::origin::OriginModel;

/// One sector that holds `value`.
fn one(value: u64) -> OriginModel {
    OriginModel::new(vec![value])
}

#[test]
fn an_acknowledged_write_supersedes_what_ended_before_it_was_issued() {
    let mut model = one(10);
    model.issue(1, 0, &[11], 5);
    assert_eq!(model.possible(0), [10, 11], "either while in flight");
    model.end(1, 0, 1, true, false, 6);
    assert_eq!(model.possible(0), [11]);
}

#[test]
fn writes_that_overlap_in_time_may_end_in_either_order() {
    let mut model = one(10);
    model.issue(1, 0, &[11], 5);
    model.issue(2, 0, &[12], 6);
    model.end(1, 0, 1, true, false, 7);
    model.end(2, 0, 1, true, false, 8);
    assert_eq!(model.possible(0), [11, 12]);
    model.issue(3, 0, &[13], 9);
    model.end(3, 0, 1, true, false, 10);
    assert_eq!(model.possible(0), [13]);
}

#[test]
fn a_power_cut_brings_back_everything_since_the_last_flush_and_nothing_older() {
    let mut model = one(10);
    for (write, at) in [(1, 5), (2, 7), (3, 12)] {
        model.issue(write, 0, &[10 + write], at);
        model.end(write, 0, 1, true, false, at + 1);
        if write == 1 {
            model.flushed(at + 1);
        }
    }
    assert_eq!(model.possible(0), [13], "before the cut only the newest");
    model.power_cut(20);
    assert_eq!(model.possible(0), [11, 12, 13]);
    assert!(model.settle(0, &[10], 21).is_err(), "older than the flush");
    assert!(model.settle(0, &[12], 21).is_ok());
    model.power_cut(22);
    assert_eq!(model.possible(0), [12], "once seen after a cut it stays");
}

#[test]
fn a_flush_covers_only_what_was_acknowledged_before_it_was_issued() {
    let mut model = one(10);
    model.issue(1, 0, &[11], 5);
    model.end(1, 0, 1, true, false, 8);
    model.flushed(7);
    model.power_cut(9);
    assert_eq!(model.possible(0), [10, 11]);
}

#[test]
fn fua_is_durable_when_acknowledged() {
    let mut model = one(10);
    model.issue(1, 0, &[11], 5);
    model.end(1, 0, 1, true, true, 6);
    model.power_cut(9);
    assert_eq!(model.possible(0), [11]);
}

#[test]
fn a_kill_loses_no_acknowledged_write_but_a_later_power_cut_may() {
    let mut model = one(10);
    model.issue(1, 0, &[11], 5);
    model.end(1, 0, 1, true, false, 6);
    model.issue(2, 0, &[12], 7);
    model.killed(8);
    assert_eq!(model.possible(0), [11, 12]);
    assert!(model.settle(0, &[12], 9).is_ok());
    assert_eq!(model.possible(0), [12]);
    model.power_cut(10);
    assert_eq!(model.possible(0), [10, 11, 12]);
}

#[test]
fn a_failed_write_supersedes_nothing_and_a_refused_one_never_was() {
    let mut model = one(10);
    model.issue(1, 0, &[11], 5);
    model.end(1, 0, 1, false, false, 6);
    assert_eq!(model.possible(0), [10, 11]);
    model.issue(2, 0, &[12], 7);
    model.never(2, 0, 1);
    assert_eq!(model.possible(0), [10, 11]);
}

#[test]
fn the_first_read_of_a_snapshot_decides_for_ever() {
    let image = vec![Choice::of(vec![1]), Choice::of(vec![2, 3])];
    let mut snapshot = Snapshot::new("s".into(), 0, 0, image);
    assert!(snapshot.seen(0, &[4]).is_err());
    assert!(snapshot.seen(0, &[1, 3]).is_ok());
    assert!(snapshot.seen(1, &[2]).is_err(), "it was seen as 3");
    assert!(snapshot.seen(1, &[3]).is_ok());
}
