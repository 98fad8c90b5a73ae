//! EROFS on an origin: read-only, as large as what is in it.

use imagegen::erofs::compress::algorithm::{Algorithm, Family};
use imagegen::erofs::compress::choice::{Compression, Method};
use imagegen::erofs::make::{Request, make, plan, rehearse};
use imagegen::erofs::write::{Made, Media, Options, WriteError};
use imagegen::target::TargetError;
use uuid::Uuid;

use super::{FileSystem, Job, shown};
use crate::Done;
use crate::cli::FormatArgs;
use crate::progress::Spinner;

/// Bytes that are compressed together.
const CLUSTER: u32 = 64 << 10;

/// Formats the origin, durably, once it is known that the tree fits.
pub(super) fn format(job: Job<'_>) -> Done<FileSystem> {
    let Job {
        args,
        origin,
        source,
        present,
        words,
    } = job;
    // Origins are told apart by it when they are mounted: never the same twice.
    let uuid = Uuid::new_v4();
    let request = Request {
        options: options(args),
        uuid: Some(uuid),
    };
    let failed = |error: WriteError| words.erofs(&error);
    let (plan, room) = {
        let _sign = Spinner::new("Reading the tree".to_owned());
        let plan = plan(&*source, &request).map_err(failed)?;
        let laid_out = rehearse(&*source, &request, &plan).map_err(failed)?;
        (plan, laid_out.bytes)
    };
    if room > origin.size {
        let error = TargetError::TooSmall {
            path: words.origin.into(),
            capacity: origin.size,
            size: room,
        };
        return Err(words.target(&error));
    }
    let target = present.begin(origin.size);
    let target = target.map_err(|error| words.target(&error))?;
    let media = Media {
        image: &target,
        blob: None,
    };
    let made = shown(plan.survey(), |progress| {
        make(&*source, &request, &plan, media, progress)
    });
    let made = made.map_err(|error| words.cut_off(words.erofs(&error)))?;
    let synced = target.finish(true);
    synced.map_err(|error| words.cut_off(words.target(&error)))?;
    Ok(described(&request.options, &made, args, uuid))
}

fn options(args: &FormatArgs) -> Options {
    let options = Options::default();
    let compression = args.compress.map(|algorithm| Compression {
        cluster: CLUSTER,
        ..Compression::new(Method::By(algorithm), options.block_size)
    });
    // Equal contents are found chunk by chunk, if they are not compressed.
    let chunks = args.dedupe && compression.is_none();
    Options {
        chunk_size: chunks.then_some(u64::from(options.block_size)),
        label: args.label.clone().unwrap_or_default().into_bytes(),
        dedupe: args.dedupe,
        compression,
        ..options
    }
}

fn described(options: &Options, made: &Made, args: &FormatArgs, uuid: Uuid) -> FileSystem {
    FileSystem {
        kind: "erofs",
        uuid: uuid.to_string(),
        label: args.label.clone().unwrap_or_default(),
        oldest_kernel: oldest_kernel(args.compress, args.dedupe),
        size: made.bytes,
        free_bytes: 0,
        inodes: made.counts.inodes,
        directories: made.counts.directories,
        files: made.counts.files,
        data_bytes: made.counts.data,
        shared_bytes: made.counts.shared_blocks * u64::from(options.block_size),
    }
}

/// Which kernel came with what is needed to read it: chunks with 5.15, which holes make;
/// the others by algorithm, or with what compressed files share (fs/erofs of Linux).
fn oldest_kernel(compress: Option<Algorithm>, dedupe: bool) -> &'static str {
    match compress.map(Algorithm::family) {
        None => "linux-5.15",
        Some(Family::Lz4 | Family::Lz4hc | Family::Lzma) if dedupe => "linux-6.1",
        Some(Family::Lz4 | Family::Lz4hc) => "linux-5.15",
        Some(Family::Lzma) => "linux-5.16",
        Some(Family::Deflate) => "linux-6.6",
        Some(Family::Zstd) => "linux-6.10",
    }
}
