//! The table of ratios and the bars of the guest's rows.

use std::fmt::Write;

use super::plan::Plan;
use super::sample::{Machine, Row};
use crate::bench::report::Bar;

/// Finds values by what they are of.
struct Values<'a>(&'a [Row]);

impl Values<'_> {
    fn get(&self, case: &str, target: &str, snapshots: u32, chunk_kib: u64) -> Option<f64> {
        let fits = |row: &&Row| {
            let key = &row.sample.key;
            (&*key.case, &*key.target) == (case, target)
                && (key.snapshots, key.chunk_kib) == (snapshots, chunk_kib)
        };
        self.0.iter().find(fits).map(|row| row.sample.value)
    }
}

/// Everything, in Markdown.
#[must_use]
pub fn markdown(rows: &[Row], conditions: &str) -> String {
    let values = Values(rows);
    let mut text = format!("{conditions}\n\n");
    text +=
        "| case | chunk | target | snapshots | value | unit | : raw | median us | longest us |\n";
    text += "|---|---|---|---:|---:|---|---:|---:|---:|\n";
    for row in rows {
        line(&mut text, &values, row);
    }
    against(&mut text, &values, rows);
    judged(&mut text, &bars(&values));
    text
}

/// What it was measured on, in a sentence or two.
#[must_use]
pub fn conditions(rows: &[Row], machine: &Machine, plan: &Plan) -> String {
    let rounds = rounds(rows);
    format!(
        "Guest without KVM: {}, `-cpu {}` ({}), {} CPUs, kernel {}; {}; {}. Median of {rounds} \
         interleaved rounds; origin of {} MiB on a RAM disk (brd), `-cache`: null_blk with a \
         volatile cache; a timed case lasts {} s, a pass over the origin is repeated up to that \
         time; what no bar is about {} s. fio, io_uring, direct, queue depth 32, 4 KiB unless \
         the case says otherwise; `first-overwrite` writes whole chunks, `first-overwrite-4k` \
         the first 4 KiB of each. dm-thin has no blocks below 64 KiB.",
        machine.qemu,
        crate::guest::machine::CPU,
        machine.cpu,
        machine.cpus,
        machine.kernel,
        machine.crc,
        machine.fio,
        plan.origin >> 20,
        plan.seconds,
        plan.other_seconds,
    )
}

/// How many samples a row is the median of: a run may have been broken off.
fn rounds(rows: &[Row]) -> String {
    let counts = || rows.iter().map(|row| row.rounds);
    match (counts().min(), counts().max()) {
        (Some(least), Some(most)) if least < most => format!("{least} to {most}"),
        (least, _) => least.unwrap_or(0).to_string(),
    }
}

fn line(text: &mut String, values: &Values<'_>, row: &Row) {
    let (key, value) = (&row.sample.key, row.sample.value);
    let raw = values.get(&key.case, "raw", 0, key.chunk_kib);
    let ratio = raw.map(|raw| format!("{:.2}", value / raw));
    let chunk = match key.chunk_kib {
        0 => "-".into(),
        kib => format!("{kib}K"),
    };
    let digits = if value < 100.0 { 1 } else { 0 };
    let time = |time: Option<f64>| time.map_or("-".into(), |time| format!("{time:.0}"));
    let _ = writeln!(
        text,
        "| {} | {chunk} | {} | {} | {value:.digits$} | {} | {} | {} | {} |",
        key.case,
        key.target,
        key.snapshots,
        key.unit,
        ratio.unwrap_or("-".into()),
        time(row.sample.lat_median_us),
        time(row.sample.lat_max_us),
    );
}

/// csnap beside the kernel's own, and beside itself with one snapshot.
fn against(text: &mut String, values: &Values<'_>, rows: &[Row]) {
    *text += "\n| csnap, case | chunk | snapshots | : dm-snapshot | : dm-thin | : bare | : csnap with 1 |\n";
    *text += "|---|---|---:|---:|---:|---:|---:|\n";
    for row in rows {
        let key = &row.sample.key;
        if key.target != "csnap" || !key.unit.ends_with("/s") {
            continue;
        }
        let ratio = |target: &str, snapshots| {
            let other = values.get(&key.case, target, snapshots, key.chunk_kib);
            other.map_or("-".into(), |other| {
                format!("{:.2}", row.sample.value / other)
            })
        };
        let _ = writeln!(
            text,
            "| {} | {}K | {} | {} | {} | {} | {} |",
            key.case,
            key.chunk_kib,
            key.snapshots,
            ratio("dm-snapshot", key.snapshots),
            ratio("dm-thin", key.snapshots),
            ratio("bare", 0),
            ratio("csnap", 1),
        );
    }
}

fn judged(text: &mut String, bars: &[Bar]) {
    *text += "\n| bar | wanted | measured | |\n|---|---:|---:|---|\n";
    for bar in bars {
        let (measured, verdict) = if bar.measured.is_nan() {
            ("-".into(), "not measured")
        } else if bar.met() {
            (format!("{:.3}", bar.measured), "PASS")
        } else {
            (format!("{:.3}", bar.measured), "**MISS**")
        };
        let sign = if bar.at_most { "<=" } else { ">=" };
        let _ = writeln!(
            text,
            "| {} | {sign} {} | {measured} | {verdict} |",
            bar.what, bar.wanted
        );
    }
}

/// A value that was not measured leaves its bar unjudged, never met.
fn bars(values: &Values<'_>) -> Vec<Bar> {
    let mut bars = Vec::new();
    for chunk in [16, 64] {
        let get = |case, target, snapshots| {
            let value = values.get(case, target, snapshots, chunk);
            value.unwrap_or(f64::NAN)
        };
        let mut at_least = |what: &str, wanted, measured| {
            bars.push(Bar {
                what: format!("{what}, {chunk}K"),
                at_most: false,
                wanted,
                measured,
            });
        };
        let first = |target, snapshots| get("first-overwrite", target, snapshots);
        let steady = |target, snapshots| get("steady-overwrite", target, snapshots);
        at_least(
            "first overwrite, csnap : dm-snapshot, 1 snapshot",
            1.0,
            first("csnap", 1) / first("dm-snapshot", 1),
        );
        at_least(
            "first overwrite, csnap : dm-snapshot, 8 snapshots",
            5.0,
            first("csnap", 8) / first("dm-snapshot", 8),
        );
        for snapshots in [8, 64] {
            at_least(
                &format!("first overwrite, csnap, {snapshots} snapshots : 1"),
                0.95,
                first("csnap", snapshots) / first("csnap", 1),
            );
        }
        for snapshots in [1, 8, 64] {
            at_least(
                &format!("steady overwrite, csnap : bare, {snapshots} snapshots"),
                0.9,
                steady("csnap", snapshots) / steady("bare", 0),
            );
        }
        at_least(
            "steady overwrite, csnap : dm-snapshot, 8 snapshots",
            1.0,
            steady("csnap", 8) / steady("dm-snapshot", 8),
        );
        for snapshots in [1, 8, 64] {
            bars.push(Bar {
                what: format!(
                    "take under load, longest : median time, {snapshots} snapshots, {chunk}K"
                ),
                at_most: true,
                wanted: 20.0,
                measured: get("take-stall", "csnap", snapshots),
            });
        }
    }
    bars
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::bench::guest::sample::{Key, Message, Sample, Told};

    fn told(values: &[(&str, &str, u32, f64)]) -> Vec<Row> {
        let mut told = Told::default();
        for &(case, target, snapshots, value) in values {
            let key = Key {
                case: case.into(),
                target: target.into(),
                snapshots,
                chunk_kib: 16,
                unit: "requests/s".into(),
            };
            told.add(Message::Sample(Sample::plain(key, value)));
        }
        told.rows()
    }

    fn verdict(text: &str, bar: &str) -> String {
        let line = text.lines().find(|line| line.contains(bar)).unwrap();
        line.split('|').nth(4).unwrap().trim().to_owned()
    }

    #[test]
    fn bars_pass_miss_or_stay_open() {
        let rows = told(&[
            ("first-overwrite", "csnap", 1, 100.0),
            ("first-overwrite", "csnap", 8, 98.0),
            ("first-overwrite", "csnap", 64, 94.0),
            ("first-overwrite", "dm-snapshot", 1, 99.0),
            ("first-overwrite", "dm-snapshot", 8, 20.0),
            ("take-stall", "csnap", 1, 19.0),
            ("take-stall", "csnap", 8, 21.0),
        ]);
        let text = markdown(&rows, "");
        for (bar, wanted) in [
            ("dm-snapshot, 1 snapshot, 16K", "PASS"),
            (
                "first overwrite, csnap : dm-snapshot, 8 snapshots, 16K",
                "**MISS**",
            ),
            ("64 snapshots : 1, 16K", "**MISS**"),
            ("median time, 1 snapshots, 16K", "PASS"),
            ("median time, 8 snapshots, 16K", "**MISS**"),
            ("csnap : bare, 1 snapshots, 16K", "not measured"),
        ] {
            assert_eq!(verdict(&text, bar), wanted, "{bar}\n{text}");
        }
    }

    #[test]
    fn ratios_are_to_the_same_case() {
        let rows = told(&[
            ("steady-overwrite", "raw", 0, 200.0),
            ("steady-overwrite", "csnap", 1, 100.0),
            ("first-overwrite", "csnap", 1, 100.0),
        ]);
        let text = markdown(&rows, "");
        assert!(text.contains("| steady-overwrite | 16K | csnap | 1 | 100 | requests/s | 0.50 |"));
        assert!(text.contains("| first-overwrite | 16K | csnap | 1 | 100 | requests/s | - |"));
    }
}
