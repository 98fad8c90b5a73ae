//! Rows, medians, bars, the table and the JSON.

use std::fmt::Write;
use std::path::Path;

use serde::Serialize;

use crate::targets::{IMAGEGEN, NO_SYNC};
use crate::trees::Extent;
use crate::{Outcome, Trying, bars};

/// One measurement. Times are in seconds.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    /// Until the program ended.
    pub(crate) done: f64,
    /// Until what it made was on stable storage.
    pub(crate) durable: f64,
    /// Of the processor, in the program.
    pub(crate) user: f64,
    /// Of the processor, in the kernel for it.
    pub(crate) system: f64,
    /// Most memory at a time, in bytes.
    pub(crate) peak_rss: f64,
    /// Allocated to what was made.
    pub(crate) bytes: f64,
}

/// What it was measured on.
pub(crate) struct Conditions {
    pub(crate) commit: String,
    pub(crate) kernel: String,
    pub(crate) cpus: usize,
    /// File system of the disk.
    pub(crate) disk: String,
    pub(crate) mkfs: String,
    /// Of the minute before.
    pub(crate) load: f64,
    pub(crate) rounds: u32,
}

/// A line of `target/bench/images.json`: medians.
#[derive(Serialize)]
struct Row<'a> {
    case: &'static str,
    target: &'static str,
    rounds: usize,
    done_seconds: f64,
    durable_seconds: f64,
    user_seconds: f64,
    system_seconds: f64,
    peak_rss_bytes: f64,
    bytes: f64,
    /// Of the tree.
    objects: u64,
    tree_bytes: u64,
    commit: &'a str,
    kernel: &'a str,
    cpus: usize,
    mkfs: &'a str,
    load: f64,
}

/// What a target took for a tree, round after round.
pub(crate) struct Series {
    pub(crate) case: &'static str,
    pub(crate) target: &'static str,
    pub(crate) extent: Extent,
    samples: Vec<Sample>,
}

impl Series {
    pub(crate) fn median(&self, of: impl Fn(&Sample) -> f64) -> f64 {
        median(self.samples.iter().map(of).collect())
    }
}

/// Everything measured so far.
pub(crate) struct Report {
    conditions: Conditions,
    pub(crate) series: Vec<Series>,
    skipped: Vec<String>,
}

impl Report {
    pub(crate) fn new(conditions: Conditions) -> Self {
        Self {
            conditions,
            series: Vec::new(),
            skipped: Vec::new(),
        }
    }

    pub(crate) fn add(
        &mut self,
        case: &'static str,
        target: &'static str,
        extent: &Extent,
        sample: Sample,
    ) {
        let same = |series: &&mut Series| (series.case, series.target) == (case, target);
        if let Some(series) = self.series.iter_mut().find(same) {
            return series.samples.push(sample);
        }
        self.series.push(Series {
            case,
            target,
            extent: *extent,
            samples: vec![sample],
        });
    }

    /// Notes that something could not be measured.
    pub(crate) fn skip(&mut self, case: &str, target: &str, why: &str) {
        self.skipped
            .push(format!("SKIPPED: `{case}`, {target}: {why}."));
    }

    /// Writes `images.json` and `images.md` into `directory`.
    pub(crate) fn write(&self, directory: &Path) -> Outcome {
        let rows: Vec<Row<'_>> = self.series.iter().map(|series| self.row(series)).collect();
        let json = serde_json::to_string_pretty(&rows).trying("write the rows")?;
        for (name, text) in [("images.json", json + "\n"), ("images.md", self.markdown())] {
            let path = directory.join(name);
            std::fs::write(&path, text).trying(path.display())?;
        }
        Ok(())
    }

    fn row(&self, series: &Series) -> Row<'_> {
        Row {
            case: series.case,
            target: series.target,
            rounds: series.samples.len(),
            done_seconds: series.median(|sample| sample.done),
            durable_seconds: series.median(|sample| sample.durable),
            user_seconds: series.median(|sample| sample.user),
            system_seconds: series.median(|sample| sample.system),
            peak_rss_bytes: series.median(|sample| sample.peak_rss),
            bytes: series.median(|sample| sample.bytes),
            objects: series.extent.objects,
            tree_bytes: series.extent.bytes,
            commit: &self.conditions.commit,
            kernel: &self.conditions.kernel,
            cpus: self.conditions.cpus,
            mkfs: &self.conditions.mkfs,
            load: self.conditions.load,
        }
    }

    /// The table and the bars.
    pub(crate) fn markdown(&self) -> String {
        let Conditions {
            commit,
            kernel,
            cpus,
            disk,
            mkfs,
            load,
            rounds,
        } = &self.conditions;
        let mut text = format!(
            "Commit {commit}; {cpus} CPUs, load {load:.1} when it began; {kernel}; {disk}; \
             {mkfs}. Median of {rounds} interleaved rounds, page cache warm.\n\n\
             | case | target | done s | durable s | user s | system s | peak MB | written MB | \
             done : imagegen | durable : imagegen |\n\
             |---|---|---:|---:|---:|---:|---:|---:|---:|---:|\n"
        );
        for series in &self.series {
            let (done, durable) = self.ratios(series);
            let _ = writeln!(
                text,
                "| {} | {} | {:.2} | {:.2} | {:.2} | {:.2} | {:.0} | {:.0} | {} | {} |",
                series.case,
                series.target,
                series.median(|sample| sample.done),
                series.median(|sample| sample.durable),
                series.median(|sample| sample.user),
                series.median(|sample| sample.system),
                series.median(|sample| sample.peak_rss) / 1e6,
                series.median(|sample| sample.bytes) / 1e6,
                shown(done),
                shown(durable),
            );
        }
        text += "\n| case | bar | wanted | measured | |\n|---|---|---:|---:|---|\n";
        for bar in bars::judge(self) {
            let _ = writeln!(text, "{}", bar.line());
        }
        if !self.skipped.is_empty() {
            let _ = write!(text, "\n{}\n", self.skipped.join("\n"));
        }
        text
    }

    pub(crate) fn find(&self, case: &str, target: &str) -> Option<&Series> {
        let fits = |series: &&Series| (series.case, series.target) == (case, target);
        self.series.iter().find(fits)
    }

    /// How many times as long as imagegen a target takes: until it ends, as `--no-sync`
    /// does, and until all is durable, as imagegen does by itself.
    pub(crate) fn ratios(&self, series: &Series) -> (Option<f64>, Option<f64>) {
        let ratio = |target, of: fn(&Sample) -> f64| {
            let imagegen = self.find(series.case, target)?;
            Some(series.median(of) / imagegen.median(of))
        };
        let paired = |pair: &bars::Pair| [pair.ours, pair.theirs].contains(&series.target);
        if let Some(pair) = bars::pairs().iter().find(|pair| paired(pair)) {
            let of = |of: fn(&Sample) -> f64| ratio(pair.ours, of);
            return (of(|sample| sample.done), of(|sample| sample.durable));
        }
        (
            ratio(NO_SYNC, |sample| sample.done),
            ratio(IMAGEGEN, |sample| sample.durable),
        )
    }
}

fn shown(ratio: Option<f64>) -> String {
    ratio.map_or("-".into(), |ratio| format!("{ratio:.2}"))
}

/// The middle one of the samples, or the mean of the two in the middle.
fn median(mut samples: Vec<f64>) -> f64 {
    samples.sort_by(f64::total_cmp);
    let middle = samples.len() / 2;
    match (samples.get(middle.wrapping_sub(1)), samples.get(middle)) {
        (Some(low), Some(high)) if samples.len().is_multiple_of(2) => f64::midpoint(*low, *high),
        (_, Some(value)) => *value,
        _ => f64::NAN,
    }
}
