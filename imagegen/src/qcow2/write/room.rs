//! How long an image will be, before any of it is written.

use super::{Contents, Options, Targets, WriteError, write};
use crate::medium::{Medium, Nowhere, Source};
use crate::tree::Progress;

/// Bytes that surely suffice for an image of these contents. If those are more than `room`,
/// the bytes it will have: for that the disk is read, and compressed, as for [`write()`], and
/// `progress` told of it.
///
/// # Errors
/// As [`write()`].
pub fn needed<S: Source + Send + Sync>(
    contents: &Contents<'_, S>,
    options: &Options,
    room: u64,
    progress: &Progress,
) -> Result<u64, WriteError> {
    options.verify(contents)?;
    let most = most(contents, options);
    if most <= room {
        return Ok(most);
    }
    let data = options.data_file.as_ref().map(|_| &Nowhere as &dyn Medium);
    let image = &Nowhere;
    let written = write(contents, Targets { image, data }, options, progress)?;
    Ok(written.length)
}

/// No image is longer: every cluster of every view written, and all tables.
fn most<S: Source>(contents: &Contents<'_, S>, options: &Options) -> u64 {
    let cluster = 1 << options.cluster_bits;
    let table = 1 << options.width().table_bits();
    let older = contents.versions.iter().map(|version| version.disk.size());
    let view = |size: u64| {
        let tables = size.div_ceil(table);
        // The table of level 1 has a cluster at least.
        size.div_ceil(cluster) + tables + (tables * 8).div_ceil(cluster) + 1
    };
    let views = std::iter::once(contents.disk.size()).chain(older).map(view);
    let names = contents.versions.iter().map(|version| {
        // Beside the names an entry has 64 bytes, and up to 7 behind it.
        (version.id.len() + version.name.len() + 72) as u64
    });
    let names = names.sum::<u64>().div_ceil(cluster);
    let bitmaps = contents.bitmaps.iter().map(|bitmap| {
        let bits = (bitmap.bits.len() as u64).div_ceil(cluster);
        // The table of it, and its entry in the directory with a name of up to 1023 bytes.
        bits + (bits * 8).div_ceil(cluster) + 1 + 1056_u64.div_ceil(cluster)
    });
    let clusters = views.chain(bitmaps).fold(names, u64::saturating_add);
    // A block counts 64 clusters at least and an entry of the refcount table as many blocks:
    // together less than a 32nd. The header, and the last of each kind.
    let all = clusters.saturating_add(clusters / 32).saturating_add(8);
    all.saturating_mul(cluster)
}
