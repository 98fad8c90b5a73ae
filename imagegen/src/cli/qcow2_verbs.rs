//! Reads QCOW2 images: calls the library with what was asked for.

use super::qcow2::{Check, Compare, FormatName, From_, Info, Map, Verb};
use super::{Failure, progress, qcow2_convert};
use imagegen::qcow2::check as checker;
use imagegen::qcow2::compare::{self, Verdict};
use imagegen::qcow2::format::{Autoclear, BitmapFlag, Compatible, Incompatible};
use imagegen::qcow2::open::{self, Chain, OpenError, file};
use imagegen::qcow2::provenance::Provenance;
use imagegen::qcow2::read::{Bitmap, Image, ReadError, Run, Snapshot, What};
use serde::Serialize;
use std::fs::File;
use std::io::{BufWriter, Write, stdout};
use std::num::NonZeroU64;
use std::path::Path;

/// Does what was asked for.
pub(crate) fn run(verb: &Verb) -> Result<(), Failure> {
    match verb {
        Verb::Info(arguments) => info(arguments),
        Verb::Check(arguments) => check(arguments),
        Verb::Map(arguments) => map(arguments),
        Verb::Compare(arguments) => compare(arguments),
        Verb::Convert(arguments) => qcow2_convert::run(arguments),
    }
}

pub(super) fn chain(from: &From_) -> Result<Chain, Failure> {
    let format = from.format.map(Into::into);
    Ok(open::open(&from.image, format, from.snapshot.as_deref())?)
}

/// An image, as `--json` describes it. Sizes are in bytes.
#[derive(Serialize)]
struct Summary {
    version: u32,
    size: u64,
    file_size: u64,
    cluster_size: u64,
    refcount_bits: u32,
    compression: &'static str,
    extended_l2: bool,
    lazy_refcounts: bool,
    dirty: bool,
    corrupt: bool,
    backing_file: Option<String>,
    backing_format: Option<String>,
    data_file: Option<String>,
    data_file_raw: bool,
    provenance: Option<ProvenanceLine>,
    snapshots: Vec<SnapshotLine>,
    bitmaps: Vec<BitmapLine>,
}

#[derive(Serialize)]
struct ProvenanceLine {
    disk: String,
    version: u64,
    since: Option<u64>,
}

impl From<&Provenance> for ProvenanceLine {
    fn from(provenance: &Provenance) -> Self {
        Self {
            disk: provenance.disk.to_string(),
            version: provenance.version,
            since: provenance.since.map(NonZeroU64::get),
        }
    }
}

#[derive(Serialize)]
struct SnapshotLine {
    id: String,
    name: String,
    taken: String,
    size: Option<u64>,
    vm_state: u64,
}

impl From<&Snapshot> for SnapshotLine {
    fn from(snapshot: &Snapshot) -> Self {
        let seconds = i64::try_from(snapshot.taken.as_secs()).unwrap_or(i64::MAX);
        let nanoseconds = i32::try_from(snapshot.taken.subsec_nanos()).unwrap_or(0);
        let taken = jiff::Timestamp::new(seconds, nanoseconds);
        Self {
            id: snapshot.id.clone(),
            name: snapshot.name.clone(),
            taken: taken.map_or_else(|_| seconds.to_string(), |time| time.to_string()),
            size: snapshot.disk_size,
            vm_state: snapshot.vm_state,
        }
    }
}

#[derive(Serialize)]
struct BitmapLine {
    name: String,
    granularity: u64,
    in_use: bool,
    auto: bool,
    stale: bool,
}

impl BitmapLine {
    fn of(bitmap: &Bitmap, stale: bool) -> Self {
        Self {
            stale,
            name: bitmap.name.clone(),
            granularity: 1 << bitmap.granularity_bits,
            in_use: bitmap.has(BitmapFlag::InUse),
            auto: bitmap.has(BitmapFlag::Auto),
        }
    }
}

impl Summary {
    fn of(image: &Image<File>) -> Result<Self, ReadError> {
        let layout = image.layout();
        let extensions = image.extensions();
        let stale = image.has_stale_bitmaps();
        let bitmaps = match image.bitmaps() {
            // Something else may lie there by now.
            Err(_) if stale => Vec::new(),
            bitmaps => bitmaps?,
        };
        let line = |bitmap: &Bitmap| BitmapLine::of(bitmap, stale);
        Ok(Self {
            version: layout.version,
            size: layout.size,
            file_size: image.length(),
            cluster_size: layout.cluster(),
            refcount_bits: layout.refcounts.bits(),
            compression: layout.compression.name(),
            extended_l2: layout.has(Incompatible::ExtendedL2),
            lazy_refcounts: layout.allows(Compatible::LazyRefcounts),
            dirty: layout.has(Incompatible::Dirty),
            corrupt: layout.has(Incompatible::Corrupt),
            backing_file: image.backing().map(str::to_owned),
            backing_format: extensions.backing_format.clone(),
            data_file: extensions.data_file.clone(),
            data_file_raw: layout.keeps(Autoclear::RawExternal),
            provenance: extensions.provenance.as_ref().map(Into::into),
            snapshots: image.snapshots()?.iter().map(Into::into).collect(),
            bitmaps: bitmaps.iter().map(line).collect(),
        })
    }

    fn write(&self, out: &mut dyn Write) -> std::io::Result<()> {
        let yes = |flag: bool| if flag { "yes" } else { "no" };
        writeln!(out, "version         {}", self.version)?;
        writeln!(out, "size            {}", self.size)?;
        writeln!(out, "file size       {}", self.file_size)?;
        writeln!(out, "cluster size    {}", self.cluster_size)?;
        writeln!(out, "refcount bits   {}", self.refcount_bits)?;
        writeln!(out, "compression     {}", self.compression)?;
        writeln!(out, "extended L2     {}", yes(self.extended_l2))?;
        writeln!(out, "lazy refcounts  {}", yes(self.lazy_refcounts))?;
        writeln!(out, "dirty           {}", yes(self.dirty))?;
        writeln!(out, "corrupt         {}", yes(self.corrupt))?;
        if let Some(name) = &self.backing_file {
            let format = self.backing_format.as_deref().unwrap_or("not stated");
            writeln!(
                out,
                "backing file    {} (format: {})",
                shown(name),
                shown(format)
            )?;
        }
        if let Some(name) = &self.data_file {
            let raw = if self.data_file_raw { " (raw)" } else { "" };
            writeln!(out, "data file       {}{raw}", shown(name))?;
        }
        if let Some(ProvenanceLine {
            disk,
            version,
            since,
        }) = &self.provenance
        {
            let since = since.map(|since| format!(", what changed since version {since}"));
            let since = since.unwrap_or_default();
            writeln!(
                out,
                "made of         version {version} of disk {disk}{since}"
            )?;
        }
        for snapshot in &self.snapshots {
            let SnapshotLine {
                id, name, taken, ..
            } = snapshot;
            writeln!(out, "snapshot        {} {:?}, {taken}", shown(id), name)?;
        }
        for bitmap in &self.bitmaps {
            let state = match (bitmap.stale, bitmap.in_use) {
                (true, _) => ", stale: a program that knows no bitmaps wrote to the image",
                (_, true) => ", not stored whole",
                _ => "",
            };
            writeln!(
                out,
                "bitmap          {:?}, a bit for {} bytes{state}",
                bitmap.name, bitmap.granularity
            )?;
        }
        Ok(())
    }
}

/// Nothing that could speak to a terminal.
fn shown(text: &str) -> String {
    text.escape_debug().to_string()
}

fn info(arguments: &Info) -> Result<(), Failure> {
    let path = &arguments.image;
    let failed = |cause| OpenError::Read {
        path: path.clone(),
        cause,
    };
    let image = Image::open(file(path)?).map_err(failed)?;
    let summary = Summary::of(&image).map_err(failed)?;
    let mut out = BufWriter::new(stdout().lock());
    match arguments.json {
        true => {
            serde_json::to_writer(&mut out, &summary).map_err(std::io::Error::from)?;
            writeln!(out)?;
        }
        false => summary.write(&mut out)?,
    }
    Ok(out.flush()?)
}

fn check(arguments: &Check) -> Result<(), Failure> {
    let report = checker::check(file(&arguments.image)?);
    let output = match arguments.quiet {
        true => Ok(()),
        false => said(&report, arguments.json),
    };
    let shown = arguments.image.display();
    let failure = match (&report.failure, report.errors, report.leaks) {
        (Some(why), 0, _) => Failure::Unreadable(format!("{shown}: {why}")),
        (None, 0, 0) => return Ok(output?),
        (_, errors, leaks) => Failure::Damaged(format!(
            "{shown}: {errors} errors and {leaks} leaked clusters were found"
        )),
    };
    Err(failure)
}

fn said(report: &checker::Report, json: bool) -> std::io::Result<()> {
    let mut out = BufWriter::new(stdout().lock());
    if json {
        serde_json::to_writer(&mut out, report)?;
        writeln!(out)?;
        return out.flush();
    }
    for finding in &report.findings {
        let kind = match finding.severity {
            checker::Severity::Error => "error",
            checker::Severity::Leak => "leak",
        };
        writeln!(out, "{kind}: byte {}: {}", finding.at, shown(&finding.what))?;
    }
    let more = report.errors + report.leaks - report.findings.len() as u64;
    if more > 0 {
        writeln!(out, "and {more} more")?;
    }
    if report.failure.is_none() {
        let (allocated, total) = (report.allocated_clusters, report.total_clusters);
        let compressed = report.compressed_clusters;
        writeln!(
            out,
            "{allocated} of {total} clusters are allocated, {compressed} of them compressed"
        )?;
        writeln!(out, "the image ends at byte {}", report.image_end)?;
    }
    out.flush()
}

/// A run of a disk, as `qemu-img map --output=json` writes it.
#[derive(Serialize)]
struct MapLine {
    start: u64,
    length: u64,
    depth: usize,
    present: bool,
    zero: bool,
    data: bool,
    compressed: bool,
    #[serde(skip_serializing_if = "Option::is_none")]
    offset: Option<u64>,
}

impl From<Run> for MapLine {
    fn from(run: Run) -> Self {
        let data = matches!(run.what, What::Data(_) | What::Compressed(_));
        Self {
            start: run.at,
            length: run.length,
            // QEMU names the lowest layer that is so large.
            depth: match run.what {
                What::Nothing => run.depth.saturating_sub(1),
                _ => run.depth,
            },
            present: run.what != What::Nothing,
            zero: !data,
            data,
            compressed: matches!(run.what, What::Compressed(_)),
            offset: match run.what {
                What::Data(at) => Some(at),
                What::Zero(aside) => aside,
                What::Nothing | What::Compressed(_) => None,
            },
        }
    }
}

fn map(arguments: &Map) -> Result<(), Failure> {
    let chain = chain(&arguments.from)?;
    let mut out = BufWriter::new(stdout().lock());
    let mut written = 0u64;
    let mut write = |run: Run| {
        let first = written == 0;
        written += 1;
        match arguments.json {
            true => {
                out.write_all(if first { b"[" } else { b",\n" })?;
                serde_json::to_writer(&mut out, &MapLine::from(run))?;
                Ok(())
            }
            false => write_run(&mut out, &chain, run, first),
        }
    };
    let walked = runs(&chain, &mut write);
    if arguments.json && walked.is_ok() {
        out.write_all(if written == 0 { b"[]\n" } else { b"]\n" })?;
    }
    let flushed = out.flush();
    walked?;
    Ok(flushed?)
}

fn write_run(out: &mut dyn Write, chain: &Chain, run: Run, first: bool) -> std::io::Result<()> {
    if first {
        writeln!(
            out,
            "{:>16} {:>16}  {:<10} file",
            "offset", "length", "what"
        )?;
    }
    let (what, at) = match run.what {
        What::Nothing => ("nothing", None),
        What::Zero(at) => ("zero", at),
        What::Compressed(_) => ("compressed", None),
        What::Data(at) => ("data", Some(at)),
    };
    let file = chain.paths.get(run.depth).map(|path| open::shown(path));
    let file = file
        .filter(|_| run.what != What::Nothing)
        .unwrap_or_default();
    let at = at.map(|at| format!(" at {at}")).unwrap_or_default();
    writeln!(
        out,
        "{:>16} {:>16}  {what:<10} {file}{at}",
        run.at, run.length
    )
}

/// Gives every run of the disk, those that go on joined.
fn runs(chain: &Chain, give: &mut dyn FnMut(Run) -> std::io::Result<()>) -> Result<(), Failure> {
    let size = chain.disk.size();
    let mut held: Option<Run> = None;
    let mut at = 0;
    while at < size {
        let run = chain.disk.run(at, size - at).map_err(OpenError::Disk)?;
        at += run.length;
        held = match held {
            Some(before) if goes_on(&before, &run) => Some(Run {
                length: before.length + run.length,
                ..before
            }),
            before => {
                before.map_or(Ok(()), &mut *give)?;
                Some(run)
            }
        };
    }
    Ok(held.map_or(Ok(()), give)?)
}

fn goes_on(before: &Run, run: &Run) -> bool {
    let what = match before.what {
        What::Data(at) => What::Data(at + before.length),
        What::Zero(aside) => What::Zero(aside.map(|at| at + before.length)),
        what => what,
    };
    before.depth == run.depth && what == run.what
}

fn compare(arguments: &Compare) -> Result<(), Failure> {
    let failed = |cause: OpenError| Failure::Compare(Box::new(cause.into()));
    let open = |path: &Path, format: Option<FormatName>| {
        open::open(path, format.map(Into::into), None).map_err(failed)
    };
    let one = open(&arguments.one, arguments.format_one)?;
    let two = open(&arguments.two, arguments.format_two)?;
    let all = progress::Work {
        data: one.disk.size().max(two.disk.size()),
        objects: 0,
    };
    let found = progress::shown(&all, arguments.quiet, |seen| {
        compare::compare([&one.disk, &two.disk], arguments.strict, &seen.data)
    });
    let verdict = found.map_err(|(_, cause)| failed(OpenError::Disk(cause)))?;
    if arguments.json {
        let mut out = stdout().lock();
        let sizes = [one.disk.size(), two.disk.size()];
        serde_json::to_writer(&mut out, &Compared::new(verdict, sizes))
            .map_err(std::io::Error::from)?;
        writeln!(out)?;
    }
    let is_told = arguments.quiet || arguments.json;
    let [one, two] = [&arguments.one, &arguments.two].map(|path| path.display().to_string());
    Err(Failure::Different(match verdict {
        Verdict::Same if is_told => return Ok(()),
        Verdict::Same => return Ok(writeln!(stdout(), "{one} and {two} are the same")?),
        Verdict::Differs(at) => format!("{one} and {two} differ at byte {at}"),
        Verdict::Sizes(first, second) => format!("{one} has {first} bytes and {two} {second}"),
    }))
}

/// What `--json` says of two disks. Sizes are in bytes.
#[derive(Serialize)]
struct Compared {
    same: bool,
    differs_at: Option<u64>,
    sizes: [u64; 2],
}

impl Compared {
    fn new(verdict: Verdict, sizes: [u64; 2]) -> Self {
        Self {
            same: verdict == Verdict::Same,
            differs_at: match verdict {
                Verdict::Differs(at) => Some(at),
                Verdict::Same | Verdict::Sizes(..) => None,
            },
            sizes,
        }
    }
}
