//! XFS on an origin: as large as the origin is.

use std::fs;

use imagegen::tree::Source;
use imagegen::xfs::geometry::{Kernel, Options};
use imagegen::xfs::make::{MakeError, Plan, Request, Size, make, plan, rehearse};
use imagegen::xfs::write::Made;
use uuid::Uuid;

use super::{FileSystem, Job, preflight, shown};
use crate::Done;
use crate::cli::FormatArgs;
use crate::progress::Spinner;

/// Formats the origin, durably, once it is known that the tree fits.
pub(super) fn format(job: Job<'_>) -> Done<FileSystem> {
    let Job {
        args,
        origin,
        source,
        present,
        words,
    } = job;
    let kernel = args.kernel.map_or_else(running, Kernel::from);
    let request = request(args, kernel, &origin);
    let plan = planned(&*source, &request, args.from.is_some());
    let plan = plan.map_err(|error| words.make(&error))?;
    let target = present.begin(plan.bytes());
    let target = target.map_err(|error| words.target(&error))?;
    let made = shown(&plan.survey, |progress| {
        make(&*source, &request, &plan, &target, progress)
    });
    let made = made.map_err(|error| words.cut_off(words.make(&error)))?;
    let synced = target.finish(true);
    synced.map_err(|error| words.cut_off(words.target(&error)))?;
    Ok(described(&plan, &made, kernel))
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

fn described(plan: &Plan, made: &Made, kernel: Kernel) -> FileSystem {
    let geometry = &plan.geometry;
    let label = geometry.label.split(|byte| *byte == 0).next();
    let bytes = |blocks: u64| blocks << geometry.block_log;
    FileSystem {
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
