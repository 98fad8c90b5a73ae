//! Rows, medians, bars and tables.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::path::Path;

use serde::Serialize;

use crate::e2e::fault::Trying;
use crate::e2e::{Fault, Outcome};

/// What was measured.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Key {
    /// `pass-through-read`, `first-overwrite`, ...
    pub case: String,
    /// `csnap`, `qemu-raw`, `qemu-qcow2`, `engine`, `parts`.
    pub target: String,
    /// Snapshots of the volume.
    pub snapshots: u32,
    /// KiB in a chunk; 0 where there are none.
    pub chunk_kib: u64,
    /// What the value counts.
    pub unit: &'static str,
}

/// A line of `target/bench/native.json` (or `engine.json`).
#[derive(Clone, Debug, Serialize)]
pub struct Row {
    /// See [`Key::case`].
    pub case: String,
    /// See [`Key::target`].
    pub target: String,
    /// See [`Key::snapshots`].
    pub snapshots: u32,
    /// See [`Key::chunk_kib`].
    pub chunk_kib: u64,
    /// Median of the rounds.
    pub value: f64,
    /// See [`Key::unit`].
    pub unit: &'static str,
}

/// Everything measured so far.
#[derive(Clone, Debug, Default)]
pub struct Samples(BTreeMap<Key, Vec<f64>>);

impl Samples {
    /// Notes a sample.
    pub fn add(&mut self, key: Key, value: f64) {
        self.0.entry(key).or_default().push(value);
    }

    /// The medians.
    #[must_use]
    pub fn rows(&self) -> Vec<Row> {
        let row = |(key, samples): (&Key, &Vec<f64>)| Row {
            case: key.case.clone(),
            target: key.target.clone(),
            snapshots: key.snapshots,
            chunk_kib: key.chunk_kib,
            value: median(samples),
            unit: key.unit,
        };
        self.0.iter().map(row).collect()
    }
}

/// The middle one of the samples, or the mean of the two in the middle.
pub(crate) fn median(samples: &[f64]) -> f64 {
    let mut sorted = samples.to_vec();
    sorted.sort_by(f64::total_cmp);
    let middle = sorted.len() / 2;
    match (sorted.get(middle.wrapping_sub(1)), sorted.get(middle)) {
        (Some(low), Some(high)) if sorted.len().is_multiple_of(2) => f64::midpoint(*low, *high),
        (_, Some(value)) => *value,
        _ => f64::NAN,
    }
}

/// Writes the rows as JSON.
///
/// # Errors
/// If the file cannot be written.
pub fn write_json(rows: &[Row], path: &Path) -> Outcome {
    let text = serde_json::to_string_pretty(rows)?;
    std::fs::write(path, text + "\n").trying(|| format!("write {}", path.display()))
}

/// The table and the bars, in Markdown.
#[must_use]
pub fn markdown(rows: &[Row], conditions: &str) -> String {
    let mut text =
        format!("{conditions}\n\n| case | target | snapshots | chunk | value | unit |\n");
    text += "|---|---|---:|---:|---:|---|\n";
    for row in rows {
        let chunk = if row.chunk_kib == 0 {
            "-".into()
        } else {
            format!("{}K", row.chunk_kib)
        };
        let digits = if row.value < 100.0 { 3 } else { 0 };
        let _ = writeln!(
            text,
            "| {} | {} | {} | {chunk} | {:.digits$} | {} |",
            row.case, row.target, row.snapshots, row.value, row.unit
        );
    }
    text += "\n| bar | wanted | measured | |\n|---|---:|---:|---|\n";
    for bar in bars(rows) {
        let _ = writeln!(
            text,
            "| {} | {} {} | {:.3} | {} |",
            bar.what,
            if bar.at_most { "<=" } else { ">=" },
            bar.wanted,
            bar.measured,
            if bar.met() { "met" } else { "**missed**" }
        );
    }
    text
}

/// What a measurement must reach.
#[derive(Debug)]
pub(crate) struct Bar {
    /// What is compared.
    pub(crate) what: String,
    /// Whether `wanted` is the largest good value instead of the smallest.
    pub(crate) at_most: bool,
    /// The limit.
    pub(crate) wanted: f64,
    /// What came out.
    pub(crate) measured: f64,
}

impl Bar {
    /// Whether it is reached.
    pub(crate) fn met(&self) -> bool {
        if self.at_most {
            self.measured <= self.wanted
        } else {
            self.measured >= self.wanted
        }
    }
}

/// The bars that the rows allow to judge.
fn bars(rows: &[Row]) -> Vec<Bar> {
    let value = |case: &str, target: &str, snapshots: u32| {
        let fits =
            |row: &&Row| (&*row.case, &*row.target, row.snapshots) == (case, target, snapshots);
        rows.iter().find(fits).map(|row| row.value)
    };
    let ratio = |what: &str, wanted, a: Option<f64>, b: Option<f64>| {
        let what = what.to_owned();
        Some(Bar {
            what,
            at_most: false,
            wanted,
            measured: a? / b?,
        })
    };
    let raw = |case: &str| value(case, "qemu-raw", 0);
    let first = |snapshots| value("first-overwrite", "csnap", snapshots);
    let amplification = |target: &str, case| {
        let what = format!(
            "chunks written to the store per chunk copied, 8 GiB, 16K, depth 32 ({target})"
        );
        value(case, target, 1).map(|measured| Bar {
            what,
            at_most: true,
            wanted: 1.1,
            measured,
        })
    };
    let steady = value("steady-overwrite", "csnap", 1);
    let bars = [
        ratio(
            "first overwrite, 64 snapshots : 1",
            0.95,
            first(64),
            first(1),
        ),
        ratio(
            "pass-through read, csnap : qemu raw",
            1.0,
            value("pass-through-read", "csnap", 0),
            raw("pass-through-read"),
        ),
        ratio(
            "pass-through write, csnap : qemu raw",
            1.0,
            value("pass-through-write", "csnap", 0),
            raw("pass-through-write"),
        ),
        ratio(
            "steady overwrite, csnap : qemu raw",
            1.0,
            steady,
            raw("steady-overwrite"),
        ),
        amplification("csnap", "amplification-8g-qd32"),
        amplification("engine", "engine-write-amplification-8g-qd32"),
    ];
    bars.into_iter().flatten().collect()
}

/// Replaces what stands between the markers `<!-- NAME:begin -->` and
/// `<!-- NAME:end -->` of a document.
///
/// # Errors
/// If the document cannot be read or written or lacks the markers.
pub fn into_document(document: &Path, name: &str, table: &str) -> Outcome {
    let (begin, end) = (
        format!("<!-- {name}:begin -->"),
        format!("<!-- {name}:end -->"),
    );
    let story = || format!("update {}", document.display());
    let text = std::fs::read_to_string(document).trying(story)?;
    let lacks = || Fault::wrong(format!("{} lacks {begin} or {end}", document.display()));
    let (head, rest) = text.split_once(&begin).ok_or_else(lacks)?;
    let (_, tail) = rest.split_once(&end).ok_or_else(lacks)?;
    std::fs::write(document, format!("{head}{begin}\n{table}\n{end}{tail}")).trying(story)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(case: &str, target: &str, snapshots: u32) -> Key {
        Key {
            case: case.into(),
            target: target.into(),
            snapshots,
            chunk_kib: 16,
            unit: "requests/s",
        }
    }

    #[test]
    fn a_row_is_the_median() {
        let mut samples = Samples::default();
        for value in [5.0, 1.0, 100.0] {
            samples.add(key("a", "csnap", 0), value);
        }
        for value in [4.0, 2.0] {
            samples.add(key("b", "csnap", 0), value);
        }
        let values: Vec<f64> = samples.rows().iter().map(|row| row.value).collect();
        assert_eq!(values, [5.0, 3.0]);
    }

    #[test]
    fn a_missed_bar_shows() {
        let mut samples = Samples::default();
        samples.add(key("first-overwrite", "csnap", 1), 100.0);
        samples.add(key("first-overwrite", "csnap", 64), 94.0);
        assert!(markdown(&samples.rows(), "").contains("missed"));
        samples.add(key("first-overwrite", "csnap", 64), 97.0);
        assert!(!markdown(&samples.rows(), "").contains("missed"));
    }
}
