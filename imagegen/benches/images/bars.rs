//! What measurements must reach, and whether they did.

use crate::report::{Report, Sample, Series};
use crate::targets::IMAGEGEN;
use crate::trees;
use crate::{erofs, export, qcow2};

/// Two targets that make the same, and what is wanted of ours beside theirs.
pub(crate) struct Pair {
    pub(crate) ours: &'static str,
    pub(crate) theirs: &'static str,
    /// Theirs : ours, until all is durable.
    pub(crate) times: Option<Wanted>,
    /// Ours : theirs, of the processor.
    pub(crate) processor: Option<Wanted>,
    /// Ours : theirs, of the disk.
    pub(crate) size: Option<Wanted>,
}

/// What is wanted of imagegen beside another program.
#[derive(Clone, Copy)]
pub(crate) enum Goal {
    /// Never slower, at most 1 % larger.
    AsGood,
    /// A quarter of the processor's time, at most 2 % larger.
    LittleProcessor,
    /// One and a half times as fast, at most 1 % larger.
    HalfAgainAsFast,
    /// Five times as fast.
    FiveTimesAsFast,
    /// In a twentieth of the time, and of the size.
    Twentieth,
}

impl Goal {
    pub(crate) fn pair(self, ours: &'static str, theirs: &'static str) -> Pair {
        let (times, processor, size) = match self {
            Self::AsGood => (Some(Wanted::AtLeast(1.0)), None, Some(1.01)),
            Self::LittleProcessor => (None, Some(Wanted::AtMost(0.25)), Some(1.02)),
            Self::HalfAgainAsFast => (Some(Wanted::AtLeast(1.5)), None, Some(1.01)),
            Self::FiveTimesAsFast => (Some(Wanted::AtLeast(5.0)), None, None),
            Self::Twentieth => (Some(Wanted::AtLeast(20.0)), None, Some(0.05)),
        };
        Pair {
            ours,
            theirs,
            times,
            processor,
            size: size.map(Wanted::AtMost),
        }
    }
}

/// All targets that are measured beside another.
pub(crate) fn pairs() -> Vec<Pair> {
    [erofs::pairs(), qcow2::pairs(), export::pairs()]
        .into_iter()
        .flatten()
        .collect()
}

#[derive(Clone, Copy)]
pub(crate) enum Wanted {
    AtLeast(f64),
    AtMost(f64),
}

/// What a measurement must reach.
pub(crate) struct Bar {
    case: &'static str,
    what: String,
    wanted: Wanted,
    measured: f64,
}

impl Bar {
    pub(crate) fn line(&self) -> String {
        let (sign, wanted, met) = match self.wanted {
            Wanted::AtLeast(wanted) => (">=", wanted, self.measured >= wanted),
            Wanted::AtMost(wanted) => ("<=", wanted, self.measured <= wanted),
        };
        format!(
            "| {} | {} | {sign} {wanted} | {:.3} | {} |",
            self.case,
            self.what,
            self.measured,
            if met { "met" } else { "**MISSED**" }
        )
    }
}

/// The bars that can be judged.
pub(crate) fn judge(report: &Report) -> Vec<Bar> {
    let mut bars = Vec::new();
    for ours in &report.series {
        let pairs = pairs();
        let pair = pairs.iter().find(|pair| pair.ours == ours.target);
        let beside = pair.and_then(|pair| Some((pair, report.find(ours.case, pair.theirs)?)));
        if let Some((pair, theirs)) = beside {
            bars.extend(pair.judge(ours, theirs));
        }
    }
    for series in &report.series {
        bars.extend(xfs(report, series));
    }
    bars.extend(holes(report));
    bars
}

/// What files with holes may cost beside the same data without them.
fn holes(report: &Report) -> Vec<Bar> {
    let with = report.find(trees::HOLES, erofs::PLAIN);
    let without = report.find(trees::DENSE, erofs::PLAIN);
    let (Some(with), Some(without)) = (with, without) else {
        return Vec::new();
    };
    let bar = |what: &str, wanted, of: fn(&Sample) -> f64| Bar {
        case: with.case,
        what: format!("{}: {} : {}, {what}", with.target, with.case, without.case),
        wanted: Wanted::AtMost(wanted),
        measured: with.median(of) / without.median(of),
    };
    vec![
        bar("durable", 1.1, |sample| sample.durable),
        bar("size", 1.01, |sample| sample.bytes),
    ]
}

impl Pair {
    fn judge(&self, ours: &Series, theirs: &Series) -> Vec<Bar> {
        let ratio = |over: &Series, under: &Series, of: fn(&Sample) -> f64| {
            over.median(of) / under.median(of)
        };
        let durable = ratio(theirs, ours, |sample| sample.durable);
        let processor = ratio(ours, theirs, |sample| sample.user + sample.system);
        let size = ratio(ours, theirs, |sample| sample.bytes);
        let rows = [
            (self.times, "theirs : ours, durable", durable),
            (self.processor, "ours : theirs, processor", processor),
            (self.size, "ours : theirs, size", size),
        ];
        let bar = |(wanted, what, measured): (Option<Wanted>, &str, f64)| {
            Some(Bar {
                case: ours.case,
                what: format!("{}: {what}", self.ours),
                wanted: wanted?,
                measured,
            })
        };
        rows.into_iter().filter_map(bar).collect()
    }
}

/// What is wanted of XFS images beside `series`.
fn xfs(report: &Report, series: &Series) -> Vec<Bar> {
    let (done, durable) = report.ratios(series);
    let inverse = |ratio: Option<f64>| ratio.map(|ratio| 1.0 / ratio);
    let peak = series.median(|sample| sample.peak_rss) / 1e6;
    let rows = match series.target {
        "mkfs.xfs" => vec![("mkfs.xfs -p : imagegen", Wanted::AtLeast(2.0), durable)],
        "cp" => vec![("mount and cp -a : imagegen", Wanted::AtLeast(4.0), durable)],
        "tar" => vec![
            (
                "imagegen : tar, durable",
                Wanted::AtMost(1.3),
                inverse(durable),
            ),
            ("imagegen : tar, done", Wanted::AtMost(1.3), inverse(done)),
        ],
        IMAGEGEN if series.extent.objects >= 1_000_000 => {
            vec![(
                "peak memory of imagegen, MB",
                Wanted::AtMost(100.0),
                Some(peak),
            )]
        }
        _ => Vec::new(),
    };
    let bar = |(what, wanted, measured): (&str, Wanted, Option<f64>)| {
        Some(Bar {
            case: series.case,
            what: what.to_owned(),
            wanted,
            measured: measured?,
        })
    };
    rows.into_iter().filter_map(bar).collect()
}
