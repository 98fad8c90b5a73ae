//! `csnapctl volume create --format`: a file system on the origin, then the volume.
//!
//! Order: all that can be refused is refused while nothing has been written; then the
//! origin is formatted, durably; then csnapd is asked for the volume. From the look at
//! the origin to the end of the formatting nobody else can have it.

mod preflight;
mod words;

use std::fs;
use std::panic::resume_unwind;
use std::path::Path;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, channel};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use imagegen::target::{Overwrite, Present, Target};
use imagegen::tree::{Empty, Source, Spec, SpecOptions, Time};
use imagegen::xfs::geometry::{Kernel, Options};
use imagegen::xfs::make::{MakeError, Plan, Progress, Request, Size, make, plan, rehearse};
use imagegen::xfs::write::Made;
use serde::Serialize;
use ublk_target::control::protocol::Failure;
use ublk_target::control::views::VolumeView;
use uuid::Uuid;

use super::counted;
use super::volume::New;
use crate::Done;
use crate::cli::{FormatArg, FormatArgs};
use crate::output::human;
use crate::output::table::{Column, Row};
use crate::progress::{Bar, Spinner};
use crate::session::Session;
use words::Words;

/// How often the bar is moved.
const LOOK: Duration = Duration::from_millis(100);

/// A volume with what was made on its origin.
#[derive(Serialize)]
struct Formatted {
    #[serde(flatten)]
    volume: VolumeView,
    file_system: FileSystem,
}

impl Row for Formatted {
    const NAME: &'static str = VolumeView::NAME;
    const COLUMNS: &'static [Column] = VolumeView::COLUMNS;
}

/// What was made. Sizes are bytes.
#[derive(Debug, Clone, Serialize)]
struct FileSystem {
    kind: &'static str,
    uuid: String,
    label: String,
    /// The oldest kernel that mounts it.
    oldest_kernel: &'static str,
    size: u64,
    free_bytes: u64,
    /// Objects, each once however many names it has.
    inodes: u64,
    directories: u64,
    files: u64,
    data_bytes: u64,
    /// Not needed, because blocks are shared.
    shared_bytes: u64,
}

/// Formats the origin, then creates the volume.
pub(super) fn create(session: &mut Session, new: New, kind: FormatArg, args: &FormatArgs) -> Done {
    let FormatArg::Xfs = kind;
    let origin = preflight::origin(session, &new, args.from.as_ref())?;
    let words = Words {
        origin: &new.origin,
        size: origin.size,
    };
    let source = source(args.from.as_ref()).map_err(|error| words.tree(&error))?;
    let overwrite = match args.force {
        true => Overwrite::Force,
        false => Overwrite::Refuse,
    };
    let present = Present::open(Path::new(&new.origin), overwrite);
    let present = present.map_err(|error| words.target(&error))?;
    let kernel = args.kernel.map_or_else(running, Kernel::from);
    let request = request(args, kernel, &origin);
    let plan = planned(&*source, &request, args.from.is_some());
    let plan = plan.map_err(|error| words.make(&error))?;
    let target = present.begin(plan.bytes());
    let target = target.map_err(|error| words.target(&error))?;
    let made = write(&*source, &request, &plan, &target).map_err(|error| words.cut_off(&error))?;
    let synced = target.finish(true);
    synced.map_err(|error| words.target(&error))?;
    let file_system = FileSystem::new(&plan, &made, kernel);
    session.say(&file_system.describe(&new.origin));
    let volume = new.clone().create(session);
    let volume = volume.map_err(|failure| go_on(failure, &new))?;
    session.show(&[Formatted {
        volume,
        file_system,
    }])
}

fn source(from: Option<&Spec>) -> Result<Box<dyn Source>, imagegen::tree::TreeError> {
    match from {
        Some(spec) => spec.open(&SpecOptions::default()),
        None => Ok(Box::new(Empty { time: now() })),
    }
}

fn now() -> Time {
    let since = SystemTime::now().duration_since(UNIX_EPOCH);
    let since = since.unwrap_or_default();
    Time {
        seconds: since.as_secs() as i64,
        nanoseconds: since.subsec_nanos(),
    }
}

/// The newest features that the kernel which runs here mounts.
fn running() -> Kernel {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").unwrap_or_default();
    Kernel::not_after(&release)
}

fn request(args: &FormatArgs, kernel: Kernel, origin: &preflight::Origin) -> Request {
    // Origins are told apart by it when they are mounted: never the same twice.
    let uuid = Uuid::new_v4();
    let mut options = Options::new(origin.size, uuid);
    options.features = kernel.features();
    options.label = args.label.clone().unwrap_or_default().into_bytes();
    // The volume's block device has it too, and mounts nothing of smaller sectors.
    options.sector_size = origin.sector;
    Request {
        options,
        size: Size::Exact(origin.size),
        uuid: Some(uuid),
        free_inodes: 0,
        dedupe: args.dedupe,
        autofsck: true,
        threads: 0,
    }
}

/// What will be made; that the tree fits was tried.
fn planned(source: &dyn Source, request: &Request, is_filled: bool) -> Result<Plan, MakeError> {
    let _sign = is_filled.then(|| Spinner::new("Reading the tree".to_owned()));
    let plan = plan(source, request)?;
    rehearse(source, request, &plan)?;
    Ok(plan)
}

/// Writes it, and shows how far that is.
fn write(
    source: &dyn Source,
    request: &Request,
    plan: &Plan,
    target: &Target,
) -> Result<Made, MakeError> {
    let progress = Progress::default();
    let mut bar = Bar::new("Formatting");
    // An object costs about what a block of data does.
    let weigh = |objects: u64, data: u64| data.saturating_add(objects.saturating_mul(4096));
    let all = weigh(plan.survey.objects, plan.survey.data);
    std::thread::scope(|scope| {
        let (done, wait) = channel::<()>();
        let writing = scope.spawn(|| {
            // Dropped at the end, however that comes.
            let _done = done;
            make(source, request, plan, target, &progress)
        });
        while wait.recv_timeout(LOOK) == Err(RecvTimeoutError::Timeout) {
            let objects = progress.objects.load(Ordering::Relaxed);
            let data = progress.data.load(Ordering::Relaxed);
            bar.set(weigh(objects, data).min(all), all);
        }
        writing.join().unwrap_or_else(|panic| resume_unwind(panic))
    })
}

/// The origin is formatted, but there is no volume of it.
fn go_on(failure: Failure, new: &New) -> Failure {
    let store = new.store.as_ref();
    let store = store.map_or_else(String::new, |store| format!(" --store {store}"));
    let again = format!(
        "the origin is formatted and keeps what it holds; go on with: \
         csnapctl volume create {} {}{store}",
        new.name, new.origin
    );
    let next = match &failure.next {
        Some(first) => format!("{first}; {again}"),
        None => again,
    };
    Failure::new(failure.code, failure.message).next(next)
}

impl FileSystem {
    fn new(plan: &Plan, made: &Made, kernel: Kernel) -> Self {
        let geometry = &plan.geometry;
        let label = geometry.label.split(|byte| *byte == 0).next();
        let bytes = |blocks: u64| blocks << geometry.block_log;
        Self {
            kind: "xfs",
            uuid: geometry.uuid.to_string(),
            label: String::from_utf8_lossy(label.unwrap_or_default()).into_owned(),
            oldest_kernel: kernel.name(),
            size: plan.bytes(),
            free_bytes: bytes(made.free_blocks),
            inodes: made.counts.inodes,
            directories: made.counts.directories,
            files: made.counts.files,
            data_bytes: made.counts.data,
            shared_bytes: bytes(made.counts.shared_blocks),
        }
    }

    fn describe(&self, origin: &str) -> String {
        format!(
            "{origin} is formatted: XFS {} for {}, {} with {}, {} free",
            self.uuid,
            self.oldest_kernel,
            counted(self.files, "file"),
            human::size(self.data_bytes),
            human::size(self.free_bytes),
        )
    }
}
